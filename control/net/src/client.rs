//! The daemon's end of the control socket.
use crate::protocol::{NetStatus, NetTable, Reply, Request, codec};
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, pidfd_open},
};
use std::{collections::BTreeSet, io, path::Path, time::Duration};
use tokio::{net::UnixStream, task::spawn_blocking, time::timeout};
use tokio_util::codec::{Framed, LengthDelimitedCodec};

/// A request that takes longer means the process hangs.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why the process did not do as it was asked.
#[derive(Debug, thiserror::Error)]
pub enum NetClientError {
    /// It cannot be reached: it does not run, or has just ended.
    #[error("cannot talk to the shoal net process")]
    Io(#[from] io::Error),
    /// It did not answer in time.
    #[error("the shoal net process did not answer within 10 s")]
    Timeout,
    /// It answered something else than was asked.
    #[error("the shoal net process does not speak this version's protocol; restart it")]
    Protocol,
    /// It refused, with its reason.
    #[error("{0}")]
    Refused(String),
}

/// A connection to the process.
#[derive(Debug)]
pub struct NetClient(Framed<UnixStream, LengthDelimitedCodec>);

impl NetClient {
    /// Connects to the process that listens at `socket`.
    pub async fn connect(socket: &Path) -> Result<NetClient, NetClientError> {
        Ok(NetClient(Framed::new(UnixStream::connect(socket).await?, codec())))
    }

    /// Replaces the table; returns when the data plane works from it.
    pub async fn apply(&mut self, table: NetTable) -> Result<(), NetClientError> {
        match self.ask(Request::Apply(Box::new(table))).await? {
            Reply::Done => Ok(()),
            _ => Err(NetClientError::Protocol),
        }
    }

    /// State and counters.
    pub async fn status(&mut self) -> Result<NetStatus, NetClientError> {
        match self.ask(Request::Status).await? {
            Reply::Status(status) => Ok(*status),
            _ => Err(NetClientError::Protocol),
        }
    }

    /// Public keys of the peers that are silent, as soon as they are others than `known`; the same after
    /// some seconds in which nothing changed. The connection serves nothing else meanwhile.
    pub async fn silent(
        &mut self,
        known: &BTreeSet<String>,
    ) -> Result<BTreeSet<String>, NetClientError> {
        match self.ask(Request::Silent(known.clone())).await? {
            Reply::Silent(silent) => Ok(silent),
            _ => Err(NetClientError::Protocol),
        }
    }

    /// Ends the process: the node leaves the cluster. Returns when it is gone, and with it the
    /// overlay device.
    pub async fn stop(&mut self) -> Result<(), NetClientError> {
        let pid = self.0.get_ref().peer_cred()?.pid().and_then(Pid::from_raw);
        let pid = pid.ok_or(NetClientError::Protocol)?;
        // Opened while it surely lives: its number may be another's later.
        let process = pidfd_open(pid, PidfdFlags::empty()).map_err(io::Error::from)?;
        match self.ask(Request::Stop).await? {
            Reply::Done => {}
            _ => return Err(NetClientError::Protocol),
        }
        // Readable when the process has ended (pidfd_open(2)).
        let ended = move || {
            let patience = Timespec::try_from(PATIENCE).ok();
            poll(&mut [PollFd::new(&process, PollFlags::IN)], patience.as_ref())
        };
        match spawn_blocking(ended).await.map_err(io::Error::other)?.map_err(io::Error::from)? {
            0 => Err(NetClientError::Timeout),
            _ => Ok(()),
        }
    }

    async fn ask(&mut self, request: Request) -> Result<Reply, NetClientError> {
        let request = serde_json::to_vec(&request).map_err(io::Error::other)?;
        let exchange = async {
            self.0.send(Bytes::from(request)).await?;
            let reply = self.0.next().await;
            reply.unwrap_or_else(|| Err(io::ErrorKind::UnexpectedEof.into()))
        };
        let reply = timeout(PATIENCE, exchange).await.map_err(|_| NetClientError::Timeout)??;
        match serde_json::from_slice(&reply).map_err(|_| NetClientError::Protocol)? {
            Reply::Refused(reason) => Err(NetClientError::Refused(reason)),
            reply => Ok(reply),
        }
    }
}
