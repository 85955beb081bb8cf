//! Counts for metrics and listings.
use shoal_model::{State, TaskState};
use std::collections::BTreeMap;

/// How many tasks are in each state; states without a task are there with 0.
pub fn task_counts(state: &State) -> BTreeMap<TaskState, u64> {
    let mut counts: BTreeMap<TaskState, u64> = TaskState::ALL.iter().map(|s| (*s, 0)).collect();
    for task in state.tasks.values() {
        *counts.entry(task.status.state).or_default() += 1;
    }
    counts
}

/// Running and desired tasks of a service, as `docker service ls` shows them. A task on a node that
/// is down does not count as running.
pub fn service_tally(state: &State, service: &str) -> (u64, u64) {
    let desired = state.services.get(service).map_or(0, |s| s.replicas());
    let running = state
        .tasks_of_service(service)
        .filter(|t| t.status.state == TaskState::Running && t.desired == TaskState::Running)
        .filter(|t| {
            let node = t.node_id.as_ref().and_then(|n| state.nodes.get(n));
            node.is_some_and(|n| n.status.state != shoal_model::NodeState::Down)
        })
        .count();
    (u64::try_from(running).unwrap_or(u64::MAX), desired)
}
