//! A shim's life from start to end.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use chrono::Utc;
use rustix::process::{
    Pid, PidfdFlags, Resource, Rlimit, WaitOptions, WaitStatus, getrlimit, pidfd_open, setrlimit,
    wait,
};

use super::ShimConfig;
use super::container::{self, Running, listen, told};
use super::control::{self, Shared};
use super::log::Log;
use super::output::Outputs;
use crate::cgroup::Hierarchies;
use crate::disk::{Dirs, read_json, write_json};
use crate::info::{ExitStatus, Started};
use crate::wire::{Failure, Reply};

/// Name of the control socket in the bundle.
pub(crate) const SOCKET: &str = "shim.sock";

/// Runs the bundle's container to its end.
pub(super) fn run(bundle: &Path) -> ExitCode {
    let (_lock, mut report) = match detach(bundle) {
        Ok(kept) => kept,
        Err(e) => {
            eprintln!("shim: {}: {e}", bundle.display());
            return ExitCode::FAILURE;
        }
    };
    let config = match read_json::<ShimConfig>(Path::new("shim.json")) {
        Ok(Some(config)) => config,
        Ok(None) => return refuse(&mut report, "shim.json is missing from the bundle".to_owned()),
        Err(e) => return refuse(&mut report, e.to_string()),
    };
    if let Some(files) = config.open_files
        && let Err(e) = allow_files(files)
    {
        return refuse(&mut report, format!("cannot limit open files to {files}: {e}"));
    }
    let cgroups = match Hierarchies::find() {
        Ok(found) => found,
        Err(e) => return refuse(&mut report, e.to_string()),
    };
    let dirs = Dirs { data: config.data.clone(), bundle: bundle.to_owned() };
    match start(&config, &cgroups, &dirs) {
        Ok(session) => {
            tell(&mut report, &Reply::Ok);
            drop(report);
            session.live(&config, &cgroups, &dirs);
            ExitCode::SUCCESS
        }
        Err(failure) => {
            container::delete(&config, &cgroups);
            end(&dirs, failure.code, None, false, Some(failure.reason.clone()));
            tell(&mut report, &Reply::Failed(failure));
            ExitCode::FAILURE
        }
    }
}

/// The daemon may have allowed itself more files than its containers are to have.
fn allow_files(files: u64) -> io::Result<()> {
    let limit = Rlimit { current: Some(files), ..getrlimit(Resource::Nofile) };
    Ok(setrlimit(Resource::Nofile, limit)?)
}

/// Cuts every tie to the daemon. Gives the lock (was standard input) and the report (was standard
/// output).
fn detach(bundle: &Path) -> io::Result<(OwnedFd, File)> {
    let lock = rustix::io::fcntl_dupfd_cloexec(io::stdin().as_fd(), 3)?;
    let report = rustix::io::fcntl_dupfd_cloexec(io::stdout().as_fd(), 3)?;
    rustix::stdio::dup2_stdin(&File::open("/dev/null")?)?;
    rustix::stdio::dup2_stdout(io::stderr().as_fd())?;
    // Fails only if this process leads a group already, and then all is well.
    let _ = rustix::process::setsid();
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    plain_identity()?;
    std::env::set_current_dir(bundle)?;
    Ok((lock, File::from(report)))
}

/// What a container must not inherit from whoever started the daemon: its groups (libcontainer sets
/// none where none are asked for) and its file mode mask.
pub(super) fn plain_identity() -> io::Result<()> {
    rustix::thread::set_thread_groups(&[])?;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    Ok(())
}

struct Session {
    running: Running,
    outputs: Outputs,
    init: Pid,
}

fn start(config: &ShimConfig, cgroups: &Hierarchies, dirs: &Dirs) -> Result<Session, Failure> {
    let log = Log::open(&dirs.log(&config.id), config.log).map_err(|e| told(&e))?;
    let listener = listen(Path::new(SOCKET)).map_err(|e| told(&e))?;
    let mut running = container::start(config, cgroups)?;
    let init = Pid::from_raw(running.pid).expect("a process id is never 0");
    let pidfd = pidfd_open(init, PidfdFlags::empty()).map_err(|e| told(&e))?;
    let started = Started { pid: running.pid, started_at: Utc::now() };
    write_json(&dirs.started(), &started).map_err(|e| told(&e))?;
    // From here on there are threads.
    let streams = std::mem::take(&mut running.outputs);
    let outputs = Outputs::start(log, streams).map_err(|e| told(&e))?;
    let terminal = running.terminal.take();
    let shared = Arc::new(Shared::new(config.clone(), pidfd, terminal));
    control::start(listener, shared).map_err(|e| told(&e))?;
    Ok(Session { running, outputs, init })
}

impl Session {
    fn live(self, config: &ShimConfig, cgroups: &Hierarchies, dirs: &Dirs) {
        let status = wait_for(self.init);
        drop(self.running);
        self.outputs.finish();
        // Before the cgroup goes: it holds the evidence.
        let oom = cgroups.oom_kills(&config.cgroup) > 0;
        let (code, signal) = exit_code(status);
        end(dirs, code, signal, oom, None);
        container::delete(config, cgroups);
    }
}

/// Reaps children until this one has ended.
pub(super) fn wait_for(init: Pid) -> Option<WaitStatus> {
    loop {
        match wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if pid == init => return Some(status),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => {
                eprintln!("wait: {e}");
                return None;
            }
        }
    }
}

/// Exit code and signal, the code as a shell gives it.
pub(super) fn exit_code(status: Option<WaitStatus>) -> (i32, Option<i32>) {
    match status {
        Some(s) => match (s.exit_status(), s.terminating_signal()) {
            (Some(code), _) => (code, None),
            (None, Some(signal)) => (128 + signal, Some(signal)),
            (None, None) => (255, None),
        },
        None => (255, None),
    }
}

fn end(dirs: &Dirs, code: i32, signal: Option<i32>, oom: bool, error: Option<String>) {
    let status = ExitStatus { code, signal, oom, error, finished_at: Utc::now() };
    if let Err(e) = write_json(&dirs.exit(), &status) {
        eprintln!("{e}");
    }
}

fn refuse(report: &mut File, reason: String) -> ExitCode {
    tell(report, &Reply::Failed(Failure { reason, code: 125 }));
    ExitCode::FAILURE
}

fn tell(report: &mut File, reply: &Reply) {
    let line = serde_json::to_string(reply).expect("a reply always serialises");
    // A daemon that has died meanwhile reads started.json or exit.json instead.
    if let Err(e) = writeln!(report, "{line}") {
        eprintln!("report: {e}");
    }
}
