//! This node's membership in a cluster: none, or an agent with or without a manager beside it.
//!
//! Joining, making and leaving are serialised by one lock; everything else reads the present
//! membership and goes on with that.
use crate::{
    addresses::{advertise, listen, remote},
    engine::description,
    record::Record,
};
use anyhow::{Context, Result};
use async_trait::async_trait;
use futures_util::stream::{BoxStream, StreamExt};
use shoal_agent::{Agent, AgentConfig, join};
use shoal_api::{EngineInfo, LocalState, Swarm, SwarmInfo};
use shoal_containers::Runtime;
use shoal_identity::{CertificateDir, NodeCertificate};
use shoal_links::Links;
use shoal_manager::{InitRequest, Manager, ManagerConfig};
use shoal_model::{
    Availability, ControlError, ErrorKind, LogLine, LogOptions, Role, State, docker,
};
use std::{
    ffi::OsString,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::{Arc, PoisonError, RwLock},
};

const NO_SWARM: &str = "This node is not a swarm manager. Use \"docker swarm init\" or \"docker \
     swarm join\" to connect this node to swarm and try again.";
const WORKER: &str = "This node is not a swarm manager. Worker nodes can't be used to view or \
     modify cluster state. Please run this command on a manager node or promote the current node \
     to a manager.";
const MEMBER_ALREADY: &str = "This node is already part of a swarm. Use \"docker swarm leave\" to \
     leave this swarm and join another one.";
const NO_MEMBER: &str = "This node is not part of a swarm";
const LAST_MANAGER: &str = "You are attempting to leave the swarm on a node that is participating \
     as a manager. Removing the last manager erases all current state of the swarm. Use `--force` \
     to ignore this message.";

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
    changing: tokio::sync::Mutex<()>,
}

struct Member {
    record: Record,
    certificate: Arc<NodeCertificate>,
    manager: Option<Manager>,
    agent: Agent,
}

impl Membership {
    /// Takes the membership up again that an earlier daemon had.
    pub(crate) async fn resume(host: Host) -> Result<Membership> {
        let record = Record::load(&host.state_dir)?;
        let certificate = CertificateDir::new(&host.data_root).load()?;
        let membership =
            Membership { host, member: RwLock::default(), changing: tokio::sync::Mutex::default() };
        match (record, certificate) {
            (Some(record), Some(certificate)) => {
                let manager = match record.listen {
                    Some(listen) => {
                        let config = membership.manager_config(listen, record.advertise);
                        let manager = Manager::restart(config, certificate.clone()).await?;
                        Some(manager)
                    }
                    None => None,
                };
                membership.start(record, certificate, manager).await?;
            }
            (Some(_), None) => anyhow::bail!(
                "{} says this node is in a cluster, but its certificate is gone; restore {}, or \
                 remove {} and join again",
                membership.host.state_dir.display(),
                CertificateDir::new(&membership.host.data_root).path().display(),
                membership.host.state_dir.display(),
            ),
            // Making or joining was interrupted: nothing of it counts.
            (None, _) => membership.forget()?,
        }
        Ok(membership)
    }

    /// The agent, for metrics.
    pub(crate) fn with_agent<R>(&self, look: impl FnOnce(&Agent) -> R) -> Option<R> {
        self.member().map(|member| look(&member.agent))
    }

    /// The manager, for metrics.
    pub(crate) fn with_manager<R>(&self, look: impl FnOnce(&Manager) -> R) -> Option<R> {
        self.member().and_then(|member| member.manager.as_ref().map(look))
    }

    /// Ends what runs in this process; containers, traffic and names go on.
    pub(crate) async fn shutdown(&self) {
        let _changing = self.changing.lock().await;
        let member = self.member.write().unwrap_or_else(PoisonError::into_inner).take();
        let Some(member) = member else { return };
        member.agent.shutdown().await;
        if let Some(manager) = member.manager.clone() {
            manager.shutdown().await;
        }
    }

    fn member(&self) -> Option<Arc<Member>> {
        self.member.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn manager(&self) -> Result<Manager, ControlError> {
        let member = self.member().ok_or_else(|| unavailable(NO_SWARM))?;
        member.manager.clone().ok_or_else(|| unavailable(WORKER))
    }

    fn manager_config(&self, listen: SocketAddr, advertise: SocketAddr) -> ManagerConfig {
        ManagerConfig { state_dir: self.host.state_dir.clone(), listen, advertise }
    }

    /// Starts the agent and remembers the membership.
    async fn start(
        &self,
        record: Record,
        certificate: NodeCertificate,
        manager: Option<Manager>,
    ) -> Result<()> {
        let certificate = Arc::new(certificate);
        let net = ["/proc/self/exe", "net"].map(OsString::from);
        let config = AgentConfig {
            state_dir: self.host.state_dir.clone(),
            exec_root: self.host.exec_root.clone(),
            bpf_root: self.host.bpf_root.clone(),
            cgroup: self.host.cgroup.clone(),
            net_program: net.to_vec(),
            resolvers: self.host.resolvers.clone(),
            certificate: Arc::clone(&certificate),
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
        let member = Arc::new(Member { record, certificate, manager, agent });
        *self.member.write().unwrap_or_else(PoisonError::into_inner) = Some(member);
        Ok(())
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
        let raft = self.host.state_dir.join("raft");
        match std::fs::remove_dir_all(&raft) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(e).with_context(|| format!("remove {}", raft.display()))
            }
            _ => Ok(()),
        }
    }

