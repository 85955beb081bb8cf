//! How many ended tasks of a place are kept for `docker service ps`.
use super::{
    plan::Plan,
    rebalance, restart,
    slots::{self, Slots},
    updater,
};
use shoal_model::{
    Cluster, Service, Task, TaskState,
    bugs::{self, Bug},
};

/// Docker's default, where the cluster's specification does not say.
const DEFAULT_LIMIT: i64 = 5;

/// What a negative limit (Docker: unlimited) means here.
const MOST_KEPT: usize = 1_000;

/// Forgets the oldest ended tasks of each place beyond the limit.
///
/// Kept beyond it are: the newest, as a place that has given up must not look like one that never
/// began; of a job what has ended well in its present iteration; enough to count restarts; what the
/// update that goes on has to count; and a failed move until it may be tried again.
pub(super) fn reap<'a>(plan: &mut Plan<'a>, service: &Service, slots: &Slots<'a>) {
    let limit = limit(plan.state.cluster.as_ref());
    let in_progress = service.update_status.as_ref().is_some_and(|u| u.in_progress());
    for slot in slots.values() {
        let attempts = slot.first().map_or(0, |t| restart::max_attempts(t));
        let keep = limit.max(if attempts > 0 { attempts.saturating_add(1) } else { 1 });
        let surplus = slot.len().saturating_sub(keep);
        if surplus == 0 || bugs::active(Bug::KeepHistory) {
            continue;
        }
        let oldest_first = slot.iter().skip(1).rev().copied();
        let ended = oldest_first.filter(|t| {
            // What a job has done stays wanted, as it were; of earlier iterations it is history.
            t.status.state.is_terminal() && (!slots::is_live(t) || t.job_iteration.is_some())
        });
        // Without the one that ended well its place would be run again.
        let ended = ended.filter(|t| !is_done(service, t));
        let counted = |t: &Task| in_progress && updater::is_of_update(service, t);
        let needless = ended.filter(|t| !counted(t) && !rebalance::backs_off(plan, t));
        let surplus: Vec<&Task> = needless.take(surplus).collect();
        surplus.into_iter().for_each(|task| plan.delete(task));
    }
}

/// Whether the task ended well in the job's present iteration.
fn is_done(service: &Service, task: &Task) -> bool {
    task.status.state == TaskState::Complete
        && task.job_iteration.is_some()
        && task.job_iteration == service.iteration()
}

/// Tasks a place may have, living and ended together (as Docker counts).
fn limit(cluster: Option<&Cluster>) -> usize {
    let asked = cluster.and_then(|c| c.spec.orchestration.as_ref());
    let asked = asked.and_then(|o| o.task_history_retention_limit).unwrap_or(DEFAULT_LIMIT);
    usize::try_from(asked).unwrap_or(MOST_KEPT)
}
