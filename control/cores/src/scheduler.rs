//! Nodes for tasks: spread.
use crate::filters::{Filters, explain, reservations};
use shoal_model::{Change, Object, State, Task, TaskState, Timestamp};
use std::collections::BTreeMap;

/// What a node carries.
#[derive(Clone, Default)]
pub(crate) struct Load {
    tasks: u64,
    by_service: BTreeMap<String, u64>,
    pub(crate) nano_cpus: i64,
    pub(crate) memory_bytes: i64,
}

impl Load {
    fn add(&mut self, task: &Task) {
        let (nano_cpus, memory_bytes) = reservations(task);
        self.tasks += 1;
        *self.by_service.entry(task.service_id.clone()).or_default() += 1;
        self.nano_cpus = self.nano_cpus.saturating_add(nano_cpus);
        self.memory_bytes = self.memory_bytes.saturating_add(memory_bytes);
    }

    fn of_service(&self, service: &str) -> u64 {
        self.by_service.get(service).copied().unwrap_or(0)
    }
}

/// Gives each `Pending` task the node with the fewest tasks of its service, then with the fewest
/// tasks, then with the lowest id, among those that may take it. Where none may, the task says why.
pub fn schedule(state: &State, now: Timestamp) -> Vec<Change> {
    let mut loads: BTreeMap<&str, Load> =
        state.nodes.keys().map(|id| (id.as_str(), Load::default())).collect();
    for task in state.tasks.values().filter(|t| !t.status.state.is_terminal()) {
        // One told to stop still holds its reservation, but does not count for the spread.
        let Some(load) = task.node_id.as_deref().and_then(|n| loads.get_mut(n)) else { continue };
        if task.desired <= TaskState::Running {
            load.add(task);
        } else {
            let (nano_cpus, memory_bytes) = reservations(task);
            load.nano_cpus = load.nano_cpus.saturating_add(nano_cpus);
            load.memory_bytes = load.memory_bytes.saturating_add(memory_bytes);
        }
    }
    let waiting =
        |t: &&Task| t.status.state == TaskState::Pending && t.desired <= TaskState::Running;
    let mut tasks: Vec<&Task> = state.tasks.values().filter(waiting).collect();
    tasks.sort_by_key(|t| (t.meta.created, &t.service_id, t.slot, &t.id));
    let place = |task| place(state, task, &mut loads, now);
    tasks.into_iter().filter_map(place).collect()
}

fn place(
    state: &State,
    task: &Task,
    loads: &mut BTreeMap<&str, Load>,
    now: Timestamp,
) -> Option<Change> {
    let filters = Filters::of(task);
    let mut refusals = Vec::new();
    let mut best: Option<(u64, u64, &str)> = None;
    for node in state.nodes.values() {
        let Some(load) = loads.get(node.id.as_str()) else { continue };
        let of_service = load.of_service(&task.service_id);
        match filters.refusal(node, load, of_service) {
            Some(refusal) => refusals.push(refusal),
            None => {
                let candidate = (of_service, load.tasks, node.id.as_str());
                best = Some(best.map_or(candidate, |b| b.min(candidate)));
            }
        }
    }
    let mut task = task.clone();
    match best {
        Some((_, _, node)) => {
            if let Some(load) = loads.get_mut(node) {
                load.add(&task);
            }
            task.node_id = Some(node.to_owned());
            task.status.state = TaskState::Assigned;
            task.status.since = now;
            task.status.message = "scheduler assigned task to node".to_owned();
            task.status.err = String::new();
        }
        None => {
            let err = explain(&refusals);
            if task.status.err == err {
                return None;
            }
            task.status.err = err;
        }
    }
    Some(Change::Put(Object::Task(task)))
}

#[cfg(test)]
mod tests;
