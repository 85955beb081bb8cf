//! Starting and ending a manager.
use crate::{
    InitRequest, ManagerError,
    certificates::CertificatesService,
    cluster,
    dispatcher::DispatcherService,
    error::chain,
    forward::ControlService,
    leading::{self, First},
    managers::ManagersService,
    peers::{MAX_RAFT_MESSAGE, Peers},
    raft::RaftService,
    threads::RaftThreads,
};
use shoal_identity::{Lane, NodeCertificate, server_config};
use shoal_model::Role;
use shoal_rpc::{
    certificates_server::CertificatesServer, control_server::ControlServer,
    dispatcher_server::DispatcherServer, managers_server::ManagersServer, raft_server::RaftServer,
};
use shoal_store::{Store, StoreConfig, StoreError, UnlockKey};
use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};
use tokio::{net::TcpListener, runtime::Handle, sync::watch, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::service::Routes;

pub(crate) use crate::leading::Inner;

/// How long the tasks may take to end.
const SHUTDOWN_WAIT: Duration = Duration::from_secs(5);

/// How long the only manager of a cluster may take to lead it.
const LEAD_WAIT: Duration = Duration::from_secs(20);

/// How long a new manager may take to get its vote and the cluster's state.
const JOIN_WAIT: Duration = Duration::from_secs(60);

/// Where a manager keeps its state and how it is reached.
#[derive(Clone, Debug)]
pub struct ManagerConfig {
    /// Folder of the cluster's state (`DATA_ROOT/swarm`); the store is in `raft` below it.
    pub state_dir: PathBuf,
    /// Address the nodes' server listens on (Docker: `0.0.0.0:2377`).
    pub listen: SocketAddr,
    /// Address other nodes reach it at.
    pub advertise: SocketAddr,
    /// The cluster's unlock key, for a store that is locked.
    pub unlock_key: Option<String>,
}

impl ManagerConfig {
    pub(crate) fn store_dir(&self) -> PathBuf {
        self.state_dir.join("raft")
    }
}

/// A running manager; clones share it.
#[derive(Clone)]
pub struct Manager(pub(crate) Arc<Shared>);

/// What a manager has whether it leads or not.
pub(crate) struct Shared {
    pub(crate) store: Store,
    pub(crate) node_id: String,
    pub(crate) cluster_id: String,
    pub(crate) advertise: SocketAddr,
    pub(crate) peers: Arc<Peers>,
    /// Folder of the store.
    pub(crate) dir: PathBuf,
    /// What there is while this manager leads.
    pub(crate) lead: watch::Sender<Option<Arc<Inner>>>,
    pub(crate) stop: CancellationToken,
    pub(crate) tasks: TaskTracker,
    pub(crate) credentials: watch::Sender<Arc<NodeCertificate>>,
    tls: watch::Sender<Arc<rustls::ServerConfig>>,
    listening: SocketAddr,
    /// What the store and the lane run on.
    raft: Handle,
    _threads: RaftThreads,
}

impl Manager {
    /// Makes a cluster and its first manager. Afterwards [`Manager::certificate`] is to be saved:
    /// [`Manager::restart`] needs it.
    pub async fn init(
        config: ManagerConfig,
        request: InitRequest,
    ) -> Result<Manager, ManagerError> {
        let listener = listen(config.listen).await?;
        let spec = request.request.spec.clone().unwrap_or_default();
        let founding = cluster::Founding::of(&spec).await?;
        let new = cluster::create_with(&config, request, founding)?;
        let start = Start::new(&config, &listener, new.certificate)?;
        let dir = config.store_dir();
        let own = config.advertise.to_string();
        let store = Store::bootstrap(start.store_config()?, &own, start.transport()).await?;
        let made = match store.propose(new.changes).await {
            Ok(_) => start.run(listener, store, First::default()).led().await,
            Err(error) => {
                store.shutdown().await;
                Err(error.into())
            }
        };
        if made.is_err() {
            // Half a cluster would be in the way of the next attempt.
            if let Err(error) = std::fs::remove_dir_all(&dir) {
                tracing::error!(dir = %dir.display(), %error, "cannot remove the store");
            }
        }
        made
    }

    /// Starts a manager that was one before. The only one of its cluster leads when this returns;
    /// every node then counts as unknown until it says hello, and as down if it does not for some
    /// seconds.
    pub async fn restart(
        config: ManagerConfig,
        certificate: NodeCertificate,
    ) -> Result<Manager, ManagerError> {
        let listener = listen(config.listen).await?;
        let start = Start::new(&config, &listener, certificate)?;
        let store = Store::open(start.store_config()?, start.transport()).await?;
        let alone = store.members().len() == 1;
        let manager = start.run(listener, store, First { forget: true, alone: false });
        if alone { manager.led().await } else { Ok(manager) }
    }

    /// Makes this manager the only one of its cluster, with the state it has: the way back when most
    /// managers are lost for good. The others become workers, where they still are.
    pub async fn force_new_cluster(
        config: ManagerConfig,
        certificate: NodeCertificate,
    ) -> Result<Manager, ManagerError> {
        let listener = listen(config.listen).await?;
        let start = Start::new(&config, &listener, certificate)?;
        let own = config.advertise.to_string();
        let opened = Store::force_new_cluster(start.store_config()?, &own, start.transport()).await;
        start.run(listener, opened?, First { forget: true, alone: true }).led().await
    }

    /// Makes this node a manager of a cluster that has some, which answer at `managers`. Returns when
    /// it has a vote and knows the cluster's state. What an interrupted attempt left is used.
    pub async fn join(
        config: ManagerConfig,
        certificate: NodeCertificate,
        managers: &[SocketAddr],
    ) -> Result<Manager, ManagerError> {
        let listener = listen(config.listen).await?;
        let start = Start::new(&config, &listener, certificate)?;
        let store = start.empty_or_left().await?;
        let manager = start.run(listener, store, First::default());
        let joined = timeout(JOIN_WAIT, manager.take_place(managers)).await;
        match joined.unwrap_or_else(|_| Err(ManagerError::NotAdmitted("no answer in time".into())))
        {
            Ok(()) => Ok(manager),
            Err(error) => {
                manager.shutdown().await;
                Err(error)
            }
        }
    }

    /// The cluster's state and changes.
    pub fn store(&self) -> &Store {
        &self.0.store
    }

    /// Certificate and key of the manager's own node, with the cluster's root.
    pub fn certificate(&self) -> NodeCertificate {
        NodeCertificate::clone(&self.0.credentials.borrow())
    }

    /// Uses a renewed certificate for all connections from now on.
    pub fn renewed(&self, certificate: NodeCertificate) -> Result<(), ManagerError> {
        self.0.tls.send_replace(server_config(&certificate)?);
        self.0.credentials.send_replace(Arc::new(certificate));
        Ok(())
    }

    /// The key the cluster locks its managers with, as far as this one knows; `None` inside when it does
    /// not, outside when this manager knows nothing of the cluster yet.
    pub fn unlock_key(&self) -> Option<Option<String>> {
        self.store().read(|state| state.cluster.as_ref().map(|c| c.unlock_key.clone()))
    }

    /// The lock to take instead of `present`, if the cluster wants another one now. A manager that has
    /// started hears again, entry by entry, of every lock there was: one of those must not be taken, so
    /// it looks only after it has caught up, and is refused while nobody leads.
    pub async fn other_lock(
        &self,
        present: Option<&str>,
    ) -> Result<Option<Option<String>>, ManagerError> {
        let other = |wanted: &Option<String>| wanted.as_deref() != present;
        if self.unlock_key().is_none_or(|known| !other(&known)) {
            return Ok(None);
        }
        self.control().catch_up().await?;
        Ok(self.unlock_key().filter(other))
    }

    /// Locks the store with this key from now on, or not at all.
    pub async fn lock(&self, unlock_key: Option<&str>) -> Result<(), ManagerError> {
        let key = unlock_key.map(UnlockKey::parse).transpose().map_err(StoreError::from)?;
        Ok(self.store().set_unlock_key(key).await?)
    }

    /// Id of the manager's own node.
    pub fn node_id(&self) -> &str {
        &self.0.node_id
    }

    /// Address the nodes' server listens on, with the port the system chose if it was 0.
    pub fn listening(&self) -> SocketAddr {
        self.0.listening
    }

    /// Id of the manager that leads, as far as this one knows.
    pub fn leader(&self) -> Option<String> {
        self.0.leader()
    }

    /// Newest generation each node connected to this manager says it has applied.
    pub fn applied(&self) -> std::collections::BTreeMap<String, u64> {
        self.0.lead.borrow().as_ref().map(|inner| inner.sessions.applied()).unwrap_or_default()
    }

    /// Lets another manager lead, if this one does and there is one.
    pub(crate) async fn give_lead_away(&self) {
        if self.0.store.is_leader()
            && self.0.store.members().iter().filter(|m| m.voter).count() > 1
            && let Err(error) = self.0.store.step_down().await
        {
            tracing::warn!(error = %chain(&error), "nobody takes the lead over");
        }
    }

    /// Ends the manager's tasks and closes the store. Nodes go on with what they have; so do the other
    /// managers, one of which leads first, so that nobody has to miss this one.
    pub async fn shutdown(self) {
        self.give_lead_away().await;
        self.0.stop.cancel();
        self.0.tasks.close();
        if timeout(SHUTDOWN_WAIT, self.0.tasks.wait()).await.is_err() {
            tracing::warn!("some of the manager's tasks did not end");
        }
        self.0.store.clone().shutdown().await;
    }

    /// Waits until it leads; ends it when it does not.
    async fn led(self) -> Result<Manager, ManagerError> {
        let mut lead = self.0.lead.subscribe();
        let leads = timeout(LEAD_WAIT, lead.wait_for(Option::is_some)).await;
        if leads.is_ok_and(|leads| leads.is_ok()) {
            return Ok(self);
        }
        let empty = self.store().read(|state| state.cluster.is_none());
        let dir = self.0.dir.display().to_string();
        self.shutdown().await;
        Err(if empty { ManagerError::NoCluster(dir) } else { ManagerError::NoLead })
    }
}

/// What is needed before there is a store.
struct Start {
    config: ManagerConfig,
    listening: SocketAddr,
    credentials: watch::Sender<Arc<NodeCertificate>>,
    tls: watch::Sender<Arc<rustls::ServerConfig>>,
    peers: Arc<Peers>,
    raft: Handle,
    threads: RaftThreads,
}

impl Start {
    fn new(
        config: &ManagerConfig,
        listener: &TcpListener,
        certificate: NodeCertificate,
    ) -> Result<Start, ManagerError> {
        if certificate.identity().role != Role::Manager {
            return Err(ManagerError::WrongCertificate);
        }
        let listening = listener
            .local_addr()
            .map_err(|source| ManagerError::Listen { addr: config.listen, source })?;
        let tls = watch::Sender::new(server_config(&certificate)?);
        let credentials = watch::Sender::new(Arc::new(certificate));
        let threads = RaftThreads::start()?;
        let raft = threads.handle();
        let peers = Arc::new(Peers::new(credentials.subscribe(), raft.clone()));
        Ok(Start { config: config.clone(), listening, credentials, tls, peers, raft, threads })
    }

    fn store_config(&self) -> Result<StoreConfig, StoreError> {
        let node_id = self.credentials.borrow().identity().node_id.clone();
        let mut config = StoreConfig::new(self.config.store_dir(), node_id);
        config.runtime = Some(self.raft.clone());
        if let Some(key) = &self.config.unlock_key {
            config.keys = config.keys.with_unlock_key(UnlockKey::parse(key)?);
        }
        Ok(config)
    }

    fn transport(&self) -> Arc<dyn shoal_store::Transport> {
        Arc::clone(&self.peers) as _
    }

    /// A store to join with: a new one, or what an interrupted attempt left. One from an earlier time
    /// as a manager is of no use.
    async fn empty_or_left(&self) -> Result<Store, StoreError> {
        let fresh = async || Store::join(self.store_config()?, self.transport()).await;
        match fresh().await {
            Err(StoreError::Exists { .. }) => {}
            result => return result,
        }
        match Store::open(self.store_config()?, self.transport()).await {
            Err(StoreError::Removed { dir, .. }) => {
                std::fs::remove_dir_all(&dir).map_err(|source| StoreError::File {
                    action: "remove",
                    path: dir,
                    source,
                })?;
                fresh().await
            }
            result => result,
        }
    }

    /// Starts the tasks. `first` is for the first term, if nobody else leads before it.
    fn run(self, listener: TcpListener, store: Store, first: First) -> Manager {
        let identity = self.credentials.borrow().identity().clone();
        let shared = Arc::new(Shared {
            store,
            node_id: identity.node_id,
            cluster_id: identity.cluster_id,
            advertise: self.config.advertise,
            peers: self.peers,
            dir: self.config.store_dir(),
            lead: watch::Sender::new(None),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
            credentials: self.credentials,
            tls: self.tls,
            listening: self.listening,
            raft: self.raft,
            _threads: self.threads,
        });
        shared.serve(listener);
        shared.tasks.spawn(leading::run(shared.clone(), first));
        Manager(shared)
    }
}

impl Shared {
    fn serve(self: &Arc<Shared>, listener: TcpListener) {
        let raft = RaftServer::new(RaftService(self.clone()));
        let raft = raft
            .max_decoding_message_size(MAX_RAFT_MESSAGE)
            .max_encoding_message_size(MAX_RAFT_MESSAGE);
        let routes = Routes::new(CertificatesServer::new(CertificatesService(self.clone())))
            .add_service(DispatcherServer::new(DispatcherService(self.clone())))
            .add_service(ControlServer::new(ControlService(self.clone())))
            .add_service(ManagersServer::new(ManagersService(self.clone())));
        let lane = Lane { runtime: self.raft.clone(), routes: Routes::new(raft) };
        let (stop, tls) = (self.stop.clone(), self.tls.subscribe());
        let members: Arc<dyn shoal_identity::Members> = self.clone();
        self.tasks.spawn(async move {
            let ended = stop.cancelled();
            let served =
                shoal_identity::serve(listener, tls, routes, Some(lane), members, ended).await;
            if let Err(error) = served {
                tracing::error!(error = %chain(&error), "the nodes' server ended");
            }
        });
    }

    /// Id of the manager that leads, as far as is known here.
    pub(crate) fn leader(&self) -> Option<String> {
        self.store.leadership().borrow().leader.clone()
    }

    /// The node's present certificate.
    pub(crate) fn certificate(&self) -> Arc<NodeCertificate> {
        self.credentials.borrow().clone()
    }
}

async fn listen(addr: SocketAddr) -> Result<TcpListener, ManagerError> {
    TcpListener::bind(addr).await.map_err(|source| ManagerError::Listen { addr, source })
}
