//! This node's membership in a cluster: none, or an agent with or without a manager beside it.
//!
//! Joining, making and leaving are serialised by one lock; everything else reads the present
//! membership and goes on with that. One task of a member keeps its certificate and its manager part as
//! the cluster wants them ([`crate::role`]).
use crate::{
    addresses::{CONTROL_PORT, advertise, listen, remote},
    engine::description,
    record::Record,
    role,
};
use anyhow::Result;
use async_trait::async_trait;
use futures_util::stream::BoxStream;
use shoal_agent::{Agent, AgentConfig, join};
use shoal_api::{EngineInfo, LocalState, Swarm, SwarmInfo};
use shoal_containers::Runtime;
use shoal_identity::{CertificateDir, IdentityError, KeyLock, NodeCertificate};
use shoal_links::Links;
use shoal_manager::{Control, InitRequest, Manager, ManagerConfig, ManagerError};
use shoal_model::{
    Availability, ControlError, DependencyKind, DependencySpec, ErrorKind, LogLine, LogOptions,
    NodeState, Role, Rotations, State, docker,
};
use std::{
    ffi::OsString,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
    time::Duration,
};
use tokio::{sync::watch, task::JoinHandle};

/// How long a new member waits until the leader has heard of it; it goes on trying afterwards.
const SETTLE_WAIT: Duration = Duration::from_secs(20);

/// How long a manager that leaves waits until the others have taken its vote back.
const RETIRE_WAIT: Duration = Duration::from_secs(10);

const NO_SWARM: &str = "This node is not a swarm manager. Use \"docker swarm init\" or \"docker \
     swarm join\" to connect this node to swarm and try again.";
const WORKER: &str = "This node is not a swarm manager. Worker nodes can't be used to view or \
     modify cluster state. Please run this command on a manager node or promote the current node \
     to a manager.";
/// What to do about a store that has failed.
const MEND: &str = "mend that and restart the daemon";

const LOCKED: &str = "Swarm is encrypted and needs to be unlocked before it can be used. Please use \
     \"docker swarm unlock\" to unlock it.";
const MEMBER_ALREADY: &str = "This node is already part of a swarm. Use \"docker swarm leave\" to \
     leave this swarm and join another one.";
const NO_MEMBER: &str = "This node is not part of a swarm";
const PREPARED: &str = "This node is not a swarm manager. Manager is being prepared or has trouble \
     connecting to the cluster.";
const LEAVING: &str = "You are attempting to leave the swarm on a node that is participating as a \
     manager. ";
const LAST_MANAGER: &str = "Removing the last manager erases all current state of the swarm. Use \
     `--force` to ignore this message. ";
const NO_WAY_BACK: &str = "The only way to restore a swarm that has lost consensus is to reinitialize \
     it with `--force-new-cluster`. Use `--force` to suppress this message.";
const STILL_JOINING: &str = "Timeout was reached before node joined. The attempt to join the swarm \
     will continue in the background. Use the \"docker info\" command to see the current swarm status \
     of your node.";

/// What does not change with the membership.
pub(crate) struct Host {
    /// Folder of the cluster's state.
    pub(crate) state_dir: PathBuf,
    pub(crate) data_root: PathBuf,
    pub(crate) exec_root: PathBuf,
    pub(crate) bpf_root: PathBuf,
    /// cgroup v2 folder above all containers.
    pub(crate) cgroup: PathBuf,
    pub(crate) resolvers: Vec<SocketAddr>,
    /// Address or interface to advertise when a request names none.
    pub(crate) default_advertise: Option<String>,
    pub(crate) engine: Arc<EngineInfo>,
    pub(crate) runtime: Runtime,
    pub(crate) links: Links,
}

/// This node's membership.
pub(crate) struct Membership {
    host: Host,
    member: RwLock<Option<Arc<Member>>>,
    /// The membership of a manager that waits for its unlock key.
    locked: Mutex<Option<Record>>,
    changing: tokio::sync::Mutex<()>,
}

