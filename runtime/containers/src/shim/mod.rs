//! The shim: one process per container, which outlives the daemon.
//!
//! Order matters: until the container's first process is started, the shim has one thread, since
//! libcontainer forks and allocates in the child. After that: one thread for each output, one that
//! accepts on the control socket, one or two for each connection; the first thread only waits for
//! children (it is a subreaper, so that orphans of exec helpers come to it).

mod console;
mod container;
mod control;
mod exec;
mod execute;
mod executor;
mod helper;
pub(crate) mod log;
mod output;
pub(crate) mod session;
mod signals;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use serde::{Deserialize, Serialize};

use crate::spec::LogLimits;

/// What the daemon tells a shim, as `shim.json` in the bundle.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ShimConfig {
    pub(crate) id: String,
    /// The container's lasting folder.
    pub(crate) data: PathBuf,
    /// `/<parent>/<id>`.
    pub(crate) cgroup: String,
    pub(crate) tty: bool,
    pub(crate) open_stdin: bool,
    pub(crate) log: LogLimits,
    /// Program and first arguments of the exec helper.
    pub(crate) exec_command: Vec<String>,
    /// The limit of open files of what runs here; `None`: as inherited.
    #[serde(default)]
    pub(crate) open_files: Option<u64>,
}

/// The hidden sub-command `shim --bundle DIR`: makes and starts the container of a bundle, reports on
/// standard output, and stays until it has ended. Standard input is the lock that says it lives.
/// Must be called before any thread or runtime exists.
pub fn shim_main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    match option(args, &["--bundle"]) {
        Ok([bundle]) => session::run(&bundle),
        Err(reason) => usage(&reason, "shim --bundle DIR"),
    }
}

/// The hidden sub-command `shim-exec --bundle DIR --session DIR --status PATH`: starts one more process
/// in a running container, waits for it and reports. Must be called before any thread or runtime
/// exists.
pub fn exec_main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    match option(args, &["--bundle", "--session", "--status"]) {
        Ok([bundle, session, status]) => helper::run(&bundle, &session, &status),
        Err(reason) => usage(&reason, "shim-exec --bundle DIR --session DIR --status PATH"),
    }
}

/// The values of exactly these options, in their order.
fn option<const N: usize>(
    args: impl IntoIterator<Item = OsString>,
    names: &[&str; N],
) -> Result<[PathBuf; N], String> {
    let mut values: [Option<PathBuf>; N] = [const { None }; N];
    let mut args = args.into_iter();
    while let Some(name) = args.next() {
        let Some(at) = names.iter().position(|n| name == *n) else {
            return Err(format!("unknown argument {name:?}"));
        };
        values[at] = Some(args.next().ok_or(format!("{} needs a value", names[at]))?.into());
    }
    let missing = names.iter().zip(&values).find(|(_, v)| v.is_none());
    if let Some((name, _)) = missing {
        return Err(format!("{name} is missing"));
    }
    Ok(values.map(|v| v.expect("none is missing: checked above")))
}

fn usage(reason: &str, usage: &str) -> ExitCode {
    eprintln!("{reason}; usage: {usage} (started by the daemon, not by hand)");
    ExitCode::from(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_must_be_all_there_and_known() {
        let args = |words: &str| words.split(' ').map(OsString::from).collect::<Vec<_>>();
        assert_eq!(option(args("--a 1 --b 2"), &["--a", "--b"]).unwrap()[1], PathBuf::from("2"));
        assert!(option(args("--a 1"), &["--a", "--b"]).unwrap_err().contains("--b is missing"));
        assert!(option(args("--a 1 --c 2"), &["--a"]).unwrap_err().contains("--c"));
        assert!(option(args("--a"), &["--a"]).unwrap_err().contains("needs a value"));
    }
}
