//! Jobs: tasks that are to end well, once. A new iteration begins with every update of the service.
use super::{
    global::{may_run, rest},
    plan::{NewTask, Place, Plan, is_invalid},
    reaper, restart,
    slots::{self, Slots, live},
    tend::{replacement, restart_at},
};
use shoal_model::{
    Availability, MadeBy, NodeState, Service, Task, TaskState,
    bugs::{self, Bug},
};

/// How far a place of a job is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Progress {
    /// Its task has ended well.
    Done,
    /// Its task runs, or waits to.
    UnderWay,
    /// Its task failed, and is not run again until the next iteration.
    GivenUp,
}

/// Replicated jobs: `total` slots from 0, tasks in `concurrent` of them at a time.
pub(super) fn replicated<'a>(
    plan: &mut Plan<'a>,
    service: &'a Service,
    concurrent: u64,
    total: u64,
) {
    let slots = slots::of(plan, service);
    let mut under_way = 0;
    let mut taken = Vec::new();
    for (place, tasks) in &slots {
        finish_earlier(plan, service, tasks);
        let present = of_iteration(service, tasks);
        if let Some(progress) = tend(plan, service, *place, &present) {
            under_way += u64::from(progress == Progress::UnderWay);
            taken.push(*place);
        }
    }
    let free = (0..total).map(Place::Slot).filter(|place| taken.binary_search(place).is_err());
    let more = u64::from(bugs::active(Bug::ExceedConcurrent));
    let most = usize::try_from((concurrent + more).saturating_sub(under_way)).unwrap_or(usize::MAX);
    for place in free.take(most.min(plan.room())) {
        create(plan, service, place);
    }
    reaper::reap(plan, service, &slots);
}

/// Global jobs: one task on each node that may take it, also on those that come later.
pub(super) fn global<'a>(plan: &mut Plan<'a>, service: &'a Service) {
    let mut slots = slots::of(plan, service);
    forget_earlier(plan, service, &mut slots);
    let state = plan.state;
    for node in state.nodes.values() {
        let place = Place::Node(&node.id);
        let tasks = slots.get(&place).map(Vec::as_slice).unwrap_or_default();
        if is_invalid(node) || !may_run(plan, service, node) {
            live(tasks).filter(|t| !is_done(t)).for_each(|task| plan.retire(task));
        } else if node.availability == Availability::Pause {
            rest_but_done(plan, tasks);
        } else if tend(plan, service, place, tasks).is_none()
            && node.status.state == NodeState::Ready
            && !plan.is_full()
        {
            create(plan, service, place);
        }
    }
    reaper::reap(plan, service, &slots);
}

fn is_done(task: &Task) -> bool {
    task.status.state == TaskState::Complete
}

fn of_iteration<'a>(service: &Service, slot: &[&'a Task]) -> Vec<&'a Task> {
    slot.iter().copied().filter(|t| t.job_iteration == service.iteration()).collect()
}

/// Tasks of earlier iterations that have not ended go; the others stay as history.
fn finish_earlier(plan: &mut Plan<'_>, service: &Service, slot: &[&Task]) {
    for task in slot.iter().filter(|t| t.job_iteration != service.iteration()) {
        if !task.status.state.is_terminal() {
            plan.remove(task);
        } else if may_linger(task) {
            plan.retire(task);
        }
    }
}

/// Whether its node may have something of it until it is told to stop: what is rejected may be so by the
/// manager, as the node does not suit it any more.
fn may_linger(task: &Task) -> bool {
    let state = task.status.state;
    slots::is_live(task) && (!state.is_terminal() || state == TaskState::Rejected)
}

/// Tasks of earlier iterations go, and so do those of nodes that are gone.
fn forget_earlier(plan: &mut Plan<'_>, service: &Service, slots: &mut Slots<'_>) {
    let state = plan.state;
    for (place, tasks) in slots.iter_mut() {
        let here = matches!(place, Place::Node(id) if state.nodes.contains_key(*id));
        tasks.retain(|task| {
            let kept = here && task.job_iteration == service.iteration();
            if !kept {
                plan.remove(task);
            }
            kept
        });
    }
}

/// Sees to a place. `slot` are its tasks of this iteration, newest first. `None`: it has none.
fn tend<'a>(
    plan: &mut Plan<'a>,
    service: &'a Service,
    place: Place<'a>,
    slot: &[&'a Task],
) -> Option<Progress> {
    if slot.iter().any(|t| is_done(t)) && !bugs::active(Bug::RunAgain) {
        // One that took over from a task that was lost, and ended well after all.
        slot.iter().filter(|t| may_linger(t)).for_each(|task| plan.retire(task));
        return Some(Progress::Done);
    }
    let Some(task) = live(slot).next() else {
        let last = slot.first()?;
        // A node that was not to run it for a while begins anew; a slot is given up for good.
        let anew = matches!(place, Place::Node(_)) && !restart::ended_by_itself(last);
        if !anew && !restart::wanted(plan, service, last, slot) {
            return Some(Progress::GivenUp);
        }
        let not_before = restart_at(plan, last);
        plan.create(service, replacement(place, not_before, MadeBy::Restart));
        return Some(Progress::UnderWay);
    };
    if !task.status.state.is_terminal() && !plan.is_lost(task) {
        if task.desired == TaskState::Ready && plan.may_start(task, slot) {
            plan.change(task, |t| t.desired = TaskState::Running);
        }
        return Some(Progress::UnderWay);
    }
    if restart::ended_by_itself(task) && !plan.has_come(task.not_before) {
        return Some(Progress::UnderWay);
    }
    plan.retire(task);
    if !restart::wanted(plan, service, task, slot) {
        return Some(Progress::GivenUp);
    }
    let not_before = restart_at(plan, task);
    plan.create(service, replacement(place, not_before, MadeBy::Restart));
    Some(Progress::UnderWay)
}

fn rest_but_done(plan: &mut Plan<'_>, slot: &[&Task]) {
    if !slot.iter().any(|t| is_done(t)) {
        rest(plan, slot);
    }
}

fn create(plan: &mut Plan<'_>, service: &Service, place: Place<'_>) {
    let (desired, not_before, made_by) = (TaskState::Running, plan.now, MadeBy::Scale);
    plan.create(service, NewTask { place, node: None, desired, not_before, made_by });
}

#[cfg(test)]
mod tests;
