//! Brings replicated services back to an even spread, where that is wanted: one task at a time.
//!
//! A service is looked at when it is calm: every slot has one task, it runs and is up to date, and no
//! update is under way or paused. Then, where two nodes differ by two tasks or more, one task moves
//! from the node with most to the one with fewest that may take it: another task is made in its slot,
//! for that node alone, and the old one stops when the new one runs. A move that fails changes nothing,
//! and the service is left alone for a while.
use super::{
    plan::{NewTask, Place, Plan},
    slots::{self, Slots, live},
};
use crate::{filters, generic::Generic, spec::host_ports};
use shoal_model::{
    Load, MadeBy, Mode, Node, Service, State, Task, TaskState, UpdateStatus,
    bugs::{self, Bug},
    docker,
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

/// Label of a service or of the cluster that turns rebalancing on (`true`). On a service `once` asks
/// for it one time, and is taken off at once.
pub const REBALANCE_LABEL: &str = "shoal.rebalance";

/// From when a moved task runs until its service's next move.
const PAUSE: Duration = Duration::from_secs(5);

/// How long a service is left alone after a move that failed.
const BACK_OFF: Duration = Duration::from_secs(300);

/// Moves under way in the whole cluster.
const MOST_MOVES: usize = 10;

/// Fewest tasks by which two nodes must differ: with one, moving would change nothing.
const LEAST_DIFFERENCE: usize = 2;

/// Takes the wish to be rebalanced once out of a specification.
pub fn take_rebalance_once(spec: &mut docker::ServiceSpec) -> bool {
    let Some(labels) = &mut spec.labels else { return false };
    let once = labels.get(REBALANCE_LABEL).is_some_and(|value| value == "once");
    if once {
        labels.remove(REBALANCE_LABEL);
    }
    once
}

/// Whether the task is a move that failed a short while ago.
pub(super) fn backs_off(plan: &mut Plan<'_>, task: &Task) -> bool {
    is_failed_move(task) && !plan.has_come(task.meta.created.after(BACK_OFF))
}

fn is_failed_move(task: &Task) -> bool {
    let unfinished = task.made_by == MadeBy::Rebalance && task.times.running.is_none();
    unfinished && (task.status.state.is_terminal() || !slots::is_live(task))
}

/// Whether the service, or the cluster for all of them, asks for it.
pub(super) fn is_wanted(state: &State, service: &Service) -> bool {
    let everywhere = state.cluster.as_ref().is_some_and(|c| is_on(c.spec.labels.as_ref()));
    everywhere || service.rebalance || is_on(service.spec.labels.as_ref())
}

/// Moves one task of each of the services, as far as the cluster's bound allows.
pub(super) fn rebalance(plan: &mut Plan<'_>, wanted: &BTreeSet<String>) {
    let state = plan.state;
    let services: Vec<&Service> = wanted.iter().filter_map(|id| state.services.get(id)).collect();
    let moves = |s: &&Service| state.tasks_of_service(&s.id).filter(|t| is_under_way(t)).count();
    let mut room = MOST_MOVES.saturating_sub(services.iter().map(moves).sum());
    for service in services {
        let moved = room > 0 && plan.is_settled(&service.id) && one(plan, service);
        room -= usize::from(moved);
    }
}

fn is_on(labels: Option<&HashMap<String, String>>) -> bool {
    labels.and_then(|l| l.get(REBALANCE_LABEL)).is_some_and(|value| value == "true")
}

fn is_under_way(task: &Task) -> bool {
    task.made_by == MadeBy::Rebalance
        && slots::is_live(task)
        && task.times.running.is_none()
        && !task.status.state.is_terminal()
}

/// Whether a task of the service is moved now.
fn one<'a>(plan: &mut Plan<'a>, service: &'a Service) -> bool {
    let Mode::Replicated { replicas } = service.mode() else {
        settle(plan, service);
        return false;
    };
    let mut tasks: Slots<'_> = Slots::new();
    for task in plan.state.tasks_of_service(&service.id) {
        tasks.entry(Place::Slot(task.slot)).or_default().push(task);
    }
    let Some(running) = calm(plan, service, replicas, &tasks) else { return false };
    let all = || tasks.values().flatten().filter(|t| t.made_by == MadeBy::Rebalance);
    let failed = all().filter(|t| is_failed_move(t)).map(|t| t.meta.created.after(BACK_OFF)).max();
    if failed.is_some_and(|until| !plan.has_come(until)) {
        settle(plan, service);
        return false;
    }
    let last = all().filter_map(|t| t.times.running).max();
    if last.is_some_and(|at| !plan.has_come(at.after(PAUSE))) {
        return false;
    }
    let Some((task, node)) = next_move(plan, service, &running) else {
        settle(plan, service);
        return false;
    };
    plan.create(
        service,
        NewTask {
            place: Place::Slot(task.slot),
            node: Some(&node.id),
            desired: TaskState::Running,
            not_before: plan.now,
            made_by: MadeBy::Rebalance,
        },
    );
    true
}

/// What was asked for once is done, or cannot be done.
fn settle(plan: &mut Plan<'_>, service: &Service) {
    if service.rebalance {
        plan.put_service(Service { rebalance: false, ..service.clone() });
    }
}

/// The task of each slot, if the service is calm.
fn calm<'a>(
    plan: &mut Plan<'a>,
    service: &'a Service,
    replicas: u64,
    slots: &Slots<'a>,
) -> Option<Vec<&'a Task>> {
    let updating = |u: &UpdateStatus| u.in_progress() || u.is_paused();
    if service.update_status.as_ref().is_some_and(updating) {
        return None;
    }
    let mut running = Vec::with_capacity(slots.len());
    for slot in slots.values() {
        let mut wanted = live(slot);
        let Some(task) = wanted.next() else { continue };
        let runs = task.status.state == TaskState::Running && task.desired == TaskState::Running;
        let steady = runs && !plan.is_lost(task) && plan.is_current(service, task);
        if !steady || wanted.next().is_some() {
            return None;
        }
        running.push(task);
    }
    (u64::try_from(running.len()) == Ok(replicas)).then_some(running)
}

