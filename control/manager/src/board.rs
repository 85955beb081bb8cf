//! What all nodes are told, computed once for all sessions, and the draining of tasks.
//!
//! One task ([`run`]) follows the state; sessions read from the board what is new for their nodes,
//! and put on it what their nodes have applied.
use crate::{manager::Inner, managers::bearings};
use shoal_cores::{Delta, Drains, HEARTBEAT, Subscriber, Tables, Touched, heartbeat_period};
use shoal_model::{State, longest_pause};
use shoal_rpc::{Bearings, Release, manager_message::Kind};
use std::{
    collections::BTreeMap,
    panic::resume_unwind,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::watch,
    task::spawn_blocking,
    time::{Instant, sleep_until, timeout},
};

/// Shortest time between two looks at the state: changes that come together are told together, and
/// one that comes alone is told at once.
const PACE: Duration = Duration::from_millis(20);

/// Shortest time between two looks of all sessions, for each of them: ten thousand are told once a second
/// of what concerns everybody. While nodes join, each would else be told of every other by itself. Those
/// that share a network with a node hear of it with what concerns the network.
const PACE_PER_NODE: Duration = Duration::from_micros(100);

/// Objects of those that are all to be read that are read at once: a millisecond or two of the state's lock.
const STEP: usize = 50;

/// How often what all nodes are told alike is looked at while all is read.
const COMMON_PACE: Duration = Duration::from_millis(200);

/// Tasks released in one message.
const RELEASED_AT_ONCE: usize = 1_000;

pub(crate) struct Board {
    core: Mutex<Core>,
    version: watch::Sender<u64>,
    common: Mutex<Arc<Common>>,
}

/// What all nodes are told alike.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Common {
    /// The managers; without a role.
    pub(crate) bearings: Bearings,
    /// How often they are to beat.
    pub(crate) period: Duration,
    /// The longest they are to pause between attempts to find a manager.
    pub(crate) longest_pause: Duration,
    /// The roots they are to trust, PEM; empty as long as they cannot be read.
    pub(crate) roots: String,
}

#[derive(Default)]
struct Core {
    tables: Tables,
    drains: Drains,
}

impl Board {
    pub(crate) fn new() -> Board {
        let (bearings, roots) = (Bearings::default(), String::new());
        let (period, longest_pause) = (HEARTBEAT, longest_pause(0));
        let common = Common { bearings, period, longest_pause, roots };
        let common = Mutex::new(Arc::new(common));
        Board { core: Mutex::default(), version: watch::Sender::new(0), common }
    }

