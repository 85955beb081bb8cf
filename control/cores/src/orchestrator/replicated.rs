//! Replicated services: as many slots as replicas, one wanted task in each.
use super::{
    plan::{NewTask, Place, Plan},
    reaper, slots,
    slots::Slots,
    tend::tend,
    updater,
};
use shoal_model::{
    MadeBy, Service, Task, TaskState,
    bugs::{self, Bug},
};
use std::collections::BTreeMap;

pub(super) fn reconcile<'a>(plan: &mut Plan<'a>, service: &'a Service, replicas: u64) {
    let mut slots = slots::of(plan, service);
    let replicas = usize::try_from(replicas).unwrap_or(usize::MAX);
    for place in surplus(&slots, replicas) {
        for task in slots.remove(&place).into_iter().flatten() {
            plan.remove(task);
        }
    }
    let mut outdated = Vec::new();
    for (place, tasks) in &slots {
        outdated.extend(tend(plan, service, *place, tasks));
    }
    updater::update(plan, service, &slots, outdated);
    reaper::reap(plan, service, &slots);
    let missing = replicas.saturating_sub(slots.len()).min(plan.room());
    let twice = |place: &Place<'_>| bugs::active(Bug::DoubleSlot) && *place == Place::Slot(1);
    let free = (1..).map(Place::Slot).filter(|p| !slots.contains_key(p) || twice(p));
    for place in free.take(missing) {
        let (desired, not_before, made_by) = (TaskState::Running, plan.now, MadeBy::Scale);
        plan.create(service, NewTask { place, node: None, desired, not_before, made_by });
    }
}

/// Slots beyond the replicas: first those that do not run, then from the nodes that have most, then
/// the highest.
fn surplus<'a>(slots: &Slots<'a>, replicas: usize) -> Vec<Place<'a>> {
    if slots.len() <= replicas {
        return Vec::new();
    }
    let wanted = |slot: &[&'a Task]| slots::live(slot).next();
    let idle = |t: Option<&Task>| t.is_none_or(|t| t.status.state != TaskState::Running);
    let mut order: Vec<(bool, Place<'_>, Option<&str>)> = slots
        .iter()
        .map(|(place, tasks)| {
            let task = wanted(tasks);
            (idle(task), *place, task.and_then(|t| t.node_id.as_deref()))
        })
        .collect();
    order.sort();
    let mut on_node: BTreeMap<Option<&str>, usize> = BTreeMap::new();
    let mut ranked: Vec<(bool, usize, Place<'_>)> = order
        .into_iter()
        .map(|(idle, place, node)| {
            let rank = on_node.entry(node).or_default();
            *rank += 1;
            (idle, *rank, place)
        })
        .collect();
    ranked.sort();
    ranked.into_iter().skip(replicas).map(|(_, _, place)| place).collect()
}

#[cfg(test)]
mod tests;
