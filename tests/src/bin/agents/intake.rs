//! What a node is told, taken in with as little work as it can be. Pure.
//!
//! An agent reads every row and puts them all together. Here only the node's own tasks are read;
//! rows about others are counted. That a difference fits what was told before is checked as an agent
//! does.

use anyhow::Context as _;
use serde::Deserialize;
use shoal_model::{NodeAssignment, RowKey, TaskState, WrongBase};
use shoal_rpc::Assignment;

/// How the rows of a node's own tasks begin.
const TASK_ROW: &[u8] = br#"{"Task""#;
/// How the rows of other nodes begin.
const PEER_ROW: &[u8] = br#"{"Peer""#;

/// What the node is to do with a task.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Wish {
    pub(crate) task: String,
    pub(crate) desired: TaskState,
    /// What the manager knows of it.
    pub(crate) known: TaskState,
}

/// What came of a message that completed a difference.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Told {
    pub(crate) generation: u64,
    /// What is not named is not to be done any more.
    pub(crate) whole: bool,
    pub(crate) wishes: Vec<Wish>,
    pub(crate) gone: Vec<String>,
    /// Other nodes named in it.
    pub(crate) peers: usize,
}

/// One for each session.
#[derive(Debug, Default)]
pub(crate) struct Intake {
    generation: u64,
    /// Parts so far of a difference that is not complete.
    parts: Told,
    /// The whole was asked for.
    asked: bool,
}

#[derive(Deserialize)]
enum OwnRow {
    Task(Assigned),
}

#[derive(Deserialize)]
struct Assigned {
    task: Task,
}

#[derive(Deserialize)]
struct Task {
    id: String,
    desired: TaskState,
    status: Status,
}

#[derive(Deserialize)]
struct Status {
    state: TaskState,
}

impl Intake {
    /// Takes a message; gives what is to be done once it is all there.
    pub(crate) fn take(
        &mut self,
        part: &Assignment,
    ) -> anyhow::Result<Result<Option<Told>, WrongBase>> {
        let (generation, whole) = (part.generation, part.whole);
        if (self.parts.generation, self.parts.whole) != (generation, whole) {
            self.parts = Told { generation, whole, ..Told::default() };
        }
        for key in &part.gone {
            if let RowKey::Task(task) = serde_json::from_slice(key).context("a bad key")? {
                self.parts.gone.push(task);
            }
        }
        for row in &part.rows {
            if row.starts_with(TASK_ROW) {
                let OwnRow::Task(Assigned { task }) =
                    serde_json::from_slice(row).context("a bad row")?;
                let Task { id: task, desired, status } = task;
                self.parts.wishes.push(Wish { task, desired, known: status.state });
            }
            self.parts.peers += usize::from(row.starts_with(PEER_ROW));
        }
        if part.more {
            return Ok(Ok(None));
        }
        let told = std::mem::take(&mut self.parts);
        if !whole && part.base != self.generation {
            let wrong = WrongBase { base: part.base, present: self.generation };
            let first = !std::mem::replace(&mut self.asked, true);
            return Ok(if first { Err(wrong) } else { Ok(None) });
        }
        (self.generation, self.asked) = (generation, false);
        Ok(Ok(Some(told)))
    }
}

/// The same of an assignment that an agent put together.
pub(crate) fn told(assignment: &NodeAssignment) -> Told {
    let wishes = assignment.tasks.iter().map(|assigned| Wish {
        task: assigned.task.id.clone(),
        desired: assigned.task.desired,
        known: assigned.task.status.state,
    });
    Told {
        generation: assignment.generation,
        whole: true,
        wishes: wishes.collect(),
        gone: Vec::new(),
        peers: assignment.table.peers.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(id: &str) -> Vec<u8> {
        let row = serde_json::json!({ "Task": { "service_name": "web", "task": {
            "id": id, "slot": 1, "desired": "Running", "status": { "state": "Assigned", "err": "" },
        } } });
        row.to_string().into_bytes()
    }

    fn part(generation: u64, base: Option<u64>, rows: Vec<Vec<u8>>, more: bool) -> Assignment {
        let gone = vec![serde_json::to_vec(&RowKey::Task("old".into())).unwrap()];
        let whole = base.is_none();
        let rows = rows.into_iter().map(Into::into).collect();
        Assignment { generation, whole, base: base.unwrap_or_default(), gone, rows, more }
    }

    #[test]
    fn own_tasks_are_read_and_others_rows_counted_over_all_parts() {
        let mut intake = Intake::default();
        let peer = br#"{"Peer":{"node_id":"n"}}"#.to_vec();
        let first = part(5, None, vec![own("a"), peer.clone()], true);
        assert_eq!(intake.take(&first).unwrap(), Ok(None));
        let told = intake.take(&part(5, None, vec![peer, own("b")], false)).unwrap();
        let told = told.unwrap().unwrap();
        let tasks: Vec<&str> = told.wishes.iter().map(|wish| wish.task.as_str()).collect();
        assert_eq!((tasks, told.peers, told.gone.len()), (vec!["a", "b"], 2, 2));
        assert_eq!(told.wishes[0].known, TaskState::Assigned);
    }

    #[test]
    fn a_difference_to_something_else_asks_for_the_whole_once() {
        let mut intake = Intake::default();
        let stray = part(6, Some(5), vec![own("a")], false);
        assert_eq!(intake.take(&stray).unwrap(), Err(WrongBase { base: 5, present: 0 }));
        assert_eq!(intake.take(&stray).unwrap(), Ok(None));
        assert!(intake.take(&part(7, None, vec![], false)).unwrap().unwrap().is_some());
        let next = intake.take(&part(9, Some(7), vec![own("b")], false)).unwrap().unwrap();
        assert_eq!(next.unwrap().generation, 9);
    }
}
