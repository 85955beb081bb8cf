//! The last step inside a container: find the program, finish privileges, execute. Says what is wrong
//! in Docker's words.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use libcontainer::capabilities::drop_privileges;
use libcontainer::oci_spec::runtime::{LinuxCapabilities, LinuxSeccomp, Spec};
use libcontainer::seccomp::initialize_seccomp;
use libcontainer::syscall::syscall::create_syscall;
use libcontainer::workload::{Executor, ExecutorError, ExecutorValidationError};

use super::execute::execute;
use crate::wire::Failure;

/// Executes a container's process.
#[derive(Clone, Default)]
pub(super) struct ContainerExecutor {
    /// For an exec: libcontainer forgets the filter and has dropped what loading one needs, so it is
    /// given more capabilities than the process gets, and both are finished here.
    pub(super) finish: Option<Box<(Option<LinuxSeccomp>, LinuxCapabilities)>>,
}

impl Executor for ContainerExecutor {
    fn exec(&self, spec: &Spec) -> Result<(), ExecutorError> {
        let args = arguments(spec);
        let [program, ..] = args else { return Err(ExecutorError::InvalidArg) };
        let path = find(program, search_path(spec)).map_err(ExecutorError::Other)?;
        if let Some(finish) = &self.finish {
            let (filter, capabilities) = &**finish;
            if let Some(filter) = filter {
                initialize_seccomp(filter).map_err(|e| ExecutorError::Other(e.to_string()))?;
            }
            drop_privileges(capabilities, &*create_syscall())
                .map_err(|e| ExecutorError::Other(e.to_string()))?;
        }
        let error = execute(&path, args);
        // Nobody but the container's own output is listening any more.
        eprintln!("exec {}: {}", path.display(), in_words(&error));
        Err(ExecutorError::Other(format!("exec {}: {}", path.display(), in_words(&error))))
    }

    fn validate(&self, spec: &Spec) -> Result<(), ExecutorValidationError> {
        let Some(program) = arguments(spec).first() else {
            return Err(ExecutorValidationError::ArgValidationError("no command".to_owned()));
        };
        find(program, search_path(spec))
            .map(drop)
            .map_err(ExecutorValidationError::ArgValidationError)
    }
}

/// The part of a nested error's text that is meant for the user, with the exit code Docker's client
/// gives it.
pub(super) fn failure(text: &str) -> Failure {
    let reason = text.find("exec: \"").map_or(text, |at| &text[at..]).trim_end_matches('\0');
    let reason = reason.lines().next().unwrap_or(reason).to_owned();
    let code = if reason.contains("executable file not found")
        || reason.contains("no such file or directory")
    {
        127
    } else if reason.contains("permission denied") || reason.contains("is a directory") {
        126
    } else {
        125
    };
    Failure { reason, code }
}

fn arguments(spec: &Spec) -> &[String] {
    spec.process().as_ref().and_then(|p| p.args().as_deref()).unwrap_or_default()
}

fn search_path(spec: &Spec) -> &str {
    let env = spec.process().as_ref().and_then(|p| p.env().as_deref()).unwrap_or_default();
    env.iter().rev().find_map(|e| e.strip_prefix("PATH=")).unwrap_or("")
}

/// The program's path; the error is in the words of Go's `exec`, which Docker prints.
fn find(program: &str, search_path: &str) -> Result<PathBuf, String> {
    if program.contains('/') {
        return match check(Path::new(program)) {
            Ok(()) => Ok(program.into()),
            Err("no such file or directory") => {
                Err(format!("exec: {program:?}: stat {program}: no such file or directory"))
            }
            Err(reason) => Err(format!("exec: {program:?}: {reason}")),
        };
    }
    let mut denied = false;
    for folder in search_path.split(':') {
        let path = Path::new(if folder.is_empty() { "." } else { folder }).join(program);
        match check(&path) {
            Ok(()) => return Ok(path),
            Err(reason) => denied |= reason == "permission denied",
        }
    }
    let reason = if denied { "permission denied" } else { "executable file not found in $PATH" };
    Err(format!("exec: {program:?}: {reason}"))
}

fn check(path: &Path) -> Result<(), &'static str> {
    match fs::metadata(path) {
        Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => Err("permission denied"),
        Err(_) => Err("no such file or directory"),
        Ok(m) if m.is_dir() => Err("is a directory"),
        Ok(m) if m.permissions().mode() & 0o111 == 0 => Err("permission denied"),
        Ok(_) => Ok(()),
    }
}

fn in_words(error: &std::io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::ENOEXEC) => "exec format error".to_owned(),
        Some(libc::ENOENT) => "no such file or directory".to_owned(),
        Some(libc::EACCES) => "permission denied".to_owned(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_users_part_of_a_nested_error_is_found_with_its_code() {
        let nested = "failed: exec process failed with error: exec: \"x\": executable file not found in $PATH";
        let failure = failure(nested);
        assert_eq!(failure.reason, "exec: \"x\": executable file not found in $PATH");
        assert_eq!(failure.code, 127);
        assert_eq!(super::failure("exec: \"/etc\": is a directory").code, 126);
        assert_eq!(super::failure("cannot mount").code, 125);
    }

    #[test]
    fn programs_are_looked_up_as_a_shell_would() {
        assert_eq!(find("sh", "/nope:/bin").unwrap(), Path::new("/bin/sh"));
        assert!(find("nosuch", "/bin").unwrap_err().contains("not found in $PATH"));
        assert!(find("/nosuch", "/bin").unwrap_err().contains("stat /nosuch: no such file"));
        assert!(find("/etc/passwd", "").unwrap_err().contains("permission denied"));
        assert!(find("/etc", "").unwrap_err().contains("is a directory"));
    }
}
