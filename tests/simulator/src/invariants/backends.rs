//! No backend is listed that was told to stop, or that does not run; tables never go back.
use super::Verdict;
use shoal_model::{NodeAssignment, State, TaskState};
use std::collections::BTreeMap;

/// Generation in force on each host since its daemon started.
#[derive(Default)]
pub(super) struct Backends {
    in_force: BTreeMap<usize, (u32, u64)>,
}

impl Backends {
    /// The host is another node from now on, whose tables begin anew.
    pub(super) fn another_node(&mut self, host: usize) {
        self.in_force.remove(&host);
    }

    pub(super) fn in_force(&mut self, host: usize, boot: u32, generation: u64) -> Verdict {
        match self.in_force.insert(host, (boot, generation)) {
            Some((then, before)) if then == boot && before > generation => {
                Err(format!("host {host} went from generation {before} back to {generation}"))
            }
            _ => Ok(()),
        }
    }
}

/// A node is told an assignment.
pub(super) fn told(state: &State, assignment: &NodeAssignment) -> Verdict {
    let tables = assignment.table.services.iter().flat_map(|s| &s.tasks);
    for listed in tables.filter(|t| t.serving) {
        let Some(task) = state.tasks.get(&listed.id) else {
            return Err(format!("{} is a backend and does not exist", listed.id));
        };
        if task.desired != TaskState::Running || task.status.state != TaskState::Running {
            let (state, desired) = (task.status.state, task.desired);
            return Err(format!("{} is a backend, is {state:?} and is to be {desired:?}", task.id));
        }
    }
    for listed in &assignment.tasks {
        if !state.tasks.contains_key(&listed.task.id) {
            return Err(format!("{} is assigned and does not exist", listed.task.id));
        }
    }
    Ok(())
}

/// A container gets its stop signal; `listed`: its own node's table has it as a backend.
pub(super) fn signalled(host: usize, task: &str, listed: bool) -> Verdict {
    match listed {
        true => Err(format!("host {host} stops {task}, and lists it as a backend")),
        false => Ok(()),
    }
}
