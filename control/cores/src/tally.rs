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
