//! Which nodes are managers: how one takes its place among them and leaves it, and how nodes learn of
//! it.
use crate::{
    Manager, ManagerError, edit,
    error::{chain, from_store, no_leader, refuse, status_of},
    forward::Call,
    keeper,
    manager::{Inner, Shared},
};
use prost::Message;
use shoal_identity::{Peer, client_config, connect};
use shoal_model::{ControlError, ErrorKind, Node, Role, State};
use shoal_rpc::{
    Bearings, ManagerAddress, ManagersJoinReply, ManagersJoinRequest, ManagersLeaveReply,
    ManagersLeaveRequest, ManagersListRequest, managers_client::ManagersClient,
    managers_server::Managers,
};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::time::{sleep, timeout};
use tonic::{Code, Request, Response, Status};

/// How long a new manager may take to catch up and get its vote.
const ADMISSION_WAIT: Duration = Duration::from_secs(40);

/// Pause between a new manager's attempts.
const RETRY: Duration = Duration::from_millis(300);

/// The gRPC service.
pub(crate) struct ManagersService(pub(crate) Arc<Shared>);

#[tonic::async_trait]
impl Managers for ManagersService {
    async fn join(
        &self,
        request: Request<ManagersJoinRequest>,
    ) -> Result<Response<ManagersJoinReply>, Status> {
        let node_id = Peer::of(&request)?.node()?.node_id.clone();
        let addr = request.into_inner().addr;
        let addr = addr.parse().map_err(|_| {
            Status::invalid_argument(format!("{addr:?} is no address: want ADDRESS:PORT"))
        })?;
        let manager = Manager(self.0.clone());
        let admitted: Result<(), ControlError> = manager.ask(Call::Admit { node_id, addr }).await;
        admitted.map(|()| Response::new(ManagersJoinReply {})).map_err(|e| status_of(&e))
    }

    async fn leave(
        &self,
        request: Request<ManagersLeaveRequest>,
    ) -> Result<Response<ManagersLeaveReply>, Status> {
        let node_id = Peer::of(&request)?.node()?.node_id.clone();
        let manager = Manager(self.0.clone());
        let left: Result<(), ControlError> = manager.ask(Call::Retire { node_id }).await;
        left.map(|()| Response::new(ManagersLeaveReply {})).map_err(|e| status_of(&e))
    }

    async fn list(
        &self,
        request: Request<ManagersListRequest>,
    ) -> Result<Response<Bearings>, Status> {
        let node_id = &Peer::of(&request)?.node()?.node_id;
        Ok(Response::new(self.0.bearings(Some(node_id))))
    }
}

impl Shared {
    /// The managers, as this one knows them, and the role of a node.
    pub(crate) fn bearings(&self, node: Option<&str>) -> Bearings {
        let leader = self.leader().unwrap_or_default();
        self.store.read(|state| bearings(state, node, leader))
    }

    /// Refuses a session and says where the leader is.
    pub(crate) fn redirect(&self) -> Status {
        let bearings = self.bearings(None);
        let text = match bearings.leader.as_str() {
            "" => "no manager leads at the moment".to_owned(),
            leader => format!("this manager does not lead the swarm; node {leader} does"),
        };
        Status::with_details(Code::Unavailable, text, bearings.encode_to_vec().into())
    }

    /// What there is while this manager leads.
    pub(crate) fn leading(&self) -> Result<Arc<Inner>, Status> {
        self.lead.borrow().clone().ok_or_else(|| self.redirect())
    }
}

/// The managers as the state knows them. A node that is to be demoted counts as a manager until the
/// log has let it go.
pub(crate) fn bearings(state: &State, node: Option<&str>, leader: String) -> Bearings {
    let managers = state.managers().filter_map(|n| {
        let addr = n.manager_addr.clone()?;
        Some(ManagerAddress { node_id: n.id.clone(), addr })
    });
    let node = node.and_then(|id| state.nodes.get(id));
    let role = node.map_or("", role_of);
    Bearings { managers: managers.collect(), leader, role: role.to_owned() }
}

/// What a node is told to be.
pub(crate) fn role_of(node: &Node) -> &'static str {
    match (node.role, &node.manager_addr) {
        (Role::Worker, None) => "worker",
        _ => "manager",
    }
}

impl Manager {
    /// What there is while this manager leads.
    pub(crate) fn leading(&self) -> Result<Arc<Inner>, ControlError> {
        self.0.lead.borrow().clone().ok_or_else(no_leader)
    }

    /// On the leader: gives a manager that answers at `addr` its vote.
    pub(crate) async fn admit(
        &self,
        inner: &Inner,
        node_id: &str,
        addr: SocketAddr,
    ) -> Result<(), ControlError> {
        let role = inner.store.read(|state| state.nodes.get(node_id).map(|n| n.role));
        if role != Some(Role::Manager) {
            let text = format!("node {node_id} is not to be a manager");
            return Err(refuse(ErrorKind::PermissionDenied, text));
        }
        self.0.peers.dial(node_id, addr).await.map_err(|reason| {
            let text = format!(
                "could not connect to prospective new cluster member using its advertised address: \
                 {reason}; other managers must be able to reach {addr}, choose another --advertise-addr"
            );
            refuse(ErrorKind::FailedPrecondition, text)
        })?;
        let text = addr.to_string();
        edit::node(&inner.store, node_id, |node| node.manager_addr = Some(text.clone()))
            .await
            .map_err(from_store)?;
        let added = timeout(ADMISSION_WAIT, inner.store.add_member(node_id, &text)).await;
        added
            .map_err(|_| refuse(ErrorKind::Unavailable, "the manager did not catch up in time"))?
            .map_err(from_store)?;
        tracing::info!(node = node_id, %addr, "the node has a vote among the managers");
        Ok(())
    }

