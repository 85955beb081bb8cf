//! How hosts become nodes, and nodes renew their certificates.
use crate::{
    Manager, clock, cluster,
    error::{from_store, status_of},
    forward::Call,
    manager::{Inner, Shared},
};
use serde::{Deserialize, Serialize};
use shoal_identity::{Identity, JoinToken, Peer, id, unknown_node};
use shoal_model::{
    Availability, Change, ControlError, JoinTokens, Meta, Node, NodeOverlay, NodeState, NodeStatus,
    NodeTls, Object, Role,
};
use shoal_rpc::{
    IssueReply, IssueRequest, RootReply, RootRequest, certificates_server::Certificates,
};
use std::{collections::BTreeMap, net::IpAddr, sync::Arc};
use tonic::{Response, Status};

/// Nodes of a cluster. More are refused, so that a leaked token cannot fill the store.
const MOST_NODES: usize = 15_000;

/// Attempts to sign while the root changes.
const SIGNATURES: usize = 3;

/// What a host asks for, and what its connection says of it. Another manager may have taken it down.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Request {
    csr: String,
    token: String,
    availability: String,
    /// Address it is seen at.
    addr: IpAddr,
    /// Who its present certificate says it is.
    node_id: Option<String>,
}

/// What it gets.
#[derive(Serialize, Deserialize)]
pub(crate) struct Reply {
    node_id: String,
    certificate: String,
    root: String,
    role: Role,
    cluster_id: String,
    data_path_port: u16,
}

/// The gRPC service.
pub(crate) struct CertificatesService(pub(crate) Arc<Shared>);

#[tonic::async_trait]
impl Certificates for CertificatesService {
    async fn root(&self, _: tonic::Request<RootRequest>) -> Result<Response<RootReply>, Status> {
        // The root in force, which is the one that join tokens carry the digest of. The state may know of
        // another sooner than this node's own certificate.
        let known = self.0.store.read(|s| s.cluster.as_ref().map(|c| c.root_certificate.clone()));
        let own = || self.0.certificate().trust().present().pem().to_owned();
        Ok(Response::new(RootReply { certificate: known.unwrap_or_else(own) }))
    }

    async fn issue(
        &self,
        request: tonic::Request<IssueRequest>,
    ) -> Result<Response<IssueReply>, Status> {
        let peer = Peer::of(&request)?.clone();
        let request = request.into_inner();
        let request = Request {
            csr: request.csr,
            token: request.token,
            availability: request.availability,
            addr: peer.addr.ip().to_canonical(),
            node_id: peer.identity.map(|identity| identity.node_id),
        };
        let leading = self.0.lead.borrow().clone();
        let reply = match leading {
            Some(inner) => issue(&inner, &request).await?,
            None => {
                let asked = Manager(self.0.clone()).ask(Call::Issue { request }).await;
                asked.map_err(|e: ControlError| status_of(&e))?
            }
        };
        Ok(Response::new(IssueReply {
            node_id: reply.node_id,
            certificate: reply.certificate,
            root: reply.root,
            role: match reply.role {
                Role::Worker => "worker".to_owned(),
                Role::Manager => "manager".to_owned(),
            },
            cluster_id: reply.cluster_id,
            data_path_port: reply.data_path_port.into(),
        }))
    }
}

/// On the leader: lets a host in, or renews a node's certificate.
pub(crate) async fn issue(inner: &Inner, request: &Request) -> Result<Reply, Status> {
    // Whoever was deposed and does not know it would sign with a root that counts no more.
    inner.store.barrier().await.map_err(|e| status_of(&from_store(e)))?;
    match request.token.as_str() {
        "" => renew(inner, request).await,
        _ => join(inner, request).await,
    }
}

