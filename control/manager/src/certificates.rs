//! How hosts become nodes, and nodes renew their certificates.
use crate::{
    error::{chain, from_store},
    manager::Inner,
};
use shoal_identity::{JoinToken, Peer, id};
use shoal_model::{
    Availability, Change, JoinTokens, Meta, Node, NodeOverlay, NodeState, NodeStatus, Object, Role,
};
use shoal_rpc::{
    IssueReply, IssueRequest, RootReply, RootRequest, certificates_server::Certificates,
};
use std::{collections::BTreeMap, sync::Arc};
use tonic::{Request, Response, Status};

/// Nodes of a cluster. More are refused, so that a leaked token cannot fill the store.
const MOST_NODES: usize = 5_000;

/// The gRPC service.
pub(crate) struct CertificatesService(pub(crate) Arc<Inner>);

#[tonic::async_trait]
impl Certificates for CertificatesService {
    async fn root(&self, _: Request<RootRequest>) -> Result<Response<RootReply>, Status> {
        let certificate = self.0.root.certificate().pem().to_owned();
        Ok(Response::new(RootReply { certificate }))
    }

    async fn issue(&self, request: Request<IssueRequest>) -> Result<Response<IssueReply>, Status> {
        let peer = Peer::of(&request)?.clone();
        let request = request.into_inner();
        let reply = match request.token.as_str() {
            "" => self.renew(&peer, &request)?,
            _ => self.join(&peer, &request).await?,
        };
        Ok(Response::new(reply))
    }
}

impl CertificatesService {
    async fn join(&self, peer: &Peer, request: &IssueRequest) -> Result<IssueReply, Status> {
        let availability = availability(&request.availability)?;
        let (tokens, nodes) = self.0.store.read(|state| {
            (state.cluster.as_ref().map(|c| c.join_tokens.clone()), state.nodes.len())
        });
        let tokens = tokens.ok_or_else(|| Status::unavailable("there is no cluster"))?;
        self.check(&request.token, &tokens)?;
        if nodes >= MOST_NODES {
            return Err(Status::resource_exhausted(format!(
                "the swarm has {MOST_NODES} nodes, the most it may have; remove some with node rm"
            )));
        }
        let node_id = id::new();
        let reply = self.issue(request, &node_id, Role::Worker)?;
        let node = Node {
            id: node_id.clone(),
            meta: Meta::default(),
            name: String::new(),
            labels: BTreeMap::new(),
            role: Role::Worker,
            availability,
            description: None,
            status: NodeStatus {
                state: NodeState::Unknown,
                message: "the node has joined and is starting".to_owned(),
                addr: peer.addr.ip().to_canonical().to_string(),
            },
            manager_addr: None,
            overlay: NodeOverlay { public_key: None, endpoint: None, address: None },
            down_since: None,
        };
        self.0.beats.expect(&node_id);
        self.0
            .store
            .propose(vec![Change::Put(Object::Node(node))])
            .await
            .map_err(|e| Status::unavailable(from_store(e).message))?;
        tracing::info!(node = node_id, addr = %peer.addr, "a node joined");
        Ok(reply)
    }

    /// Whether the token lets a worker in.
    fn check(&self, text: &str, tokens: &JoinTokens) -> Result<(), Status> {
        let token = JoinToken::parse(text).map_err(|e| Status::invalid_argument(e.to_string()))?;
        if token.digest() != self.0.root.digest() {
            return Err(Status::invalid_argument(
                "invalid join token: it is for another swarm; take the one that `swarm join-token worker` prints on a manager of this swarm",
            ));
        }
        let matches = |own: &str| JoinToken::parse(own).is_ok_and(|own| own.matches(&token));
        let (worker, manager) = (matches(&tokens.worker), matches(&tokens.manager));
        if manager {
            return Err(Status::failed_precondition(
                "this version runs one manager: join as a worker, with the token that `swarm join-token worker` prints",
            ));
        }
        if !worker {
            return Err(Status::invalid_argument(
                "A valid join token is necessary to join this cluster: this one was rotated or is not complete; take the one that `swarm join-token worker` prints",
            ));
        }
        Ok(())
    }

    fn renew(&self, peer: &Peer, request: &IssueRequest) -> Result<IssueReply, Status> {
        let identity = peer.identity.as_ref().ok_or_else(|| {
            Status::unauthenticated("A valid join token is necessary to join this cluster")
        })?;
        let role = self.0.store.read(|state| state.nodes.get(&identity.node_id).map(|n| n.role));
        let role = role.ok_or_else(|| unknown_node(&identity.node_id))?;
        self.issue(request, &identity.node_id, role)
    }

    fn issue(
        &self,
        request: &IssueRequest,
        node_id: &str,
        role: Role,
    ) -> Result<IssueReply, Status> {
        let certificate = self
            .0
            .sign(&request.csr, node_id, role)
            .map_err(|e| Status::invalid_argument(chain(&e)))?;
        Ok(IssueReply {
            node_id: node_id.to_owned(),
            certificate,
            root: self.0.root.certificate().pem().to_owned(),
            role: match role {
                Role::Worker => "worker".to_owned(),
                Role::Manager => "manager".to_owned(),
            },
            cluster_id: self.0.certificate.identity().cluster_id.clone(),
            data_path_port: self.0.store.read(|state| {
                state.cluster.as_ref().map_or(0, |cluster| cluster.data_path_port.into())
            }),
        })
    }
}

/// The certificate is good but the node was removed.
pub(crate) fn unknown_node(id: &str) -> Status {
    Status::not_found(format!(
        "node {id} is not in this swarm any more: leave with `swarm leave --force`, then join again"
    ))
}

fn availability(text: &str) -> Result<Availability, Status> {
    match text {
        "" | "active" => Ok(Availability::Active),
        "pause" => Ok(Availability::Pause),
        "drain" => Ok(Availability::Drain),
        other => Err(Status::invalid_argument(format!(
            "invalid availability {other:?}: choose active, pause or drain"
        ))),
    }
}