/// A membership while it lasts.
pub(crate) struct Member {
    pub(crate) record: Record,
    /// The node's certificate; replaced when it is renewed.
    pub(crate) certificate: watch::Sender<Arc<NodeCertificate>>,
    /// The manager part, while this node is a manager.
    pub(crate) manager: RwLock<Option<Manager>>,
    pub(crate) agent: Agent,
    /// The unlock key that key and store are locked with.
    unlock_key: Mutex<Option<String>>,
    /// The task that keeps certificate and manager part as the cluster wants them.
    keeper: Mutex<Option<JoinHandle<()>>>,
}

impl Member {
    pub(crate) fn manager(&self) -> Option<Manager> {
        self.manager.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_manager(&self, manager: Option<Manager>) {
        *self.manager.write().unwrap_or_else(PoisonError::into_inner) = manager;
    }

    pub(crate) fn unlock_key(&self) -> Option<String> {
        self.unlock_key.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_unlock_key(&self, key: Option<String>) {
        *self.unlock_key.lock().unwrap_or_else(PoisonError::into_inner) = key;
    }

    /// Where it listens as a manager.
    pub(crate) fn listen(&self) -> SocketAddr {
        let any = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), CONTROL_PORT);
        self.record.listen.unwrap_or(any)
    }

    /// Ends the keeper, so that nothing changes any more.
    fn settle(&self) {
        if let Some(keeper) = self.keeper.lock().unwrap_or_else(PoisonError::into_inner).take() {
            keeper.abort();
        }
    }
}

impl Membership {
    /// Takes the membership up again that an earlier daemon had.
    pub(crate) async fn resume(host: Host) -> Result<Membership> {
        let record = Record::load(&host.state_dir)?;
        let membership = Membership {
            host,
            member: RwLock::default(),
            locked: Mutex::default(),
            changing: tokio::sync::Mutex::default(),
        };
        match record {
            Some(record) => match membership.take_up(record.clone(), None).await {
                Err(error) if is_locked(&error) => {
                    tracing::warn!("the manager is locked; unlock it with `swarm unlock`");
                    *membership.locked() = Some(record);
                }
                result => result?,
            },
            // Making or joining was interrupted: nothing of it counts.
            None => membership.forget()?,
        }
        Ok(membership)
    }

    /// Starts what an earlier daemon was. `unlock_key` opens what a locked cluster has sealed.
    async fn take_up(&self, record: Record, unlock_key: Option<String>) -> Result<()> {
        let lock = unlock_key.as_deref().map(KeyLock::of);
        let dir = CertificateDir::new(&self.host.data_root);
        let Some(certificate) = dir.load_with(lock.as_ref())? else {
            let state = self.host.state_dir.display();
            anyhow::bail!(
                "{state} says this node is in a cluster, but its certificate is gone; restore {}, or \
                 remove {state} and join again",
                dir.path().display(),
            )
        };
        let manager = self.restart_manager(&record, &certificate, unlock_key.clone()).await?;
        self.start(record, certificate, manager, unlock_key).await
    }

    fn locked(&self) -> MutexGuard<'_, Option<Record>> {
        self.locked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The agent, for metrics.
    pub(crate) fn with_agent<R>(&self, look: impl FnOnce(&Agent) -> R) -> Option<R> {
        self.member().map(|member| look(&member.agent))
    }

    /// The manager, for metrics.
    pub(crate) fn with_manager<R>(&self, look: impl FnOnce(&Manager) -> R) -> Option<R> {
        self.member().and_then(|member| member.manager().as_ref().map(look))
    }

    /// Ends what runs in this process; containers, traffic and names go on.
    pub(crate) async fn shutdown(&self) {
        let _changing = self.changing.lock().await;
        let member = self.member.write().unwrap_or_else(PoisonError::into_inner).take();
        let Some(member) = member else { return };
        member.settle();
        member.agent.shutdown().await;
        if let Some(manager) = member.manager() {
            manager.shutdown().await;
        }
    }

