//! The nodes, played: what the cores want of them is so at once, or a short time later.

use super::{Inner, now, objects::numbered};
use shoal_model::{
    Change, ContainerStatus, ControlError, ErrorKind, Object, Task, TaskState, TaskStatus,
    Timestamp,
};
use std::time::Duration;

/// Rounds of decisions in a row.
const ROUNDS: usize = 1_000;

/// How long a job's task runs.
const JOB_LASTS: Duration = Duration::from_millis(300);

impl Inner {
    /// Lets the cores decide and the nodes act until nothing is left to do now.
    pub(super) fn settle(&mut self) -> Result<(), ControlError> {
        for _ in 0..ROUNDS {
            let before = self.state.version;
            let (now, mut next) = (now(), self.next);
            let mut new_id = || {
                next += 1;
                numbered("task", next)
            };
            let wanted = shoal_cores::orchestrate(&self.state, now, &mut new_id);
            self.next = next;
            self.apply(wanted)?;
            self.apply(shoal_cores::allocate(&self.state, now))?;
            self.apply(shoal_cores::schedule(&self.state, now))?;
            let reported = self.play(now);
            self.apply(reported)?;
            if self.state.version == before {
                return Ok(());
            }
        }
        Err(ControlError::new(ErrorKind::Unknown, "the cluster never comes to rest"))
    }

    /// What the nodes report of their tasks.
    fn play(&mut self, now: Timestamp) -> Vec<Change> {
        let tasks: Vec<Task> =
            self.state.tasks.values().filter(|t| t.is_assigned()).cloned().collect();
        let changes = tasks.into_iter().filter_map(|task| self.report(task, now));
        changes.map(|task| Change::Put(Object::Task(task.into()))).collect()
    }

    fn report(&mut self, mut task: Task, now: Timestamp) -> Option<Task> {
        let container = task.spec.container_spec.as_ref();
        let image = container.and_then(|c| c.image.as_deref()).unwrap_or_default();
        let done = task.job_iteration.is_some()
            && task.times.running.is_some_and(|at| now.since(at) >= JOB_LASTS);
        let (state, message) = match task.desired {
            TaskState::Ready => (TaskState::Ready, "prepared"),
            TaskState::Running if image.starts_with("fail") => (TaskState::Failed, "started"),
            TaskState::Running if done => (TaskState::Complete, "finished"),
            TaskState::Running => (TaskState::Running, "started"),
            _ => (TaskState::Shutdown, "shutdown"),
        };
        if task.status.state.is_terminal() || task.status.state >= state {
            return None;
        }
        let failed = state == TaskState::Failed;
        let mut container = task.status.container.take();
        if container.is_none() && (failed || state == TaskState::Running) {
            self.next += 1;
            let id = format!("{:064x}", self.next);
            container = Some(ContainerStatus { id, pid: 1, exit_code: None, unhealthy: false });
        }
        if let Some(container) = &mut container {
            container.exit_code = state.is_terminal().then_some(i64::from(failed));
        }
        let err = if failed { "task: non-zero exit (1)" } else { "" };
        task.status = TaskStatus {
            state,
            since: now,
            message: message.to_owned(),
            err: err.to_owned(),
            container,
        };
        Some(task)
    }
}
