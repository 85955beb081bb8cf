//! Tasks their node may not keep: its labels changed, or its resources shrank.
//!
//! Such a task is rejected, as if its node had done so; the restart policy of its service says what
//! follows. On a paused node nothing is touched, and a drained one gives up its tasks anyway.
use super::{plan::Plan, slots};
use shoal_model::{
    Availability, Node, Service, Task, TaskState,
    bugs::{self, Bug},
};

/// Rejects what does not suit the node any more. Where resources do not suffice for all, the tasks
/// that were there first stay.
pub(super) fn look(plan: &mut Plan<'_>, node: &str) {
    let state = plan.state;
    let Some(node) = state.nodes.get(node) else { return };
    if node.availability != Availability::Active {
        return;
    }
    let mut tasks: Vec<&Task> = state
        .tasks_of_node(&node.id)
        .filter(|t| t.is_assigned() && slots::is_live(t) && !t.status.state.is_terminal())
        .collect();
    tasks.sort_by(|a, b| (a.meta.created, &a.id).cmp(&(b.meta.created, &b.id)));
    let mut free = Free::of(node);
    for task in tasks {
        let service = state.services.get(&task.service_id);
        let suits = service.is_none_or(|s| !is_settled(s, task, node) || plan.admits(s, node));
        let suits = suits || bugs::active(Bug::LeaveUnsuited);
        if !suits || !free.take(task) {
            reject(plan, task);
        }
    }
}

/// Whether it is the node that changed, not the service: then constraints are enforced at once. What
/// the service itself changed the updater sees to, at its own pace; and global services see by
/// themselves where they may run.
fn is_settled(service: &Service, task: &Task, node: &Node) -> bool {
    let up_to_date = task.spec_version == service.spec_version;
    !service.mode().is_global() && (up_to_date || node.meta.version > service.meta.version)
}

/// What of a node's resources is not reserved. `None` where the node has not told.
struct Free(Option<(i64, i64)>);

impl Free {
    fn of(node: &Node) -> Free {
        Free(node.description.as_ref().map(|d| (d.nano_cpus, d.memory_bytes)))
    }

    /// Takes what the task reserves; false when there is not so much.
    fn take(&mut self, task: &Task) -> bool {
        let Some((cpus, memory)) = &mut self.0 else { return true };
        let (asked_cpus, asked_memory) = task.reservations();
        let fits = asked_cpus <= *cpus && asked_memory <= *memory;
        if fits {
            *cpus -= asked_cpus;
            *memory -= asked_memory;
        }
        fits
    }
}

fn reject(plan: &mut Plan<'_>, task: &Task) {
    let now = plan.now;
    plan.change_from_outside(task, |t| {
        t.status.state = TaskState::Rejected;
        t.status.since = now;
        t.status.message = "task rejected by constraint enforcer".to_owned();
        t.status.err = "assigned node no longer meets constraints".to_owned();
    });
}

#[cfg(test)]
mod tests;