/// A node with the tasks the service has there.
struct Holder<'a> {
    node: &'a Node,
    tasks: Vec<&'a Task>,
    /// Whether it may take one more.
    takes: bool,
}

/// The task to be moved, and where to.
fn next_move<'a>(
    plan: &mut Plan<'a>,
    service: &'a Service,
    running: &[&'a Task],
) -> Option<(&'a Task, &'a Node)> {
    let mut by_node: BTreeMap<&str, Vec<&Task>> = BTreeMap::new();
    for task in running {
        by_node.entry(task.node_id.as_deref().unwrap_or_default()).or_default().push(task);
    }
    let placement = service.spec.task_template.as_ref().and_then(|t| t.placement.as_ref());
    let most = placement.and_then(|p| p.max_replicas).and_then(|m| usize::try_from(m).ok());
    let most = most.filter(|most| *most > 0).unwrap_or(usize::MAX);
    let mut holders = Vec::new();
    for node in plan.state.nodes.values() {
        let tasks = by_node.remove(node.id.as_str()).unwrap_or_default();
        let takes = tasks.len() < most && takes(plan, service, node);
        if takes || !tasks.is_empty() {
            holders.push(Holder { node, tasks, takes });
        }
    }
    let preferences = placement.and_then(|p| p.preferences.as_deref()).unwrap_or_default();
    let spread: Vec<&str> = preferences
        .iter()
        .filter_map(|p| p.spread.as_ref()?.spread_descriptor.as_deref())
        .collect();
    let (from, to) = uneven(holders.iter().collect(), &spread)?;
    let task = from.tasks.iter().copied().max_by_key(|t| t.slot)?;
    Some((task, to.node))
}

/// Whether the node may take one more task, whatever it has of the service already.
fn takes<'a>(plan: &mut Plan<'a>, service: &'a Service, node: &Node) -> bool {
    filters::takes_tasks(node)
        && super::global::may_run(plan, service, node)
        && has_room(plan, service, node)
}

/// What the service reserves or publishes on a node must be free there: the scheduler would refuse the
/// task, and the move be tried again and again.
fn has_room(plan: &Plan<'_>, service: &Service, node: &Node) -> bool {
    let template = service.spec.task_template.as_ref();
    let nothing = Load::default();
    let load = plan.state.load(&node.id).unwrap_or(&nothing);
    let has = node.description.as_ref().map_or((0, 0), |d| (d.nano_cpus, d.memory_bytes));
    let fits = |asked: i64, used: i128, has: i64| {
        asked == 0 || used + i128::from(asked) <= i128::from(has)
    };
    let (cpus, memory) = filters::reserved(template);
    fits(cpus, load.nano_cpus, has.0)
        && fits(memory, load.memory_bytes, has.1)
        && template.is_none_or(|t| Generic::of(t).fits(node, load))
        && !host_ports(&service.spec).iter().any(|port| load.host_ports.contains_key(port))
}

/// Two nodes that differ too much, from and to. Along spread preferences it is the groups of nodes
/// that must not differ; within a group it is the next preference, and in the end the nodes.
fn uneven<'h, 'a>(
    holders: Vec<&'h Holder<'a>>,
    spread: &[&str],
) -> Option<(&'h Holder<'a>, &'h Holder<'a>)> {
    let sum = |group: &[&Holder<'_>]| group.iter().map(|h| h.tasks.len()).sum::<usize>();
    let least_difference = LEAST_DIFFERENCE - usize::from(bugs::active(Bug::MoveForNothing));
    let Some((descriptor, rest)) = spread.split_first() else {
        let most = holders.iter().copied().max_by_key(|h| h.tasks.len())?;
        let least = holders.iter().copied().filter(|h| h.takes).min_by_key(|h| h.tasks.len())?;
        let differ = most.tasks.len() >= least.tasks.len() + least_difference;
        return differ.then_some((most, least));
    };
    let mut groups: BTreeMap<&str, Vec<&Holder<'_>>> = BTreeMap::new();
    for holder in holders {
        groups.entry(label(holder.node, descriptor)).or_default().push(holder);
    }
    let taking = groups.values().filter(|g| g.iter().any(|h| h.takes));
    let least = taking.min_by_key(|g| sum(g))?;
    let most = groups.values().max_by_key(|g| sum(g))?;
    if sum(most) >= sum(least) + least_difference {
        let from = most.iter().copied().max_by_key(|h| h.tasks.len())?;
        let to = least.iter().copied().filter(|h| h.takes).min_by_key(|h| h.tasks.len())?;
        return Some((from, to));
    }
    groups.into_values().find_map(|group| uneven(group, rest))
}

/// The value of a label a preference spreads over; nodes without it are one group.
fn label<'a>(node: &'a Node, descriptor: &str) -> &'a str {
    let of = |labels: &'a BTreeMap<String, String>, key: &str| labels.get(key).map(String::as_str);
    let value = if let Some(key) = descriptor.strip_prefix("node.labels.") {
        of(&node.labels, key)
    } else if let Some(key) = descriptor.strip_prefix("engine.labels.") {
        node.description.as_ref().and_then(|d| of(&d.engine_labels, key))
    } else {
        None
    };
    value.unwrap_or_default()
}

#[cfg(test)]
mod tests;
