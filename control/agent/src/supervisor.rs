//! Starts the `shoal net` process, finds one that already runs, and starts it again when it ends.
use shoal_net::{NetClient, NetClientError, NetStatus, NetTable};
use std::{
    ffi::OsString,
    fs::File,
    io,
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};
use tokio::{sync::Mutex, time::sleep};

/// How long a started process may take until it listens.
const START_TRIES: u32 = 200;
const START_PAUSE: Duration = Duration::from_millis(25);

/// How to start the process.
#[derive(Clone, Debug)]
pub(crate) struct NetCommand {
    /// Program and arguments.
    pub(crate) program: Vec<OsString>,
    /// Control socket the arguments name.
    pub(crate) socket: PathBuf,
    /// File its output goes to.
    pub(crate) log: PathBuf,
}

/// The one place that talks to the process.
#[derive(Debug)]
pub(crate) struct NetSupervisor {
    command: NetCommand,
    client: Mutex<Option<NetClient>>,
}

impl NetSupervisor {
    pub(crate) fn new(command: NetCommand) -> NetSupervisor {
        NetSupervisor { command, client: Mutex::new(None) }
    }

    /// Replaces the table, starting the process if it does not run.
    pub(crate) async fn apply(&self, table: NetTable) -> Result<(), NetClientError> {
        let mut client = self.client.lock().await;
        for attempt in 0..2 {
            let connected = self.connected(&mut client).await?;
            match connected.apply(table.clone()).await {
                Err(e @ (NetClientError::Io(_) | NetClientError::Timeout)) if attempt == 0 => {
                    tracing::warn!(error = %e, "lost the shoal net process");
                    *client = None;
                }
                Err(e) => {
                    *client = None;
                    return Err(e);
                }
                Ok(()) => return Ok(()),
            }
        }
        Err(NetClientError::Timeout)
    }

    /// State, starting the process if it does not run. A process that had to be started has its
    /// last table from disk.
    pub(crate) async fn status(&self) -> Result<NetStatus, NetClientError> {
        let mut client = self.client.lock().await;
        let status = self.connected(&mut client).await?.status().await;
        if status.is_err() {
            *client = None;
        }
        status
    }

    /// A connection of its own to the process, if it runs.
    pub(crate) async fn another_client(&self) -> Result<NetClient, NetClientError> {
        NetClient::connect(&self.command.socket).await
    }

    /// Ends the process for good.
    pub(crate) async fn stop(&self) {
        let mut client = self.client.lock().await;
        if client.is_none() {
            *client = NetClient::connect(&self.command.socket).await.ok();
        }
        if let Some(mut client) = client.take()
            && let Err(error) = client.stop().await
        {
            tracing::warn!(%error, "the shoal net process was not told to stop");
        }
    }

    async fn connected<'a>(
        &self,
        client: &'a mut Option<NetClient>,
    ) -> Result<&'a mut NetClient, NetClientError> {
        if client.is_none() {
            let found = NetClient::connect(&self.command.socket).await;
            *client = Some(match found {
                Ok(client) => client,
                Err(_) => self.start().await?,
            });
        }
        Ok(client.as_mut().expect("it was put there just now"))
    }

    async fn start(&self) -> Result<NetClient, NetClientError> {
        let log = File::options().create(true).append(true).open(&self.command.log)?;
        let program =
            self.command.program.first().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        let mut command = Command::new(program);
        command.args(&self.command.program[1..]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        // A group of its own: a Ctrl-C at the daemon's terminal is not meant for it.
        command.process_group(0);
        let mut child = command.spawn()?;
        for _ in 0..START_TRIES {
            if let Ok(client) = NetClient::connect(&self.command.socket).await {
                // It outlives us; until then its end must be collected, or it stays a zombie.
                std::thread::spawn(move || child.wait());
                return Ok(client);
            }
            if let Some(status) = child.try_wait()? {
                let last = std::fs::read_to_string(&self.command.log).unwrap_or_default();
                let last = last.lines().last().unwrap_or_default().to_owned();
                return Err(NetClientError::Refused(format!(
                    "the shoal net process ended at its start ({status}): {last}"
                )));
            }
            sleep(START_PAUSE).await;
        }
        let _ = child.kill();
        let _ = child.wait();
        Err(NetClientError::Timeout)
    }
}
