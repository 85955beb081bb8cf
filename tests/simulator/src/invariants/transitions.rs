//! A task's transitions are made by their owners alone, and never backwards.
//!
//! | from → to | owner |
//! |---|---|
//! | nothing → `New`, with its node where that is its place or it is moved there; the desired state; removal; → `Orphaned`, → `Rejected` by its node's change | orchestrator |
//! | `New` → `Pending` | allocator |
//! | `Pending` → `Assigned`, with the node | scheduler |
//! | → `Accepted` … `Rejected` | the task's node |
use super::{Invariant, Step, Verdict, place};
use crate::log::Author;
use shoal_model::{Change, MadeBy, ObjectKind, Task, TaskState};

pub(super) struct Transitions;

impl Invariant for Transitions {
    fn name(&self) -> &'static str {
        "transitions"
    }

    fn applied(&mut self, step: &Step<'_>) -> Verdict {
        for (old, new) in step.tasks_put() {
            match old {
                None => made(step, new)?,
                Some(old) => changed(&step.txn.author, old, new)?,
            }
        }
        for change in &step.txn.changes {
            if let Change::Delete(ObjectKind::Task, id) = change
                && step.txn.author != Author::Orchestrator
            {
                return Err(format!("task {id} was removed by the {}", step.txn.author.word()));
            }
        }
        Ok(())
    }
}

fn made(step: &Step<'_>, task: &Task) -> Verdict {
    let author = &step.txn.author;
    let service = step.state.services.get(&task.service_id);
    // Where a node is the place, a task has it from the beginning, and so has one that is moved.
    let by_node = service.is_some_and(|s| s.mode().is_global());
    let node = by_node.then(|| place(task));
    let moved = task.made_by == MadeBy::Rebalance && task.node_id.is_some();
    let fresh = task.status.state == TaskState::New
        && (task.node_id.as_deref() == node || moved || service.is_none())
        && task.networks.is_empty()
        && task.desired <= TaskState::Running;
    match *author == Author::Orchestrator && fresh {
        true => Ok(()),
        false => Err(format!(
            "task {} was made by the {} as {:?}",
            task.id,
            author.word(),
            task.status.state
        )),
    }
}

fn changed(author: &Author, old: &Task, new: &Task) -> Verdict {
    use TaskState as S;
    let (from, to) = (old.status.state, new.status.state);
    let wrong = |what: String| {
        Err(format!(
            "task {} ({from:?}, desired {:?}): {what} by the {}",
            old.id,
            old.desired,
            author.word()
        ))
    };
    if to < from {
        return wrong(format!("back to {to:?}"));
    }
    if new.desired < old.desired {
        return wrong(format!("desired back to {:?}", new.desired));
    }
    if new.desired != old.desired && *author != Author::Orchestrator {
        return wrong(format!("desired {:?}", new.desired));
    }
    let identity = |t: &Task| (t.service_id.clone(), t.slot, t.spec_version, t.name.clone());
    if identity(old) != identity(new) {
        return wrong("made another task's".to_owned());
    }
    if old.node_id != new.node_id && (*author != Author::Scheduler || old.node_id.is_some()) {
        return wrong(format!("given node {:?}", new.node_id));
    }
    if old.networks != new.networks && *author != Author::Allocator {
        return wrong("given addresses".to_owned());
    }
    if to == from {
        return Ok(());
    }
    let owner = match author {
        Author::Allocator => (from, to) == (S::New, S::Pending),
        Author::Scheduler => (from, to) == (S::Pending, S::Assigned) && new.node_id.is_some(),
        // Rejected: its node may not keep it, or does not take it.
        Author::Orchestrator => matches!(to, S::Orphaned | S::Rejected) && !from.is_terminal(),
        Author::Nodes(reports) => {
            let reporters = reports.iter().filter(|r| r.task == new.id && r.status.state == to);
            let own = |r: &shoal_cores::Report| Some(&r.node) == new.node_id.as_ref();
            (S::Accepted..=S::Rejected).contains(&to)
                && !from.is_terminal()
                && reporters.into_iter().any(own)
        }
        Author::Founder | Author::Manager | Author::Client(_) => false,
    };
    if owner { Ok(()) } else { wrong(format!("to {to:?}")) }
}
