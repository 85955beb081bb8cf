//! The replicated log's protocol, as the other managers call it.
use crate::{error::chain, manager::Shared};
use futures_util::stream::{BoxStream, StreamExt as _, try_unfold};
use shoal_identity::{Identity, Peer, authorize};
use shoal_rpc::{
    RaftAppend, RaftAppended, RaftReply, RaftRequest, raft_appended::Answer, raft_server::Raft,
};
use shoal_store::RaftCall;
use std::sync::Arc;
use tonic::{Request, Response, Status, Streaming};

const APPENDS: &str = "/shoal.v1.Raft/Appends";

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

    type AppendsStream = BoxStream<'static, Result<RaftAppended, Status>>;

    async fn appends(
        &self,
        request: Request<Streaming<RaftAppend>>,
    ) -> Result<Response<Self::AppendsStream>, Status> {
        let from = Peer::of(&request)?.node()?.clone();
        let caller = Arc::new(Caller { shared: self.0.clone(), from });
        let answers = try_unfold(request.into_inner(), move |mut requests| {
            let caller = caller.clone();
            async move {
                let request = tokio::select! {
                    request = requests.message() => request?,
                    () = caller.shared.stop.cancelled() => None,
                };
                let Some(request) = request else { return Ok(None) };
                Ok(Some((caller.append(&request.body).await?, requests)))
            }
        });
        Ok(Response::new(answers.boxed()))
    }
}

/// Who has opened a stream.
struct Caller {
    shared: Arc<Shared>,
    from: Identity,
}

impl Caller {
    async fn append(&self, body: &[u8]) -> Result<RaftAppended, Status> {
        // The stream lasts; the caller may have been demoted or removed meanwhile.
        authorize(APPENDS, Some(&self.from), &*self.shared)?;
        let from = &self.from.node_id;
        self.shared.peers.heard(from);
        let answer = match self.shared.store.handle(from, RaftCall::Append, body).await {
            Ok(body) => Answer::Body(body),
            Err(error) => Answer::Refused(chain(&error)),
        };
        Ok(RaftAppended { answer: Some(answer) })
    }
}
