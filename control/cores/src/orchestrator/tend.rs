//! Keeps one wanted task in a place.
//!
//! ```text
//! none wanted ──▶ restart policy ──▶ made again, or given up
//! ended by itself, or node lost ──▶ told to stop ──▶ restart policy
//! of an older specification ──▶ left to the updater, which has it start if it leaves it as it is
//! waits (`Ready`) ──▶ its delay over and its predecessor stopped, or 60 s passed ──▶ `Running`
//! ```
use super::{
    plan::{NewTask, Place, Plan},
    restart, slots,
    updater::Settings,
};
use shoal_model::{
    MadeBy, NodeState, Service, Task, TaskState, Timestamp, UpdateState,
    bugs::{self, Bug},
};
use std::time::Duration;

/// A replacement waits at most this long for its predecessor to stop (swarmkit's value).
const STOP_WAIT: Duration = Duration::from_secs(60);

/// A rebalanced task that has not got its node by then has none there: it is taken back.
const MOVE_WAIT: Duration = Duration::from_secs(60);

/// A place whose task is not as the service wants it now.
#[derive(Clone, Copy)]
pub(super) struct Outdated<'a> {
    pub(super) place: Place<'a>,
    /// Whether it has a task that runs and would be missed.
    pub(super) running: bool,
    /// Its new task is made, and the old one runs beside until that does: nothing is left to do but to
    /// wait, and the update is not complete.
    pub(super) overlaps: bool,
}

/// Tends a place that has tasks. Returns it when it is the updater's.
pub(super) fn tend<'a>(
    plan: &mut Plan<'a>,
    service: &'a Service,
    place: Place<'a>,
    slot: &[&'a Task],
) -> Option<Outdated<'a>> {
    let mut live: Vec<&Task> = slots::live(slot).collect();
    if live.len() > 1 && plan.move_failed(live[0]) {
        plan.take_back(live.remove(0));
    }
    if live.is_empty() {
        return revive(plan, service, place, slot);
    }
    let (chosen, current) = choose(plan, service, &live);
    let (task, is_current) = (live[chosen], current[chosen]);
    let overlaps = retire_others(plan, service, &live, &current, chosen);
    if task.status.state.is_terminal() {
        // Rejected before its own delay was over: without waiting for that, a service whose image is
        // missing would try as fast as nodes answer.
        let waits = is_current && restart::ended_by_itself(task) && !plan.has_come(task.not_before);
        if !waits {
            plan.retire(task);
            restart(plan, service, place, task, slot);
        }
    } else if plan.is_lost(task) {
        plan.retire(task);
        restart(plan, service, place, task, slot);
    } else if !is_current {
        let running = live.iter().any(|t| t.status.state == TaskState::Running);
        return Some(Outdated { place, running, overlaps: false });
    } else if task.desired == TaskState::Ready && plan.may_start(task, slot) {
        plan.change(task, |t| t.desired = TaskState::Running);
    }
    overlaps.then_some(Outdated { place, running: true, overlaps })
}

/// Which of a place's wanted tasks is to stay, and which of them are as the service wants them.
///
/// There are several such when what was to be replaced need not be, as its update is rolled back or
/// overtaken by another: then the one that runs, so that a successor that ends is not followed by one
/// more. One that is moved is to take the place of such a task, so it goes before it.
fn choose<'a>(plan: &mut Plan<'a>, service: &'a Service, live: &[&Task]) -> (usize, Vec<bool>) {
    let current: Vec<bool> = live.iter().map(|t| plan.is_current(service, t)).collect();
    let stays = |t: &Task| !t.status.state.is_terminal() && !plan.is_lost(t);
    let does = |t: &Task| t.status.state == TaskState::Running || t.made_by == MadeBy::Rebalance;
    let first = |suits: &dyn Fn(&Task) -> bool| {
        live.iter().zip(&current).position(|(task, current)| *current && suits(task))
    };
    let chosen =
        first(&|t| stays(t) && does(t)).or_else(|| first(&stays)).or_else(|| first(&|_| true));
    (chosen.unwrap_or(0), current)
}

/// Of a place that is only kept as it is, what has a successor that runs goes.
pub(super) fn retire_succeeded<'a>(plan: &mut Plan<'a>, service: &'a Service, slot: &[&'a Task]) {
    let live: Vec<&Task> = slots::live(slot).collect();
    let (chosen, current) = choose(plan, service, &live);
    if live.get(chosen).is_some_and(|task| task.status.state == TaskState::Running) {
        retire_others(plan, service, &live, &current, chosen);
    }
}

/// A place without a wanted task: made again as the restart policy says.
fn revive<'a>(
    plan: &mut Plan<'a>,
    service: &'a Service,
    place: Place<'a>,
    slot: &[&'a Task],
) -> Option<Outdated<'a>> {
    let last = slot.first()?;
    let returns = returns(service, last);
    if returns || restart::wanted(plan, service, last, slot) && !bugs::active(Bug::LoseTask) {
        let not_before = if returns { plan.now } else { restart_at(plan, last) };
        plan.create(service, replacement(place, not_before, MadeBy::Restart));
        return None;
    }
    // Given up, until its specification changes.
    (!plan.is_current(service, last)).then_some(Outdated { place, running: false, overlaps: false })
}

