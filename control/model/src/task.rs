//! Tasks: one attempt to run a container for a slot of a service.
use crate::{
    docker,
    generic::GenericResource,
    objects::{Meta, NetAddresses},
    time::Timestamp,
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// States of a task; they only ever increase. Numbers are swarmkit's.
///
/// Who owns the transitions: the orchestrator creates (`New`) and sets the desired state; the
/// allocator moves `New` → `Pending`; the scheduler `Pending` → `Assigned`; the node's agent all
/// later ones; the manager sets `Orphaned`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[repr(u16)]
pub enum TaskState {
    /// Made by the orchestrator.
    New = 0,
    /// Has its addresses; waits for a node.
    Pending = 64,
    /// Has a node.
    Assigned = 192,
    /// The node's agent has it.
    Accepted = 256,
    /// Image and networks are being prepared.
    Preparing = 320,
    /// Prepared.
    Ready = 384,
    /// The container is being started.
    Starting = 448,
    /// The container runs (and is healthy, if it has a health check).
    Running = 512,
    /// Ended by itself with success.
    Complete = 576,
    /// Ended because it was told to.
    Shutdown = 640,
    /// Ended with an error.
    Failed = 704,
    /// Could not be prepared or started.
    Rejected = 768,
    /// To be removed (a desired state).
    Remove = 800,
    /// Its node was down for too long to know.
    Orphaned = 832,
}

impl TaskState {
    /// Whether a task in this state will never run again.
    pub fn is_terminal(self) -> bool {
        self > TaskState::Running
    }

    /// Docker's word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            TaskState::New => "new",
            TaskState::Pending => "pending",
            TaskState::Assigned => "assigned",
            TaskState::Accepted => "accepted",
            TaskState::Preparing => "preparing",
            TaskState::Ready => "ready",
            TaskState::Starting => "starting",
            TaskState::Running => "running",
            TaskState::Complete => "complete",
            TaskState::Shutdown => "shutdown",
            TaskState::Failed => "failed",
            TaskState::Rejected => "rejected",
            TaskState::Remove => "remove",
            TaskState::Orphaned => "orphaned",
        }
    }

    /// All states, in order.
    pub const ALL: [TaskState; 14] = [
        TaskState::New,
        TaskState::Pending,
        TaskState::Assigned,
        TaskState::Accepted,
        TaskState::Preparing,
        TaskState::Ready,
        TaskState::Starting,
        TaskState::Running,
        TaskState::Complete,
        TaskState::Shutdown,
        TaskState::Failed,
        TaskState::Rejected,
        TaskState::Remove,
        TaskState::Orphaned,
    ];
}

/// What is known of a task now.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct TaskStatus {
    /// State.
    pub state: TaskState,
    /// When it was entered.
    pub since: Timestamp,
    /// What happened, in Docker's words ("started", "preparing").
    pub message: String,
    /// Why it cannot go on or ended badly; empty when there is no error.
    pub err: String,
    /// The container, once there is one.
    pub container: Option<ContainerStatus>,
}

/// The container of a task.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ContainerStatus {
    /// Container id, 64 hex digits.
    pub id: String,
    /// Process id on its node while it runs.
    pub pid: i64,
    /// Exit code once it has ended.
    pub exit_code: Option<i64>,
    /// Its health check has failed for good: it still runs, but is being stopped.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unhealthy: bool,
}

/// A port of a service as allocated (`ingress` publish mode).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct PublishedPort {
    /// IP protocol number: 6 TCP, 17 UDP.
    pub protocol: u8,
    /// Port on every node.
    pub published: u16,
    /// Port in the container.
    pub target: u16,
}

/// Why a task was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MadeBy {
    /// Its slot had none.
    #[default]
    Scale,
    /// The one before ended by itself, or its node was lost.
    Restart,
    /// The one before is of an older specification. Its failure counts against the update.
    Update,
    /// To be nearer to an even spread: it has its node from the beginning.
    Rebalance,
}

/// When the cluster took notice of what happened to a task, on the managers' clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct TaskTimes {
    /// That it ran.
    pub running: Option<Timestamp>,
    /// That it had ended.
    pub ended: Option<Timestamp>,
    /// That it was told to stop before it had ended; on the clock of the manager that did.
    #[serde(default)]
    pub told: Option<Timestamp>,
}

/// A port of a node that one task there takes (`host` publish mode).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct HostPort {
    /// IP protocol number: 6 TCP, 17 UDP, 132 SCTP.
    pub protocol: u8,
    /// Port on the node.
    pub port: u16,
}

/// One attempt to run a container for a slot of a service. Never changes its node.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Task {
    /// Id, 25 characters.
    pub id: String,
    /// Version and times.
    pub meta: Meta,
    /// Service it belongs to.
    pub service_id: String,
    /// Slot in the service: from 1, from 0 for replicated jobs, 0 for global services and jobs.
    pub slot: u64,
    /// Node it runs on, from `Assigned` on. Before that it is the only node it may run on (global
    /// services, rebalancing).
    pub node_id: Option<String>,
    /// What to run: the service's template when the task was made. The state makes all tasks of one
    /// template share it.
    pub spec: Arc<docker::TaskSpec>,
    /// [`crate::Service::spec_version`] it was made from.
    pub spec_version: u64,
    /// Container name: `service.slot.id`, or `service.node.id` for global services and jobs.
    pub name: String,
    /// What it should become: `Ready` (wait), `Running` (a job's: and so to its end), `Shutdown` or
    /// `Remove`.
    pub desired: TaskState,
    /// A replacement is started no earlier than this (restart delay).
    pub not_before: Timestamp,
    /// What it is.
    pub status: TaskStatus,
    /// Its addresses, one entry per network, from `Pending` on.
    pub networks: Vec<NetAddresses>,
    /// Why it was made.
    #[serde(default)]
    pub made_by: MadeBy,
    /// The job's iteration it belongs to; `None` when its service is no job.
    #[serde(default)]
    pub job_iteration: Option<u64>,
    /// When what happened to it was noticed; kept by [`crate::State::apply`].
    #[serde(default)]
    pub times: TaskTimes,
    /// What it was given of its node's generic resources, from `Assigned` on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub assigned_generic_resources: Vec<GenericResource>,
    /// Ports of its node it takes (publish mode `host`), from `Assigned` on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub host_ports: Vec<HostPort>,
}

impl Task {
    /// Whether its node has been told of it, or may have been.
    pub fn is_assigned(&self) -> bool {
        self.node_id.is_some() && self.status.state >= TaskState::Assigned
    }

    /// Desired state in Docker's terms: a job's task is to become `Complete`.
    pub fn shown_desired(&self) -> TaskState {
        match (self.desired, self.job_iteration) {
            (TaskState::Running, Some(_)) => TaskState::Complete,
            (desired, _) => desired,
        }
    }

    pub(crate) fn note_times(&mut self, now: Timestamp) {
        if self.status.state == TaskState::Running {
            self.times.running.get_or_insert(now);
        } else if self.status.state.is_terminal() {
            self.times.ended.get_or_insert(now);
        }
    }
}
