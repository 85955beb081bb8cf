//! When a task that ended is run again.
use crate::spec::nanos;
use shoal_model::{Task, TaskState, docker::TaskSpecRestartPolicyConditionEnum as Condition};
use std::time::Duration;

/// Docker's default delay between the end of a task and the start of its replacement.
const DEFAULT_DELAY: Duration = Duration::from_secs(5);

/// How long after its end the replacement of `task` starts.
pub(crate) fn delay(task: &Task) -> Duration {
    task.spec.restart_policy.as_ref().and_then(|p| p.delay).map_or(DEFAULT_DELAY, nanos)
}

/// Most restarts of a slot; 0 for no limit.
pub(crate) fn max_attempts(task: &Task) -> usize {
    let asked = task.spec.restart_policy.as_ref().and_then(|p| p.max_attempts).unwrap_or(0);
    usize::try_from(asked).unwrap_or(0)
}

/// Whether the task came to its end by itself, not because it was told to.
pub(crate) fn ended_by_itself(task: &Task) -> bool {
    matches!(task.status.state, TaskState::Complete | TaskState::Failed | TaskState::Rejected)
}

/// Whether `dead` is to be replaced. `slot` are the tasks of its slot. The answer depends on nothing
/// that changes later, so that a slot once given up stays so until its specification changes.
pub(crate) fn wanted(dead: &Task, slot: &[&Task]) -> bool {
    let policy = dead.spec.restart_policy.as_ref();
    match policy.and_then(|p| p.condition) {
        Some(Condition::NONE) => return false,
        Some(Condition::ON_FAILURE) if dead.status.state == TaskState::Complete => return false,
        _ => {}
    }
    let limit = max_attempts(dead);
    if limit == 0 {
        return true;
    }
    let window = policy.and_then(|p| p.window).map(nanos).filter(|w| !w.is_zero());
    let since = dead.status.since;
    let counts = |t: &&&Task| {
        t.spec_version == dead.spec_version
            && ended_by_itself(t)
            && t.status.since <= since
            && window.is_none_or(|w| since.since(t.status.since) <= w)
    };
    slot.iter().filter(counts).count() <= limit
}
