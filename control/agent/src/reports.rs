//! What tasks are, as told to the manager: each state at least once, again after a reconnection.
use shoal_model::{TaskState, TaskStatus};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, PoisonError},
};
use tokio::sync::Notify;

/// Statuses sent in one message; the rest follow in the next.
const MOST_AT_ONCE: usize = 500;

/// The node's own record of its tasks' statuses. Bounded by the number of assigned tasks.
#[derive(Debug, Default)]
pub struct Reports {
    inner: Mutex<Inner>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    statuses: BTreeMap<String, TaskStatus>,
    unsent: BTreeSet<String>,
}

impl Reports {
    /// Notes a status, to be sent. A state never goes back: such a status is refused.
    pub fn report(&self, task: &str, status: TaskStatus) {
        let mut inner = self.lock();
        if inner.statuses.get(task).is_some_and(|s| s.state > status.state) {
            return;
        }
        tracing::info!(task, state = status.state.as_str(), err = status.err, "task");
        inner.statuses.insert(task.to_owned(), status);
        inner.unsent.insert(task.to_owned());
        drop(inner);
        self.changed.notify_one();
    }

    /// The last status of a task.
    pub fn get(&self, task: &str) -> Option<TaskStatus> {
        self.lock().statuses.get(task).cloned()
    }

    /// Forgets a task that is no longer assigned.
    pub fn forget(&self, task: &str) {
        let mut inner = self.lock();
        inner.statuses.remove(task);
        inner.unsent.remove(task);
    }

    /// A new session: everything is to be sent again.
    pub(crate) fn resend(&self) {
        let mut inner = self.lock();
        inner.unsent = inner.statuses.keys().cloned().collect();
        drop(inner);
        self.changed.notify_one();
    }

    /// Waits for something to send, and takes it, as much as goes into a message.
    pub(crate) async fn take(&self) -> Vec<(String, TaskStatus)> {
        loop {
            let taken = {
                let mut inner = self.lock();
                let mut unsent = std::mem::take(&mut inner.unsent);
                if unsent.len() > MOST_AT_ONCE {
                    let rest = unsent.iter().nth(MOST_AT_ONCE).cloned().unwrap_or_default();
                    inner.unsent = unsent.split_off(&rest);
                }
                let known = unsent.into_iter().filter_map(|task| {
                    let status = inner.statuses.get(&task)?.clone();
                    Some((task, status))
                });
                known.collect::<Vec<_>>()
            };
            if !taken.is_empty() {
                return taken;
            }
            self.changed.notified().await;
        }
    }

    /// Tasks by state, for metrics.
    pub(crate) fn by_state(&self) -> BTreeMap<TaskState, u64> {
        let mut counts = BTreeMap::new();
        for status in self.lock().statuses.values() {
            *counts.entry(status.state).or_default() += 1;
        }
        counts
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shoal_model::Timestamp;

    fn status(state: TaskState) -> TaskStatus {
        TaskStatus {
            state,
            since: Timestamp(1),
            message: String::new(),
            err: String::new(),
            container: None,
        }
    }

    #[tokio::test]
    async fn a_state_never_goes_back_and_is_sent_again_to_a_new_session() {
        let reports = Reports::default();
        reports.report("t", status(TaskState::Running));
        reports.report("t", status(TaskState::Preparing));
        let sent = reports.take().await;
        assert_eq!(sent.len(), 1);
        assert_eq!(sent[0].1.state, TaskState::Running);
        reports.resend();
        assert_eq!(reports.take().await, sent);
        reports.forget("t");
        assert_eq!(reports.get("t"), None);
    }

    #[tokio::test]
    async fn many_reports_go_in_messages_of_bounded_size() {
        let reports = Reports::default();
        let all = MOST_AT_ONCE + 7;
        (0..all).for_each(|n| reports.report(&format!("t{n:04}"), status(TaskState::Ready)));
        let (first, second) = (reports.take().await, reports.take().await);
        assert_eq!((first.len(), second.len()), (MOST_AT_ONCE, 7));
        assert_ne!(first.last(), second.first());
    }
}
