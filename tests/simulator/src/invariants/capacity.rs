//! A task is given only to a node that may take it: ready, active, with room, as the constraints say,
//! below the most replicas. Written anew, without the scheduler's own functions.
use super::{Invariant, Step, Verdict, generic, host_ports};
use crate::log::Author;
use shoal_model::{Availability, Node, NodeState, Role, State, Task, TaskState};

pub(super) struct Capacity;

impl Invariant for Capacity {
    fn name(&self) -> &'static str {
        "capacity"
    }

    fn applied(&mut self, step: &Step<'_>) -> Verdict {
        if step.txn.author != Author::Scheduler {
            return Ok(());
        }
        for (old, task) in step.tasks_put() {
            let placed = old.is_some_and(|o| o.status.state < TaskState::Assigned)
                && task.status.state == TaskState::Assigned;
            let Some(node) = task.node_id.as_ref().and_then(|n| step.state.nodes.get(n)) else {
                continue;
            };
            // Changed since the scheduler looked: then it could not know.
            if placed && node.meta.version <= step.txn.read {
                let together = |other: &Task| {
                    // Placed by the same call, perhaps behind this one, with limits of its own.
                    other.spec_version != task.spec_version
                        && step.tasks_put().any(|(_, put)| put.id == other.id)
                };
                refusal(step.state, task, node, Some(&together))
                    .map_or(Ok(()), |why| Err(format!("task {} on {}: {why}", task.id, node.id)))?;
            }
        }
        Ok(())
    }
}

/// Why a node may not take a task. `placed`: it has the task already, and those for which this holds
/// came with it.
pub(super) fn refusal(
    state: &State,
    task: &Task,
    node: &Node,
    placed: Option<&dyn Fn(&Task) -> bool>,
) -> Option<String> {
    let together = |t: &Task| placed.is_some_and(|together| together(t));
    let placed = placed.is_some();
    if node.status.state != NodeState::Ready || node.availability != Availability::Active {
        return Some(format!("it is {:?} and {:?}", node.status.state, node.availability));
    }
    if node.overlay.address.is_none() {
        return Some("it has no address".to_owned());
    }
    // One that has its node from the beginning takes room when the scheduler agreed.
    let seated = |t: &&Task| t.status.state >= TaskState::Assigned && !t.status.state.is_terminal();
    let living = || state.tasks_of_node(&node.id).filter(seated);
    let own = |f: fn(&Task) -> i64| if placed { 0 } else { f(task) };
    for (what, of, has) in [
        ("processors", cpus as fn(&Task) -> i64, node.description.as_ref().map(|d| d.nano_cpus)),
        ("memory", memory, node.description.as_ref().map(|d| d.memory_bytes)),
    ] {
        let reserved = living().map(of).sum::<i64>() + own(of);
        if of(task) > 0 && reserved > has.unwrap_or(0) {
            return Some(format!("{reserved} of {has:?} {what} reserved"));
        }
    }
    let placement = task.spec.placement.as_ref();
    for constraint in placement.and_then(|p| p.constraints.as_deref()).unwrap_or_default() {
        if !satisfied(node, constraint) {
            return Some(format!("not {constraint}"));
        }
    }
    // Those that are placed have theirs: see the invariants of their own.
    let ports = host_ports::asked(state, task);
    let taken = |t: &Task| t.host_ports.iter().any(|p| ports.contains(&p.port));
    if !placed && living().any(taken) {
        return Some("a port is taken".to_owned());
    }
    if !placed && !generic::has_room(state, task, node) {
        return Some("too few generic resources are left".to_owned());
    }
    let most = placement.and_then(|p| p.max_replicas).filter(|max| *max > 0);
    let wanted = |t: &&Task| {
        t.service_id == task.service_id && t.desired <= TaskState::Running && !together(t)
    };
    let replicas = living().filter(wanted).count() as i64 + i64::from(!placed);
    match most {
        Some(most) if replicas > most => Some(format!("{replicas} of at most {most} replicas")),
        _ => None,
    }
}

fn cpus(task: &Task) -> i64 {
    let reserved = task.spec.resources.as_ref().and_then(|r| r.reservations.as_ref());
    reserved.and_then(|r| r.nano_cpus).unwrap_or(0)
}

fn memory(task: &Task) -> i64 {
    let reserved = task.spec.resources.as_ref().and_then(|r| r.reservations.as_ref());
    reserved.and_then(|r| r.memory_bytes).unwrap_or(0)
}

/// The constraints the workload uses.
pub(super) fn satisfied(node: &Node, constraint: &str) -> bool {
    let zone = node.labels.get("zone").map_or("", String::as_str);
    let hostname = node.description.as_ref().map_or("", |d| d.hostname.as_str());
    match constraint {
        "node.labels.zone==east" => zone == "east",
        "node.labels.zone!=east" => zone != "east",
        "node.role==worker" => node.role == Role::Worker,
        "node.hostname!=host-0" => hostname != "host-0",
        _ => false,
    }
}
