//! What the API asks of the cluster.

use super::{Inner, MemorySwarm, now};
use crate::seam::{LocalState, Swarm, SwarmInfo};
use async_trait::async_trait;
use futures_util::{StreamExt, stream::BoxStream};
use shoal_cores::{
    DependencyError, Revision, dependency_object, new_dependency, relabelled, revise, roll_back,
    take_rebalance_once,
};
use shoal_model::{
    Availability, Change, ControlError, DependencyKind, DependencySpec, ErrorKind, LogLine,
    LogOptions, NodeState, Object, ObjectKind, Rotations, Service, State, docker,
};
use std::sync::Arc;
use tokio::sync::watch;

#[async_trait]
impl Swarm for MemorySwarm {
    fn info(&self) -> SwarmInfo {
        self.inner().info.clone()
    }

    fn read(&self, look: &mut dyn FnMut(&State)) -> Result<(), ControlError> {
        look(&self.manager()?.state);
        Ok(())
    }

    fn progress(&self) -> Option<(watch::Receiver<u64>, Option<String>)> {
        let inner = self.inner();
        let managed = inner.info.control_available;
        managed.then(|| (inner.versions.subscribe(), inner.info.leader.clone()))
    }

    async fn init(
        &self,
        request: docker::SwarmInitRequest,
        availability: Availability,
    ) -> Result<String, ControlError> {
        let mut inner = self.inner();
        if inner.info.local_state != LocalState::Inactive {
            return Err(ControlError::new(
                ErrorKind::Unavailable,
                "This node is already part of a swarm. Use \"docker swarm leave\" to leave this swarm and join another one.",
            ));
        }
        inner.create(request.spec.unwrap_or_default(), availability)
    }

    async fn join(
        &self,
        request: docker::SwarmJoinRequest,
        _: Availability,
    ) -> Result<(), ControlError> {
        if !request.join_token.unwrap_or_default().starts_with("SWMTKN-1-") {
            return Err(ControlError::new(ErrorKind::InvalidArgument, "invalid join token"));
        }
        let mut inner = self.inner();
        let id = inner.id("node");
        inner.info = SwarmInfo {
            node_id: id,
            node_addr: "127.0.0.1".to_owned(),
            local_state: LocalState::Active,
            ..SwarmInfo::default()
        };
        Ok(())
    }

    async fn leave(&self, force: bool) -> Result<(), ControlError> {
        let mut inner = self.inner();
        if inner.info.local_state == LocalState::Inactive {
            return Err(ControlError::new(
                ErrorKind::Unavailable,
                "This node is not part of a swarm",
            ));
        }
        if inner.info.control_available && !force {
            return Err(ControlError::new(
                ErrorKind::FailedPrecondition,
                "You are attempting to leave the swarm on a node that is participating as a manager. Removing the last manager erases all current state of the swarm. Use `--force` to ignore this message. ",
            ));
        }
        *inner = Inner::default();
        Ok(())
    }

    async fn update_swarm(
        &self,
        version: u64,
        spec: docker::SwarmSpec,
        rotate: Rotations,
    ) -> Result<(), ControlError> {
        let mut inner = self.manager()?;
        let Some(mut cluster) = inner.state.cluster.clone() else {
            return Err(not_found("swarm", "default"));
        };
        cluster.meta.version = version;
        cluster.spec = spec;
        for (rotate, token) in [
            (rotate.worker_token, &mut cluster.join_tokens.worker),
            (rotate.manager_token, &mut cluster.join_tokens.manager),
        ] {
            if rotate {
                inner.next += 1;
                let keep = token.len() - 6;
                *token = format!("{}{:06}", &token[..keep], inner.next);
            }
        }
        let locks = cluster.spec.encryption_config.as_ref().and_then(|e| e.auto_lock_managers);
        if locks != Some(true) {
            cluster.unlock_key = None;
        } else if cluster.unlock_key.is_none() || rotate.unlock_key {
            inner.next += 1;
            cluster.unlock_key = Some(format!("SWMKEY-1-{:a>43}", inner.next));
        }
        inner.apply(vec![Change::Put(Object::Cluster(Box::new(cluster)))])
    }

    async fn unlock(&self, _key: &str) -> Result<(), ControlError> {
        Err(ControlError::new(ErrorKind::AlreadyExists, "swarm is not locked"))
    }

    async fn update_node(
        &self,
        id: &str,
        version: u64,
        spec: docker::NodeSpec,
    ) -> Result<(), ControlError> {
        let mut inner = self.manager()?;
        let node = inner.state.nodes.get(id).cloned();
        let mut node = node.ok_or_else(|| not_found("node", id))?;
        node.meta.version = version;
        node.labels = spec.labels.unwrap_or_default().into_iter().collect();
        node.availability = match spec.availability {
            Some(docker::NodeSpecAvailabilityEnum::PAUSE) => Availability::Pause,
            Some(docker::NodeSpecAvailabilityEnum::DRAIN) => Availability::Drain,
            _ => Availability::Active,
        };
        inner.apply(vec![Change::Put(Object::Node(Box::new(node)))])
    }

    async fn remove_node(&self, id: &str, force: bool) -> Result<(), ControlError> {
        let mut inner = self.manager()?;
        let node = inner.state.nodes.get(id).ok_or_else(|| not_found("node", id))?;
        if node.status.state != NodeState::Down && !force {
            return Err(ControlError::new(
                ErrorKind::FailedPrecondition,
                format!(
                    "rpc error: code = FailedPrecondition desc = node {id} is not down and can't be removed"
                ),
            ));
        }
        inner.apply(vec![Change::Delete(ObjectKind::Node, id.to_owned())])
    }