    fn not_member(&self) -> Result<(), ControlError> {
        match self.member() {
            None => Ok(()),
            Some(_) => Err(unavailable(MEMBER_ALREADY)),
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
        let Some(member) = self.member() else { return SwarmInfo::default() };
        let identity = member.certificate.identity();
        let session = member.agent.session();
        let own = (identity.node_id.clone(), member.record.advertise.to_string());
        let remote_managers = match &member.manager {
            Some(_) => vec![own],
            None => member.record.managers.iter().map(|m| (String::new(), m.to_string())).collect(),
        };
        SwarmInfo {
            node_id: identity.node_id.clone(),
            node_addr: member.record.advertise.ip().to_string(),
            local_state: LocalState::Active,
            control_available: member.manager.is_some(),
            error: if session.connected { String::new() } else { session.error },
            remote_managers,
            leader: member.manager.as_ref().map(|_| identity.node_id.clone()),
        }
    }

    fn read(&self, look: &mut dyn FnMut(&State)) -> Result<(), ControlError> {
        self.manager()?.store().read(look);
        Ok(())
    }

    async fn init(
        &self,
        request: docker::SwarmInitRequest,
        availability: Availability,
    ) -> Result<String, ControlError> {
        let _changing = self.changing.lock().await;
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
        let certificate = manager.certificate().clone();
        let started = match self.remember(&record, &certificate) {
            Ok(()) => self.start(record, certificate, Some(manager)).await,
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
        let (_, reached, data_path) = self
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
            listen: None,
            advertise: reached,
            data_path,
            data_path_port: joined.data_path_port,
            managers: vec![joined.manager],
        };
        let started = match self.remember(&record, &joined.certificate) {
            Ok(()) => self.start(record, joined.certificate, None).await,
            Err(error) => Err(error),
        };
        if let Err(error) = started {
            self.forget().map_err(unknown)?;
            return Err(unknown(error));
        }
        self.settled().await
    }

    async fn leave(&self, force: bool) -> Result<(), ControlError> {
        let _changing = self.changing.lock().await;
        let member = self.member().ok_or_else(|| unavailable(NO_MEMBER))?;
        if member.certificate.identity().role == Role::Manager && !force {
            return Err(unavailable(LAST_MANAGER));
        }
        self.member.write().unwrap_or_else(PoisonError::into_inner).take();
        member.agent.leave().await;
        if let Some(manager) = member.manager.clone() {
            manager.shutdown().await;
        }
        self.forget().map_err(unknown)
    }

    async fn update_swarm(
        &self,
        version: u64,
        spec: docker::SwarmSpec,
        rotate_worker: bool,
        rotate_manager: bool,
    ) -> Result<(), ControlError> {
        self.manager()?.update_swarm(version, spec, rotate_worker, rotate_manager).await
    }

    async fn update_node(
        &self,
        id: &str,
        version: u64,
        spec: docker::NodeSpec,
    ) -> Result<(), ControlError> {
        self.manager()?.update_node(id, version, spec).await
    }

    async fn remove_node(&self, id: &str, force: bool) -> Result<(), ControlError> {
        self.manager()?.remove_node(id, force).await
    }

    async fn create_service(&self, spec: docker::ServiceSpec) -> Result<String, ControlError> {
        self.manager()?.create_service(spec).await
    }

    async fn update_service(
        &self,
        id: &str,
        version: u64,
        spec: docker::ServiceSpec,
        rollback: bool,
    ) -> Result<(), ControlError> {
        self.manager()?.update_service(id, version, spec, rollback).await
    }

    async fn remove_service(&self, id: &str) -> Result<(), ControlError> {
        self.manager()?.remove_service(id).await
    }

    async fn create_network(
        &self,
        request: docker::NetworkCreateRequest,
    ) -> Result<String, ControlError> {
        self.manager()?.create_network(request).await
    }

    async fn remove_network(&self, id: &str) -> Result<(), ControlError> {
        self.manager()?.remove_network(id).await
    }

    async fn service_logs(
        &self,
        tasks: Vec<String>,
        options: LogOptions,
    ) -> Result<BoxStream<'static, LogLine>, ControlError> {
        Ok(self.manager()?.service_logs(tasks, options)?.boxed())
    }
}

impl Membership {
    /// A new member answers only when the manager knows it, as Docker does.
    async fn settled(&self) -> Result<(), ControlError> {
        let member = self.member().ok_or_else(|| unavailable(NO_MEMBER))?;
        member.agent.connected().await.map_err(unknown)
    }
}

fn unavailable(message: &str) -> ControlError {
    ControlError::new(ErrorKind::Unavailable, message)
}

fn unknown(error: anyhow::Error) -> ControlError {
    ControlError::new(ErrorKind::Unknown, format!("{error:#}"))
}
