//! How a node comes into a cluster: it makes one, joins one, or makes one anew of what it has.

use super::{
    Member, Membership,
    refusals::{MEMBER_ALREADY, NO_MEMBER, STILL_JOINING, WORKER, unavailable, unknown},
};
use crate::{
    addresses::{advertise, listen, remote},
    record::Record,
};
use anyhow::Result;
use shoal_agent::join;
use shoal_identity::{CertificateDir, NodeCertificate};
use shoal_manager::{InitRequest, Manager, ManagerConfig};
use shoal_model::{Availability, ControlError, ErrorKind, Role, docker};
use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

/// How long a new member waits until the leader has heard of it; it goes on trying afterwards.
const SETTLE_WAIT: Duration = Duration::from_secs(20);

impl Membership {
    /// Makes a cluster whose only manager is this node, or makes it anew of what this manager has.
    pub(super) async fn make_cluster(
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

    /// Joins the cluster of other managers.
    pub(super) async fn join_cluster(
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

    fn not_member(&self) -> Result<(), ControlError> {
        match self.member().is_some() || self.locked().is_some() {
            false => Ok(()),
            true => Err(unavailable(MEMBER_ALREADY)),
        }
    }

    /// Saves what a restart needs; the record last, since it is what counts.
    fn remember(&self, record: &Record, certificate: &NodeCertificate) -> Result<()> {
        CertificateDir::new(&self.host.data_root).save(certificate)?;
        record.save(&self.host.state_dir)
    }

    /// A new member answers only when the leader knows it, as Docker does.
    async fn settled(&self) -> Result<(), ControlError> {
        let member = self.member().ok_or_else(|| unavailable(NO_MEMBER))?;
        member.agent.connected(SETTLE_WAIT).await.map_err(|error| {
            ControlError::new(ErrorKind::Unknown, format!("{STILL_JOINING} ({error:#})"))
        })
    }
}
