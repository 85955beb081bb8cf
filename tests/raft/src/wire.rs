//! What hosts say to each other, and how: a length, then postcard. And the store's transport made of it.

use async_trait::async_trait;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use shoal_store::{RaftCall, Transport, TransportError};
use std::{
    collections::BTreeMap,
    io::{self, ErrorKind},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::timeout,
};
use turmoil::net::TcpStream;

/// Where managers listen.
pub(crate) const PORT: u16 = 2377;

/// Bytes of a message: a call of the store's and something around it.
const MAX_MESSAGE: u32 = 2 * shoal_store::MAX_CALL_BYTES as u32;

/// A connection that has been silent for so long is given up, as keep-alive does for real ones: turmoil's TCP
/// does not send again what was lost. Longer than any disk hangs.
const SILENCE: Duration = Duration::from_secs(10);

/// Connections to one manager that are kept while nothing is asked over them.
const IDLE: usize = 4;

#[derive(Serialize, Deserialize)]
pub(crate) enum Request {
    /// A call of another store.
    Raft { from: String, call: String, request: Vec<u8> },
    /// Makes objects, each in a proposal of its own, all at once.
    Make(Vec<String>),
    /// How many objects each client has made, after a barrier.
    Count,
    /// A change of the cluster.
    Order(Order),
}

#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub(crate) enum Order {
    /// Take a manager in.
    Add(String),
    /// Let one go.
    Remove(String),
    /// Give the lead away.
    StepDown,
    /// Seal everything anew.
    RotateKey,
}

#[derive(Serialize, Deserialize)]
pub(crate) enum Answer {
    Raft(Result<Vec<u8>, String>),
    Made(Vec<Result<u64, Failure>>),
    Counted(Result<BTreeMap<String, u64>, Failure>),
    Done(Result<(), Failure>),
}

/// Why not.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub(crate) enum Failure {
    /// The state refused it.
    Refused,
    /// Another manager leads.
    Leader(String),
    /// Anything else.
    Other(String),
}

pub(crate) async fn send(stream: &mut TcpStream, message: &impl Serialize) -> io::Result<()> {
    let bytes = postcard::to_stdvec(message).map_err(io::Error::other)?;
    let mut frame = u32::try_from(bytes.len()).map_err(io::Error::other)?.to_be_bytes().to_vec();
    frame.extend_from_slice(&bytes);
    stream.write_all(&frame).await
}

pub(crate) async fn receive<T: DeserializeOwned>(stream: &mut TcpStream) -> io::Result<T> {
    let length = stream.read_u32().await?;
    if length > MAX_MESSAGE {
        return Err(ErrorKind::InvalidData.into());
    }
    let mut bytes = vec![0; length as usize];
    stream.read_exact(&mut bytes).await?;
    postcard::from_bytes(&bytes).map_err(io::Error::other)
}

/// Connections to managers, by name.
#[derive(Default)]
pub(crate) struct Connections(Mutex<BTreeMap<String, Vec<TcpStream>>>);

impl Connections {
    fn idle(&self) -> MutexGuard<'_, BTreeMap<String, Vec<TcpStream>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks, over a connection of its own for as long as it takes.
    pub(crate) async fn ask(&self, manager: &str, request: &Request) -> io::Result<Answer> {
        let idle = self.idle().get_mut(manager).and_then(Vec::pop);
        let mut stream = match idle {
            Some(stream) => stream,
            None => TcpStream::connect((manager, PORT)).await?,
        };
        let answer = async {
            send(&mut stream, request).await?;
            receive(&mut stream).await
        };
        let answer = answer.await;
        let mut all = self.idle();
        let idle = all.entry(manager.to_owned()).or_default();
        match &answer {
            // The others are likely to be broken, too.
            Err(_) => idle.clear(),
            Ok(_) if idle.len() < IDLE => idle.push(stream),
            Ok(_) => {}
        }
        answer
    }
}

/// The store's calls.
pub(crate) struct Calls {
    pub(crate) own: String,
    pub(crate) connections: Connections,
}

#[async_trait]
impl Transport for Calls {
    async fn call(
        &self,
        node_id: &str,
        _addr: &str,
        call: RaftCall,
        request: Vec<u8>,
    ) -> Result<Vec<u8>, TransportError> {
        let call = call.as_str().to_owned();
        let request = Request::Raft { from: self.own.clone(), call, request };
        let answer = timeout(SILENCE, self.connections.ask(node_id, &request)).await;
        let answer = answer.unwrap_or_else(|silent| Err(silent.into()));
        match answer.map_err(|error| TransportError::Unreachable(error.into()))? {
            Answer::Raft(answer) => answer.map_err(TransportError::Refused),
            _ => Err(TransportError::Refused("an answer to something else".to_owned())),
        }
    }
}
