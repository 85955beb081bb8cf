//! A host: network, mount and UTS namespaces of its own, held by one sleeping process.

use crate::{Guardian, Manifest, Outcome, Response, http};
use anyhow::{Context as _, bail};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::{
    fs::File,
    io::{BufRead as _, BufReader, Write as _},
    os::{fd::AsFd as _, unix::process::CommandExt as _},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
};

/// A machine of its own as far as its network, mounts and name are concerned.
#[derive(Debug)]
pub struct Host {
    name: String,
    holder: Child,
}

impl Host {
    /// Starts a host and runs `script` in it. Without a word to its standard input the holder
    /// would go away by itself, so that it is never there without the guardian knowing.
    pub(crate) fn start(name: &str, guardian: &Guardian, script: &str) -> anyhow::Result<Self> {
        let script = format!(
            "set -e\nhostname {name}\necho here\nread -r go || exit 0\nip link set lo up\n{script}\n\
             echo ready\nexec sleep infinity >/dev/null"
        );
        let mut holder = Command::new("unshare")
            .args(["--net", "--mount", "--uts", "--propagation", "private", "--"])
            .args(["/bin/sh", "-c", &script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .context("cannot start unshare of util-linux")?;
        let mut said = BufReader::new(holder.stdout.take().expect("it is piped"));
        let mut expect = |word: &str| -> anyhow::Result<()> {
            let mut line = String::new();
            said.read_line(&mut line)?;
            if line.trim_end() != word {
                bail!("the namespaces of {name} could not be made: is this root?");
            }
            Ok(())
        };
        expect("here")?;
        guardian.add(&Manifest::holder_line(holder.id())?)?;
        holder.stdin.take().expect("it is piped").write_all(b"go\n")?;
        expect("ready")?;
        Ok(Self { name: name.to_owned(), holder })
    }

    /// Its host name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The process that holds its namespaces.
    pub fn holder(&self) -> u32 {
        self.holder.id()
    }

    /// A program, to be run on this host.
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.holder.id().to_string(), "--net", "--mount", "--uts"]);
        command.arg("--").arg(program.as_ref());
        command
    }

    /// Runs a program on this host to its end.
    pub fn run(&self, command: &[&str]) -> anyhow::Result<Outcome> {
        let (program, args) = command.split_first().context("there is no command to run")?;
        Outcome::of(self.command(program).args(args))
    }

    /// Runs a shell script on this host; an error names what failed.
    pub(crate) fn script(&self, script: &str) -> anyhow::Result<()> {
        let outcome = self.run(&["/bin/sh", "-ec", script])?;
        outcome.ok().map(drop).with_context(|| format!("on {}", self.name))
    }

    /// Does something in a thread that is in this host's network namespace. Sockets it makes
    /// belong there for good.
    pub fn in_network<T: Send>(&self, act: impl FnOnce() -> T + Send) -> anyhow::Result<T> {
        in_network_of(self.holder.id(), act)
    }

    /// `GET` of `http://ADDRESS[:PORT]/PATH` from this host.
    pub fn http_get(&self, url: &str) -> anyhow::Result<Response> {
        self.in_network(|| http::get(url))?.with_context(|| format!("from {}", self.name))
    }
}

/// Does something in a thread that is in the network namespace of a process, such as a container's.
pub fn in_network_of<T: Send>(pid: u32, act: impl FnOnce() -> T + Send) -> anyhow::Result<T> {
    let path = format!("/proc/{pid}/ns/net");
    let namespace = File::open(&path).with_context(|| format!("cannot open {path}"))?;
    thread::scope(|scope| {
        let thread = scope.spawn(move || {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
                .context("cannot enter a network namespace: is this root?")?;
            anyhow::Ok(act())
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

impl Drop for Host {
    fn drop(&mut self) {
        // The guardian ended it, or it is to stay; this only reaps.
        self.holder.try_wait().ok();
    }
}
