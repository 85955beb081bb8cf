//! What is known of a container, and how a process ended.

use std::collections::BTreeMap;
use std::path::PathBuf;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::health::{Health, HealthCheck};
use crate::spec::ContainerSpec;

/// Which output of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    /// Standard output, and everything from a terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

/// How a container ended. Also the content of its `exit.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitStatus {
    /// Exit code; 128 + signal if one killed it; 125–127 if it never started; 255 if its shim was lost.
    pub code: i32,
    /// The signal that killed it.
    pub signal: Option<i32>,
    /// The kernel killed a process in it for want of memory.
    pub oom: bool,
    /// Why it did not start, or was lost.
    pub error: Option<String>,
    /// When.
    pub finished_at: DateTime<Utc>,
}

/// A container's life: `Created → Running → Exited`, and `Exited → Running` by another start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContainerState {
    /// Never started.
    Created,
    /// Its first process runs.
    Running,
    /// Its first process has ended, or could not be started.
    Exited(ExitStatus),
}

/// A snapshot of a container.
#[derive(Debug, Clone)]
pub struct ContainerInfo {
    /// 64 hex digits.
    pub id: String,
    /// Without a leading slash.
    pub name: String,
    /// `sha256:…` of its image.
    pub image_id: String,
    /// The image as it was named.
    pub image: String,
    /// What it executes: entry point and command, resolved.
    pub command: Vec<String>,
    /// When it was made.
    pub created: DateTime<Utc>,
    /// Where it is in its life.
    pub state: ContainerState,
    /// Its first process as the host numbers it, while running.
    pub pid: Option<i32>,
    /// Last start.
    pub started_at: Option<DateTime<Utc>>,
    /// Last end.
    pub finished_at: Option<DateTime<Utc>>,
    /// As given.
    pub labels: BTreeMap<String, String>,
    /// Its log, as Docker's json-file.
    pub log_path: PathBuf,
    /// Its health check, if it has one.
    pub health_check: Option<HealthCheck>,
    /// How it is, from its first start on, if it has a health check.
    pub health: Option<Health>,
    /// As given.
    pub spec: ContainerSpec,
}

/// Content of `started.json`, written by the shim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Started {
    pub(crate) pid: i32,
    pub(crate) started_at: DateTime<Utc>,
}
