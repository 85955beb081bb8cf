//! A replacement is told to run only when its predecessor has stopped, is out of reach, or has had a
//! minute for it. (A task to be removed is nobody's predecessor: its slot was given up, and is new.)
use super::{Invariant, Step, Verdict};
use shoal_model::{NodeState, Task, TaskState};
use std::time::Duration;

/// Swarm's bound for the wait.
const WAIT: Duration = Duration::from_secs(60);

pub(super) struct Replacement;

impl Invariant for Replacement {
    fn name(&self) -> &'static str {
        "replacement"
    }

    fn applied(&mut self, step: &Step<'_>) -> Verdict {
        for (old, task) in step.tasks_put() {
            let told = old.is_some_and(|o| o.desired == TaskState::Ready)
                && task.desired == TaskState::Running;
            if !told || step.txn.now >= task.meta.created.after(WAIT) {
                continue;
            }
            let reachable = |t: &Task| {
                let node = t.node_id.as_ref().and_then(|n| step.state.nodes.get(n));
                // Changed since the orchestrator looked: then it could not know.
                node.is_some_and(|n| {
                    n.status.state != NodeState::Down && n.meta.version <= step.txn.read
                })
            };
            let stopping =
                |t: &&&Task| t.desired == TaskState::Shutdown && !t.status.state.is_terminal();
            let others = step.others_of_slot(task);
            if let Some(other) = others.iter().filter(stopping).find(|t| reachable(t)) {
                return Err(format!(
                    "{} (version {}) is to run while {} (version {}, {:?}, desired {:?}) is still stopping",
                    task.id,
                    task.spec_version,
                    other.id,
                    other.spec_version,
                    other.status.state,
                    other.desired
                ));
            }
        }
        Ok(())
    }
}
