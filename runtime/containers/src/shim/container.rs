//! Makes, starts and deletes the container with libcontainer. Single-threaded callers only.

use std::error::Error;
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::Path;

use libcontainer::container::Container;
use libcontainer::container::builder::ContainerBuilder;
use libcontainer::syscall::syscall::SyscallType;
use rustix::fs::{Uid, fchown};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use serde_json::Value;

use super::ShimConfig;
use super::console;
use super::executor::{ContainerExecutor, failure};
use crate::cgroup::Hierarchies;
use crate::disk::{read_json, write_json};
use crate::error::RuntimeError;
use crate::info::Stream;
use crate::wire::Failure;

/// Folder in the bundle for libcontainer's state.
pub(super) const STATE: &str = "state";
const CONSOLE: &str = "console.sock";

/// A container that runs.
pub(super) struct Running {
    pub(super) pid: i32,
    pub(super) outputs: Vec<(Stream, OwnedFd)>,
    /// Its terminal, if it has one.
    pub(super) terminal: Option<OwnedFd>,
    /// The writing side of its standard input, if it is to stay open.
    pub(super) _stdin: Option<OwnedFd>,
}

/// Makes the container and starts it. The current folder is the bundle.
pub(super) fn start(config: &ShimConfig, cgroups: &Hierarchies) -> Result<Running, Failure> {
    let _home = OomScore::keep().map_err(|e| told(&e))?;
    // Started again after a crash in the middle: what libcontainer left of then.
    remove_state().map_err(|e| told(&e))?;
    fs::create_dir(STATE).map_err(|e| told(&e))?;
    let bundle = std::env::current_dir().map_err(|e| told(&e))?;
    let uid = settle_config().map_err(|e| told(&e))?;
    let mut builder = ContainerBuilder::new(config.id.clone(), SyscallType::default())
        .with_root_path(bundle.join(STATE))
        .map_err(|e| told(&e))?
        .with_executor(ContainerExecutor::default());
    let mut outputs = Vec::new();
    let mut stdin = None;
    let mut listener = None;
    if config.tty {
        let path = bundle.join(CONSOLE);
        listener = Some(listen(Path::new(CONSOLE)).map_err(|e| told(&e))?);
        builder = builder.with_console_socket(Some(path));
    } else {
        let (read, write) = pipe_of(uid).map_err(|e| told(&e))?;
        builder = builder.with_stdout(write);
        outputs.push((Stream::Stdout, read));
        let (read, write) = pipe_of(uid).map_err(|e| told(&e))?;
        builder = builder.with_stderr(write);
        outputs.push((Stream::Stderr, read));
        if config.open_stdin {
            let (read, write) = pipe_of(uid).map_err(|e| told(&e))?;
            builder = builder.with_stdin(read);
            stdin = Some(write);
        } else {
            builder = builder.with_stdin(File::open("/dev/null").map_err(|e| told(&e))?);
        }
    }
    // Every process of the container is born in its version 2 node, so that BPF programs attached above
    // it see all of them, and its cgroup namespace has the right root.
    let visit = cgroups.hybrid().then(|| Visit::enter(cgroups, &config.cgroup));
    let visit = visit.transpose().map_err(|e| told(&e))?;
    let built = builder.as_init(&bundle).with_systemd(false).with_detach(true).build();
    drop(visit);
    let mut container = built.map_err(|e| failure(&chain(&e)))?;
    let pid = container.pid().map(|p| p.as_raw());
    let pid = pid.ok_or_else(|| failure("libcontainer gave no process id"))?;
    let mut terminal = None;
    if let Some(listener) = listener {
        let side = console::receive(&listener).map_err(|e| told(&e))?;
        outputs.push((Stream::Stdout, side.try_clone().map_err(|e| told(&e))?));
        terminal = Some(side);
    }
    container.start().map_err(|e| failure(&chain(&e)))?;
    Ok(Running { pid, outputs, terminal, _stdin: stdin })
}

