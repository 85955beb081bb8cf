//! Tasks nobody can speak for any more: their node was removed, or is down for a day.
use super::plan::Plan;
use shoal_model::{Task, TaskState};
use std::time::Duration;

/// A task on a node that is down for so long counts as lost for good (swarmkit's value): it may hold
/// no address and no place in the history for ever.
const ORPHANED_AFTER: Duration = Duration::from_secs(24 * 3_600);

/// Marks the orphans of a node. Whether they are made again is their services' business, and was
/// settled when the node was lost.
pub(super) fn look(plan: &mut Plan<'_>, node: &str) {
    let state = plan.state;
    let why = match state.nodes.get(node) {
        None => "node removed",
        Some(node) => match node.down_since {
            Some(since) if plan.has_come(since.after(ORPHANED_AFTER)) => "node down for 24 hours",
            _ => return,
        },
    };
    let now = plan.now;
    let alive = |t: &&Task| t.is_assigned() && !t.status.state.is_terminal();
    for task in state.tasks_of_node(node).filter(alive) {
        plan.change_from_outside(task, |t| {
            t.desired = t.desired.max(TaskState::Shutdown);
            t.status.state = TaskState::Orphaned;
            t.status.since = now;
            t.status.message = why.to_owned();
        });
    }
}

#[cfg(test)]
mod tests;
