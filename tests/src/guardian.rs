//! A process that outlives the one with the cluster, and then removes the cluster.
//!
//! It reads the cluster's manifest line by line from a pipe. The pipe's end means that nobody
//! needs the cluster any more: it was dropped, its test panicked, or the process was killed, in
//! whichever way. There is no other way of cleaning up, so this one is exercised by every test.

use crate::{Leftovers, Manifest, program};
use anyhow::{Context as _, bail};
use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    os::unix::process::CommandExt as _,
    process::{Child, ChildStdin, Command, Stdio},
    sync::Mutex,
};

/// The line that makes the guardian go without touching anything.
const KEEP: &str = "keep";
/// What it says when it listens and no signal for its parent can reach it.
const READY: &str = "ready";

/// The parent's side.
#[derive(Debug)]
pub struct Guardian(Mutex<State>);

#[derive(Debug)]
struct State {
    child: Child,
    /// None once it was told to clean up.
    pipe: Option<ChildStdin>,
    /// What it was told.
    manifest: String,
}

impl Guardian {
    /// Starts it.
    pub fn start() -> anyhow::Result<Self> {
        let mut child = Command::new(program::ours("shoal-guardian")?)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Ctrl-C goes to a terminal's foreground group; this must outlive it.
            .process_group(0)
            .spawn()
            .context("cannot start the guardian")?;
        let pipe = child.stdin.take();
        let mut ready = String::new();
        BufReader::new(child.stdout.as_mut().expect("it is piped")).read_line(&mut ready)?;
        if ready.trim_end() != READY {
            bail!("the guardian did not start");
        }
        Ok(Self(Mutex::new(State { child, pipe, manifest: String::new() })))
    }

    /// Makes a line of the manifest known. What it names is removed from now on, even if this
    /// process is killed the moment after.
    pub(crate) fn add(&self, line: &str) -> anyhow::Result<()> {
        let mut state = self.state();
        state.manifest += line;
        state.manifest.push('\n');
        let pipe = state.pipe.as_mut().context("the cluster is being removed")?;
        writeln!(pipe, "{line}").context("the guardian is gone")
    }

    /// Removes the cluster now. The second call, and those during the first, find nothing to do.
    pub fn clean_up(&self) -> Leftovers {
        let mut state = self.state();
        // The end of the pipe is the signal.
        if state.pipe.take().is_none() {
            return Leftovers::default();
        }
        let mut said = String::new();
        let heard = state.child.stdout.take().map(|mut out| out.read_to_string(&mut said));
        let ended = state.child.wait();
        let mut left: Vec<String> = said.lines().map(str::to_owned).collect();
        if !matches!(heard, Some(Ok(_))) || !ended.is_ok_and(|status| status.success()) {
            left.push("the guardian failed".to_owned());
        }
        Leftovers(left)
    }

    /// Leaves the cluster as it is, and gives the lines of a manifest that removes it later.
    pub(crate) fn let_be(&self) -> anyhow::Result<String> {
        let mut state = self.state();
        let mut pipe = state.pipe.take().context("the cluster is being removed")?;
        writeln!(pipe, "{KEEP}")?;
        drop(pipe);
        state.child.wait()?;
        Ok(state.manifest.clone())
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        // A panic elsewhere is when this is needed most.
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The guardian's side: `shoal-guardian` is nothing but this.
    pub fn serve() -> anyhow::Result<()> {
        // Out of the terminal's session as well: its hang-up must not end this.
        rustix::process::setsid().ok();
        println!("{READY}");
        let mut manifest = Manifest::default();
        for line in std::io::stdin().lock().lines() {
            match line? {
                line if line == KEEP => return Ok(()),
                line => manifest.add(&line)?,
            }
        }
        let left = manifest.remove();
        // The other end may be gone: then nobody listens, and that is no failure.
        let mut out = std::io::stdout().lock();
        left.0.iter().try_for_each(|line| writeln!(out, "{line}")).ok();
        Ok(())
    }
}