    /// What all nodes are told alike; another one when it changed.
    pub(crate) fn common(&self) -> Arc<Common> {
        self.common.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Called only when a node changed, or the cluster's own object.
    pub(crate) fn follow_common(&self, inner: &Inner, state: &State) {
        let bearings = bearings(state, None, inner.node_id.clone());
        let cluster = state.cluster.as_ref();
        let roots = match cluster.map(|cluster| inner.authorities.of(cluster)) {
            Some(Ok(authority)) => authority.trust.pem(),
            Some(Err(error)) => {
                tracing::error!(%error, "nodes cannot be told which roots to trust");
                String::new()
            }
            None => String::new(),
        };
        let (period, longest_pause) = (heartbeat_period(state), longest_pause(state.nodes.len()));
        let newest = Common { bearings, period, longest_pause, roots };
        let mut common = self.common.lock().unwrap_or_else(PoisonError::into_inner);
        if **common != newest {
            *common = Arc::new(newest);
        }
    }

    fn core(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Version of the state on the board, whenever it changes.
    pub(crate) fn versions(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// What a node is to be told now.
    pub(crate) fn difference(&self, state: &State, to: &mut Subscriber) -> Option<Delta> {
        self.core().tables.difference(state, to)
    }

    /// Follows the state; gives its version and what changed. `None`: all of it is to be read first.
    fn follow(&self, inner: &Inner, state: &State) -> Option<(u64, Touched)> {
        let mut core = self.core();
        let Core { tables, drains } = &mut *core;
        let touched = tables.follow(state, 1);
        if !tables.is_complete() {
            return None;
        }
        drains.follow(state, tables, &touched);
        if touched.everybody || !touched.nodes.is_empty() {
            self.follow_common(inner, state);
        }
        Some((tables.version(), touched))
    }

    /// Takes tables that were read, brought up to date.
    fn take(&self, mut tables: Tables, inner: &Inner, state: &State) -> (u64, Touched) {
        let mut touched = tables.update(state);
        (touched.all, touched.everybody) = (true, true);
        let mut core = self.core();
        core.tables = tables;
        let Core { tables, drains } = &mut *core;
        drains.follow(state, tables, &touched);
        self.follow_common(inner, state);
        (tables.version(), touched)
    }

    fn poll_released(&self) -> BTreeMap<String, Vec<String>> {
        self.core().drains.poll_released()
    }
}

/// Follows the state until the manager stops.
pub(crate) async fn run(inner: Arc<Inner>) {
    let mut versions = inner.store.watch();
    // When everybody may be told next, and whether there is something to tell.
    let (mut all_due, mut all_behind) = (Instant::now(), false);
    loop {
        let next = Instant::now() + PACE;
        versions.borrow_and_update();
        let Some((version, touched)) = follow(&inner).await else { return };
        tell_released(&inner);
        inner.board.version.send_replace(version);
        inner.sessions.news_for(&touched.concerned);
        all_behind |= touched.everybody;
        if all_behind && Instant::now() >= all_due {
            let sessions = u32::try_from(inner.sessions.count()).unwrap_or(u32::MAX);
            (all_due, all_behind) = (Instant::now() + PACE_PER_NODE * sessions, false);
            inner.sessions.news_for_all();
        }
        tokio::select! {
            () = inner.stop.cancelled() => return,
            () = sleep_until(next) => {}
        }
        tokio::select! {
            () = inner.stop.cancelled() => return,
            () = sleep_until(all_due), if all_behind => {}
            changed = versions.changed() => if changed.is_err() { return },
        }
    }
}

/// Follows the state: a change of it at once, all of it, at the beginning of a term, in a thread that reads a little
/// at a time, so that other tasks go on. `None`: the manager stops.
async fn follow(inner: &Arc<Inner>) -> Option<(u64, Touched)> {
    let followed = inner.store.read(|state| inner.board.follow(inner, state));
    if followed.is_some() {
        return followed;
    }
    let mut tables = std::mem::take(&mut inner.board.core().tables);
    let (store, stop) = (inner.store.clone(), inner.stop.clone());
    let read = spawn_blocking(move || {
        while !tables.is_complete() && !stop.is_cancelled() {
            store.read(|state| tables.follow(state, STEP));
        }
        tables
    });
    let mut read = pin!(read);
    let tables = loop {
        match timeout(COMMON_PACE, read.as_mut()).await {
            Ok(Ok(tables)) => break tables,
            Ok(Err(error)) if error.is_panic() => resume_unwind(error.into_panic()),
            Ok(Err(_)) => return None,
            Err(_) => inner.store.read(|state| inner.board.follow_common(inner, state)),
        }
    };
    match inner.stop.is_cancelled() {
        true => None,
        false => Some(inner.store.read(|state| inner.board.take(tables, inner, state))),
    }
}

/// A node has a new session: it is told again which of its tasks may stop.
pub(crate) fn reconnected(inner: &Inner, node: &str) {
    let released = inner.board.core().drains.reconnected(node);
    tell(inner, node, &released);
}

/// A node has brought a generation into force.
pub(crate) fn applied(inner: &Inner, node: &str, generation: u64) {
    inner.board.core().drains.applied(node, generation);
    tell_released(inner);
}

fn tell_released(inner: &Inner) {
    for (node, tasks) in inner.board.poll_released() {
        tell(inner, &node, &tasks);
    }
}

fn tell(inner: &Inner, node: &str, tasks: &[String]) {
    // Without a session it is told when it has one.
    let Some(session) = inner.sessions.of(node) else { return };
    for tasks in tasks.chunks(RELEASED_AT_ONCE) {
        if !session.tell(Kind::Release(Release { tasks: tasks.to_vec() })) {
            tracing::warn!(node, "the agent does not read its messages");
            inner.sessions.end(node);
            return;
        }
    }
}
