//! Starting and ending a manager.
use crate::{
    InitRequest, ManagerError,
    board::{self, Board},
    broker::Broker,
    certificates::CertificatesService,
    clock::{self, Uptime},
    cluster,
    dispatcher::DispatcherService,
    edit,
    herd::Herd,
    reconciler,
    session::Sessions,
    statuses,
    watchdog::{self, Beats},
};
use shoal_identity::{NodeCertificate, RootCa, server_config};
use shoal_model::{NodeState, State};
use shoal_rpc::{certificates_server::CertificatesServer, dispatcher_server::DispatcherServer};
use shoal_store::{Store, StoreConfig};
use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::service::Routes;

/// How long the tasks may take to end.
const SHUTDOWN_WAIT: Duration = Duration::from_secs(5);

/// Where a manager keeps its state and how it is reached.
#[derive(Clone, Debug)]
pub struct ManagerConfig {
    /// Folder of the cluster's state (`DATA_ROOT/swarm`); the store is in `raft` below it.
    pub state_dir: PathBuf,
    /// Address the nodes' server listens on (Docker: `0.0.0.0:2377`).
    pub listen: SocketAddr,
    /// Address other nodes reach it at.
    pub advertise: SocketAddr,
}

impl ManagerConfig {
    fn store_dir(&self) -> PathBuf {
        self.state_dir.join("raft")
    }
}

/// A running manager; clones share it.
#[derive(Clone)]
pub struct Manager(Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) store: Store,
    pub(crate) root: RootCa,
    pub(crate) certificate: NodeCertificate,
    pub(crate) advertise: SocketAddr,
    pub(crate) sessions: Sessions,
    pub(crate) beats: Beats,
    pub(crate) herd: Herd,
    pub(crate) board: Board,
    pub(crate) broker: Broker,
    pub(crate) statuses: statuses::Sender,
    pub(crate) stop: CancellationToken,
    pub(crate) tasks: TaskTracker,
    listening: SocketAddr,
}

