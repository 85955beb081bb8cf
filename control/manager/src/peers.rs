//! Connections to the other managers, kept as long as they work: to each one for the replicated log, in the managers'
//! lane, and one for all else.
use crate::appends::{Appended, Appends};
use async_trait::async_trait;
use shoal_identity::{CLIENT_PATIENCE, NodeCertificate, connect_within, lane_config, peer_config};
use shoal_rpc::{RaftRequest, raft_appended::Answer, raft_client::RaftClient};
use shoal_store::{MAX_CALL_BYTES, RaftCall, Transport, TransportError};
use std::{
    collections::{BTreeMap, BTreeSet},
    error::Error,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::{
    runtime::Handle,
    sync::{OnceCell, watch},
    time::timeout,
};
use tonic::{Status, transport::Channel};

/// How long connecting to a manager may take: the next attempt follows soon.
const CONNECT_WAIT: Duration = Duration::from_secs(1);

/// Longest answer of the replicated log's protocol; the log gives up much earlier where it can.
const CALL_WAIT: Duration = Duration::from_secs(30);

/// Largest message of the replicated log's protocol, bytes: what the store may send, and its frame.
pub(crate) const MAX_RAFT_MESSAGE: usize = MAX_CALL_BYTES + 1024;

/// The other managers, as this one reaches them.
pub(crate) struct Peers {
    credentials: watch::Receiver<Arc<NodeCertificate>>,
    /// The replicated log's.
    runtime: Handle,
    known: Mutex<BTreeMap<String, Peer>>,
}

#[derive(Default)]
struct Peer {
    links: BTreeMap<Way, Arc<Link>>,
    heard: Option<Instant>,
}

/// What a connection is for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Way {
    /// The replicated log: in the managers' lane, with its tasks on the log's runtime.
    Log,
    /// All else.
    Other,
}

/// A connection, once it is made.
struct Link {
    way: Way,
    addr: SocketAddr,
    channel: OnceCell<Channel>,
    appends: Appends,
}

/// Why a manager was not asked, or did not answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PeerError {
    /// It was not reached: the call was not sent.
    #[error("manager {node} at {addr} cannot be reached: {reason}")]
    Unreachable {
        /// Node id.
        node: String,
        /// Where it was looked for.
        addr: String,
        /// Why.
        reason: String,
    },
    /// The connection broke, or time ran out: what became of the call is not known.
    #[error("manager {node} did not answer: {reason}")]
    Lost {
        /// Node id.
        node: String,
        /// Why.
        reason: String,
    },
    /// It answered with a refusal.
    #[error("manager {node}: {}", status.message())]
    Refused {
        /// Node id.
        node: String,
        /// What it said.
        status: Status,
    },
}

