//! Global services: one task on each node that may take it, also on those that come later.
use super::{
    plan::{NewTask, Place, Plan, is_invalid},
    reaper, slots,
    tend::{retire_succeeded, tend},
    updater,
};
use crate::filters;
use shoal_model::{
    Availability, MadeBy, Node, Service, Task, TaskState,
    bugs::{self, Bug},
};

pub(super) fn reconcile<'a>(plan: &mut Plan<'a>, service: &'a Service) {
    let mut slots = slots::of(plan, service);
    let state = plan.state;
    // With a node goes what was on it.
    let gone =
        |place: &Place<'_>| !matches!(place, Place::Node(id) if state.nodes.contains_key(*id));
    for (_, tasks) in slots.extract_if(.., |place, _| gone(place)) {
        tasks.into_iter().for_each(|task| plan.delete(task));
    }
    let mut outdated = Vec::new();
    for node in state.nodes.values() {
        let place = Place::Node(&node.id);
        let tasks = slots.get(&place).map(Vec::as_slice).unwrap_or_default();
        if is_invalid(node) || !may_run(plan, service, node) {
            if !bugs::active(Bug::KeepOnDrained) {
                slots::live(tasks).for_each(|task| plan.retire(task));
            }
        } else if node.availability == Availability::Pause {
            rest(plan, tasks);
            retire_succeeded(plan, service, tasks);
        } else if tasks.is_empty() {
            if !plan.is_full() && !bugs::active(Bug::SkipNode) {
                let (desired, not_before, made_by) = (TaskState::Running, plan.now, MadeBy::Scale);
                plan.create(service, NewTask { place, node: None, desired, not_before, made_by });
            }
        } else {
            outdated.extend(tend(plan, service, place, tasks));
        }
    }
    updater::update(plan, service, &slots, outdated);
    reaper::reap(plan, service, &slots);
}

/// Whether the service is to have a task on the node.
pub(super) fn may_run<'a>(plan: &mut Plan<'a>, service: &'a Service, node: &Node) -> bool {
    let template = service.spec.task_template.as_ref();
    let platforms =
        template.and_then(|t| t.placement.as_ref()).and_then(|p| p.platforms.as_deref());
    filters::platform_fits(platforms.unwrap_or_default(), node) && plan.admits(service, node)
}

/// On a paused node what runs goes on, and nothing is made.
pub(super) fn rest(plan: &mut Plan<'_>, slot: &[&Task]) {
    for task in slots::live(slot) {
        if task.status.state.is_terminal() {
            plan.retire(task);
        } else if task.desired == TaskState::Ready && plan.may_start(task, slot) {
            plan.change(task, |t| t.desired = TaskState::Running);
        }
    }
}

#[cfg(test)]
mod tests;