    fn member(&self) -> Option<Arc<Member>> {
        self.member.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn manager(&self) -> Result<Manager, ControlError> {
        let member = self.member().ok_or_else(|| match self.locked().is_some() {
            true => unavailable(LOCKED),
            false => unavailable(NO_SWARM),
        })?;
        member.manager().ok_or_else(|| match member.certificate.borrow().identity().role {
            Role::Manager => unavailable(PREPARED),
            Role::Worker => unavailable(WORKER),
        })
    }

    /// The control API of the cluster.
    fn control(&self) -> Result<Control, ControlError> {
        Ok(self.manager()?.control())
    }

    fn manager_config(&self, listen: SocketAddr, advertise: SocketAddr) -> ManagerConfig {
        let state_dir = self.host.state_dir.clone();
        ManagerConfig { state_dir, listen, advertise, unlock_key: None }
    }

    /// The manager part that an earlier daemon had. If becoming a manager was interrupted, the keeper
    /// goes on with it; if ceasing to be one was, that is finished here.
    async fn restart_manager(
        &self,
        record: &Record,
        certificate: &NodeCertificate,
        unlock_key: Option<String>,
    ) -> Result<Option<Manager>> {
        if certificate.identity().role == Role::Worker {
            role::remove_store(&self.host.state_dir)?;
            return Ok(None);
        }
        let any = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), CONTROL_PORT);
        let config = self.manager_config(record.listen.unwrap_or(any), record.advertise);
        let config = ManagerConfig { unlock_key, ..config };
        match Manager::restart(config, certificate.clone()).await {
            Ok(manager) => Ok(Some(manager)),
            Err(error) if error.is_missing_store() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Starts the agent and remembers the membership.
    async fn start(
        &self,
        record: Record,
        certificate: NodeCertificate,
        manager: Option<Manager>,
        unlock_key: Option<String>,
    ) -> Result<()> {
        let certificate = watch::Sender::new(Arc::new(certificate));
        let net = ["/proc/self/exe", "net"].map(OsString::from);
        let config = AgentConfig {
            state_dir: self.host.state_dir.clone(),
            exec_root: self.host.exec_root.clone(),
            bpf_root: self.host.bpf_root.clone(),
            cgroup: self.host.cgroup.clone(),
            net_program: net.to_vec(),
            resolvers: self.host.resolvers.clone(),
            certificate: certificate.subscribe(),
            managers: record.managers.clone(),
            description: description(&self.host.engine),
            advertise: record.data_path,
            data_path_port: record.data_path_port,
        };
        let agent = match Agent::start(config, self.host.runtime.clone()).await {
            Ok(agent) => agent,
            Err(error) => {
                if let Some(manager) = manager {
                    manager.shutdown().await;
                }
                return Err(error);
            }
        };
        let member = Arc::new(Member {
            record,
            certificate,
            manager: RwLock::new(manager),
            agent,
            unlock_key: Mutex::new(unlock_key),
            keeper: Mutex::default(),
        });
        self.supervise(&member);
        *self.member.write().unwrap_or_else(PoisonError::into_inner) = Some(member);
        Ok(())
    }

    /// Starts the task that keeps the member what the cluster wants it to be.
    fn supervise(&self, member: &Arc<Member>) {
        let keeper = role::keep(Arc::clone(member), role::Folders::of(&self.host));
        let keeper = tokio::spawn(keeper);
        *member.keeper.lock().unwrap_or_else(PoisonError::into_inner) = Some(keeper);
    }

    /// Saves what a restart needs; the record last, since it is what counts.
    fn remember(&self, record: &Record, certificate: &NodeCertificate) -> Result<()> {
        CertificateDir::new(&self.host.data_root).save(certificate)?;
        record.save(&self.host.state_dir)
    }

    /// Removes the cluster's state from this node.
    fn forget(&self) -> Result<()> {
        Record::remove(&self.host.state_dir)?;
        CertificateDir::new(&self.host.data_root).remove()?;
        role::remove_store(&self.host.state_dir)
    }

    fn not_member(&self) -> Result<(), ControlError> {
        match self.member().is_some() || self.locked().is_some() {
            false => Ok(()),
            true => Err(unavailable(MEMBER_ALREADY)),
        }
    }

    /// Addresses of a new member: the one to advertise and the one of the overlay.
    async fn own_addresses(
        &self,
        listen_addr: Option<String>,
        advertise_addr: Option<String>,
        data_path_addr: Option<String>,
    ) -> Result<(SocketAddr, SocketAddr, IpAddr), ControlError> {
        let links = &self.host.links;
        let listen = listen(links, &listen_addr.unwrap_or_default()).await?;
        let asked = advertise_addr.filter(|a| !a.is_empty());
        let asked = asked.or_else(|| self.host.default_advertise.clone()).unwrap_or_default();
        let reached = advertise(links, &asked, listen).await?;
        let data_path = match data_path_addr.filter(|a| !a.is_empty()) {
            Some(text) => advertise(links, &text, listen).await?.ip(),
            None => reached.ip(),
        };
        Ok((listen, reached, data_path))
    }
}

#[async_trait]
impl Swarm for Membership {
    fn info(&self) -> SwarmInfo {
        let Some(member) = self.member() else {
            let local_state = match self.locked().is_some() {
                true => LocalState::Locked,
                false => LocalState::Inactive,
            };
            return SwarmInfo { local_state, ..SwarmInfo::default() };
        };
        let identity = member.certificate.borrow().identity().clone();
        let session = member.agent.session();
        let manager = member.manager();
        let remote_managers = match &manager {
            Some(manager) => manager.store().read(|state| {
                let managers = state.nodes.values().filter(|n| n.role == Role::Manager);
                managers.filter_map(|n| Some((n.id.clone(), n.manager_addr.clone()?))).collect()
            }),
            None => {
                let known = member.agent.managers().into_iter();
                known.map(|(id, addr)| (id, addr.to_string())).collect()
            }
        };
        let failed = manager.as_ref().and_then(|m| m.store().failed().borrow().clone());
        let failed =
            failed.map(|reason| format!("the manager's store has failed: {reason}; {MEND}"));
        SwarmInfo {
            node_id: identity.node_id,
            node_addr: member.record.advertise.ip().to_string(),
            local_state: if failed.is_some() { LocalState::Error } else { LocalState::Active },
            control_available: manager.is_some() && failed.is_none(),
            error: match failed {
                Some(failed) => failed,
                None if session.connected => String::new(),
                None => session.error,
            },
            remote_managers,
            leader: manager.and_then(|manager| manager.leader()),
        }
    }

