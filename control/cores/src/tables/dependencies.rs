//! Which secrets and configs a node is told: those its tasks use, from the moment they are told to it until
//! they have ended.
use super::{Needed, OfTask, Own, Tables, one_less};
use shoal_model::{
    RowKey, State,
    bugs::{self, Bug},
};

impl Tables {
    /// Counts what a task's node must have.
    pub(super) fn needed(&mut self, state: &State, before: &OfTask, now: &OfTask) {
        if before.node == now.node && before.needs == now.needs {
            return;
        }
        // First what comes: what a task and its successor both use is not taken away between.
        if let Some(node) = &now.node {
            for needed in &now.needs {
                *self.node(node).needs.entry(needed.clone()).or_default() += 1;
                self.dependency_row(state, node, needed);
                if bugs::active(Bug::TellAllSecrets) {
                    let nodes: Vec<String> = self.nodes.keys().cloned().collect();
                    nodes.iter().for_each(|node| self.dependency_row(state, node, needed));
                }
            }
        }
        if let Some(node) = &before.node {
            for needed in &before.needs {
                let needs = &mut self.node(node).needs;
                one_less(needs, needed);
                if bugs::active(Bug::TakeSharedSecret) {
                    needs.remove(needed);
                }
                self.dependency_row(state, node, needed);
            }
        }
    }

    /// A secret or a config was made, labelled anew, or removed though tasks still use it.
    pub(super) fn touch_dependency(&mut self, state: &State, needed: &Needed) {
        // Seldom: one that a service refers to is not removed.
        let needing = self.nodes.iter().filter(|(_, node)| node.needs.contains_key(needed));
        let needing: Vec<String> = needing.map(|(id, _)| id.clone()).collect();
        for node in needing {
            self.dependency_row(state, &node, needed);
        }
    }

    fn dependency_row(&mut self, state: &State, node: &str, needed: &Needed) {
        let version = self.version;
        let (kind, id) = needed;
        let there = state.dependencies(*kind).contains_key(id);
        let of_node = self.node(node);
        let key = RowKey::Dependency(*kind, id.clone());
        let kept = bugs::active(Bug::KeepSecret) && of_node.own.version_of(&key).is_some();
        let needs = of_node.needs.contains_key(needed) || bugs::active(Bug::TellAllSecrets);
        let row = (there && (needs || kept)).then_some(Own::Dependency);
        if of_node.own.set(version, key, row) {
            self.concern_node(node);
        }
    }
}