    /// On the leader: takes a manager out that leaves the cluster.
    pub(crate) async fn retire(&self, inner: &Inner, node_id: &str) -> Result<(), ControlError> {
        self.can_lose(node_id)?;
        if node_id == inner.node_id {
            let text = "this manager leads; another has to lead before it can go";
            return Err(refuse(ErrorKind::Unavailable, text));
        }
        let demoted = edit::node(&inner.store, node_id, |node| node.role = Role::Worker).await;
        demoted.map_err(from_store)?;
        keeper::retire(inner, node_id)
            .await
            .map_err(|reason| refuse(ErrorKind::Unavailable, reason))
    }

    /// Whether the others go on without this manager, in Docker's words.
    pub(crate) fn can_lose(&self, node_id: &str) -> Result<(), ControlError> {
        self.store().check_removal(node_id).map_err(from_store)
    }

    /// Asks the managers at `known`, in turn, for a vote, and waits until the cluster's state is here.
    pub(crate) async fn take_place(&self, known: &[SocketAddr]) -> Result<(), ManagerError> {
        let mut last = "no manager is known".to_owned();
        for addr in known.iter().cycle() {
            match self.request_vote(*addr).await {
                Ok(()) => break,
                Err(status) if transient(&status) => last = status.message().to_owned(),
                Err(status) => return Err(ManagerError::NotAdmitted(status.message().to_owned())),
            }
            tracing::info!(manager = %addr, reason = last, "not yet among the managers");
            sleep(RETRY).await;
        }
        if known.is_empty() {
            return Err(ManagerError::NotAdmitted(last));
        }
        let mut versions = self.store().watch();
        let known = |state: &State| {
            let own = state.nodes.get(&self.0.node_id);
            own.is_some_and(|n| n.manager_addr.is_some()) && state.cluster.is_some()
        };
        while !self.store().read(known) {
            if versions.changed().await.is_err() {
                return Err(ManagerError::NotAdmitted("the store has stopped".to_owned()));
            }
        }
        Ok(())
    }

    async fn request_vote(&self, addr: SocketAddr) -> Result<(), Status> {
        let certificate = self.0.certificate();
        let tls = client_config(certificate.trust(), Some(&certificate));
        let tls = tls.map_err(|e| Status::internal(chain(&e)))?;
        let channel = connect(addr, tls).await.map_err(|e| Status::unavailable(chain(&e)))?;
        let addr = self.0.advertise.to_string();
        let mut client = ManagersClient::new(channel);
        let asked = client.join(ManagersJoinRequest { addr });
        let reply = timeout(ADMISSION_WAIT + RETRY, asked).await;
        reply.map_err(|_| Status::unavailable("no answer in time"))?.map(drop)
    }
}

/// Whether asking again may help.
fn transient(status: &Status) -> bool {
    use std::error::Error;
    status.source().is_some() || matches!(status.code(), Code::Unavailable | Code::Unknown)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{InitRequest, ManagerConfig, cluster};
    use shoal_model::{Change, Object, ObjectKind, Timestamp};

    #[test]
    fn nodes_are_told_of_all_that_have_a_manager_s_address_and_of_no_other() {
        let config = ManagerConfig {
            state_dir: "/nowhere".into(),
            listen: "127.0.0.1:0".parse().unwrap(),
            advertise: "127.0.0.1:2377".parse().unwrap(),
            unlock_key: None,
        };
        let mut state = State::default();
        let new = cluster::create(&config, InitRequest::default()).unwrap();
        state.apply(1, Timestamp(1), new.changes).unwrap();
        let first = state.nodes.values().next().unwrap().clone();
        let put = |state: &mut State, id: &str, addr: Option<&str>| {
            let meta = state.nodes.get(id).map(|n| n.meta).unwrap_or_default();
            let manager_addr = addr.map(str::to_owned);
            let node = Node { id: id.to_owned(), meta, manager_addr, ..first.clone() };
            let change = Change::Put(Object::Node(Box::new(node)));
            state.apply(state.version + 1, Timestamp(2), vec![change]).unwrap();
        };
        let told = |state: &State| {
            let all = bearings(state, None, String::new()).managers;
            let read: State = serde_json::from_slice(&serde_json::to_vec(state).unwrap()).unwrap();
            assert_eq!(bearings(&read, None, String::new()).managers, all, "as a snapshot has it");
            all.into_iter().map(|m| (m.node_id, m.addr)).collect::<Vec<_>>()
        };
        let own = (first.id.clone(), "127.0.0.1:2377".to_owned());
        put(&mut state, "worker", None);
        put(&mut state, "~other", Some("127.0.0.2:2377"));
        assert_eq!(told(&state), [own.clone(), ("~other".into(), "127.0.0.2:2377".into())]);
        put(&mut state, "~other", Some("127.0.0.3:2377"));
        assert_eq!(told(&state), [own.clone(), ("~other".into(), "127.0.0.3:2377".into())]);
        put(&mut state, "~other", None);
        assert_eq!(told(&state), [own]);
        let gone = Change::Delete(ObjectKind::Node, first.id.clone());
        state.apply(state.version + 1, Timestamp(3), vec![gone]).unwrap();
        assert_eq!(told(&state), []);
    }
}
