//! How many ended tasks of a slot are kept for `docker service ps`.
use crate::restart;
use shoal_model::{Change, Cluster, ObjectKind, Task, TaskState};

/// Docker's default, where the cluster's specification does not say.
const DEFAULT_LIMIT: i64 = 5;

/// What a negative limit (Docker: unlimited) means here.
const MOST_KEPT: usize = 1_000;

/// Tasks a slot may have, living and ended together (as Docker counts).
pub(crate) fn limit(cluster: Option<&Cluster>) -> usize {
    let asked = cluster.and_then(|c| c.spec.orchestration.as_ref());
    let asked = asked.and_then(|o| o.task_history_retention_limit).unwrap_or(DEFAULT_LIMIT);
    usize::try_from(asked).unwrap_or(MOST_KEPT)
}

/// Deletions of the oldest ended tasks of a slot beyond the limit. `slot` is newest first. Enough are
/// kept to count restarts, and the newest is always kept: a slot that has given up must not look
/// like one that never began.
pub(crate) fn reap(slot: &[&Task], limit: usize) -> Vec<Change> {
    let attempts = slot.first().map_or(0, |t| restart::max_attempts(t));
    let keep = limit.max(if attempts > 0 { attempts.saturating_add(1) } else { 1 });
    let surplus = slot.len().saturating_sub(keep);
    let over = |t: &&&Task| t.status.state.is_terminal() && t.desired > TaskState::Running;
    let oldest_first = slot.iter().skip(1).rev();
    oldest_first
        .filter(over)
        .take(surplus)
        .map(|t| Change::Delete(ObjectKind::Task, t.id.clone()))
        .collect()
}
