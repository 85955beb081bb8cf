//! What a manager does only while it leads: begun when it is elected, ended when another is.
//!
//! One task watches who leads. A term's tasks begin after everything that earlier leaders had
//! committed is applied here, and after the tasks of an earlier term of this manager have ended: so
//! there is one reconciler, one watchdog and one status writer in the cluster, and what a deposed one
//! still proposes is refused, by the log or by the versions its changes carry.
use crate::{
    ManagerError,
    authority::Authorities,
    board::{self, Board},
    broker::Broker,
    clock, edit,
    error::chain,
    herd::Herd,
    keeper,
    manager::Shared,
    peers::Peers,
    reconciler, rotation,
    session::Sessions,
    statuses,
    turns::Turns,
    watchdog::{self, Beats},
};
use shoal_identity::NodeCertificate;
use shoal_model::{Change, NodeState, Object, Role, State, longest_pause, patience, return_spread};
use shoal_store::Store;
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::{sync::watch, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// How long the tasks of a term may take to end.
const END_WAIT: Duration = Duration::from_secs(5);

/// Pause after a term could not be begun.
const RETRY: Duration = Duration::from_millis(100);

/// What there is for one term.
pub(crate) struct Inner {
    pub(crate) store: Store,
    pub(crate) authorities: Authorities,
    pub(crate) node_id: String,
    pub(crate) cluster_id: String,
    /// The certificate of this manager's node.
    pub(crate) credentials: watch::Receiver<Arc<NodeCertificate>>,
    pub(crate) peers: Arc<Peers>,
    pub(crate) advertise: SocketAddr,
    pub(crate) sessions: Sessions,
    pub(crate) beats: Beats,
    pub(crate) herd: Herd,
    pub(crate) turns: Arc<Turns>,
    pub(crate) board: Board,
    pub(crate) broker: Broker,
    pub(crate) statuses: statuses::Sender,
    pub(crate) stop: CancellationToken,
    pub(crate) tasks: TaskTracker,
}

/// What there is to do in the first term, if nobody else led before it.
#[derive(Clone, Copy, Default)]
pub(crate) struct First {
    /// Nodes may have come and gone while nobody led: none is known to be there.
    pub(crate) forget: bool,
    /// The other managers are lost, and are to be none any more.
    pub(crate) alone: bool,
}

/// Runs until the manager stops.
pub(crate) async fn run(shared: Arc<Shared>, mut first: First) {
    let mut before = None;
    let mut leadership = shared.store.leadership();
    loop {
        let now = leadership.borrow_and_update().clone();
        if now.ours {
            match begin(&shared, first, before.take()).await {
                Ok(inner) => {
                    first = First::default();
                    tracing::info!(term = now.term, "this manager leads");
                    shared.lead.send_replace(Some(inner.clone()));
                    tokio::select! {
                        () = shared.stop.cancelled() => {}
                        _ = leadership.wait_for(|l| !l.ours || l.term != now.term) => {}
                    }
                    shared.lead.send_replace(None);
                    end(&inner).await;
                    tracing::info!(term = now.term, "this manager leads no more");
                }
                Err(error) => {
                    tracing::warn!(error = %chain(&error), "cannot take the lead");
                    tokio::time::sleep(RETRY).await;
                }
            }
            if shared.stop.is_cancelled() {
                return;
            }
            continue;
        }
        if now.leader.as_ref().is_some_and(|leader| *leader != shared.node_id) {
            // Whoever leads knows which nodes are there, and has written it down.
            (first, before) = (First::default(), now.leader);
        }
        tokio::select! {
            () = shared.stop.cancelled() => return,
            changed = leadership.changed() => if changed.is_err() { return },
        }
    }
}

/// Begins a term. `before`: who led until now.
async fn begin(
    shared: &Arc<Shared>,
    first: First,
    before: Option<String>,
) -> Result<Arc<Inner>, ManagerError> {
    edit::change(&shared.store, |state| Some(first_changes(state, shared, first))).await?;
    let no_cluster = || ManagerError::NoCluster(shared.dir.display().to_string());
    let (cluster, nodes, tasks) = shared.store.read(|state| {
        let nodes = state.nodes.keys().cloned().collect::<Vec<_>>();
        (state.cluster.clone(), nodes, state.tasks.len())
    });
    let cluster = cluster.ok_or_else(no_cluster)?;
    if cluster.id != shared.cluster_id {
        return Err(ManagerError::WrongCertificate);
    }
    let (statuses, reports) = statuses::channel();
    let uptime = clock::Uptime::start();
    let beats = Beats::new(uptime, time_to_return(nodes.len(), tasks, first));
    nodes.iter().for_each(|id| beats.await_return(id));
    // Nobody is blamed for silence while nobody listened, but the old leader was heard until it fell.
    if let Some(silent) = before.and_then(|id| Some((shared.peers.silence(&id)?, id))) {
        beats.silent_for(&silent.1, silent.0);
    }
    let inner = Arc::new(Inner {
        store: shared.store.clone(),
        authorities: Authorities::default(),
        node_id: shared.node_id.clone(),
        cluster_id: cluster.id,
        credentials: shared.credentials.subscribe(),
        peers: shared.peers.clone(),
        advertise: shared.advertise,
        sessions: Sessions::default(),
        beats,
        herd: Herd::new(uptime),
        turns: Arc::default(),
        board: Board::new(),
        broker: Broker::default(),
        statuses,
        stop: CancellationToken::new(),
        tasks: TaskTracker::new(),
    });
    // Before a session begins: what all nodes are told alike is not read a little at a time.
    inner.store.read(|state| inner.board.follow_common(&inner, state));
    inner.tasks.spawn(reconciler::run(inner.store.clone(), inner.stop.clone()));
    inner.tasks.spawn(board::run(inner.clone()));
    inner.tasks.spawn(statuses::run(inner.clone(), reports));
    let (turns, stop) = (inner.turns.clone(), inner.stop.clone());
    inner.tasks.spawn(async move {
        let _ = stop.run_until_cancelled(turns.concerned.watch()).await;
    });
    inner.tasks.spawn(watchdog::run(inner.clone()));
    inner.tasks.spawn(keeper::run(inner.clone()));
    inner.tasks.spawn(rotation::run(inner.clone()));
    Ok(inner)
}

/// How long nodes may take to say hello before they miss beats. While the managers elect, they answer
/// and nodes ask them again at once, those of a large cluster after some more patience; where none answered,
/// nodes have paused between their attempts.
fn time_to_return(nodes: usize, tasks: usize, first: First) -> Duration {
    let longest = longest_pause(nodes);
    let paused = if first.forget { longest } else { Duration::ZERO };
    let patience = patience(longest).saturating_sub(patience(Duration::ZERO));
    return_spread(nodes, tasks) + paused + patience
}

/// What a new leader writes down first: its own address, and what is left if there was no leader before
/// it.
fn first_changes(state: &State, shared: &Shared, first: First) -> Vec<Change> {
    let advertise = shared.advertise.to_string();
    let changes = state.nodes.values().filter_map(|present| {
        let mut node = present.clone();
        if first.forget && node.status.state != NodeState::Down {
            node.status.state = NodeState::Unknown;
            node.status.message = "the manager was restarted".to_owned();
        }
        if node.id == shared.node_id && node.role == Role::Manager {
            node.manager_addr = Some(advertise.clone());
        } else if first.alone {
            (node.role, node.manager_addr) = (Role::Worker, None);
        }
        (node != *present).then_some(Change::Put(Object::Node(Box::new(node))))
    });
    changes.collect()
}

async fn end(inner: &Inner) {
    inner.stop.cancel();
    inner.sessions.end_all();
    inner.tasks.close();
    if timeout(END_WAIT, inner.tasks.wait()).await.is_err() {
        tracing::warn!("some of the leader's tasks did not end");
    }
}
