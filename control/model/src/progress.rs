//! How far a service has come: its mode read out, its update, its job.
use crate::{
    docker,
    objects::{NodeState, Service},
    state::State,
    task::{Task, TaskState},
    time::Timestamp,
};
use serde::{Deserialize, Serialize};

/// How a service's tasks are made, with Docker's defaults filled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// So many tasks that run for ever.
    Replicated {
        /// Slots, numbered from 1.
        replicas: u64,
    },
    /// One task on each node that may take it.
    Global,
    /// Tasks that run to their end.
    ReplicatedJob {
        /// Tasks that run at the same time.
        concurrent: u64,
        /// Tasks that are to end well: slots, numbered from 0.
        total: u64,
    },
    /// One task on each node that may take it, run to its end.
    GlobalJob,
}

impl Mode {
    /// The mode a specification asks for, with Docker's defaults: 1 replica, 1 task of a job at a time,
    /// as many ends as tasks at a time.
    pub fn of(spec: &docker::ServiceSpec) -> Mode {
        let Some(mode) = &spec.mode else { return Mode::Replicated { replicas: 1 } };
        let count = |n: Option<i64>| n.and_then(|n| u64::try_from(n).ok());
        if mode.global.is_some() {
            Mode::Global
        } else if let Some(job) = &mode.replicated_job {
            let concurrent = count(job.max_concurrent).unwrap_or(1);
            Mode::ReplicatedJob {
                concurrent,
                total: count(job.total_completions).unwrap_or(concurrent),
            }
        } else if mode.global_job.is_some() {
            Mode::GlobalJob
        } else {
            let replicas = mode.replicated.as_ref().and_then(|r| count(r.replicas)).unwrap_or(1);
            Mode::Replicated { replicas }
        }
    }

    /// Whether its tasks are to end.
    pub fn is_job(self) -> bool {
        matches!(self, Mode::ReplicatedJob { .. } | Mode::GlobalJob)
    }

    /// Whether each task belongs to a node instead of a numbered slot.
    pub fn is_global(self) -> bool {
        matches!(self, Mode::Global | Mode::GlobalJob)
    }

    /// Docker's word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Mode::Replicated { .. } => "replicated",
            Mode::Global => "global",
            Mode::ReplicatedJob { .. } => "replicated-job",
            Mode::GlobalJob => "global-job",
        }
    }
}

/// States of an update; names are Docker's.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UpdateState {
    /// Slots are replaced and watched.
    Updating,
    /// It stopped because of a failure.
    Paused,
    /// Every slot was replaced and watched.
    Completed,
    /// Slots are brought back to the specification before.
    RollbackStarted,
    /// The way back stopped because of a failure.
    RollbackPaused,
    /// Every slot is back.
    RollbackCompleted,
}

/// The last update of a service. What is not here (which slots are done, which failed) is read from
/// its tasks, so that another manager can go on with it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct UpdateStatus {
    /// State.
    pub state: UpdateState,
    /// When it was begun; a rollback by itself keeps the update's.
    pub started: Timestamp,
    /// When it was completed.
    pub completed: Option<Timestamp>,
    /// Docker's words.
    pub message: String,
    /// When the present way (forth or back) was begun: tasks made before it do not count.
    pub began: Timestamp,
    /// Slots that were to be replaced when it began; failures are a part of them. `None` until counted.
    pub slots: Option<u64>,
    /// All slots are replaced, and are watched until then.
    pub monitored_until: Option<Timestamp>,
}

impl UpdateStatus {
    /// An update or rollback that begins now.
    pub fn begin(state: UpdateState, message: impl Into<String>, now: Timestamp) -> UpdateStatus {
        UpdateStatus {
            state,
            started: now,
            completed: None,
            message: message.into(),
            began: now,
            slots: None,
            monitored_until: None,
        }
    }

    /// Whether slots are replaced or watched now.
    pub fn in_progress(&self) -> bool {
        matches!(self.state, UpdateState::Updating | UpdateState::RollbackStarted)
    }

    /// Whether it stopped on a failure and waits for the user.
    pub fn is_paused(&self) -> bool {
        matches!(self.state, UpdateState::Paused | UpdateState::RollbackPaused)
    }

    /// Whether it is a way back.
    pub fn is_rollback(&self) -> bool {
        matches!(
            self.state,
            UpdateState::RollbackStarted
                | UpdateState::RollbackPaused
                | UpdateState::RollbackCompleted
        )
    }
}

/// How often a job was run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct JobStatus {
    /// Raised by every update: tasks of an earlier iteration are done with.
    pub iteration: u64,
    /// When the present iteration was asked for.
    pub last_execution: Timestamp,
}

impl Service {
    /// Its mode.
    pub fn mode(&self) -> Mode {
        Mode::of(&self.spec)
    }

    /// The iteration its tasks belong to; `None` when it is no job.
    pub fn iteration(&self) -> Option<u64> {
        self.mode().is_job().then(|| self.job_status.map_or(0, |j| j.iteration))
    }
}

/// Tasks of a service, counted as `docker service ls` shows them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ServiceTally {
    /// That run and are to run, on nodes that are not down.
    pub running: u64,
    /// That are to run now; for a replicated job, at the same time.
    pub desired: u64,
    /// Of the job's present iteration, that have ended well.
    pub completed: u64,
}

impl ServiceTally {
    /// Counts the tasks of a service; of a job those of its present iteration.
    pub fn of(state: &State, service: &Service) -> ServiceTally {
        let mode = service.mode();
        let mut tally = ServiceTally::default();
        let present = |t: &&Task| t.job_iteration == service.iteration();
        for task in state.tasks_of_service(&service.id).filter(present) {
            let node = task.node_id.as_ref().and_then(|n| state.nodes.get(n));
            let up = node.is_some_and(|n| n.status.state != NodeState::Down);
            let wanted = task.desired <= TaskState::Running;
            let done = task.status.state == TaskState::Complete;
            let runs = task.status.state == TaskState::Running;
            tally.running += u64::from(runs && task.desired == TaskState::Running && up);
            tally.completed += u64::from(done && mode.is_job());
            tally.desired += u64::from(mode.is_global() && wanted && !(done && mode.is_job()));
        }
        match mode {
            Mode::Replicated { replicas } => tally.desired = replicas,
            Mode::ReplicatedJob { concurrent, .. } => tally.desired = concurrent,
            Mode::Global | Mode::GlobalJob => {}
        }
        tally
    }
}
