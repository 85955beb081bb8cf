//! A job has no more tasks under way than it may, runs nothing again that has ended well in its present
//! iteration, counts what has, and at rest is done or has a reason.
use super::{Invariant, Rest, Step, Verdict, global, place, slots};
use crate::log::Author;
use shoal_model::{
    Availability, Change, Mode, Node, NodeState, Object, ObjectKind, Service, ServiceTally, State,
    Task, TaskState,
};
use std::collections::{BTreeMap, BTreeSet};

/// What has ended well, kept beside the state: its history forgets.
#[derive(Default)]
pub(super) struct Jobs {
    done: BTreeMap<String, Done>,
}

#[derive(Default)]
struct Done {
    iteration: Option<u64>,
    /// Place and the version that tells of it.
    places: BTreeMap<String, u64>,
}

impl Done {
    fn forget(&mut self, place: &str) {
        self.places.remove(place);
    }
}

impl Invariant for Jobs {
    fn name(&self) -> &'static str {
        "jobs"
    }

    fn applied(&mut self, step: &Step<'_>) -> Verdict {
        for (change, old) in step.txn.changes.iter().zip(step.old) {
            match (change, old) {
                // The place goes with its node; one of the same name is another.
                (Change::Delete(ObjectKind::Node, id), _) => {
                    self.done.values_mut().for_each(|done| done.forget(id));
                }
                (Change::Delete(ObjectKind::Service, id), _) => drop(self.done.remove(id)),
                (Change::Put(Object::Service(service)), _) => self.begun(service),
                _ => {}
            }
        }
        for (old, task) in step.tasks_put() {
            let Some(service) = step.state.services.get(&task.service_id) else { continue };
            if task.job_iteration.is_none() || task.job_iteration != service.iteration() {
                continue;
            }
            let done = self.done.entry(service.id.clone()).or_default();
            // The last word of a node that was removed may come after.
            let gone =
                service.mode() == Mode::GlobalJob && !step.state.nodes.contains_key(place(task));
            if task.status.state == TaskState::Complete && !gone {
                done.places.entry(place(task).to_owned()).or_insert(step.state.version);
            }
            // Changed since the orchestrator looked: then it could not know.
            let known = service.meta.version <= step.txn.read;
            if old.is_some() || step.txn.author != Author::Orchestrator || !known {
                continue;
            }
            if done.places.get(place(task)).is_some_and(|at| *at <= step.txn.read) {
                return Err(format!(
                    "place {} of {} is done and runs again",
                    place(task),
                    service.name()
                ));
            }
            not_too_many(step.state, service)?;
        }
        Ok(())
    }

    fn at_rest(&mut self, rest: &Rest<'_>) -> Verdict {
        for service in rest.state.services.values().filter(|s| s.mode().is_job()) {
            let tally = ServiceTally::of(rest.state, service);
            let known = self.done.get(&service.id).map_or(0, |d| d.places.len() as u64);
            // One whose node was away may have ended twice.
            if tally.completed < known {
                let name = service.name();
                return Err(format!("{known} tasks of {name} have ended, not {}", tally.completed));
            }
            at_rest(rest, service)?;
        }
        Ok(())
    }
}

impl Jobs {
    fn begun(&mut self, service: &Service) {
        if !service.mode().is_job() {
            return;
        }
        let done = self.done.entry(service.id.clone()).or_default();
        if done.iteration != service.iteration() {
            *done = Done { iteration: service.iteration(), places: BTreeMap::new() };
        }
    }
}

/// Tasks of the present iteration, by place.
fn present<'a>(state: &'a State, service: &Service) -> BTreeMap<&'a str, Vec<&'a Task>> {
    let mut places = super::places(state, service);
    for tasks in places.values_mut() {
        tasks.retain(|t| t.job_iteration == service.iteration());
    }
    places.retain(|_, tasks| !tasks.is_empty());
    places
}

fn is_under_way(task: &Task) -> bool {
    slots::is_wanted(task) && !task.status.state.is_terminal()
}

fn is_done(task: &Task) -> bool {
    task.status.state == TaskState::Complete
}

fn not_too_many(state: &State, service: &Service) -> Verdict {
    let Mode::ReplicatedJob { concurrent, .. } = service.mode() else { return Ok(()) };
    let tasks = state.tasks_of_service(&service.id);
    let present = tasks.filter(|t| t.job_iteration == service.iteration());
    let under_way = present.filter(|t| is_under_way(t)).count() as u64;
    match under_way > concurrent {
        true => {
            Err(format!("{under_way} tasks of {} are under way, not {concurrent}", service.name()))
        }
        false => Ok(()),
    }
}

fn at_rest(rest: &Rest<'_>, service: &Service) -> Verdict {
    let name = service.name();
    let places = present(rest.state, service);
    for (place, tasks) in &places {
        let under_way = tasks.iter().filter(|t| is_under_way(t)).count();
        if under_way > 1 {
            return Err(format!("{under_way} tasks are under way in place {place} of {name}"));
        }
        if under_way > 0 && tasks.iter().any(|t| is_done(t)) {
            return Err(format!("place {place} of {name} is done and runs"));
        }
    }
    let mut due: BTreeSet<String> = match service.mode() {
        Mode::ReplicatedJob { total, .. } => (0..total).map(|slot| slot.to_string()).collect(),
        _ => {
            let nodes = rest.state.nodes.values().filter(|n| has_a_place(service, n));
            nodes.map(|n| n.id.clone()).collect()
        }
    };
    if let Mode::ReplicatedJob { .. } = service.mode()
        && let Some(place) = places.keys().find(|place| !due.contains(**place))
    {
        return Err(format!("{name} has a task in slot {place}"));
    }
    let mut under_way = 0;
    for (place, tasks) in &places {
        if tasks.iter().any(|t| is_done(t)) {
            due.remove(*place);
        } else if tasks.iter().any(|t| is_under_way(t)) {
            due.remove(*place);
            under_way += 1;
        } else if tasks.iter().any(|t| slots::may_give_up(t, rest.now)) {
            // It may wait for its delay, and then counts as under way.
            under_way += u64::from(tasks.iter().any(|t| slots::waits(t, rest.now)));
            due.remove(*place);
        }
    }
    let busy =
        matches!(service.mode(), Mode::ReplicatedJob { concurrent, .. } if under_way >= concurrent);
    match due.first() {
        Some(place) if !busy => Err(format!("place {place} of {name} is neither done nor tried")),
        _ => Ok(()),
    }
}

/// Whether a global job is to run on the node now.
pub(super) fn has_a_place(service: &Service, node: &Node) -> bool {
    global::suits(service, node)
        && node.availability == Availability::Active
        && node.status.state == NodeState::Ready
}
