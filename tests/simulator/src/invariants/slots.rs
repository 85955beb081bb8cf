//! A place (a slot, or a node of a global service) has one task that is wanted, and while it is updated
//! at most one of each version; at rest no slot of a replicated service is without one that should have it.
use super::{Invariant, Rest, Step, Verdict, place, places, rebalance, starts_first};
use shoal_model::{
    MadeBy, Mode, Service, Task, TaskState, Timestamp,
    docker::TaskSpecRestartPolicyConditionEnum as Condition,
};

pub(super) struct Slots;

impl Invariant for Slots {
    fn name(&self) -> &'static str {
        "slots"
    }

    fn applied(&mut self, step: &Step<'_>) -> Verdict {
        for (old, task) in step.tasks_put() {
            if old.is_some() || !is_wanted(task) {
                continue;
            }
            for other in step.others_of_slot(task) {
                // What is moved runs on until the other does.
                let moved = rebalance::is_under_way(task);
                let same = other.spec_version == task.spec_version && !moved;
                if same && is_wanted(other) && !other.status.state.is_terminal() {
                    return Err(format!(
                        "{} and {} are both wanted in place {} of {}",
                        other.id,
                        task.id,
                        place(task),
                        task.service_id
                    ));
                }
            }
        }
        Ok(())
    }

    fn at_rest(&mut self, rest: &Rest<'_>) -> Verdict {
        rest.state.services.values().try_for_each(|service| at_rest(rest, service))
    }
}

pub(super) fn is_wanted(task: &Task) -> bool {
    task.desired <= TaskState::Running
}

fn at_rest(rest: &Rest<'_>, service: &Service) -> Verdict {
    let Mode::Replicated { replicas } = service.mode() else { return Ok(()) };
    let slots = places(rest.state, service);
    if slots.len() as u64 != replicas {
        return Err(format!("{} has {} slots, not {replicas}", service.name(), slots.len()));
    }
    slots.iter().try_for_each(|(slot, tasks)| has_its_task(rest, service, slot, tasks))
}

/// A place has one task that is wanted, or a reason to have none.
pub(super) fn has_its_task(
    rest: &Rest<'_>,
    service: &Service,
    place: &str,
    tasks: &[&Task],
) -> Verdict {
    let name = service.name();
    let wanted = || tasks.iter().filter(|t| is_wanted(t) && !t.status.state.is_terminal());
    let moves = wanted().filter(|t| rebalance::is_under_way(t)).count();
    let wanted = wanted().count();
    if wanted.saturating_sub(moves) > 1 && !starts_first(service) {
        return Err(format!("{wanted} tasks are wanted in place {place} of {name}"));
    }
    // A move that failed changes nothing, unless it is all that is left.
    let counts = |t: &&&Task| t.made_by != MadeBy::Rebalance || t.times.running.is_some();
    let order = |t: &&&Task| rest.tasks.get(&t.id).map(|f| f.order);
    let counted = tasks.iter().filter(counts).max_by_key(order);
    let newest = counted.or_else(|| tasks.iter().max_by_key(order));
    let Some(newest) = newest else { return Err(format!("place {place} of {name} has no task")) };
    // The one that waits need not be the newest: a rollback may have stopped that.
    let waits = tasks.iter().any(|t| waits(t, rest.now));
    if wanted == 0 && !waits && !may_give_up(newest, rest.now) {
        let state = newest.status.state;
        return Err(format!("no task is wanted in place {place} of {name}; its last is {state:?}"));
    }
    Ok(())
}

/// Whether the restart policy may leave a slot without a task behind this one.
pub(super) fn may_give_up(task: &Task, now: Timestamp) -> bool {
    let policy = task.spec.restart_policy.as_ref();
    let attempts = policy.and_then(|p| p.max_attempts).unwrap_or(0);
    let by_policy = match policy.and_then(|p| p.condition) {
        // Not even one whose node was lost is followed.
        Some(Condition::NONE) => true,
        Some(Condition::ON_FAILURE) => task.status.state == TaskState::Complete || attempts > 0,
        _ => attempts > 0,
    };
    by_policy || waits(task, now)
}

/// Whether the task ended before its own delay was over, by the clock of whoever leads now: it is
/// followed only after that.
pub(super) fn waits(task: &Task, now: Timestamp) -> bool {
    let by_itself =
        matches!(task.status.state, TaskState::Complete | TaskState::Failed | TaskState::Rejected);
    by_itself && is_wanted(task) && now < task.not_before
}
