//! The exec helper: a fresh single-threaded process that starts one more process in a container, waits
//! for it, and reports each step as a line of JSON.

use std::collections::HashSet;
use std::error::Error;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use libcontainer::container::builder::ContainerBuilder;
use libcontainer::oci_spec::runtime::{LinuxCapabilities, LinuxSeccomp};
use libcontainer::syscall::syscall::SyscallType;
use rustix::process::Pid;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::ShimConfig;
use super::container::{chain, join_v2, settle_oom_score};
use super::executor::{ContainerExecutor, failure};
use super::session::{exit_code, plain_identity, wait_for};
use crate::cgroup::Hierarchies;
use crate::disk::read_json;
use crate::wire::Failure;

/// The wanted process, in the session's folder.
pub(super) const PROCESS: &str = "process.json";
/// The process as libcontainer is given it.
const ADAPTED: &str = "adapted.json";
/// Where a terminal is sent, in the session's folder.
pub(super) const CONSOLE: &str = "console.sock";
/// What it takes to load a filter and to drop capabilities, which the executor does last.
const NEEDED: [&str; 2] = ["CAP_SYS_ADMIN", "CAP_SETPCAP"];

/// A helper's report.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Status {
    /// It runs, with this process id on the host.
    Started(i32),
    Failed(Failure),
    Exited(i32),
}

pub(super) fn run(bundle: &Path, session: &Path, status: &Path) -> ExitCode {
    let mut status = match File::options().write(true).open(status) {
        Ok(file) => file,
        Err(e) => {
            eprintln!("{}: {e}", status.display());
            return ExitCode::FAILURE;
        }
    };
    match start(bundle, session) {
        Ok(pid) => {
            tell(&mut status, &Status::Started(pid.as_raw_nonzero().get()));
            let (code, _) = exit_code(wait_for(pid));
            tell(&mut status, &Status::Exited(code));
            ExitCode::SUCCESS
        }
        Err(e) => {
            tell(&mut status, &Status::Failed(failure(&chain(&*e))));
            ExitCode::FAILURE
        }
    }
}

fn start(bundle: &Path, session: &Path) -> Result<Pid, Box<dyn Error>> {
    plain_identity()?;
    std::env::set_current_dir(bundle)?;
    let config: ShimConfig = read_json(Path::new("shim.json"))?.ok_or("shim.json is missing")?;
    let container: Value = read_json(Path::new("config.json"))?.ok_or("config.json is missing")?;
    let cgroups = Hierarchies::find()?;
    if cgroups.hybrid() {
        join_v2(&cgroups, &config.cgroup)?;
    }
    let mut process: Value = read_json(&session.join(PROCESS))?.ok_or("process.json is missing")?;
    settle_oom_score(&mut process);
    let filter: Option<LinuxSeccomp> =
        serde_json::from_value(container["linux"]["seccomp"].clone())?;
    let wanted: LinuxCapabilities = serde_json::from_value(process["capabilities"].clone())?;
    widen(&mut process["capabilities"]);
    let adapted = session.join(ADAPTED);
    fs::write(&adapted, serde_json::to_vec(&process)?)?;

    let terminal = process["terminal"].as_bool() == Some(true);
    let session = bundle.join(session);
    let executor = ContainerExecutor { finish: Some(Box::new((filter, wanted))) };
    let pid = ContainerBuilder::new(config.id, SyscallType::default())
        .with_root_path(&session)?
        .with_console_socket(terminal.then(|| session.join(CONSOLE)))
        .with_executor(executor)
        .as_tenant()
        .with_process(Some(&adapted))
        .with_detach(true)
        .build()?;
    Ok(Pid::from_raw(pid.as_raw()).ok_or("libcontainer gave no process id")?)
}

/// Adds what the executor needs to each set; the executor takes it away again.
fn widen(capabilities: &mut Value) {
    for set in ["bounding", "effective", "permitted"] {
        let has = capabilities[set].as_array().cloned().unwrap_or_default();
        let has: HashSet<&str> = has.iter().filter_map(Value::as_str).chain(NEEDED).collect();
        capabilities[set] = json!(has);
    }
}

fn tell(status: &mut File, word: &Status) {
    let line = serde_json::to_string(word).expect("a status always serialises");
    if let Err(e) = writeln!(status, "{line}") {
        eprintln!("status: {e}");
    }
}