impl Peers {
    pub(crate) fn new(
        credentials: watch::Receiver<Arc<NodeCertificate>>,
        runtime: Handle,
    ) -> Peers {
        Peers { credentials, runtime, known: Mutex::default() }
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<String, Peer>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The manager was heard of.
    pub(crate) fn heard(&self, node: &str) {
        let now = Instant::now();
        let mut known = self.known();
        match known.get_mut(node) {
            Some(peer) => peer.heard = Some(now),
            None => {
                known.insert(node.to_owned(), Peer { heard: Some(now), ..Peer::default() });
            }
        }
    }

    /// How long the manager has not been heard of; `None` when it never was.
    pub(crate) fn silence(&self, node: &str) -> Option<Duration> {
        self.known().get(node)?.heard.map(|at| at.elapsed())
    }

    /// Makes one call to a manager, over a connection that is kept.
    pub(crate) async fn call<T, F>(
        &self,
        node: &str,
        addr: &str,
        limit: Duration,
        call: impl FnOnce(Channel) -> F,
    ) -> Result<T, PeerError>
    where
        F: Future<Output = Result<tonic::Response<T>, Status>>,
    {
        let reply = self.over(Way::Other, (node, addr), limit, |channel, _| call(channel)).await?;
        Ok(reply.into_inner())
    }

    /// Does something over a manager's connection.
    async fn over<T, F>(
        &self,
        way: Way,
        (node, addr): (&str, &str),
        limit: Duration,
        call: impl FnOnce(Channel, Arc<Link>) -> F,
    ) -> Result<T, PeerError>
    where
        F: Future<Output = Result<T, Status>>,
    {
        let unreachable = |reason: String| PeerError::Unreachable {
            node: node.to_owned(),
            addr: addr.to_owned(),
            reason,
        };
        let parsed = addr.parse().map_err(|e| unreachable(format!("{e}")))?;
        let link = self.link(way, node, parsed);
        let channel = link.channel.get_or_try_init(|| self.connect(way, node, parsed)).await;
        let channel = channel.map_err(unreachable)?.clone();
        let lost = |reason: String| {
            self.drop_link(node, &link);
            PeerError::Lost { node: node.to_owned(), reason }
        };
        match timeout(limit, call(channel, link.clone())).await {
            Ok(Ok(reply)) => {
                self.heard(node);
                Ok(reply)
            }
            // With a source it is the connection's, without one the peer's own word.
            Ok(Err(status)) if status.source().is_some() => Err(lost(status.to_string())),
            Ok(Err(status)) => Err(PeerError::Refused { node: node.to_owned(), status }),
            Err(_) => Err(lost(format!("no answer within {limit:?}"))),
        }
    }

    /// Forgets managers that are none any more.
    pub(crate) fn retain(&self, members: &BTreeSet<String>) {
        self.known().retain(|node, _| members.contains(node));
    }

    /// Whether the manager answers at this address with its certificate.
    pub(crate) async fn dial(&self, node: &str, addr: SocketAddr) -> Result<(), String> {
        self.connect(Way::Other, node, addr).await.map(drop)
    }

    async fn connect(&self, way: Way, node: &str, addr: SocketAddr) -> Result<Channel, String> {
        let own = self.credentials.borrow().clone();
        let tls = match way {
            Way::Log => lane_config(&own, node),
            Way::Other => peer_config(&own, node),
        };
        let tls = tls.map_err(|e| e.to_string())?;
        let connecting = connect_within(CONNECT_WAIT, Some(CLIENT_PATIENCE), addr, tls);
        let connected = match way {
            // Its tasks are where it is made, whoever asks first.
            Way::Log => self.runtime.spawn(connecting).await.map_err(|e| e.to_string())?,
            Way::Other => connecting.await,
        };
        connected.map_err(|e| e.to_string())
    }

    fn link(&self, way: Way, node: &str, addr: SocketAddr) -> Arc<Link> {
        let mut known = self.known();
        let peer = known.entry(node.to_owned()).or_default();
        match peer.links.get(&way) {
            Some(link) if link.addr == addr => link.clone(),
            _ => {
                let (channel, appends) = (OnceCell::new(), Appends::default());
                let link = Arc::new(Link { way, addr, channel, appends });
                peer.links.insert(way, link.clone());
                link
            }
        }
    }

    /// The next call connects anew.
    fn drop_link(&self, node: &str, broken: &Arc<Link>) {
        if let Some(peer) = self.known().get_mut(node)
            && peer.links.get(&broken.way).is_some_and(|link| Arc::ptr_eq(link, broken))
        {
            peer.links.remove(&broken.way);
        }
    }
}

#[async_trait]
impl Transport for Peers {
    async fn call(
        &self,
        node_id: &str,
        addr: &str,
        call: RaftCall,
        request: Vec<u8>,
    ) -> Result<Vec<u8>, TransportError> {
        let request = match call {
            RaftCall::Append => match self.append(node_id, addr, request).await? {
                Appended::Answered(Answer::Body(body)) => return Ok(body),
                Appended::Answered(Answer::Refused(why)) => {
                    return Err(TransportError::Refused(why));
                }
                Appended::Busy(request) => request,
            },
            _ => request,
        };
        let request = RaftRequest { kind: call.as_str().to_owned(), body: request };
        let reply = self.over(Way::Log, (node_id, addr), CALL_WAIT, |channel, _| async {
            let client = RaftClient::new(channel).max_decoding_message_size(MAX_RAFT_MESSAGE);
            client.max_encoding_message_size(MAX_RAFT_MESSAGE).call(request).await
        });
        Ok(reply.await.map_err(not_carried)?.into_inner().body)
    }
}

impl Peers {
    async fn append(
        &self,
        node: &str,
        addr: &str,
        body: Vec<u8>,
    ) -> Result<Appended, TransportError> {
        let appended = self.over(Way::Log, (node, addr), CALL_WAIT, |channel, link| async move {
            link.appends.call(channel, body).await
        });
        appended.await.map_err(not_carried)
    }
}

fn not_carried(error: PeerError) -> TransportError {
    match error {
        PeerError::Refused { status, .. } => TransportError::Refused(status.message().to_owned()),
        error => TransportError::Unreachable(Box::new(error)),
    }
}
