//! No more of a generic resource is given away than a node has, none with a name twice, and each task
//! gets as many as it reserves.
use super::{Invariant, Step, Verdict, host_ports::is_seated};
use crate::config::KIND;
use shoal_model::{GenericResource, Node, State, Task, TaskState};
use std::collections::BTreeSet;

pub(super) struct Generic;

impl Invariant for Generic {
    fn name(&self) -> &'static str {
        "generic"
    }

    fn applied(&mut self, step: &Step<'_>) -> Verdict {
        for (old, task) in step.tasks_put() {
            let assigned = old.is_some_and(|o| o.status.state < TaskState::Assigned)
                && task.status.state == TaskState::Assigned;
            let Some(node) = task.node_id.as_ref().filter(|_| assigned) else { continue };
            let given: i64 = task.assigned_generic_resources.iter().map(number).sum();
            if given != asked(task) {
                return Err(format!("{} asked for {} and got {given}", task.id, asked(task)));
            }
            let node = step.state.nodes.get(node).filter(|n| n.meta.version <= step.txn.read);
            if let Some(node) = node.filter(|_| given > 0) {
                enough(step.state, node)?;
            }
        }
        Ok(())
    }
}

fn number(resource: &GenericResource) -> i64 {
    match resource {
        GenericResource::Discrete { value, .. } => *value,
        GenericResource::Named { .. } => 1,
    }
}

/// How many the task reserves; there is one kind.
pub(super) fn asked(task: &Task) -> i64 {
    let reserved = task.spec.resources.as_ref().and_then(|r| r.reservations.as_ref());
    let all = reserved.and_then(|r| r.generic_resources.as_deref()).unwrap_or_default();
    let specs = all.iter().filter_map(|r| r.discrete_resource_spec.as_ref());
    specs.filter(|r| r.kind.as_deref() == Some(KIND)).filter_map(|r| r.value).sum()
}

/// What the node has, and what of it is given away.
fn account<'a>(
    state: &'a State,
    node: &'a Node,
) -> (&'a [GenericResource], Vec<&'a GenericResource>) {
    let has = node.description.as_ref().map_or(&[][..], |d| &d.generic_resources[..]);
    let tasks = state.tasks_of_node(&node.id).filter(|t| is_seated(t));
    (has, tasks.flat_map(|t| &t.assigned_generic_resources).collect())
}

fn enough(state: &State, node: &Node) -> Verdict {
    let (has, given) = account(state, node);
    let mut names = BTreeSet::new();
    let mut sum = 0;
    for resource in &given {
        match resource {
            GenericResource::Discrete { value, .. } => sum += value,
            GenericResource::Named { value, .. } if !has.contains(resource) => {
                return Err(format!("{} has no {value}", node.id));
            }
            GenericResource::Named { value, .. } if !names.insert(value) => {
                return Err(format!("{value} of {} is given twice", node.id));
            }
            GenericResource::Named { .. } => {}
        }
    }
    let all = without_names(has);
    match sum > all {
        true => Err(format!("{sum} of {all} {KIND} of {} are given away", node.id)),
        false => Ok(()),
    }
}

fn without_names(all: &[GenericResource]) -> i64 {
    let value = |resource: &GenericResource| match resource {
        GenericResource::Discrete { value, .. } => *value,
        GenericResource::Named { .. } => 0,
    };
    all.iter().map(value).sum()
}

/// Whether the node has as many left as a waiting task asks for.
pub(super) fn has_room(state: &State, task: &Task, node: &Node) -> bool {
    let (has, given) = account(state, node);
    let named = |r: &&&GenericResource| matches!(r, GenericResource::Named { .. });
    let free_names = has.iter().filter(|r| named(&r) && !given.contains(r)).count() as i64;
    let given_number: i64 = given.iter().filter(|r| !named(r)).map(|r| number(r)).sum();
    asked(task) <= free_names.max(without_names(has) - given_number)
}
