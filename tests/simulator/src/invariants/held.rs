//! What a node holds of secrets and configs: in memory what its manager told it last, in a container's files
//! what its task refers to while it runs; nothing of them is written with the assignment. A task is refused
//! for want of one only when it is gone.
use super::{Verdict, secrets};
use crate::world::World;
use shoal_model::{DependencyKind, NodeAssignment, State};

/// A node has written an assignment.
pub(super) fn written(host: usize, kept: &NodeAssignment) -> Verdict {
    match kept.dependencies.first() {
        Some(payload) => {
            Err(format!("host {host} has {} {} on its disk", payload.kind, payload.name))
        }
        None => Ok(()),
    }
}

/// A node that has been told what its tasks need refuses one of them, as it lacks something.
pub(super) fn refused(state: &State, task: &str, kind: DependencyKind, id: &str) -> Verdict {
    // One that has ended before its daemon started again is told without what it used.
    let over = state.tasks.get(task).is_none_or(|task| task.status.state.is_terminal());
    match !over && state.dependencies(kind).contains_key(id) {
        true => Err(format!("{task} is refused for want of {kind} {id}, which is there")),
        false => Ok(()),
    }
}

impl World {
    /// In the end: a node holds what its tasks use, and nothing else.
    pub(super) fn holds_what_is_used(&self, host: usize, state: &State) -> Result<(), String> {
        let agent = &self.agents[host];
        let id = &agent.node_id;
        let used = secrets::used(state, id);
        if let Some(held) = agent.holds().find(|p| !used.contains(&(p.kind, p.id.clone()))) {
            return Err(format!(
                "{id} holds {} {}, and no task there uses it",
                held.kind, held.name
            ));
        }
        let there =
            |(kind, id): &&(DependencyKind, String)| state.dependencies(*kind).contains_key(id);
        let lacks = |(kind, id): &&(DependencyKind, String)| {
            !agent.knows().any(|p| p.kind == *kind && p.id == *id)
        };
        match used.iter().filter(there).find(lacks) {
            Some((kind, dependency)) => Err(format!("{id} does not know {kind} {dependency}")),
            None => Ok(()),
        }
    }
}
