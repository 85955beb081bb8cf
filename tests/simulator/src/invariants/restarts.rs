//! A task that ended by itself is followed no sooner than its restart policy says.
use super::{Invariant, Step, Verdict};
use crate::time::Ns;
use shoal_model::{MadeBy, Task, TaskState};
use std::time::Duration;

/// Docker's default.
const DEFAULT_DELAY: Duration = Duration::from_secs(5);

pub(super) struct Restarts {
    /// How far clocks may be off: the end is dated by one leader, the start perhaps by another.
    pub(super) skew: Ns,
}

impl Invariant for Restarts {
    fn name(&self) -> &'static str {
        "restarts"
    }

    fn applied(&mut self, step: &Step<'_>) -> Verdict {
        for (old, task) in step.tasks_put() {
            let before = old.map_or(TaskState::Ready, |o| o.desired);
            if before != TaskState::Ready || task.desired != TaskState::Running {
                continue;
            }
            // A place that a rollback brings back does not wait.
            let service = step.state.services.get(&task.service_id);
            let back =
                service.and_then(|s| s.update_status.as_ref()).is_some_and(|u| u.is_rollback());
            if task.made_by != MadeBy::Restart || back {
                continue;
            }
            // The one it follows: made last before it.
            let order = step.tasks.get(&task.id).map(|f| f.order);
            let others = step.others_of_slot(task);
            let earlier = |t: &&&Task| step.tasks.get(&t.id).map(|f| f.order) < order;
            // A move that failed is nobody's predecessor; one that was lost is, if what it was to take
            // the place of had ended by then.
            let counts = |t: &&&Task| {
                t.made_by != MadeBy::Rebalance || t.times.running.is_some() || !ended_by_itself(t)
            };
            let last = others.iter().filter(counts).rfind(earlier);
            let Some(dead) = last.filter(|t| ended_by_itself(t)) else { continue };
            if dead.spec_version != task.spec_version {
                continue;
            }
            let Some(ended) = step.tasks.get(&dead.id).and_then(|f| f.ended) else { continue };
            let due = ended.after(delay(dead));
            let tolerance = i64::try_from(self.skew * 2).unwrap_or(i64::MAX);
            if step.txn.now.0 + tolerance < due.0 {
                let early = due.since(step.txn.now);
                return Err(format!("{} follows {} {early:?} too early", task.id, dead.id));
            }
        }
        Ok(())
    }
}

fn ended_by_itself(task: &Task) -> bool {
    matches!(task.status.state, TaskState::Complete | TaskState::Failed | TaskState::Rejected)
}

fn delay(task: &Task) -> Duration {
    let asked = task.spec.restart_policy.as_ref().and_then(|p| p.delay);
    asked.map_or(DEFAULT_DELAY, |ns| Duration::from_nanos(u64::try_from(ns).unwrap_or(0)))
}