/// A rollback brings back every place, also those that were given up before it.
fn returns(service: &Service, last: &Task) -> bool {
    let back = service.update_status.as_ref().filter(|u| u.state == UpdateState::RollbackStarted);
    back.is_some_and(|u| last.meta.created < u.began)
}

fn restart<'a>(
    plan: &mut Plan<'a>,
    service: &'a Service,
    place: Place<'a>,
    task: &Task,
    slot: &[&'a Task],
) {
    if restart::wanted(plan, service, task, slot) && !bugs::active(Bug::LoseTask) {
        let at = restart_at(plan, task);
        let not_before = failed_beside(plan, service, slot).map_or(at, |after| after.max(at));
        plan.create(service, replacement(place, not_before, MadeBy::Restart));
    }
}

/// When the delay is over of a new task that ended beside the one it was to take the place of. Its
/// restart policy may have given it up; once the other is lost too it is what the next one follows.
fn failed_beside(plan: &Plan<'_>, service: &Service, slot: &[&Task]) -> Option<Timestamp> {
    let newest = slot.first().filter(|t| {
        t.spec_version == service.spec_version
            && restart::ended_by_itself(t)
            // A move that failed says nothing of the task.
            && (t.made_by != MadeBy::Rebalance || t.times.running.is_some())
    })?;
    let ended = newest.times.ended.unwrap_or(newest.status.since);
    // The managers' clock may be ahead of this one's, for hours where a clock was set.
    Some(ended.min(plan.now).after(restart::delay(newest)))
}

/// Others than the chosen one stop; but an older one goes on until a newer one that was to be
/// started first runs. Returns whether one of an older specification does.
fn retire_others(
    plan: &mut Plan<'_>,
    service: &Service,
    live: &[&Task],
    current: &[bool],
    chosen: usize,
) -> bool {
    let mut overlaps = false;
    let task = live[chosen];
    let first = task.made_by == MadeBy::Rebalance || Settings::of(service).start_first;
    let overlap =
        first && task.status.state != TaskState::Running && !bugs::active(Bug::StopFirstAlways);
    for (at, other) in live.iter().enumerate().filter(|(at, _)| *at != chosen) {
        // One that does not run is of an update that was overtaken.
        let kept = at > chosen && overlap && other.status.state == TaskState::Running;
        if !kept || plan.is_lost(other) {
            plan.retire(other);
        } else {
            overlaps |= current[chosen] && !current[at];
        }
    }
    overlaps
}

/// A task that waits on its node until its time has come.
pub(super) fn replacement(place: Place<'_>, not_before: Timestamp, made_by: MadeBy) -> NewTask<'_> {
    NewTask { place, node: None, desired: TaskState::Ready, not_before, made_by }
}

/// The restart delay is for what ended by itself: what was lost with its node is missed now. One that
/// was lost while it still waited passes its waiting on.
pub(super) fn restart_at(plan: &Plan<'_>, last: &Task) -> Timestamp {
    if bugs::active(Bug::RestartAtOnce) {
        plan.now
    } else if restart::ended_by_itself(last) {
        plan.now.after(restart::delay(last))
    } else {
        plan.now.max(last.not_before)
    }
}

impl Plan<'_> {
    pub(super) fn may_start(&mut self, task: &Task, slot: &[&Task]) -> bool {
        let stopping = slot.iter().any(|t| {
            // Those told to stop in this very call are among them.
            (t.desired > TaskState::Running || t.id != task.id && self.is_touched(t))
                && !t.status.state.is_terminal()
                && self.node_of(t).is_some_and(|n| n.status.state != NodeState::Down)
                && !bugs::active(Bug::StartBeforeStop)
        });
        self.has_come(task.not_before)
            && (!stopping || self.has_come(task.meta.created.after(STOP_WAIT)))
    }

    /// Ends a move that failed. It stays in the history, so that it is not tried again at once.
    fn take_back(&mut self, task: &Task) {
        if task.is_assigned() {
            return self.retire(task);
        }
        let now = self.now;
        self.change(task, |t| {
            t.desired = TaskState::Shutdown;
            t.status.state = TaskState::Rejected;
            t.status.since = now;
            t.status.message = "its node did not take the task that was to be moved".to_owned();
        });
    }

    /// Whether the task was to take the place of another that still runs, and cannot: also when it ran for
    /// a moment in which the other was not told to stop.
    fn move_failed(&mut self, task: &Task) -> bool {
        task.made_by == MadeBy::Rebalance
            && (task.status.state.is_terminal()
                || self.is_lost(task)
                || task.status.state < TaskState::Assigned
                    && self.has_come(task.meta.created.after(MOVE_WAIT)))
    }
}