impl Manager {
    /// Makes a cluster and its first manager. Afterwards [`Manager::certificate`] is to be saved:
    /// [`Manager::restart`] needs it.
    pub async fn init(
        config: ManagerConfig,
        request: InitRequest,
    ) -> Result<Manager, ManagerError> {
        let listener = listen(config.listen).await?;
        let new = cluster::create(&config, request)?;
        let node_id = new.certificate.identity().node_id.clone();
        let dir = config.store_dir();
        let store = Store::bootstrap(StoreConfig::new(dir.clone(), node_id)).await?;
        let made = match store.propose(new.changes).await {
            Ok(_) => Manager::run(config, listener, store, new.certificate).await,
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

    /// Starts the manager of a cluster that is there already. Every node counts as unknown until it
    /// says hello, and as down if it does not for some seconds.
    pub async fn restart(
        config: ManagerConfig,
        certificate: NodeCertificate,
    ) -> Result<Manager, ManagerError> {
        let listener = listen(config.listen).await?;
        let node_id = certificate.identity().node_id.clone();
        let store = Store::open(StoreConfig::new(config.store_dir(), node_id.clone())).await?;
        let advertise = Some(config.advertise.to_string());
        let forget = |state: &State| {
            let changes = state.nodes.values().filter_map(|present| {
                let mut node = present.clone();
                if node.status.state != NodeState::Down {
                    node.status.state = NodeState::Unknown;
                    node.status.message = "the manager was restarted".to_owned();
                }
                if node.id == node_id {
                    node.manager_addr.clone_from(&advertise);
                }
                (node != *present)
                    .then_some(shoal_model::Change::Put(shoal_model::Object::Node(node)))
            });
            Some(changes.collect())
        };
        if let Err(error) = edit::change(&store, forget).await {
            store.shutdown().await;
            return Err(error.into());
        }
        Manager::run(config, listener, store, certificate).await
    }

    async fn run(
        config: ManagerConfig,
        listener: TcpListener,
        store: Store,
        certificate: NodeCertificate,
    ) -> Result<Manager, ManagerError> {
        let tls = server_config(&certificate);
        let built = Inner::build(&config, &listener, store.clone(), certificate);
        match built.and_then(|built| Ok((built, tls?))) {
            Ok(((inner, reports), tls)) => {
                let manager = Manager(Arc::new(inner));
                manager.start(listener, tls, reports);
                Ok(manager)
            }
            Err(error) => {
                store.shutdown().await;
                Err(error)
            }
        }
    }

    fn start(
        &self,
        listener: TcpListener,
        tls: Arc<rustls::ServerConfig>,
        reports: statuses::Receiver,
    ) {
        let inner = &self.0;
        let routes = Routes::new(CertificatesServer::new(CertificatesService(inner.clone())))
            .add_service(DispatcherServer::new(DispatcherService(inner.clone())));
        let stop = inner.stop.clone();
        inner.tasks.spawn(async move {
            let served = shoal_identity::serve(listener, tls, routes, stop.cancelled()).await;
            if let Err(error) = served {
                tracing::error!(error = %crate::error::chain(&error), "the nodes' server ended");
            }
        });
        inner.tasks.spawn(reconciler::run(inner.store.clone(), inner.stop.clone()));
        inner.tasks.spawn(board::run(inner.clone()));
        inner.tasks.spawn(statuses::run(inner.clone(), reports));
        inner.tasks.spawn(watchdog::run(inner.clone()));
    }

    /// The cluster's state and changes.
    pub fn store(&self) -> &Store {
        &self.0.store
    }

    /// Certificate and key of the manager's own node, with the cluster's root.
    pub fn certificate(&self) -> &NodeCertificate {
        &self.0.certificate
    }

    /// Id of the manager's own node.
    pub fn node_id(&self) -> &str {
        &self.0.certificate.identity().node_id
    }

    /// Address the nodes' server listens on, with the port the system chose if it was 0.
    pub fn listening(&self) -> SocketAddr {
        self.0.listening
    }

    /// Newest generation each connected node says it has applied.
    pub fn applied(&self) -> std::collections::BTreeMap<String, u64> {
        self.0.sessions.applied()
    }

    /// Ends the manager's tasks and closes the store. Nodes go on with what they have.
    pub async fn shutdown(self) {
        self.0.stop.cancel();
        self.0.sessions.end_all();
        self.0.tasks.close();
        if tokio::time::timeout(SHUTDOWN_WAIT, self.0.tasks.wait()).await.is_err() {
            tracing::warn!("some of the manager's tasks did not end");
        }
        self.0.store.clone().shutdown().await;
    }

    pub(crate) fn inner(&self) -> &Arc<Inner> {
        &self.0
    }
}

impl Inner {
    fn build(
        config: &ManagerConfig,
        listener: &TcpListener,
        store: Store,
        certificate: NodeCertificate,
    ) -> Result<(Inner, statuses::Receiver), ManagerError> {
        let cluster = store
            .read(|state| state.cluster.clone())
            .ok_or_else(|| ManagerError::NoCluster(config.store_dir().display().to_string()))?;
        let own = certificate.identity();
        if own.cluster_id != cluster.id || own.role != shoal_model::Role::Manager {
            return Err(ManagerError::WrongCertificate);
        }
        let root = RootCa::from_pem(&cluster.root_certificate, &cluster.root_key)?;
        let listening = listener
            .local_addr()
            .map_err(|source| ManagerError::Listen { addr: config.listen, source })?;
        let (statuses, reports) = statuses::channel();
        let uptime = Uptime::start();
        let beats = Beats::new(uptime);
        store.read(|state| state.nodes.keys().for_each(|id| beats.await_return(id)));
        let inner = Inner {
            store,
            root,
            certificate,
            advertise: config.advertise,
            sessions: Sessions::default(),
            beats,
            herd: Herd::new(uptime),
            board: Board::new(),
            broker: Broker::default(),
            statuses,
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
            listening,
        };
        Ok((inner, reports))
    }

    /// A new certificate for a node, in PEM form.
    pub(crate) fn sign(
        &self,
        csr: &str,
        node_id: &str,
        role: shoal_model::Role,
    ) -> Result<String, shoal_identity::IdentityError> {
        let validity = self
            .store
            .read(|state| state.cluster.as_ref().map(|c| cluster::node_validity(&c.spec)));
        let validity = validity.unwrap_or(shoal_identity::NODE_VALIDITY);
        let cluster_id = &self.certificate.identity().cluster_id;
        self.root.sign_node(csr, node_id, role, cluster_id, clock::now(), validity)
    }
}

async fn listen(addr: SocketAddr) -> Result<TcpListener, ManagerError> {
    TcpListener::bind(addr).await.map_err(|source| ManagerError::Listen { addr, source })
}
