//! Tasks are moved to spread a service anew only where that was asked for and the service is calm; one of
//! a service at a time, ten in all; to a place that may take them and has two fewer; and what runs goes
//! on until its successor runs. At rest nothing is left that could be moved. Written anew.
use super::{Invariant, Rest, Step, Verdict, capacity, may_be_current, may_be_lost};
use crate::log::Author;
use shoal_cores::REBALANCE_LABEL;
use shoal_model::{Availability, MadeBy, Mode, Node, Service, State, Task, TaskState};
use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

/// Moves at a time in the whole cluster.
const MOST_MOVES: usize = 10;
/// From when a moved task runs until the next of its service is moved.
const PAUSE: Duration = Duration::from_secs(5);
/// From a move that failed until the next.
pub(super) const BACK_OFF: Duration = Duration::from_secs(300);

pub(super) struct Rebalance;

impl Invariant for Rebalance {
    fn name(&self) -> &'static str {
        "rebalance"
    }

    fn applied(&mut self, step: &Step<'_>) -> Verdict {
        if step.txn.author != Author::Orchestrator {
            return Ok(());
        }
        for (old, task) in step.tasks_put() {
            match old {
                None if task.made_by == MadeBy::Rebalance => begun(step, task)?,
                None => {}
                Some(old) => stopped(step, old, task)?,
            }
        }
        Ok(())
    }

    fn at_rest(&mut self, rest: &Rest<'_>) -> Verdict {
        let state = rest.state;
        if state.tasks.values().filter(|t| is_under_way(t)).count() >= MOST_MOVES {
            return Ok(());
        }
        for service in state.services.values().filter(|s| is_asked(state, s)) {
            let tasks: Vec<&Task> = state.tasks_of_service(&service.id).collect();
            let moved = || tasks.iter().filter(|t| t.made_by == MadeBy::Rebalance);
            let pauses =
                moved().filter_map(|t| t.times.running).any(|at| rest.now < at.after(PAUSE));
            let failed = |t: &&&Task| t.times.running.is_none() && is_over(t);
            let backs_off =
                moved().filter(failed).any(|t| rest.now < t.meta.created.after(BACK_OFF));
            if pauses || backs_off {
                continue;
            }
            let Some(spread) = Spread::of(state, service, &tasks) else { continue };
            let template = service.spec.task_template.clone().unwrap_or_default();
            for task in spread.tasks.values() {
                // It may be of an earlier placement; its successor would not be.
                let next = Task { spec: template.clone().into(), ..(*task).clone() };
                let better = |n: &&Node| {
                    spread.gains(task, n) && capacity::refusal(state, &next, n, None).is_none()
                };
                if let Some(node) = state.nodes.values().find(better) {
                    let name = service.name();
                    return Err(format!("{} of {name} is not moved to {}", task.id, node.id));
                }
            }
        }
        Ok(())
    }
}

fn is_asked(state: &State, service: &Service) -> bool {
    let is_on = |labels: Option<&HashMap<String, String>>| {
        labels.and_then(|l| l.get(REBALANCE_LABEL)).is_some_and(|value| value == "true")
    };
    service.rebalance
        || is_on(service.spec.labels.as_ref())
        || is_on(state.cluster.as_ref().and_then(|c| c.spec.labels.as_ref()))
}

fn is_over(task: &Task) -> bool {
    task.status.state.is_terminal() || task.desired > TaskState::Running
}

/// Whether the task is to take another's place and does not run yet.
pub(super) fn is_under_way(task: &Task) -> bool {
    task.made_by == MadeBy::Rebalance && task.times.running.is_none() && !is_over(task)
}

/// Where the tasks of a calm service are: by slot, by node, by zone.
struct Spread<'a> {
    tasks: BTreeMap<u64, &'a Task>,
    on_node: BTreeMap<&'a str, usize>,
    /// Only where the service prefers to be spread over zones.
    in_zone: Option<BTreeMap<&'a str, usize>>,
    state: &'a State,
}

impl<'a> Spread<'a> {
    /// `None`: it is not calm, or has no slots.
    fn of(state: &'a State, service: &Service, tasks: &[&'a Task]) -> Option<Spread<'a>> {
        let Mode::Replicated { replicas } = service.mode() else { return None };
        if service.update_status.as_ref().is_some_and(|u| u.in_progress() || u.is_paused()) {
            return None;
        }
        let mut by_slot = BTreeMap::new();
        for task in tasks.iter().filter(|t| t.desired <= TaskState::Running) {
            let node = state.nodes.get(task.node_id.as_ref()?)?;
            let runs =
                task.status.state == TaskState::Running && task.desired == TaskState::Running;
            let lost = may_be_lost(state, task, u64::MAX);
            // On a paused node constraints are not enforced.
            let stays = node.availability == Availability::Pause || admits(service, node);
            let current = may_be_current(service, task) && stays;
            if !runs || lost || !current || by_slot.insert(task.slot, *task).is_some() {
                return None;
            }
        }
        if by_slot.len() as u64 != replicas {
            return None;
        }
        let placement = service.spec.task_template.as_ref().and_then(|t| t.placement.as_ref());
        let prefers = placement.and_then(|p| p.preferences.as_ref()).is_some_and(|p| !p.is_empty());
        let mut spread = Spread {
            tasks: by_slot,
            on_node: BTreeMap::new(),
            in_zone: prefers.then(BTreeMap::new),
            state,
        };
        for task in spread.tasks.values() {
            let node = task.node_id.as_deref().unwrap_or_default();
            *spread.on_node.entry(node).or_default() += 1;
            if let Some(in_zone) = &mut spread.in_zone {
                *in_zone.entry(zone(state.nodes.get(node))).or_default() += 1;
            }
        }
        Some(spread)
    }

    /// Whether the spread is more even with the task on the node: in its zone first, where that counts.
    fn gains(&self, task: &Task, to: &Node) -> bool {
        let from = task.node_id.as_deref().unwrap_or_default();
        if let Some(in_zone) = &self.in_zone {
            let (here, there) = (zone(self.state.nodes.get(from)), zone(Some(to)));
            if here != there {
                return count(in_zone, here) >= count(in_zone, there) + 2;
            }
        }
        count(&self.on_node, from) >= count(&self.on_node, &to.id) + 2
    }
}

