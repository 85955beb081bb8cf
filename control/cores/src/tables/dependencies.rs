//! Which secrets and configs a node is told: those its tasks use, from the moment they are told to it until
//! they have ended.
use super::{Needed, OfTask, Own, Tables, one_less};
use shoal_model::{RowKey, State};

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
            }
        }
        if let Some(node) = &before.node {
            for needed in &before.needs {
                one_less(&mut self.node(node).needs, needed);
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
        let told = there && of_node.needs.contains_key(needed);
        let row = told.then_some(Own::Dependency);
        if of_node.own.set(version, RowKey::Dependency(*kind, id.clone()), row) {
            self.concern_node(node);
        }
    }
}
