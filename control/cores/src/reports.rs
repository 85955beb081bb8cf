//! What nodes report of their tasks, and how much of it is taken.
use shoal_model::{
    Change, Object, State, Task, TaskState, TaskStatus,
    bugs::{self, Bug},
};
use std::collections::BTreeMap;

/// Longest text kept of a status, bytes.
const LONGEST_TEXT: usize = 4_096;

/// A report of a node about a task.
#[derive(Clone, PartialEq, Debug)]
pub struct Report {
    /// Node that says it.
    pub node: String,
    /// Task it is about.
    pub task: String,
    /// What it says.
    pub status: TaskStatus,
}

/// The tasks with what was reported of them, as far as it may be: only a task's own node may report
/// it, only states an agent owns, and never backwards.
pub fn accept(state: &State, batch: &[Report]) -> Vec<Change> {
    let mut tasks: BTreeMap<&str, Task> = BTreeMap::new();
    for report in batch {
        let present = tasks.get(report.task.as_str()).or_else(|| state.tasks.get(&report.task));
        let Some(present) = present.filter(|task| acceptable(task, report)) else { continue };
        let status = bounded(report.status.clone());
        // A node says again in each session what it has said before.
        if present.status != status {
            let task = Task { status, ..present.clone() };
            tasks.insert(&report.task, task);
        }
    }
    let changed = tasks.into_values().filter(|t| state.tasks.get(&t.id) != Some(t));
    changed.map(|task| Change::Put(Object::Task(task.into()))).collect()
}

fn acceptable(task: &Task, report: &Report) -> bool {
    let (from, to) = (task.status.state, report.status.state);
    let own = task.node_id.as_deref() == Some(&report.node) || bugs::active(Bug::ForeignReport);
    let agents = (TaskState::Accepted..=TaskState::Rejected).contains(&to);
    let forward =
        to > from && !from.is_terminal() || to == from || bugs::active(Bug::StateGoesBack);
    own && agents && forward
}

fn bounded(mut status: TaskStatus) -> TaskStatus {
    for text in [&mut status.message, &mut status.err] {
        let mut end = text.len().min(LONGEST_TEXT);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
    }
    status
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::World;

    fn taken(world: &World, node: &str, state: TaskState) -> bool {
        let task = world.tasks("web")[0];
        let mut status = task.status.clone();
        (status.state, status.message) = (state, "reported".to_owned());
        let report = Report { node: node.to_owned(), task: task.id.clone(), status };
        !accept(&world.state, &[report]).is_empty()
    }

    #[test]
    fn a_report_is_taken_from_the_tasks_node_alone_and_never_backwards() {
        let mut world = World::new();
        world.node("n1");
        world.service("web", 1, &[], |_| {});
        world.run();
        assert!(taken(&world, "n1", TaskState::Running));
        assert!(!taken(&world, "n2", TaskState::Failed), "another node's task");
        assert!(!taken(&world, "n1", TaskState::Ready), "backwards");
        assert!(!taken(&world, "n1", TaskState::Orphaned), "the manager's state");
        let task = world.tasks("web")[0].id.clone();
        world.end(&task, TaskState::Complete);
        assert!(!taken(&world, "n1", TaskState::Failed), "after its end");
    }

    #[test]
    fn long_texts_are_cut_at_a_character() {
        let mut world = World::new();
        world.node("n1");
        world.service("web", 1, &[], |_| {});
        world.run();
        let task = world.tasks("web")[0];
        let status = TaskStatus { err: "ß".repeat(LONGEST_TEXT), ..task.status.clone() };
        let report = Report { node: "n1".to_owned(), task: task.id.clone(), status };
        let Some(Change::Put(Object::Task(task))) = accept(&world.state, &[report]).pop() else {
            panic!("the report was not taken");
        };
        assert_eq!(task.status.err.len(), LONGEST_TEXT);
    }
}