    async fn create_service(&self, spec: docker::ServiceSpec) -> Result<String, ControlError> {
        let mut inner = self.manager()?;
        let mut spec = spec;
        let id = inner.id("service");
        spec.name.get_or_insert_with(|| id.clone());
        inner.check_networks(&spec)?;
        let rebalance = take_rebalance_once(&mut spec);
        let service = Service { rebalance, ..Service::new(id.clone(), spec, now()) };
        inner.apply(vec![Change::Put(Object::Service(Arc::new(service)))])?;
        inner.settle()?;
        Ok(id)
    }

    async fn update_service(
        &self,
        id: &str,
        version: u64,
        spec: docker::ServiceSpec,
        rollback: bool,
    ) -> Result<(), ControlError> {
        let mut inner = self.manager()?;
        let present = inner.state.services.get(id).ok_or_else(|| not_found("service", id))?;
        let mut service = if rollback {
            roll_back(present, now()).ok_or_else(|| {
                let text = "service does not have a previous spec";
                ControlError::new(ErrorKind::FailedPrecondition, text)
            })?
        } else {
            let mut spec = spec;
            let rebalance = take_rebalance_once(&mut spec) || present.rebalance;
            let same = spec.task_template == present.spec.task_template;
            let revision = if same { Revision::None } else { Revision::Tasks };
            Service { rebalance, ..revise(present, spec, revision, now()) }
        };
        service.meta.version = version;
        inner.check_networks(&service.spec)?;
        inner.apply(vec![Change::Put(Object::Service(Arc::new(service)))])?;
        inner.settle()
    }

    async fn remove_service(&self, id: &str) -> Result<(), ControlError> {
        let mut inner = self.manager()?;
        inner.apply(vec![Change::Delete(ObjectKind::Service, id.to_owned())])?;
        inner.settle()
    }

    async fn create_network(
        &self,
        request: docker::NetworkCreateRequest,
    ) -> Result<String, ControlError> {
        let mut inner = self.manager()?;
        let network = inner.network(request, false);
        let id = network.id.clone();
        inner.apply(vec![Change::Put(Object::Network(Box::new(network)))])?;
        Ok(id)
    }

    async fn remove_network(&self, id: &str) -> Result<(), ControlError> {
        let mut inner = self.manager()?;
        let uses =
            |s: &&Service| s.endpoint.iter().flat_map(|e| &e.vips).any(|v| v.network_id == id);
        let user = inner.state.services.values().find(uses).map(|user| user.id.clone());
        if let Some(user) = user {
            return Err(ControlError::new(
                ErrorKind::FailedPrecondition,
                format!(
                    "rpc error: code = FailedPrecondition desc = network {id} is in use by service {user}"
                ),
            ));
        }
        inner.apply(vec![Change::Delete(ObjectKind::Network, id.to_owned())])
    }

    async fn create_dependency(
        &self,
        kind: DependencyKind,
        spec: DependencySpec,
    ) -> Result<String, ControlError> {
        let mut inner = self.manager()?;
        let id = inner.id(kind.as_str());
        let new = new_dependency(&inner.state, kind, id.clone(), spec).map_err(refused)?;
        inner.apply(vec![Change::Put(dependency_object(kind, new.into()))])?;
        Ok(id)
    }

    async fn update_dependency(
        &self,
        kind: DependencyKind,
        id: &str,
        version: u64,
        spec: DependencySpec,
    ) -> Result<(), ControlError> {
        let mut inner = self.manager()?;
        let present = inner.state.dependencies(kind).get(id);
        let present = present.ok_or_else(|| not_found(kind.as_str(), id))?;
        let mut new = relabelled(present, spec).map_err(refused)?;
        new.meta.version = version;
        inner.apply(vec![Change::Put(dependency_object(kind, new.into()))])
    }

    async fn remove_dependency(&self, kind: DependencyKind, id: &str) -> Result<(), ControlError> {
        let mut inner = self.manager()?;
        if !inner.state.dependencies(kind).contains_key(id) {
            return Err(not_found(kind.as_str(), id));
        }
        inner.apply(vec![Change::Delete(kind.into(), id.to_owned())])
    }

    async fn service_logs(
        &self,
        tasks: Vec<String>,
        options: LogOptions,
    ) -> Result<BoxStream<'static, LogLine>, ControlError> {
        let inner = self.manager()?;
        let tasks = tasks.iter().filter_map(|id| inner.state.tasks.get(id));
        let mut lines = Vec::new();
        for task in tasks {
            for (stderr, wanted) in [(false, options.stdout), (true, options.stderr)] {
                if wanted {
                    lines.push(LogLine {
                        task_id: task.id.clone(),
                        node_id: task.node_id.clone().unwrap_or_default(),
                        stderr,
                        time: task.status.since,
                        line: format!(
                            "{} of slot {}\n",
                            if stderr { "err" } else { "out" },
                            task.slot
                        )
                        .into_bytes(),
                    });
                }
            }
        }
        Ok(futures_util::stream::iter(lines).boxed())
    }
}

fn not_found(kind: &str, id: &str) -> ControlError {
    ControlError::new(ErrorKind::NotFound, format!("{kind} {id} not found"))
}

fn refused(refusal: DependencyError) -> ControlError {
    let kind = refusal.kind();
    ControlError::new(kind, format!("rpc error: code = {kind:?} desc = {refusal}"))
}
