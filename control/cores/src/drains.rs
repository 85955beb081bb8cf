//! Tasks that are to stop, and who still balances to them.
//!
//! ```text
//!            told to stop              every node has applied
//! (backend) ──────────────▶ draining ──────────────────────────▶ released ──▶ (ended, forgotten)
//!                              │       a node it waits for is down     ▲
//!                              └───────────────────────────────────────┘
//! ```
//! A released task may be sent its stop signal: no node chooses it any more. Who waits how long for
//! a release is the task's node's business.
use crate::tables::{Tables, Touched};
use shoal_model::{NodeState, State, Task, TaskState};
use std::collections::{BTreeMap, BTreeSet};

/// What is known of draining tasks. Bounded by the tasks told to stop and the nodes.
///
/// `follow`, `applied` and `reconnected` take input; `poll_released` gives output.
#[derive(Debug, Default)]
pub struct Drains {
    tasks: BTreeMap<String, Drain>,
    /// Generation each node has said is in force, in its present session.
    applied: BTreeMap<String, u64>,
    /// Tasks that wait for a node.
    waiting: BTreeMap<String, BTreeSet<String>>,
    released: Vec<(String, String)>,
    /// Draining tasks that nobody is waited for, by their own nodes.
    free: BTreeMap<String, BTreeSet<String>>,
}

#[derive(Debug)]
struct Drain {
    /// The task's own node.
    node: String,
    /// Generation its leaving needs.
    generation: u64,
    /// Nodes that have not applied it yet.
    nodes: BTreeSet<String>,
}

impl Drains {
    /// Follows the state, after the tables did.
    pub fn follow(&mut self, state: &State, tables: &Tables, touched: &Touched) {
        if touched.all {
            let over = |id: &&String| !state.tasks.get(id).is_some_and(to_stop);
            let over: Vec<String> = self.tasks.keys().filter(over).cloned().collect();
            over.iter().for_each(|task| self.forget(task));
            let gone = |id: &&String| !state.nodes.contains_key(*id);
            let gone: Vec<String> = self.waiting.keys().filter(gone).cloned().collect();
            gone.iter().for_each(|node| self.excuse(node));
            for task in state.tasks.values().filter(|task| to_stop(task)) {
                self.follow_task(&task.id, Some(task), tables);
            }
            state.nodes.keys().for_each(|id| self.follow_node(state, id));
        }
        for id in &touched.tasks {
            self.follow_task(id, state.tasks.get(id), tables);
        }
        touched.nodes.iter().for_each(|id| self.follow_node(state, id));
    }

    fn follow_task(&mut self, id: &str, task: Option<&Task>, tables: &Tables) {
        match task.filter(|task| to_stop(task)) {
            Some(task) if !self.tasks.contains_key(id) => self.begin(task, tables),
            Some(_) => {}
            None => self.forget(id),
        }
    }

    fn follow_node(&mut self, state: &State, id: &str) {
        match state.nodes.get(id) {
            Some(node) if node.status.state != NodeState::Down => {}
            Some(_) => self.excuse(id),
            None => {
                self.excuse(id);
                self.applied.remove(id);
            }
        }
    }

    /// A node says which generation is in force.
    pub fn applied(&mut self, node: &str, generation: u64) {
        let known = self.applied.entry(node.to_owned()).or_default();
        *known = generation.max(*known);
        let generation = *known;
        let waiting = self.waiting.get(node).into_iter().flatten();
        let done = |task: &&String| {
            self.tasks.get(*task).is_some_and(|drain| drain.generation <= generation)
        };
        let done: Vec<String> = waiting.filter(done).cloned().collect();
        for task in done {
            self.done(&task, node);
        }
    }

    /// A node has a new session: what it said in an older one is not relied on. Returns its tasks
    /// that are released, to be told again.
    pub fn reconnected(&mut self, node: &str) -> Vec<String> {
        self.applied.remove(node);
        self.free.get(node).into_iter().flatten().cloned().collect()
    }

    /// Tasks released since the last call, by their own nodes.
    pub fn poll_released(&mut self) -> BTreeMap<String, Vec<String>> {
        let mut by_node: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (node, task) in self.released.drain(..) {
            by_node.entry(node).or_default().push(task);
        }
        by_node
    }

    /// Nodes a task still waits for; `None` when it does not drain.
    pub fn waits_for(&self, task: &str) -> Option<&BTreeSet<String>> {
        self.tasks.get(task).map(|drain| &drain.nodes)
    }

    fn begin(&mut self, task: &Task, tables: &Tables) {
        let leaving = tables.leaving(&task.id);
        let behind =
            |node: &String| self.applied.get(node).is_none_or(|at| *at < leaving.generation);
        let nodes: BTreeSet<String> = leaving.nodes.into_iter().filter(behind).collect();
        for node in &nodes {
            self.waiting.entry(node.clone()).or_default().insert(task.id.clone());
        }
        let node = task.node_id.clone().unwrap_or_default();
        if nodes.is_empty() {
            self.release(&node, &task.id);
        }
        let drain = Drain { node, generation: leaving.generation, nodes };
        self.tasks.insert(task.id.clone(), drain);
    }

    fn forget(&mut self, task: &str) {
        let Some(drain) = self.tasks.remove(task) else { return };
        for node in drain.nodes {
            no_longer(&mut self.waiting, &node, task);
        }
        no_longer(&mut self.free, &drain.node, task);
    }

    /// A node that is down balances to nobody, as far as anybody can tell.
    fn excuse(&mut self, node: &str) {
        for task in self.waiting.get(node).cloned().into_iter().flatten() {
            self.done(&task, node);
        }
    }

    fn done(&mut self, task: &str, node: &str) {
        no_longer(&mut self.waiting, node, task);
        let Some(drain) = self.tasks.get_mut(task) else { return };
        drain.nodes.remove(node);
        if drain.nodes.is_empty() {
            let node = drain.node.clone();
            self.release(&node, task);
        }
    }

    fn release(&mut self, node: &str, task: &str) {
        self.released.push((node.to_owned(), task.to_owned()));
        self.free.entry(node.to_owned()).or_default().insert(task.to_owned());
    }
}

/// Takes a task away from those of a node.
fn no_longer(of_nodes: &mut BTreeMap<String, BTreeSet<String>>, node: &str, task: &str) {
    if let Some(tasks) = of_nodes.get_mut(node) {
        tasks.remove(task);
        if tasks.is_empty() {
            of_nodes.remove(node);
        }
    }
}

/// Whether the task has a node, is told to stop, and has not ended.
fn to_stop(task: &Task) -> bool {
    task.is_assigned() && task.desired > TaskState::Running && !task.status.state.is_terminal()
}

#[cfg(test)]
mod tests;