    fn read(&self, look: &mut dyn FnMut(&State)) -> Result<(), ControlError> {
        self.manager()?.store().read(look);
        Ok(())
    }

    async fn catch_up(&self) -> Result<(), ControlError> {
        self.control()?.catch_up().await
    }

    fn progress(&self) -> Option<(watch::Receiver<u64>, Option<String>)> {
        let manager = self.manager().ok()?;
        Some((manager.store().watch(), manager.leader()))
    }

    async fn init(
        &self,
        request: docker::SwarmInitRequest,
        availability: Availability,
    ) -> Result<String, ControlError> {
        let _changing = self.changing.lock().await;
        if let (Some(true), Some(member)) = (request.force_new_cluster, self.member()) {
            return self.force_new_cluster(member, request).await;
        }
        self.not_member()?;
        let (listen, reached, data_path) = self
            .own_addresses(
                request.listen_addr.clone(),
                request.advertise_addr.clone(),
                request.data_path_addr.clone(),
            )
            .await?;
        let config = self.manager_config(listen, reached);
        let manager = Manager::init(config, InitRequest { request, availability }).await?;
        let node_id = manager.node_id().to_owned();
        let port = manager.store().read(|s| s.cluster.as_ref().map(|c| c.data_path_port));
        let record = Record {
            listen: Some(listen),
            advertise: reached,
            data_path,
            data_path_port: port.unwrap_or_default(),
            managers: vec![reached],
        };
        let certificate = manager.certificate();
        let started = match self.remember(&record, &certificate) {
            Ok(()) => self.start(record, certificate, Some(manager), None).await,
            Err(error) => {
                manager.shutdown().await;
                Err(error)
            }
        };
        if let Err(error) = started {
            self.forget().map_err(unknown)?;
            return Err(unknown(error));
        }
        self.settled().await?;
        Ok(node_id)
    }

    async fn join(
        &self,
        request: docker::SwarmJoinRequest,
        availability: Availability,
    ) -> Result<(), ControlError> {
        let _changing = self.changing.lock().await;
        self.not_member()?;
        let (listen, reached, data_path) = self
            .own_addresses(request.listen_addr, request.advertise_addr, request.data_path_addr)
            .await?;
        let mut managers = Vec::new();
        for text in request.remote_addrs.unwrap_or_default() {
            managers.extend(remote(&text).await?);
        }
        let token = request.join_token.unwrap_or_default();
        let joined = join(&managers, &token, availability).await;
        let joined =
            joined.map_err(|e| ControlError::new(ErrorKind::InvalidArgument, format!("{e:#}")))?;
        let record = Record {
            listen: Some(listen),
            advertise: reached,
            data_path,
            data_path_port: joined.data_path_port,
            managers: vec![joined.manager],
        };
        let started = self.enter(record, joined.certificate, &managers).await;
        if let Err(error) = started {
            self.forget().map_err(unknown)?;
            return Err(unknown(error));
        }
        self.settled().await
    }

