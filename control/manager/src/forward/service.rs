//! The gRPC service: calls that other managers send on.

use super::logs;
use crate::{Manager, error::status_of, manager::Shared};
use futures_util::{StreamExt, stream::BoxStream};
use shoal_rpc::{
    ForwardReply, ForwardRequest, ForwardedLine, LogsRequest, control_server, forward_reply,
};
use std::sync::Arc;
use tonic::{Request, Response, Status};

/// The gRPC service: calls that other managers send on.
pub(crate) struct ControlService(pub(crate) Arc<Shared>);

#[tonic::async_trait]
impl control_server::Control for ControlService {
    type LogsStream = BoxStream<'static, Result<ForwardedLine, Status>>;

    async fn forward(
        &self,
        request: Request<ForwardRequest>,
    ) -> Result<Response<ForwardReply>, Status> {
        let inner = self.0.leading()?;
        let call = serde_json::from_slice(&request.into_inner().call).map_err(|e| {
            let text =
                format!("this manager does not know the call: {e}; is it of another version?");
            Status::unimplemented(text)
        })?;
        let answer = Manager(self.0.clone()).answer(&inner, call).await;
        let json = |e: serde_json::Error| Status::internal(e.to_string());
        let result = match answer {
            Ok(value) => forward_reply::Result::Value(serde_json::to_vec(&value).map_err(json)?),
            Err(refusal) => {
                forward_reply::Result::Refusal(serde_json::to_vec(&refusal).map_err(json)?)
            }
        };
        Ok(Response::new(ForwardReply { result: Some(result) }))
    }

    async fn logs(
        &self,
        request: Request<LogsRequest>,
    ) -> Result<Response<Self::LogsStream>, Status> {
        self.0.leading()?;
        let request = request.into_inner();
        let options = logs::options(&request);
        let lines = Manager(self.0.clone()).service_logs(request.tasks, options);
        let lines = lines.map_err(|e| status_of(&e))?;
        Ok(Response::new(lines.map(|line| Ok(logs::forwarded(line))).boxed()))
    }
}
