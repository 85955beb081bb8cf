//! Sessions of nodes: one at a time each, the newest wins.
use shoal_rpc::{ManagerMessage, manager_message::Kind};
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;
use tonic::Status;

/// Messages other than assignments that may wait for a slow node.
pub(crate) const QUEUE: usize = 64;

pub(crate) type Outgoing = Result<ManagerMessage, Status>;

/// A node's session.
#[derive(Clone)]
pub(crate) struct Session {
    pub(crate) messages: mpsc::Sender<Outgoing>,
    pub(crate) ended: CancellationToken,
    pub(crate) applied: Arc<AtomicU64>,
    /// There may be something new to tell the node.
    pub(crate) news: Arc<Notify>,
    /// Some of it concerns this node in particular.
    pub(crate) concerned: Arc<AtomicBool>,
}

impl Session {
    pub(crate) fn new(messages: mpsc::Sender<Outgoing>) -> Session {
        let (ended, applied) = (CancellationToken::new(), Arc::default());
        Session { messages, ended, applied, news: Arc::default(), concerned: Arc::default() }
    }

    /// Queues a message; `false` when the node is gone or too slow.
    pub(crate) fn tell(&self, kind: Kind) -> bool {
        self.messages.try_send(Ok(ManagerMessage { kind: Some(kind) })).is_ok()
    }

    fn is(&self, other: &Session) -> bool {
        Arc::ptr_eq(&self.applied, &other.applied)
    }
}

/// All sessions by node.
#[derive(Default)]
pub(crate) struct Sessions(Mutex<BTreeMap<String, Session>>);

impl Sessions {
    fn all(&self) -> MutexGuard<'_, BTreeMap<String, Session>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The node's session from now on; one it had ends.
    pub(crate) fn begin(&self, node: &str, session: Session) {
        if let Some(old) = self.all().insert(node.to_owned(), session) {
            old.ended.cancel();
        }
    }

    /// Forgets a session, unless the node has another by now.
    pub(crate) fn forget(&self, node: &str, session: &Session) {
        let mut all = self.all();
        if all.get(node).is_some_and(|present| present.is(session)) {
            all.remove(node);
        }
    }

    /// Ends the node's session, if it has one.
    pub(crate) fn end(&self, node: &str) {
        if let Some(session) = self.all().remove(node) {
            session.ended.cancel();
        }
    }

    /// Ends all sessions.
    pub(crate) fn end_all(&self) {
        std::mem::take(&mut *self.all()).into_values().for_each(|s| s.ended.cancel());
    }

    /// The node's session.
    pub(crate) fn of(&self, node: &str) -> Option<Session> {
        self.all().get(node).cloned()
    }

    /// Says that there may be something new for these nodes in particular.
    pub(crate) fn news_for<'a>(&self, nodes: impl IntoIterator<Item = &'a String>) {
        let all = self.all();
        for session in nodes.into_iter().filter_map(|node| all.get(node)) {
            session.concerned.store(true, Ordering::Relaxed);
            session.news.notify_one();
        }
    }

    /// Says that there may be something new for every node.
    pub(crate) fn news_for_all(&self) {
        self.all().values().for_each(|session| session.news.notify_one());
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.all().len()
    }

    /// Newest applied generation of each node with a session.
    pub(crate) fn applied(&self) -> BTreeMap<String, u64> {
        let applied = |s: &Session| s.applied.load(Ordering::Relaxed);
        self.all().iter().map(|(id, s)| (id.clone(), applied(s))).collect()
    }
}
