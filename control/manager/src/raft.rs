//! The replicated log's protocol, as the other managers call it.
use crate::{error::chain, manager::Shared};
use shoal_identity::Peer;
use shoal_rpc::{RaftReply, RaftRequest, raft_server::Raft};
use shoal_store::RaftCall;
use std::sync::Arc;
use tonic::{Request, Response, Status};

/// The gRPC service.
pub(crate) struct RaftService(pub(crate) Arc<Shared>);

#[tonic::async_trait]
impl Raft for RaftService {
    async fn call(&self, request: Request<RaftRequest>) -> Result<Response<RaftReply>, Status> {
        let from = Peer::of(&request)?.node()?.node_id.clone();
        let request = request.into_inner();
        let kind = RaftCall::named(&request.kind).ok_or_else(|| {
            let text = format!("unknown message of the replicated log: {:?}", request.kind);
            Status::invalid_argument(text)
        })?;
        self.0.peers.heard(&from);
        let handled = self.0.store.handle(&from, kind, &request.body).await;
        match handled {
            Ok(body) => Ok(Response::new(RaftReply { body })),
            Err(error) => Err(Status::unavailable(chain(&error))),
        }
    }
}
