//! The control API of any manager.

use super::{Call, LEADER_WAIT, LOOK, Lead, call::ANSWER_WAIT, elsewhere, logs};
use crate::{
    Manager,
    error::{no_leader, refused_by},
    peers::PeerError,
};
use futures_util::{StreamExt, stream::BoxStream};
use shoal_model::{
    ControlError, DependencyKind, DependencySpec, ErrorKind, LogLine, LogOptions, Rotations, docker,
};
use shoal_rpc::control_client::ControlClient;
use std::{future::ready, time::Duration};
use tokio::time::{Instant, sleep, timeout};

/// How long reading waits until the state is the newest.
const CATCH_UP_WAIT: Duration = Duration::from_secs(5);

/// The control API on any manager.
#[derive(Clone)]
pub struct Control(pub(crate) Manager);

impl Control {
    /// Waits until this manager has everything that was acknowledged before the call, so that what is
    /// read afterwards is not older.
    pub async fn catch_up(&self) -> Result<(), ControlError> {
        let deadline = Instant::now() + CATCH_UP_WAIT;
        let newest: u64 = loop {
            match self.0.ask(Call::Version).await {
                // The others may only have been too slow to confirm the leader.
                Err(refusal)
                    if refusal.kind == ErrorKind::Unavailable && Instant::now() < deadline =>
                {
                    sleep(LOOK).await;
                }
                result => break result?,
            }
        };
        let mut versions = self.0.store().watch();
        let reached = timeout(CATCH_UP_WAIT, versions.wait_for(|version| *version >= newest)).await;
        match reached {
            Ok(Ok(_)) => Ok(()),
            _ => Err(no_leader()),
        }
    }

    /// Changes the cluster's settings.
    pub async fn update_swarm(
        &self,
        version: u64,
        spec: docker::SwarmSpec,
        rotate: Rotations,
    ) -> Result<(), ControlError> {
        self.0.ask(Call::UpdateSwarm { version, spec: Box::new(spec), rotate }).await
    }

    /// Changes a node's settings.
    pub async fn update_node(
        &self,
        id: &str,
        version: u64,
        spec: docker::NodeSpec,
    ) -> Result<(), ControlError> {
        self.0.ask(Call::UpdateNode { id: id.to_owned(), version, spec }).await
    }

    /// Forgets a node.
    pub async fn remove_node(&self, id: &str, force: bool) -> Result<(), ControlError> {
        self.0.ask(Call::RemoveNode { id: id.to_owned(), force }).await
    }

    /// Makes a service and gives its id.
    pub async fn create_service(&self, spec: docker::ServiceSpec) -> Result<String, ControlError> {
        self.0.ask(Call::CreateService { spec: Box::new(spec) }).await
    }

    /// Replaces a service's specification.
    pub async fn update_service(
        &self,
        id: &str,
        version: u64,
        spec: docker::ServiceSpec,
        rollback: bool,
    ) -> Result<(), ControlError> {
        let (id, spec) = (id.to_owned(), Box::new(spec));
        self.0.ask(Call::UpdateService { id, version, spec, rollback }).await
    }

    /// Removes a service.
    pub async fn remove_service(&self, id: &str) -> Result<(), ControlError> {
        self.0.ask(Call::RemoveService { id: id.to_owned() }).await
    }

    /// Makes an overlay network and gives its id.
    pub async fn create_network(
        &self,
        request: docker::NetworkCreateRequest,
    ) -> Result<String, ControlError> {
        self.0.ask(Call::CreateNetwork { request: Box::new(request) }).await
    }

    /// Removes an overlay network.
    pub async fn remove_network(&self, id: &str) -> Result<(), ControlError> {
        self.0.ask(Call::RemoveNetwork { id: id.to_owned() }).await
    }

    /// Keeps a secret or a config and gives its id.
    pub async fn create_dependency(
        &self,
        kind: DependencyKind,
        spec: DependencySpec,
    ) -> Result<String, ControlError> {
        self.0.ask(Call::CreateDependency { kind, spec: Box::new(spec) }).await
    }

    /// Changes the labels of a secret or a config.
    pub async fn update_dependency(
        &self,
        kind: DependencyKind,
        id: &str,
        version: u64,
        spec: DependencySpec,
    ) -> Result<(), ControlError> {
        let (id, spec) = (id.to_owned(), Box::new(spec));
        self.0.ask(Call::UpdateDependency { kind, id, version, spec }).await
    }

    /// Removes a secret or a config.
    pub async fn remove_dependency(
        &self,
        kind: DependencyKind,
        id: &str,
    ) -> Result<(), ControlError> {
        self.0.ask(Call::RemoveDependency { kind, id: id.to_owned() }).await
    }

    /// Gives this manager's vote back before it leaves the cluster.
    pub async fn retire(&self) -> Result<(), ControlError> {
        self.0.can_lose(self.0.node_id()).or_else(|refusal| match self.0.store().is_leader() {
            true => Err(refusal),
            false => Ok(()), // the leader knows better
        })?;
        self.0.give_lead_away().await;
        self.0.ask(Call::Retire { node_id: self.0.node_id().to_owned() }).await
    }

    /// Lines of tasks' logs, from their nodes by way of the leader.
    pub async fn service_logs(
        &self,
        tasks: Vec<String>,
        options: LogOptions,
    ) -> Result<BoxStream<'static, LogLine>, ControlError> {
        let deadline = Instant::now() + LEADER_WAIT;
        loop {
            match self.0.0.lead() {
                Lead::Here(_) => return self.0.service_logs(tasks, options),
                Lead::There { node, addr } => {
                    let request = logs::request(tasks.clone(), options);
                    let called = self.0.0.peers.call(&node, &addr, ANSWER_WAIT, |channel| async {
                        ControlClient::new(channel).logs(request).await
                    });
                    match called.await {
                        Ok(lines) => {
                            let lines = lines.take_while(|line| ready(line.is_ok()));
                            let lines = lines.filter_map(|l| ready(l.ok().and_then(logs::line)));
                            return Ok(lines.boxed());
                        }
                        Err(PeerError::Refused { status, .. }) if !elsewhere(&status) => {
                            return Err(refused_by(&status));
                        }
                        Err(error) => tracing::info!(%error, "the leader has not answered"),
                    }
                }
                Lead::Nowhere => {}
            }
            if Instant::now() >= deadline {
                return Err(no_leader());
            }
            sleep(LOOK).await;
        }
    }
}
