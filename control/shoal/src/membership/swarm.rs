//! What the API asks of this node's membership. What concerns the cluster goes to its managers.

use super::{
    Membership,
    refusals::{is_wrong_key, unknown},
};
use async_trait::async_trait;
use futures_util::stream::BoxStream;
use shoal_api::{LocalState, Swarm, SwarmInfo};
use shoal_model::{
    Availability, ControlError, DependencyKind, DependencySpec, ErrorKind, LogLine, LogOptions,
    Role, Rotations, State, docker,
};
use tokio::sync::watch;

/// What to do about a store that has failed.
const MEND: &str = "mend that and restart the daemon";

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
        self.make_cluster(request, availability).await
    }

    async fn join(
        &self,
        request: docker::SwarmJoinRequest,
        availability: Availability,
    ) -> Result<(), ControlError> {
        self.join_cluster(request, availability).await
    }

    async fn leave(&self, force: bool) -> Result<(), ControlError> {
        self.leave_cluster(force).await
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