async fn join(inner: &Inner, request: &Request) -> Result<Reply, Status> {
    let availability = availability(&request.availability)?;
    let (tokens, nodes) = inner
        .store
        .read(|state| (state.cluster.as_ref().map(|c| c.join_tokens.clone()), state.nodes.len()));
    let tokens = tokens.ok_or_else(|| Status::unavailable("there is no cluster"))?;
    let role = role_of(inner, &request.token, &tokens)?;
    if nodes >= MOST_NODES {
        return Err(Status::resource_exhausted(format!(
            "the swarm has {MOST_NODES} nodes, the most it may have; remove some with node rm"
        )));
    }
    let node_id = id::new();
    let (reply, tls) = signed(inner, request, &node_id, role).await?;
    let node = Node {
        id: node_id.clone(),
        meta: Meta::default(),
        name: String::new(),
        labels: BTreeMap::new(),
        role,
        availability,
        description: None,
        status: NodeStatus {
            state: NodeState::Unknown,
            message: "the node has joined and is starting".to_owned(),
            addr: request.addr.to_string(),
        },
        manager_addr: None,
        overlay: NodeOverlay { public_key: None, endpoint: None, address: None },
        down_since: None,
        tls: Some(tls),
    };
    inner.beats.expect(&node_id);
    inner
        .store
        .propose(vec![Change::Put(Object::Node(Box::new(node)))])
        .await
        .map_err(|e| Status::unavailable(from_store(e).message))?;
    tracing::info!(node = node_id, ?role, addr = %request.addr, "a node joined");
    Ok(reply)
}

/// The role a token gives.
fn role_of(inner: &Inner, text: &str, tokens: &JoinTokens) -> Result<Role, Status> {
    let token = JoinToken::parse(text).map_err(|e| Status::invalid_argument(e.to_string()))?;
    let authority = inner.authority().map_err(|e| status_of(&e))?;
    if token.digest() != authority.trust.present().digest() {
        return Err(Status::invalid_argument(
            "invalid join token: it is for another swarm; take the one that `swarm join-token worker` prints on a manager of this swarm",
        ));
    }
    let matches = |own: &str| JoinToken::parse(own).is_ok_and(|own| own.matches(&token));
    // Both are compared, so that the time tells nothing.
    match (matches(&tokens.worker), matches(&tokens.manager)) {
        (_, true) => Ok(Role::Manager),
        (true, false) => Ok(Role::Worker),
        (false, false) => Err(Status::invalid_argument(
            "A valid join token is necessary to join this cluster: this one was rotated or is not complete; take the one that `swarm join-token worker` prints",
        )),
    }
}

async fn renew(inner: &Inner, request: &Request) -> Result<Reply, Status> {
    let node_id = request.node_id.as_ref().ok_or_else(|| {
        Status::unauthenticated("A valid join token is necessary to join this cluster")
    })?;
    let role = inner.store.read(|state| state.nodes.get(node_id).map(|n| n.role));
    let role = role.ok_or_else(|| unknown_node(node_id))?;
    Ok(signed(inner, request, node_id, role).await?.0)
}

/// Has the request signed by the root of the moment: by the next one, if the root is rotated meanwhile.
async fn signed(
    inner: &Inner,
    request: &Request,
    node_id: &str,
    role: Role,
) -> Result<(Reply, NodeTls), Status> {
    let (validity, data_path_port) = inner.store.read(|state| {
        let cluster = state.cluster.as_ref();
        let validity = cluster.map(|c| cluster::node_validity(&c.spec));
        (validity, cluster.map_or(0, |c| c.data_path_port))
    });
    let validity = validity.unwrap_or(shoal_identity::NODE_VALIDITY);
    let cluster_id = inner.cluster_id.clone();
    let identity = Identity { node_id: node_id.to_owned(), role, cluster_id };
    let own = inner.credentials.borrow().clone();
    for _ in 0..SIGNATURES {
        let authority = inner.authority().map_err(|e| status_of(&e))?;
        let signed = authority.sign(&request.csr, &identity, &own, clock::now(), validity).await;
        let certificate = signed.map_err(|e| status_of(&e))?;
        let root = authority.trust.pem();
        let now = inner.authority().map_err(|e| status_of(&e))?;
        if !Arc::ptr_eq(&authority, &now) {
            continue;
        }
        let (_, tls) = authority
            .report(&certificate, &root)
            .map_err(|e| Status::internal(format!("what was signed is no certificate: {e}")))?;
        let reply = Reply {
            node_id: node_id.to_owned(),
            certificate,
            root,
            role,
            cluster_id: identity.cluster_id,
            data_path_port,
        };
        return Ok((reply, tls));
    }
    Err(Status::unavailable("the swarm's root CA has just changed; try again"))
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
