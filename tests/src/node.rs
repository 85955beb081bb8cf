//! A node: a host that runs the daemon.

use crate::{Host, Outcome, Response, http, kill_all, patiently, processes_of, program, wait_for};
use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};
use std::{
    ffi::OsStr,
    fs,
    net::IpAddr,
    ops::Deref,
    os::unix::{net::UnixStream, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Mutex,
};

/// Where each node's daemon serves its metrics, in the node's own network.
const METRICS: &str = "127.0.0.1:9323";

/// A host with a daemon. What a [`Host`] can do, it can, too.
#[derive(Debug)]
pub struct Node {
    host: Host,
    folder: PathBuf,
    cgroup: String,
    addresses: (IpAddr, IpAddr),
    daemon: Mutex<Option<Child>>,
}

impl Deref for Node {
    type Target = Host;

    fn deref(&self) -> &Host {
        &self.host
    }
}

impl Node {
    /// What the host of a node needs besides its links: a bpf file system and its own resolvers.
    pub(crate) fn script(folder: &Path) -> String {
        let folder = folder.display();
        format!(
            "mkdir -p {folder}/bpf\n\
             mount -t bpf bpf {folder}/bpf\n\
             : >{folder}/resolv.conf\n\
             mount --bind {folder}/resolv.conf /etc/resolv.conf"
        )
    }

    pub(crate) fn new(
        host: Host,
        folder: PathBuf,
        cgroup: String,
        addresses: (IpAddr, IpAddr),
    ) -> Self {
        Self { host, folder, cgroup, addresses, daemon: Mutex::default() }
    }

    /// Its IPv4 address on the nodes' segment.
    pub fn addr(&self) -> IpAddr {
        self.addresses.0
    }

    /// Its IPv6 address on the nodes' segment.
    pub fn addr6(&self) -> IpAddr {
        self.addresses.1
    }

    /// The API's socket.
    pub fn api_socket(&self) -> PathBuf {
        self.folder.join("run/shoal.sock")
    }

    /// What `DOCKER_HOST` has to be for this node.
    pub fn docker_host(&self) -> String {
        format!("unix://{}", self.api_socket().display())
    }

    /// The daemon's state folder.
    pub fn data_root(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// The daemon's command line, for starting it, or a second one, or one with other options.
    pub fn daemon_command(&self) -> anyhow::Result<Command> {
        let mut command = self.host.command(program::ours("shoal")?);
        let run = self.folder.join("run");
        command.arg("daemon").arg("--host").arg(self.docker_host());
        command.arg("--data-root").arg(self.data_root());
        command.arg("--exec-root").arg(&run);
        command.arg("--pidfile").arg(run.join("shoal.pid"));
        command.args(["--metrics-addr", METRICS, "--cgroup-parent", &self.cgroup]);
        command.arg("--bpf-root").arg(self.folder.join("bpf"));
        Ok(command)
    }

    /// Starts the daemon and waits until its API answers.
    pub fn start_daemon(&self) -> anyhow::Result<()> {
        self.start_daemon_with(&[])
    }

    /// The same, with these variables in its environment.
    pub fn start_daemon_with(&self, environment: &[(&str, &OsStr)]) -> anyhow::Result<()> {
        fs::create_dir_all(self.folder.join("run"))?;
        let path = self.log_path();
        let log = fs::OpenOptions::new().create(true).append(true).open(&path)?;
        let child = self
            .daemon_command()?
            .envs(environment.iter().copied())
            .arg("--debug")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .spawn()
            .context("cannot start the daemon")?;
        *self.daemon() = Some(child);
        let ended = wait_for(&format!("the API of {}", self.name()), patiently(), || {
            if let Some(status) = self.daemon().as_mut().and_then(|d| d.try_wait().transpose()) {
                return Ok(Some(status?));
            }
            match self.api("GET", "/_ping", "")?.status {
                200 => Ok(None),
                other => bail!("it answers {other}"),
            }
        })?;
        match ended {
            None => Ok(()),
            Some(status) => {
                bail!("the daemon of {} ended ({status}): {}", self.name(), self.log_tail())
            }
        }
    }

    /// Ends the daemon with SIGTERM, as systemd would; containers and connections go on.
    pub fn stop_daemon(&self) -> anyhow::Result<()> {
        let mut daemon = self.daemon();
        let child = daemon.as_mut().context("the daemon is not running")?;
        kill_process(Pid::from_child(child), Signal::TERM)?;
        let name = self.name();
        wait_for(&format!("the daemon of {name} to end"), patiently(), || {
            child.try_wait()?.context("it runs on")
        })?;
        *daemon = None;
        Ok(())
    }

    /// Ends the daemon with SIGKILL: it can tidy up nothing.
    pub fn kill_daemon(&self) -> anyhow::Result<()> {
        let mut child = self.daemon().take().context("the daemon is not running")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// The daemon ends and starts again.
    pub fn restart_daemon(&self) -> anyhow::Result<()> {
        self.stop_daemon()?;
        self.start_daemon()
    }

    /// The daemon's process, if it runs.
    pub fn daemon_pid(&self) -> Option<u32> {
        self.daemon().as_ref().map(Child::id)
    }

    /// Every process of the node: the daemon, what it started, and containers.
    pub fn processes(&self) -> anyhow::Result<Vec<u32>> {
        processes_of(self.holder(), Some(&self.cgroup))
    }

    /// The process that carries the overlay and answers DNS.
    pub fn net_pid(&self) -> anyhow::Result<u32> {
        let is_net = |pid: &u32| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.split(|byte| *byte == 0).nth(1) == Some(b"net")
        };
        let found = self.processes()?.into_iter().find(is_net);
        found.with_context(|| format!("{} has no `shoal net`", self.name()))
    }

    /// Folder in which the daemon pins programs and maps, as seen from outside of the node's mounts.
    pub fn bpf_root(&self) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.holder()));
        root.join(self.folder.join("bpf").strip_prefix("/").unwrap_or(&self.folder))
    }

    /// Name of the control group above all its containers.
    pub fn cgroup(&self) -> &str {
        &self.cgroup
    }

    /// The daemon's folder for what need not survive a reboot.
    pub fn exec_root(&self) -> PathBuf {
        self.folder.join("run")
    }

    /// Kills every process of the node at once, containers too: the power fails.
    pub fn power_off(&self) -> anyhow::Result<()> {
        let left = kill_all(|| self.processes().unwrap_or_default());
        if let Some(mut child) = self.daemon().take() {
            child.wait()?;
        }
        if left.0.is_empty() { Ok(()) } else { bail!("{} has {:?} left", self.name(), left.0) }
    }

    /// One request to the API, as it is: for what the docker client would not send.
    pub fn api(&self, method: &str, path: &str, body: &str) -> anyhow::Result<Response> {
        let socket = self.api_socket();
        let stream = UnixStream::connect(&socket)
            .with_context(|| format!("cannot connect to {}", socket.display()))?;
        stream.set_read_timeout(Some(patiently()))?;
        http::exchange(stream, method, "shoal", path, body)
    }

    /// The real docker client, talking to this node.
    pub fn docker_command(&self) -> Command {
        let mut command = Command::new(program::docker());
        command.env("DOCKER_HOST", self.docker_host());
        // Not the contexts, credentials and plugins of whoever runs this.
        command.env("DOCKER_CONFIG", self.folder.join("docker-config"));
        command.env_remove("DOCKER_CONTEXT").env_remove("DOCKER_API_VERSION");
        command
    }

    /// Runs the real docker client against this node.
    pub fn docker(&self, args: &[&str]) -> anyhow::Result<Outcome> {
        Outcome::of(self.docker_command().args(args))
    }

    /// Runs `shoal` as a client of this node.
    pub fn shoal(&self, args: &[&str]) -> anyhow::Result<Outcome> {
        let mut command = Command::new(program::ours("shoal")?);
        Outcome::of(command.env("DOCKER_HOST", self.docker_host()).args(args))
    }

    /// The text of `/metrics`.
    pub fn metrics(&self) -> anyhow::Result<String> {
        let response = self.host.http_get(&format!("http://{METRICS}/metrics"))?;
        if response.status != 200 {
            bail!("/metrics of {} answers {}: {}", self.name(), response.status, response.body);
        }
        Ok(response.body)
    }

    /// Which name servers the node's own processes are told to ask.
    pub fn set_resolver(&self, server: IpAddr) -> anyhow::Result<()> {
        fs::write(self.folder.join("resolv.conf"), format!("nameserver {server}\n"))
            .context("cannot write the node's resolv.conf")
    }

    /// All that the daemon has logged.
    pub fn logs(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// The last lines of the log, for messages.
    pub(crate) fn log_tail(&self) -> String {
        const LINES: usize = 30;
        let log = self.logs();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LINES)..].join("\n")
    }

    fn log_path(&self) -> PathBuf {
        self.folder.join("daemon.log")
    }

    fn daemon(&self) -> std::sync::MutexGuard<'_, Option<Child>> {
        self.daemon.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
