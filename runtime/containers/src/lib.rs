//! Containers on one node: one shim process each, exec, logs.
//!
//! Two sides meet in files and a socket, never in memory, so that the daemon can go and come back:
//!
//! - **[`Runtime`]** (async, in the daemon) plans: it writes a bundle, starts the shim, and watches it
//!   over its control socket. One tokio task per running container watches its shim, and one more
//!   probes it if it has a health check; dropping the `Runtime` ends those tasks' usefulness but no
//!   container.
//! - **The shim** (`shim_main`, a process of its own) obeys: it makes the container with libcontainer,
//!   owns its stdio and log, serves exec, and records how it ended. Single-threaded until the
//!   container runs. **The exec helper** (`exec_main`) is a fresh single-threaded process per exec.
//!
//! A container's lasting files are in `data_root/<id>/` (`container.json`, `started.json`, `exit.json`,
//! its log, `hosts`, `resolv.conf`, `hostname`), its fleeting ones in `exec_root/<id>/` (the bundle,
//! `shim.sock`, `lock`, and in memory the files it was given). A shim holds `lock` for as long as it lives: that, and no pid, says whether it
//! is alive.

mod caps;
mod cgroup;
mod disk;
mod error;
mod exec;
mod files;
mod health;
mod info;
mod logs;
mod memory;
mod monitor;
mod oci;
mod probe;
mod process;
mod runtime;
mod seccomp;
mod shim;
mod signal;
mod spec;
mod start;
mod user;
mod wire;

pub use cgroup::{remove_parent as remove_cgroup_parent, v2_root as cgroup_v2_root};
pub use error::RuntimeError;
pub use exec::{ExecInput, ExecSession};
pub use files::{FileContent, FileSpec};
pub use health::{Health, HealthCheck, HealthSpec, HealthStatus, ProbeResult};
pub use info::{ContainerInfo, ContainerState, ExitStatus, Stream};
pub use logs::{LogEntry, LogOptions};
pub use runtime::{Runtime, RuntimeConfig};
pub use shim::{exec_main, shim_main};
pub use signal::parse_signal;
pub use spec::{ContainerSpec, ExecSpec, LogLimits, Mount, new_id};