    async fn leave(&self, force: bool) -> Result<(), ControlError> {
        let _changing = self.changing.lock().await;
        if force && self.locked().take().is_some() {
            return self.forget().map_err(unknown);
        }
        let member = self.member().ok_or_else(|| match self.locked().is_some() {
            true => unavailable(LOCKED),
            false => unavailable(NO_MEMBER),
        })?;
        if let Some(manager) = member.manager() {
            if !force {
                return Err(unavailable(&manager.store().read(|s| warning(s, manager.node_id()))));
            }
            member.settle();
            // The others must not count on a vote that is never given again.
            let retired = tokio::time::timeout(RETIRE_WAIT, manager.control().retire()).await;
            if !matches!(retired, Ok(Ok(()))) {
                tracing::warn!(?retired, "the other managers still count on this one");
            }
        }
        member.settle();
        self.member.write().unwrap_or_else(PoisonError::into_inner).take();
        member.agent.leave().await;
        if let Some(manager) = member.manager() {
            manager.shutdown().await;
        }
        self.forget().map_err(unknown)
    }

    async fn update_swarm(
        &self,
        version: u64,
        spec: docker::SwarmSpec,
        rotate: Rotations,
    ) -> Result<(), ControlError> {
        self.control()?.update_swarm(version, spec, rotate).await
    }

    async fn unlock(&self, key: &str) -> Result<(), ControlError> {
        let _changing = self.changing.lock().await;
        let record = self.locked().clone();
        let not_locked = || ControlError::new(ErrorKind::AlreadyExists, "swarm is not locked");
        let record = record.ok_or_else(not_locked)?;
        match self.take_up(record, Some(key.trim().to_owned())).await {
            Ok(()) => {
                self.locked().take();
                Ok(())
            }
            Err(error) if is_wrong_key(&error) => {
                let text = "swarm could not be unlocked: invalid key provided";
                Err(ControlError::new(ErrorKind::InvalidArgument, text))
            }
            Err(error) => Err(unknown(error)),
        }
    }

    async fn update_node(
        &self,
        id: &str,
        version: u64,
        spec: docker::NodeSpec,
    ) -> Result<(), ControlError> {
        self.control()?.update_node(id, version, spec).await
    }

    async fn remove_node(&self, id: &str, force: bool) -> Result<(), ControlError> {
        self.control()?.remove_node(id, force).await
    }

    async fn create_service(&self, spec: docker::ServiceSpec) -> Result<String, ControlError> {
        self.control()?.create_service(spec).await
    }

    async fn update_service(
        &self,
        id: &str,
        version: u64,
        spec: docker::ServiceSpec,
        rollback: bool,
    ) -> Result<(), ControlError> {
        self.control()?.update_service(id, version, spec, rollback).await
    }

    async fn remove_service(&self, id: &str) -> Result<(), ControlError> {
        self.control()?.remove_service(id).await
    }

    async fn create_network(
        &self,
        request: docker::NetworkCreateRequest,
    ) -> Result<String, ControlError> {
        self.control()?.create_network(request).await
    }

    async fn remove_network(&self, id: &str) -> Result<(), ControlError> {
        self.control()?.remove_network(id).await
    }

    async fn create_dependency(
        &self,
        kind: DependencyKind,
        spec: DependencySpec,
    ) -> Result<String, ControlError> {
        self.control()?.create_dependency(kind, spec).await
    }

    async fn update_dependency(
        &self,
        kind: DependencyKind,
        id: &str,
        version: u64,
        spec: DependencySpec,
    ) -> Result<(), ControlError> {
        self.control()?.update_dependency(kind, id, version, spec).await
    }

