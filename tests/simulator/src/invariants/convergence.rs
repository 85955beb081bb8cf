//! In the end the cluster is as it was asked to be, everywhere.
use super::{capacity, global, may_be_current, place, places, secrets, slots, starts_first};
use crate::{
    node::{ContainerState, Image},
    world::World,
};
use shoal_cores::assignment;
use shoal_model::{
    Availability, Mode, Node, NodeState, Service, State, Task, TaskState, Timestamp, UpdateState,
};
use std::collections::BTreeSet;

impl World {
    /// Whether it is as asked for; `Ok(true)` when some service never rests, as its tasks end by
    /// themselves.
    pub(crate) fn converged(&self) -> Result<bool, String> {
        let leaders: Vec<usize> = (0..self.config.managers).filter(|m| self.serves(*m)).collect();
        let [leader] = leaders[..] else {
            return Err(format!("{} managers serve", leaders.len()));
        };
        let state = &self.peers[leader].state;
        for (m, peer) in self.peers.iter().enumerate() {
            if peer.applied != self.peers[leader].applied {
                return Err(format!("manager {m} has not applied all that manager {leader} has"));
            }
        }
        for host in 0..self.config.hosts {
            self.node_is_as_told(host, state)?;
        }
        self.identities_are_at_rest(leader)?;
        let mut restless = false;
        for service in state.services.values() {
            if secrets::misses(state, service) {
                restless = true; // its tasks are refused, again and again
                continue;
            }
            restless |= service_is_as_asked(state, service)?;
        }
        let orphans = |t: &&Task| !state.services.contains_key(&t.service_id);
        if let Some(task) = state.tasks.values().find(orphans) {
            return Err(format!("task {} has no service", task.id));
        }
        Ok(restless)
    }

    fn node_is_as_told(&self, host: usize, state: &State) -> Result<(), String> {
        let agent = &self.agents[host];
        let id = &agent.node_id;
        let node = state.nodes.get(id).ok_or(format!("{id} is not a node"))?;
        if node.status.state != NodeState::Ready || !agent.is_connected() {
            return Err(format!("{id} is {:?}", node.status.state));
        }
        self.holds_what_is_used(host, state)?;
        let due = assignment(state, id);
        let table = agent.plane.in_force.as_ref().map(|a| &a.table);
        if table != Some(&due.table) {
            return Err(format!("the table in force on {id} is not the newest"));
        }
        let runs =
            |t: &&Task| t.status.state == TaskState::Running && t.desired == TaskState::Running;
        let should: BTreeSet<&str> =
            state.tasks_of_node(id).filter(runs).map(|t| t.id.as_str()).collect();
        let running = agent.containers.iter().filter(|(_, c)| c.state == ContainerState::Running);
        let does: BTreeSet<&str> = running.map(|(task, _)| &**task).collect();
        if should != does {
            return Err(format!("{id} runs {does:?}, not {should:?}"));
        }
        let known: BTreeSet<&str> = state.tasks_of_node(id).map(|t| t.id.as_str()).collect();
        let stops = |t: &&Task| t.desired > TaskState::Running && !t.status.state.is_terminal();
        if let Some(task) = state.tasks_of_node(id).find(stops) {
            return Err(format!("{} has not stopped on {id}", task.id));
        }
        match agent.containers.keys().find(|task| !known.contains(&***task)) {
            Some(task) => Err(format!("{id} keeps a container of {task}, which is gone")),
            None => Ok(()),
        }
    }
}

