//! Calls to other managers, for openraft, over the [`Transport`]; and when each was last heard of.

use crate::{
    transport::{RaftCall, Transport, TransportError},
    types::{LogId, ManagerId, Peer, Types, Vote},
    wire,
};
use openraft::{
    error::{InstallSnapshotError, NetworkError, RPCError, RaftError, RemoteError, Unreachable},
    network::{Backoff, RPCOption, RaftNetwork, RaftNetworkFactory},
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest,
        InstallSnapshotResponse, VoteRequest, VoteResponse,
    },
};
use serde::{Serialize, de::DeserializeOwned};
use std::{
    collections::BTreeMap,
    error::Error as StdError,
    iter,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{task::JoinHandle, time::Instant};

/// How long a call with entries may take before it is given up.
const APPEND_PATIENCE: Duration = Duration::from_secs(10);

/// Pause before a manager that could not be reached is asked again.
const UNREACHABLE_PAUSE: Duration = Duration::from_millis(100);

/// When each manager last answered this one, and when the leader was last heard of.
#[derive(Default)]
pub(crate) struct Contacts {
    answered: Mutex<BTreeMap<ManagerId, Instant>>,
    leader: Mutex<Option<Instant>>,
    /// Calls of the leader that are being worked on; as long as there is one it is not lost.
    working: AtomicUsize,
    /// This manager leads and keeps silent, because another shall lead.
    pub(crate) silent: AtomicBool,
}

impl Contacts {
    pub(crate) fn heard(&self, id: ManagerId) {
        lock(&self.answered).insert(id, Instant::now());
    }

    pub(crate) fn within(&self, id: ManagerId, period: Duration) -> bool {
        lock(&self.answered).get(&id).is_some_and(|at| at.elapsed() <= period)
    }

    pub(crate) fn forget(&self, id: ManagerId) {
        lock(&self.answered).remove(&id);
    }

    /// The leader calls; it counts as heard of until the guard is dropped.
    pub(crate) fn leader_calls(&self, id: ManagerId) -> LeaderCall<'_> {
        self.working.fetch_add(1, Ordering::Relaxed);
        LeaderCall { contacts: self, id }
    }

    pub(crate) fn leader_heard(&self) -> Option<Instant> {
        match self.working.load(Ordering::Relaxed) {
            0 => *lock(&self.leader),
            _ => Some(Instant::now()),
        }
    }
}

/// See [`Contacts::leader_calls`].
pub(crate) struct LeaderCall<'a> {
    contacts: &'a Contacts,
    id: ManagerId,
}

impl Drop for LeaderCall<'_> {
    fn drop(&mut self) {
        self.contacts.heard(self.id);
        *lock(&self.contacts.leader) = Some(Instant::now());
        self.contacts.working.fetch_sub(1, Ordering::Relaxed);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes openraft's clients.
#[derive(Clone)]
pub(crate) struct Network {
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) contacts: Arc<Contacts>,
}

impl Network {
    /// One call, and the time noted when it was answered.
    pub(crate) async fn call(
        &self,
        id: ManagerId,
        addr: &str,
        call: RaftCall,
        request: Vec<u8>,
    ) -> Result<Vec<u8>, TransportError> {
        let answer = self.transport.call(&id.to_string(), addr, call, request).await?;
        self.contacts.heard(id);
        Ok(answer)
    }

    async fn typed<R, E>(
        &self,
        (id, addr): (ManagerId, &str),
        call: RaftCall,
        request: &impl Serialize,
    ) -> Result<R, Error<E>>
    where
        R: DeserializeOwned,
        E: DeserializeOwned + StdError,
    {
        let request = wire::encode(request).map_err(|e| NetworkError::new(&e))?;
        let answer = self.call(id, addr, call, request).await.map_err(|error| match &error {
            TransportError::Unreachable(_) => RPCError::Unreachable(Unreachable::new(&error)),
            TransportError::Refused(_) => RPCError::Network(NetworkError::new(&error)),
        })?;
        let answer: Result<R, E> = wire::decode(&answer).map_err(|e| NetworkError::new(&e))?;
        answer.map_err(|error| RemoteError::new(id, error).into())
    }
}

/// The client of one other manager.
pub(crate) struct Client {
    network: Network,
    target: ManagerId,
    addr: Arc<str>,
    unanswered: Option<Unanswered>,
}

/// A call with entries that openraft no longer waits for, because the other manager's disk is slow.
/// Its answer still counts when openraft asks again, else ever longer calls would all be too late.
struct Unanswered {
    vote: Vote,
    prev: Option<LogId>,
    last: Option<LogId>,
    answer: JoinHandle<Result<Appended, Error<RaftError<ManagerId>>>>,
}

type Appended = AppendEntriesResponse<ManagerId>;
type Error<E> = RPCError<ManagerId, Peer, E>;

impl RaftNetworkFactory<Types> for Network {
    type Network = Client;

    async fn new_client(&mut self, target: ManagerId, peer: &Peer) -> Client {
        let addr = peer.addr.as_str().into();
        Client { network: self.clone(), target, addr, unanswered: None }
    }
}

impl RaftNetwork<Types> for Client {
    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types>,
        _option: RPCOption,
    ) -> Result<Appended, Error<RaftError<ManagerId>>> {
        let last = rpc.entries.last().map(|entry| entry.log_id);
        let earlier = self.unanswered.as_ref().is_some_and(|earlier| {
            earlier.vote == rpc.vote && earlier.prev == rpc.prev_log_id && earlier.last <= last
        });
        if earlier && let Some(earlier) = &mut self.unanswered {
            let answer = (&mut earlier.answer).await;
            let confirmed = earlier.last;
            self.unanswered = None;
            if let Ok(Ok(Appended::Success)) = answer {
                return Ok(match confirmed == last {
                    true => Appended::Success,
                    false => Appended::PartialSuccess(confirmed),
                });
            }
        }
        let (vote, prev) = (rpc.vote, rpc.prev_log_id);
        let (network, target, addr) = (self.network.clone(), self.target, self.addr.clone());
        if last.is_none() {
            return network.typed((target, &addr), RaftCall::Append, &rpc).await;
        }
        let answer = tokio::spawn(async move {
            let call = network.typed((target, &addr), RaftCall::Append, &rpc);
            match tokio::time::timeout(APPEND_PATIENCE, call).await {
                Ok(answer) => answer,
                Err(elapsed) => Err(RPCError::Network(NetworkError::new(&elapsed))),
            }
        });
        // Kept here, so that it survives this future.
        if let Some(old) = self.unanswered.take() {
            old.answer.abort();
        }
        let kept = self.unanswered.insert(Unanswered { vote, prev, last, answer });
        let answered = (&mut kept.answer).await;
        self.unanswered = None;
        match answered {
            Ok(answer) => answer,
            Err(ended) => Err(RPCError::Network(NetworkError::new(&ended))),
        }
    }

    async fn install_snapshot(
        &mut self,
        rpc: InstallSnapshotRequest<Types>,
        _option: RPCOption,
    ) -> Result<InstallSnapshotResponse<ManagerId>, Error<RaftError<ManagerId, InstallSnapshotError>>>
    {
        self.network.typed((self.target, &self.addr), RaftCall::Snapshot, &rpc).await
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<ManagerId>,
        _option: RPCOption,
    ) -> Result<VoteResponse<ManagerId>, Error<RaftError<ManagerId>>> {
        self.network.typed((self.target, &self.addr), RaftCall::Vote, &rpc).await
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(iter::repeat(UNREACHABLE_PAUSE))
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if let Some(unanswered) = &self.unanswered {
            unanswered.answer.abort();
        }
    }
}
