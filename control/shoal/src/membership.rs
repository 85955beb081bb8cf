//! This node's membership in a cluster: none, or an agent with or without a manager beside it.
//!
//! Joining, making and leaving are serialised by one lock; everything else reads the present
//! membership and goes on with that. One task of a member keeps its certificate and its manager part as
//! the cluster wants them ([`crate::role`]).

mod entry;
mod exit;
mod member;
mod refusals;
mod swarm;

pub(crate) use member::Member;

use crate::{addresses::CONTROL_PORT, engine::description, record::Record, role};
use anyhow::Result;
use refusals::{LOCKED, NO_SWARM, PREPARED, WORKER, is_locked, unavailable};
use shoal_agent::{Agent, AgentConfig};
use shoal_api::EngineInfo;
use shoal_containers::Runtime;
use shoal_identity::{CertificateDir, KeyLock, NodeCertificate};
use shoal_links::Links;
use shoal_manager::{Control, Manager, ManagerConfig};
use shoal_model::{ControlError, Role};
use std::{
    ffi::OsString,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
};
use tokio::sync::watch;

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

    /// The agent, for metrics.
    pub(crate) fn with_agent<R>(&self, look: impl FnOnce(&Agent) -> R) -> Option<R> {
        self.member().map(|member| look(&member.agent))
    }

    /// The manager, for metrics.
    pub(crate) fn with_manager<R>(&self, look: impl FnOnce(&Manager) -> R) -> Option<R> {
        self.member().and_then(|member| member.manager().as_ref().map(look))
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

    fn locked(&self) -> MutexGuard<'_, Option<Record>> {
        self.locked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn manager_config(&self, listen: SocketAddr, advertise: SocketAddr) -> ManagerConfig {
        let state_dir = self.host.state_dir.clone();
        ManagerConfig { state_dir, listen, advertise, unlock_key: None }
    }
}