/// Deletes what libcontainer keeps of an ended container, and its cgroups.
pub(super) fn delete(config: &ShimConfig, cgroups: &Hierarchies) {
    if let Ok(mut container) = Container::load(Path::new(STATE).join(&config.id))
        && let Err(e) = container.delete(true)
    {
        eprintln!("delete: {}", chain(&e));
    }
    cgroups.kill(&config.cgroup);
    cgroups.remove(&config.cgroup);
    if let Err(e) = remove_state() {
        eprintln!("delete {STATE}: {e}");
    }
}

/// A listening socket at a path that must be free of an older one.
pub(super) fn listen(path: &Path) -> io::Result<UnixListener> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    UnixListener::bind(path)
}

/// A pipe that the container's user may open again through `/dev/stdout` and the like.
pub(super) fn pipe_of(uid: u32) -> io::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
    fchown(&read, Some(Uid::from_raw(uid)), None)?;
    Ok((read, write))
}

/// The user id in an OCI `process`.
pub(super) fn uid_of(process: &Value) -> u32 {
    process["user"]["uid"].as_u64().and_then(|uid| u32::try_from(uid).ok()).unwrap_or(0)
}

/// Raises the OOM score in `config.json` to what is possible here. Gives the user id.
fn settle_config() -> Result<u32, RuntimeError> {
    let path = Path::new("config.json");
    let mut config: Value = read_json(path)?.unwrap_or_default();
    if settle_oom_score(&mut config["process"]) {
        write_json(path, &config)?;
    }
    Ok(uid_of(&config["process"]))
}

/// Raises the OOM score of an OCI `process` to what is possible here. Tells whether it has one.
pub(super) fn settle_oom_score(process: &mut Value) -> bool {
    let Some(wanted) = process["oomScoreAdj"].as_i64() else { return false };
    let wanted = i32::try_from(wanted).unwrap_or(0);
    process["oomScoreAdj"] = possible_oom_score(wanted).into();
    true
}

/// An error with all its causes, outermost first.
pub(super) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(e) = cause {
        text = format!("{text}: {e}");
        cause = e.source();
    }
    text
}

pub(super) fn told(error: &(impl Error + 'static)) -> Failure {
    failure(&chain(error))
}

fn remove_state() -> io::Result<()> {
    match fs::remove_dir_all(STATE) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// This process inside another version 2 cgroup, for as long as this lives.
struct Visit {
    home: std::path::PathBuf,
}

impl Visit {
    fn enter(cgroups: &Hierarchies, path: &str) -> io::Result<Self> {
        let own = fs::read_to_string("/proc/self/cgroup")?;
        let home = own.lines().find_map(|l| l.strip_prefix("0::")).unwrap_or("/");
        join_v2(cgroups, path)?;
        Ok(Self { home: cgroups.v2_node(home) })
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        if let Err(e) = fs::write(self.home.join("cgroup.procs"), "0") {
            eprintln!("leave the container's cgroup for {}: {e}", self.home.display());
        }
    }
}

/// Moves this process into a container's version 2 node.
pub(super) fn join_v2(cgroups: &Hierarchies, path: &str) -> io::Result<()> {
    let node = cgroups.v2_node(path);
    fs::create_dir_all(&node)?;
    fs::write(node.join("cgroup.procs"), "0")
}

/// libcontainer changes its caller's OOM score; this puts it back.
struct OomScore(String);

impl OomScore {
    const PATH: &str = "/proc/self/oom_score_adj";

    fn keep() -> io::Result<Self> {
        Ok(Self(fs::read_to_string(Self::PATH)?))
    }
}

impl Drop for OomScore {
    fn drop(&mut self) {
        if let Err(e) = fs::write(Self::PATH, self.0.trim()) {
            eprintln!("{}: {e}", Self::PATH);
        }
    }
}

/// The OOM score this process may give: below its own only with the privilege for it. Changes nothing.
fn possible_oom_score(wanted: i32) -> i32 {
    let Ok(keep) = OomScore::keep() else { return wanted };
    let own = keep.0.trim().parse().unwrap_or(0);
    match fs::write(OomScore::PATH, wanted.to_string()) {
        Err(e) if e.raw_os_error() == Some(Errno::ACCESS.raw_os_error()) => own,
        _ => wanted,
    }
}
