//! Many nodes of which only the sessions are real: the program `shoal-agents`, on a host.

use crate::{Host, program, wait_for};
use anyhow::{Context as _, bail, ensure};
use serde::{Deserialize, Serialize};
use std::{
    fs,
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    process::{Child, ChildStdin, Command, Stdio},
    sync::{Arc, Mutex, OnceLock, PoisonError},
    thread,
    time::{Duration, Instant},
};

/// Between two lines on how far the nodes are, while something is waited for.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// Nodes that put their whole tables together, at most about so many.
const WHOLE_TABLES: usize = 10;

/// How far the nodes are, all together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Nodes with a certificate.
    pub joined: u64,
    /// Attempts to join that failed.
    pub refused: u64,
    /// Nodes with a session.
    pub sessions: u64,
    /// Tasks that were ever begun.
    pub begun: u64,
    /// Tasks that run.
    pub running: u64,
    /// Tasks that were told to stop, or taken away.
    pub stopped: u64,
    /// Messages with assignments.
    pub messages: u64,
    /// Rows in them.
    pub rows: u64,
    /// Bytes of these.
    pub bytes: u64,
    /// The most other nodes that one knows, of those that put their tables together.
    pub most_peers: u64,
    /// Tasks they know on nodes they do not know.
    pub strangers: u64,
    /// Why a node has no session, or did not join; empty if that never was.
    pub complaint: String,
}

/// The processors this process might use when it was asked first are shared out: the managers' are the first
/// half, the nodes' the rest. `None`: there is one.
fn shares() -> Option<&'static (String, String)> {
    static SHARES: OnceLock<Option<(String, String)>> = OnceLock::new();
    let read = || {
        let status = fs::read_to_string("/proc/self/status").ok()?;
        halves(status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?)
    };
    SHARES.get_or_init(read).as_ref()
}

/// Of a list as the kernel writes it (`0-2,7`).
fn halves(list: &str) -> Option<(String, String)> {
    let mut cpus: Vec<u32> = Vec::new();
    for range in list.trim().split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
        cpus.extend(first..=last);
    }
    let written = |cpus: &[u32]| cpus.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
    let (managers, nodes) = cpus.split_at(cpus.len() / 2);
    (!managers.is_empty()).then(|| (written(managers), written(nodes)))
}

fn theirs() -> Option<&'static String> {
    shares().map(|(_, nodes)| nodes)
}

/// Leaves the nodes' processors to them: the process, with all its threads and those it starts from now on, keeps
/// to the others.
pub fn keep_to_managers_processors(pid: u32) -> anyhow::Result<()> {
    let Some((cpus, _)) = shares() else { return Ok(()) };
    let done = Command::new("taskset")
        .args(["--all-tasks", "--cpu-list", "--pid", cpus, &pid.to_string()])
        .output()
        .context("cannot run taskset")?;
    ensure!(done.status.success(), "taskset: {}", String::from_utf8_lossy(&done.stderr));
    Ok(())
}

/// The program. It ends when this is dropped.
#[derive(Debug)]
pub struct Agents {
    child: Child,
    progress: Arc<Mutex<Progress>>,
    /// Closed, it tells the program to end.
    stdin: Option<ChildStdin>,
}

impl Agents {
    /// Begins to be so many nodes, which join the managers with the token.
    pub fn start(
        host: &Host,
        managers: &[SocketAddr],
        token: &str,
        count: usize,
    ) -> anyhow::Result<Agents> {
        // Nodes have processors of their own: a manager that is busy must not make them late, nor they
        // a manager, however busy they are.
        let mut command = match theirs() {
            Some(cpus) => {
                let mut command = host.command("taskset");
                command.args(["--cpu-list", cpus]).arg(program::ours("shoal-agents")?);
                command
            }
            None => host.command(program::ours("shoal-agents")?),
        };
        // Putting tables together is the work of as many machines.
        let every = (count / WHOLE_TABLES).max(1).to_string();
        command.args(["--token", token, "--count", &count.to_string(), "--whole-every", &every]);
        for manager in managers {
            command.args(["--manager", &manager.to_string()]);
        }
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start shoal-agents")?;
        let stdin = child.stdin.take();
        let lines = BufReader::new(child.stdout.take().context("it is piped")?).lines();
        let progress = Arc::new(Mutex::new(Progress::default()));
        let seen = Arc::clone(&progress);
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if let Ok(now) = serde_json::from_str(&line) {
                    *seen.lock().unwrap_or_else(PoisonError::into_inner) = now;
                }
            }
        });
        Ok(Agents { child, progress, stdin })
    }

    /// How far they are.
    pub fn progress(&self) -> Progress {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it is so.
    pub fn wait(
        &mut self,
        what: &str,
        patience: Duration,
        so: impl Fn(&Progress) -> bool,
    ) -> anyhow::Result<Progress> {
        let mut said = Instant::now();
        let progress = wait_for(what, patience, || {
            if said.elapsed() >= TELL_EVERY {
                said = Instant::now();
                eprintln!("waiting for {what}: {:?}", self.progress());
            }
            if let Some(status) = self.child.try_wait()? {
                return Ok(Err(status));
            }
            let progress = self.progress();
            ensure!(so(&progress), "{progress:?}");
            Ok(Ok(progress))
        })?;
        progress.or_else(|status| bail!("shoal-agents ended before {what}: {status}"))
    }
}

impl Drop for Agents {
    fn drop(&mut self) {
        drop(self.stdin.take());
        // It may be busy, and has nothing to tidy up.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_processors_that_may_be_used_are_shared_out() {
        let shares = |managers: &str, nodes: &str| Some((managers.to_owned(), nodes.to_owned()));
        assert_eq!(halves("\t0-1\n"), shares("0", "1"));
        assert_eq!(halves("2-3,7"), shares("2", "3,7"));
        assert_eq!(halves("5"), None);
    }
}
