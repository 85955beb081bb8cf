//! Tasks their node may not keep: its labels changed, or its resources shrank.
//!
//! Such a task is rejected, as if its node had done so; the restart policy of its service says what
//! follows. On a paused node nothing is touched, and a drained one gives up its tasks anyway.
use super::{plan::Plan, slots};
use shoal_model::{
    Availability, Node, Service, State, Task, TaskState,
    bugs::{self, Bug},
};

/// The node of a task that changed, if a task there may have to go because of that: most often not, and then
/// not all of its tasks are looked at.
pub(super) fn endangered<'a>(plan: &mut Plan<'a>, task: &str) -> Option<&'a str> {
    let state = plan.state;
    let task = state.tasks.get(task)?;
    let id = task.node_id.as_deref()?;
    let stays = state.nodes.get(id).is_some_and(|node| {
        let mut at_rest = || has_room(state, node) && suits(plan, task, node);
        node.down_since.is_none() && (node.availability != Availability::Active || at_rest())
    });
    (!stays).then_some(id)
}

/// Whether all tasks that hold something of a node, told to stop or not, fit there together.
fn has_room(state: &State, node: &Node) -> bool {
    let Some(description) = &node.description else { return true };
    state.load(&node.id).is_none_or(|load| {
        load.nano_cpus <= description.nano_cpus.into()
            && load.memory_bytes <= description.memory_bytes.into()
    })
}

/// Whether the node may keep the task, but for its resources.
fn suits(plan: &mut Plan<'_>, task: &Task, node: &Node) -> bool {
    let service = plan.state.services.get(&task.service_id);
    service.is_none_or(|s| !is_settled(s, task, node) || plan.admits(s, node))
}

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
        let suits = suits(plan, task, node) || bugs::active(Bug::LeaveUnsuited);
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
