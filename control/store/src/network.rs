//! Calls to other managers, for openraft, over the [`Transport`]; and when each was last heard of.

use crate::{
    bugs::{self, Bug},
    elector::{Candidacy, HEARTBEAT, STALL},
    transport::{RaftCall, Transport, TransportError},
    types::{LogId, ManagerId, Peer, Types, Vote},
    wire,
    writer::Written,
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

/// How long word of a commit waits for this manager's disk; half of the time between signs of life.
const COMMIT_WAIT: Duration = Duration::from_millis(50);

/// How long a call without entries waits for some: much less than anybody's patience, more than there is
/// between two writes of one busy client.
const PUT_OFF: Duration = Duration::from_millis(5);

/// This manager's disk has not answered for longer than [`STALL`].
#[derive(Debug, thiserror::Error)]
#[error("the disk of this manager hangs")]
struct Hangs;

/// Pause before a manager that could not be reached is asked again.
const UNREACHABLE_PAUSE: Duration = Duration::from_millis(100);

/// When each manager last answered this one, and when the leader was last heard of.
#[derive(Default)]
pub(crate) struct Contacts {
    answered: Mutex<BTreeMap<ManagerId, Instant>>,
    leader: Mutex<Option<Instant>>,
    /// Calls of the leader that are being worked on; as long as there is one it is not lost.
    working: AtomicUsize,
    /// Since when none of them was done.
    working_since: Mutex<Option<Instant>>,
    /// This manager leads and keeps silent, because another shall lead.
    pub(crate) silent: AtomicBool,
    candidacy: Mutex<Candidacy>,
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
        lock(&self.working_since).get_or_insert_with(Instant::now);
        LeaderCall { contacts: self, id }
    }

    /// The leader says that it is there.
    pub(crate) fn leader_lives(&self, id: ManagerId) {
        self.heard(id);
        *lock(&self.leader) = Some(Instant::now());
    }

    /// Whether nothing that the leader wants has been done for longer than this: the disk hangs.
    pub(crate) fn hangs(&self, longer_than: Duration) -> bool {
        lock(&self.working_since).is_some_and(|since| since.elapsed() > longer_than)
    }

    /// See [`Candidacy`].
    pub(crate) fn candidacy(&self) -> MutexGuard<'_, Candidacy> {
        lock(&self.candidacy)
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
        self.contacts.leader_lives(self.id);
        let mut since = lock(&self.contacts.working_since);
        let last = self.contacts.working.fetch_sub(1, Ordering::Relaxed) == 1;
        *since = (!last).then(Instant::now);
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
    pub(crate) written: Written,
}

impl Network {
    /// Says nothing of what is committed while it is not on this disk, too (see `writer`): a call that
    /// says only that waits for it a little, any other leaves it to the next. A leader whose disk hangs
    /// keeps silent, so that another is elected.
    async fn truthful(&self, rpc: &mut AppendEntriesRequest<Types>) -> Result<(), NetworkError> {
        if self.written.hangs(STALL) {
            return Err(NetworkError::new(&Hangs));
        }
        if bugs::active(Bug::TellBeforeFsync) {
            return Ok(());
        }
        let Some(index) = rpc.leader_commit.map(|id| id.index) else { return Ok(()) };
        if rpc.entries.is_empty() {
            drop(tokio::time::timeout(COMMIT_WAIT, self.written.until(index)).await);
        }
        if !self.written.has(index) {
            rpc.leader_commit = None;
        }
        Ok(())
    }

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
    /// What the other manager has confirmed last, and when.
    confirmed: Option<(Vote, Option<LogId>, Instant)>,
    /// A call without entries that is put off.
    news: Option<News>,
}

/// Word of a commit, or a sign of life, that may still go with the next entries.
struct News {
    latest: Arc<Mutex<AppendEntriesRequest<Types>>>,
    sender: JoinHandle<()>,
}

impl Drop for News {
    fn drop(&mut self) {
        self.sender.abort();
    }
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
        let network = self.clone();
        Client { network, target, addr, unanswered: None, confirmed: None, news: None }
    }
}

impl RaftNetwork<Types> for Client {
    async fn append_entries(
        &mut self,
        mut rpc: AppendEntriesRequest<Types>,
        _option: RPCOption,
    ) -> Result<Appended, Error<RaftError<ManagerId>>> {
        if self.puts_off(&rpc) {
            return Ok(Appended::Success);
        }
        self.news = None; // it goes with this call
        self.network.truthful(&mut rpc).await?;
        let (vote, last) =
            (rpc.vote, rpc.entries.last().map_or(rpc.prev_log_id, |e| Some(e.log_id)));
        let answer = match bugs::active(Bug::SkipQuorum) {
            false => self.append(rpc).await,
            true => match tokio::time::timeout(HEARTBEAT, self.append(rpc)).await {
                Ok(Ok(answer)) => Ok(answer),
                _ => Ok(Appended::Success),
            },
        };
        if let Ok(Appended::Success) = answer {
            self.confirmed = Some((vote, last, Instant::now()));
        }
        answer
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

impl Client {
    /// openraft tells each manager of each commit in a call of its own, which costs as much as the
    /// entries themselves. Under load the next entries follow at once and say the same. So a call
    /// without entries waits a little whether they do, if the other manager has only just confirmed what
    /// it says; that is the answer then.
    fn puts_off(&mut self, rpc: &AppendEntriesRequest<Types>) -> bool {
        let just = self.confirmed.is_some_and(|(vote, last, at)| {
            vote == rpc.vote && last == rpc.prev_log_id && at.elapsed() < PUT_OFF
        });
        if !just || !rpc.entries.is_empty() {
            return false;
        }
        match &self.news {
            Some(news) if !news.sender.is_finished() => *lock(&news.latest) = rpc.clone(),
            _ => {
                let latest = Arc::new(Mutex::new(rpc.clone()));
                let (network, to) = (self.network.clone(), (self.target, self.addr.clone()));
                let sender = tokio::spawn(put_off(network, to, latest.clone()));
                self.news = Some(News { latest, sender });
            }
        }
        true
    }

    async fn append(
        &mut self,
        rpc: AppendEntriesRequest<Types>,
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
}

/// Sends what was put off.
async fn put_off(
    network: Network,
    (target, addr): (ManagerId, Arc<str>),
    latest: Arc<Mutex<AppendEntriesRequest<Types>>>,
) {
    tokio::time::sleep(PUT_OFF).await;
    let mut rpc = lock(&latest).clone();
    if network.truthful(&mut rpc).await.is_ok() {
        let sent = network.typed::<Appended, RaftError<ManagerId>>(
            (target, &addr),
            RaftCall::Append,
            &rpc,
        );
        // What becomes of it is openraft's next call's to find out.
        drop(tokio::time::timeout(APPEND_PATIENCE, sent).await);
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if let Some(unanswered) = &self.unanswered {
            unanswered.answer.abort();
        }
    }
}
