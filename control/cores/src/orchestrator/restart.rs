//! When a task that ended is run again.
use super::{plan::Plan, slots::is_live};
use crate::spec::nanos;
use shoal_model::{
    MadeBy, Service, Task, TaskState,
    bugs::{self, Bug},
    docker::TaskSpecRestartPolicyConditionEnum as Condition,
};
use std::time::Duration;

/// Docker's default delay between the end of a task and the start of its replacement.
const DEFAULT_DELAY: Duration = Duration::from_secs(5);

/// How long after its end the replacement of `task` starts.
pub(super) fn delay(task: &Task) -> Duration {
    task.spec.restart_policy.as_ref().and_then(|p| p.delay).map_or(DEFAULT_DELAY, nanos)
}

/// Most restarts of a place; 0 for no limit.
pub(super) fn max_attempts(task: &Task) -> usize {
    let asked = task.spec.restart_policy.as_ref().and_then(|p| p.max_attempts).unwrap_or(0);
    usize::try_from(asked).unwrap_or(0)
}

/// Whether the task came to its end by itself, not because it was told to.
pub(super) fn ended_by_itself(task: &Task) -> bool {
    matches!(task.status.state, TaskState::Complete | TaskState::Failed | TaskState::Rejected)
}

/// Whether `last` is to be replaced, by the policy it was made with. `slot` are the tasks of its
/// place, newest first.
///
/// What counts are restarts since the specification is what it is; with a window, those made within
/// it before the end of `last`, or before it was told to stop as its node was lost. The answer depends on
/// nothing that changes later, as that end, which may be reported late: a place once given up stays so
/// until its specification changes.
pub(super) fn wanted(plan: &Plan<'_>, service: &Service, last: &Task, slot: &[&Task]) -> bool {
    let policy = last.spec.restart_policy.as_ref();
    let complete = last.status.state == TaskState::Complete;
    match policy.and_then(|p| p.condition) {
        Some(Condition::NONE) => return false,
        Some(Condition::ON_FAILURE) if complete => return false,
        // A job that has been done is not done again.
        _ if complete && service.mode().is_job() => return bugs::active(Bug::RunAgain),
        _ => {}
    }
    let limit = max_attempts(last);
    if limit == 0 {
        return true;
    }
    let window = policy.and_then(|p| p.window).map(nanos).filter(|w| !w.is_zero());
    let known = [last.times.told, last.times.ended].into_iter().flatten().min();
    // One that is wanted and has not ended is told to stop now.
    let end = known.unwrap_or(if is_live(last) { plan.now } else { last.status.since });
    let same = slot
        .iter()
        .skip_while(|t| t.id != last.id)
        .take_while(|t| t.spec_version == last.spec_version);
    let restarts = same.filter(|t| t.made_by == MadeBy::Restart);
    restarts.filter(|t| window.is_none_or(|w| t.meta.created.after(w) > end)).count() < limit
}

#[cfg(test)]
mod tests;