fn count(all: &BTreeMap<&str, usize>, of: &str) -> usize {
    all.get(of).copied().unwrap_or(0)
}

fn zone(node: Option<&Node>) -> &str {
    node.and_then(|n| n.labels.get("zone")).map_or("", String::as_str)
}

/// Whether the service's constraints, as they are now, allow the node.
fn admits(service: &Service, node: &Node) -> bool {
    let placement = service.spec.task_template.as_ref().and_then(|t| t.placement.as_ref());
    let constraints = placement.and_then(|p| p.constraints.as_deref()).unwrap_or_default();
    constraints.iter().all(|c| capacity::satisfied(node, c))
}

/// A task is made that is to take another's place.
fn begun(step: &Step<'_>, task: &Task) -> Verdict {
    let (state, read) = (step.state, step.txn.read);
    let wrong = |why: &str| Err(format!("{} is moved to {:?}: {why}", task.id, task.node_id));
    if state.tasks.values().filter(|t| is_under_way(t)).count() > MOST_MOVES {
        return wrong("too many are moved at a time");
    }
    // Changed since the orchestrator looked: then it could not know.
    let Some(service) = state.services.get(&task.service_id) else { return Ok(()) };
    let newer = |version: u64| version > read;
    let cluster = state.cluster.as_ref().map_or(0, |c| c.meta.version);
    if newer(service.meta.version)
        || newer(cluster)
        || state.nodes.values().any(|n| newer(n.meta.version))
    {
        return Ok(());
    }
    if !is_asked(state, service) {
        return wrong("nobody asked for it");
    }
    // As the orchestrator saw them.
    let mut tasks = Vec::new();
    for present in state.tasks_of_service(&service.id).filter(|t| t.id != task.id) {
        let put = step.tasks_put().find(|(_, new)| new.id == present.id);
        match put {
            Some((Some(old), _)) => tasks.push(old),
            Some((None, _)) => return wrong("another task of the service is made, too"),
            None if newer(present.meta.version) => return Ok(()),
            None => tasks.push(present),
        }
    }
    let Some(spread) = Spread::of(state, service, &tasks) else {
        return wrong("the service is not calm");
    };
    let Some(before) = spread.tasks.get(&task.slot) else { return wrong("it has no predecessor") };
    let Some(to) = task.node_id.as_ref().and_then(|id| state.nodes.get(id)) else {
        return wrong("there is no such node");
    };
    if !spread.gains(before, to) {
        return wrong(&format!("it is as well on {:?}", before.node_id));
    }
    match capacity::refusal(state, task, to, None) {
        Some(why) => wrong(&format!("it cannot be there: {why}")),
        None => Ok(()),
    }
}

/// What runs as it should is not stopped for one that does not run yet.
fn stopped(step: &Step<'_>, old: &Task, new: &Task) -> Verdict {
    let told = old.desired == TaskState::Running
        && new.desired == TaskState::Shutdown
        && new.status.state == TaskState::Running;
    let Some(service) = step.state.services.get(&old.service_id).filter(|_| told) else {
        return Ok(());
    };
    let node = old.node_id.as_ref().and_then(|id| step.state.nodes.get(id));
    let suits = node.is_some_and(|node| admits(service, node));
    let known = service.meta.version <= step.txn.read;
    let lost = may_be_lost(step.state, old, step.txn.read);
    if !known || lost || !suits || !may_be_current(service, old) {
        return Ok(());
    }
    // Ended before it ran, as the orchestrator could not know: then it is as if it had.
    let others = step.others_of_slot(old);
    let successor = others.iter().rfind(|t| t.made_by == MadeBy::Rebalance && is_under_way(t));
    let ran = |t: &&&Task| t.id != old.id && t.desired <= TaskState::Running && !is_under_way(t);
    match successor {
        Some(successor) if !others.iter().any(|t| ran(&t)) => {
            let id = &successor.id;
            Err(format!("{} is stopped, and {id}, which takes its place, does not run", old.id))
        }
        _ => Ok(()),
    }
}