/// Every place has its task, running or with a reason why not. `Ok(true)`: it never rests.
fn service_is_as_asked(state: &State, service: &Service) -> Result<bool, String> {
    let name = service.name();
    let places = places(state, service);
    match service.mode() {
        Mode::Replicated { replicas } => {
            if places.len() as u64 != replicas {
                return Err(format!("{name} has {} slots of {replicas}", places.len()));
            }
            for (slot, tasks) in &places {
                is_up_to_date(service, tasks)?;
                place_is_well(state, tasks).map_err(|e| format!("slot {slot} of {name}: {e}"))?;
            }
        }
        Mode::ReplicatedJob { .. } | Mode::GlobalJob => {
            // What is left to do has a reason: jobs' own invariant says that it is tried.
            for (place, tasks) in &places {
                let living =
                    tasks.iter().filter(|t| slots::is_wanted(t) && !t.status.state.is_terminal());
                for task in living {
                    let ends = matches!(image(task), Image::Task | Image::Moody | Image::Once);
                    if ends && task.status.state >= TaskState::Assigned {
                        return Err(format!("{} of place {place} of {name} is to end", task.id));
                    }
                    task_is_well(state, task).map_err(|e| format!("{place} of {name}: {e}"))?;
                }
            }
            return Ok(false);
        }
        Mode::Global => {
            for node in state.nodes.values() {
                let tasks = places.get(node.id.as_str()).map(Vec::as_slice).unwrap_or_default();
                let idle = !tasks.iter().any(|t| slots::is_wanted(t));
                let may_be_idle =
                    node.availability == Availability::Pause || !global::suits(service, node);
                if !(idle && may_be_idle) {
                    place_is_well(state, tasks)
                        .map_err(|e| format!("{name} on {}: {e}", node.id))?;
                }
            }
        }
    }
    Ok(places.values().flatten().any(|t| image(t) == Image::Once))
}

/// Where an update or a way back is complete, nothing is of another version, unless its successor
/// was to start first, failed, and is not tried again.
fn is_up_to_date(service: &Service, tasks: &[&Task]) -> Result<(), String> {
    use UpdateState::{Completed, RollbackCompleted};
    let state = service.update_status.as_ref().map(|u| u.state);
    let given_up = |old: &Task| {
        tasks.iter().any(|t| {
            t.status.state.is_terminal()
                && place(t) == place(old)
                && may_be_current(service, t)
                && slots::may_give_up(t, Timestamp(i64::MAX))
        })
    };
    let old = |t: &&&Task| {
        let runs = slots::is_wanted(t) && t.status.state == TaskState::Running;
        let stays = starts_first(service) && given_up(t);
        runs && !may_be_current(service, t) && !stays
    };
    match tasks.iter().find(old) {
        Some(task) if matches!(state, None | Some(Completed | RollbackCompleted)) => {
            Err(format!("{} is of an older version, and the update is {state:?}", task.id))
        }
        _ => Ok(()),
    }
}

fn place_is_well(state: &State, tasks: &[&Task]) -> Result<(), String> {
    let wanted: Vec<&Task> = tasks.iter().copied().filter(|t| slots::is_wanted(t)).collect();
    match wanted[..] {
        [] if tasks.iter().any(|t| slots::may_give_up(t, Timestamp(i64::MAX))) => Ok(()),
        [] => Err("it has no task".to_owned()),
        [task] => task_is_well(state, task),
        // The update of a `start-first` service cannot go on: the old task does.
        [a, b] => {
            let waits = |t: &Task| t.status.state < TaskState::Assigned;
            if !(waits(a) || waits(b)) {
                return Err("it has two tasks".to_owned());
            }
            task_is_well(state, a)?;
            task_is_well(state, b)
        }
        _ => Err(format!("it has {} tasks", wanted.len())),
    }
}

fn image(task: &Task) -> Image {
    let container = task.spec.container_spec.as_ref();
    Image::of(container.and_then(|c| c.image.as_deref()).unwrap_or_default())
}

fn task_is_well(state: &State, task: &Task) -> Result<(), String> {
    if image(task) == Image::Once {
        return Ok(()); // it comes and goes
    }
    match task.status.state {
        TaskState::Running if task.desired == TaskState::Running => Ok(()),
        TaskState::New if !task.status.err.is_empty() => Ok(()),
        TaskState::Pending => {
            let could = |n: &&Node| {
                task.node_id.as_ref().is_none_or(|own| *own == n.id)
                    && capacity::refusal(state, task, n, None).is_none()
            };
            match state.nodes.values().find(could) {
                Some(node) => Err(format!("{} waits, and {} could take it", task.id, node.id)),
                None if task.status.err.is_empty() => {
                    Err(format!("{} waits without a reason", task.id))
                }
                None => Ok(()),
            }
        }
        // Prepared, and its turn does not come as another task of the slot is wanted first.
        other => Err(format!("{} is {other:?} and is to be {:?}", task.id, task.desired)),
    }
}