    async fn remove_dependency(&self, kind: DependencyKind, id: &str) -> Result<(), ControlError> {
        self.control()?.remove_dependency(kind, id).await
    }

    async fn service_logs(
        &self,
        tasks: Vec<String>,
        options: LogOptions,
    ) -> Result<BoxStream<'static, LogLine>, ControlError> {
        self.control()?.service_logs(tasks, options).await
    }
}

impl Membership {
    /// A new member answers only when the leader knows it, as Docker does.
    async fn settled(&self) -> Result<(), ControlError> {
        let member = self.member().ok_or_else(|| unavailable(NO_MEMBER))?;
        member.agent.connected(SETTLE_WAIT).await.map_err(|error| {
            ControlError::new(ErrorKind::Unknown, format!("{STILL_JOINING} ({error:#})"))
        })
    }

    /// Makes this manager the only one of its cluster. Its agent and what it runs go on.
    async fn force_new_cluster(
        &self,
        member: Arc<Member>,
        request: docker::SwarmInitRequest,
    ) -> Result<String, ControlError> {
        let certificate = NodeCertificate::clone(&member.certificate.borrow());
        if certificate.identity().role != Role::Manager {
            return Err(unavailable(WORKER));
        }
        let record = &member.record;
        if let Some(asked) = request.advertise_addr.filter(|addr| !addr.is_empty()) {
            let reached = advertise(&self.host.links, &asked, member.listen()).await?;
            if reached != record.advertise {
                let text = format!(
                    "this node is known by {}, and --force-new-cluster cannot change that: leave out \
                     --advertise-addr",
                    record.advertise
                );
                return Err(ControlError::new(ErrorKind::InvalidArgument, text));
            }
        }
        member.settle();
        if let Some(manager) = member.manager() {
            member.set_manager(None);
            manager.shutdown().await;
        }
        let config = self.manager_config(member.listen(), record.advertise);
        let config = ManagerConfig { unlock_key: member.unlock_key(), ..config };
        let forced = Manager::force_new_cluster(config, certificate).await;
        let node_id = match forced {
            Ok(manager) => {
                let node_id = manager.node_id().to_owned();
                member.set_manager(Some(manager));
                Ok(node_id)
            }
            Err(error) => Err(error.into()),
        };
        self.supervise(&member);
        node_id
    }

    /// Starts a member that has just been let in; a manager only once the others have taken it in.
    async fn enter(
        &self,
        record: Record,
        certificate: NodeCertificate,
        managers: &[SocketAddr],
    ) -> Result<()> {
        self.remember(&record, &certificate)?;
        let manager = match (certificate.identity().role, record.listen) {
            (Role::Manager, Some(listen)) => {
                let config = self.manager_config(listen, record.advertise);
                Some(Manager::join(config, certificate.clone(), managers).await?)
            }
            _ => None,
        };
        self.start(record, certificate, manager, None).await
    }
}

/// What a manager is told that leaves without force, in Docker's words.
fn warning(state: &State, own: &str) -> String {
    let managers = state.nodes.values().filter(|n| n.role == Role::Manager);
    let all = managers.clone().count();
    let answers = |n: &&shoal_model::Node| n.id == own || n.status.state == NodeState::Ready;
    let reachable = managers.filter(answers).count();
    let unreachable = all - reachable;
    if all <= 1 {
        return format!("{LEAVING}{LAST_MANAGER}");
    }
    let lost = reachable <= unreachable + 2;
    let warning = match lost {
        true => format!(
            "Removing this node leaves {} managers out of {all}. Without a Raft quorum your swarm \
             will be inaccessible. ",
            reachable - 1
        ),
        false => String::new(),
    };
    format!("{LEAVING}{warning}{NO_WAY_BACK}")
}

/// Whether only the unlock key is missing.
fn is_locked(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(IdentityError::Locked))
        || error.downcast_ref().is_some_and(ManagerError::is_locked)
}

fn is_wrong_key(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(IdentityError::WrongKey))
        || error.downcast_ref().is_some_and(ManagerError::is_wrong_key)
}

fn unavailable(message: &str) -> ControlError {
    ControlError::new(ErrorKind::Unavailable, message)
}

fn unknown(error: anyhow::Error) -> ControlError {
    ControlError::new(ErrorKind::Unknown, format!("{error:#}"))
}
