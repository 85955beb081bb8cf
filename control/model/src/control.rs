//! Words between the control API and those who call it: errors and log requests.
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};

/// Kind of a refusal; decides the HTTP status and the gRPC code.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum ErrorKind {
    /// The request itself is wrong (400).
    InvalidArgument,
    /// The request is right but not now (400).
    FailedPrecondition,
    /// No such object (404).
    NotFound,
    /// There is one already (409).
    AlreadyExists,
    /// Not a manager, or no leader (503).
    Unavailable,
    /// The caller's role does not allow it (403).
    PermissionDenied,
    /// Anything else, also "update out of sequence" (500).
    Unknown,
}

/// A refusal with the text the user sees, in Docker's words where Docker has some.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error, Serialize, Deserialize)]
#[error("{message}")]
pub struct ControlError {
    /// Kind.
    pub kind: ErrorKind,
    /// Names the object, the reason and the remedy.
    pub message: String,
}

impl ControlError {
    /// A refusal.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> ControlError {
        ControlError { kind, message: message.into() }
    }
}

/// Secrets of the cluster that are to be replaced by new ones.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct Rotations {
    /// The token workers join with.
    pub worker_token: bool,
    /// The token managers join with.
    pub manager_token: bool,
    /// The key that unlocks managers.
    pub unlock_key: bool,
}

/// Which lines of tasks' logs are wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LogOptions {
    /// Lines of standard output.
    pub stdout: bool,
    /// Lines of standard error.
    pub stderr: bool,
    /// Go on with new lines until the tasks end.
    pub follow: bool,
    /// Only the last so many lines of each task.
    pub tail: Option<u64>,
    /// Only lines from this time on.
    pub since: Option<Timestamp>,
}

/// A line of a task's log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogLine {
    /// Task.
    pub task_id: String,
    /// Node it runs on.
    pub node_id: String,
    /// Whether it is from standard error.
    pub stderr: bool,
    /// When it was written.
    pub time: Timestamp,
    /// The line with its newline, if it has one.
    pub line: Vec<u8>,
}
