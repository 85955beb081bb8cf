//! What a caller asks for: a container, a process in one.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::files::FileSpec;
use crate::health::HealthSpec;

/// A container to make. `Default` gives Docker's defaults; id, name and image must be filled in.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerSpec {
    /// 64 hex digits; see [`new_id`].
    pub id: String,
    /// Unique on the node, without a leading slash.
    pub name: String,
    /// Name or id of an image in the store; resolved once, by `create`.
    pub image: String,
    /// Replaces the image's `ENTRYPOINT`, and with it drops the image's `CMD`.
    pub entrypoint: Option<Vec<String>>,
    /// Replaces the image's `CMD`.
    pub command: Option<Vec<String>>,
    /// `KEY=value`, over the image's.
    pub env: Vec<String>,
    /// Absolute path; the image's if absent, else `/`.
    pub working_dir: Option<String>,
    /// `user`, `uid`, `user:group`, …; the image's if absent, else root.
    pub user: Option<String>,
    /// The short id if absent.
    pub hostname: Option<String>,
    /// Free-form; not interpreted here.
    pub labels: BTreeMap<String, String>,
    /// Network namespace to join (a bind-mounted namespace file). Absent: a new one with nothing in it.
    pub netns: Option<PathBuf>,
    /// Content of `/etc/resolv.conf`; the image's file if absent.
    pub resolv_conf: Option<String>,
    /// Lines of `/etc/hosts` besides `localhost`.
    pub hosts: Vec<(IpAddr, String)>,
    /// More file systems.
    pub mounts: Vec<Mount>,
    /// Files kept in memory (secrets and configs), over all mounts.
    pub files: Vec<FileSpec>,
    /// Root file system read-only.
    pub read_only: bool,
    /// Give it a terminal; its output is then one stream.
    pub tty: bool,
    /// Keep its standard input open (it blocks on reading) instead of at its end.
    pub open_stdin: bool,
    /// `SIGTERM`, `TERM` or a number; the image's if absent, else SIGTERM.
    pub stop_signal: Option<String>,
    /// How long `stop` waits before SIGKILL, unless told otherwise.
    pub stop_grace: Duration,
    /// Capabilities over the default set: `NET_ADMIN`, `CAP_NET_ADMIN` or `ALL`.
    pub cap_add: Vec<String>,
    /// Capabilities less; `ALL` drops all that `cap_add` does not name.
    pub cap_drop: Vec<String>,
    /// Memory limit, bytes.
    pub memory: Option<i64>,
    /// CPU limit in 10⁻⁹ CPUs.
    pub nano_cpus: Option<i64>,
    /// Limit of processes and threads.
    pub pids: Option<i64>,
    /// −1000 … 1000; raised to what this host allows.
    pub oom_score_adj: Option<i32>,
    /// Bounds of its log on disk.
    pub log: LogLimits,
    /// Over the image's.
    pub health: Option<HealthSpec>,
}

impl Default for ContainerSpec {
    fn default() -> Self {
        Self {
            id: String::new(),
            name: String::new(),
            image: String::new(),
            entrypoint: None,
            command: None,
            env: Vec::new(),
            working_dir: None,
            user: None,
            hostname: None,
            labels: BTreeMap::new(),
            netns: None,
            resolv_conf: None,
            hosts: Vec::new(),
            mounts: Vec::new(),
            files: Vec::new(),
            read_only: false,
            tty: false,
            open_stdin: false,
            stop_signal: None,
            // Docker's default (`--stop-timeout`).
            stop_grace: Duration::from_secs(10),
            cap_add: Vec::new(),
            cap_drop: Vec::new(),
            memory: None,
            nano_cpus: None,
            pids: None,
            oom_score_adj: None,
            log: LogLimits::default(),
            health: None,
        }
    }
}

/// A file system in a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "type")]
pub enum Mount {
    /// A file or folder of the host.
    Bind {
        /// Absolute path on the host; must exist.
        source: PathBuf,
        /// Absolute path in the container.
        target: PathBuf,
        /// Without writing.
        read_only: bool,
    },
    /// Memory.
    Tmpfs {
        /// Absolute path in the container.
        target: PathBuf,
        /// Bytes; half of the memory if absent.
        size: Option<u64>,
        /// Permission bits; 1777 if absent.
        mode: Option<u32>,
    },
}

impl Mount {
    /// Where it is in the container.
    pub(crate) fn target(&self) -> &Path {
        match self {
            Mount::Bind { target, .. } | Mount::Tmpfs { target, .. } => target,
        }
    }
}

/// Bounds of a container's log on disk (Docker's `max-size` and `max-file`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLimits {
    /// Bytes after which a file is rotated; `None` for no bound (Docker's default).
    pub max_size: Option<u64>,
    /// How many files are kept, the current one included; at least 1.
    pub max_file: u32,
}

impl Default for LogLimits {
    fn default() -> Self {
        Self { max_size: None, max_file: 1 }
    }
}

/// A process to start in a running container.
#[derive(Debug, Clone, Default)]
pub struct ExecSpec {
    /// Program and arguments.
    pub cmd: Vec<String>,
    /// `KEY=value`, over the container's.
    pub env: Vec<String>,
    /// As in [`ContainerSpec::user`]; the container's if absent.
    pub user: Option<String>,
    /// Absolute path; the container's if absent.
    pub working_dir: Option<String>,
    /// Give it a terminal; its output is then one stream.
    pub tty: bool,
    /// Give it a standard input; otherwise it is at its end.
    pub stdin: bool,
}

/// A new container id: 64 hex digits, random.
pub fn new_id() -> String {
    hex::encode(rand::random::<[u8; 32]>())
}

/// Characters of an id in messages and as the default host name, as Docker's.
pub(crate) fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}
