//! Control calls, answered by the leader wherever they are made.
//!
//! [`Control`] is what the API of any manager calls. The leader answers by itself; another manager
//! sends the call on, and waits for a leader for some seconds when there is none.

mod call;
mod control;
mod logs;
mod service;

pub(crate) use call::Call;
pub use control::Control;
pub(crate) use service::ControlService;

use crate::{
    Manager,
    error::{from_store, no_leader, refuse, refused_by, unavailable},
    manager::{Inner, Shared},
    peers::PeerError,
};
use serde::de::DeserializeOwned;
use serde_json::Value;
use shoal_model::{ControlError, ErrorKind};
use shoal_rpc::{ForwardRequest, control_client::ControlClient, forward_reply};
use std::{sync::Arc, time::Duration};
use tokio::time::{Instant, sleep, timeout};
use tonic::Status;

/// How long a call waits for a leader: several elections.
const LEADER_WAIT: Duration = Duration::from_secs(5);

/// Pause between two looks at who leads.
const LOOK: Duration = Duration::from_millis(30);

/// Largest call or answer between managers, bytes: specifications are below 1.5 MiB.
const MAX_MESSAGE: usize = 4 << 20;

/// Who leads.
enum Lead {
    Here(Arc<Inner>),
    There { node: String, addr: String },
    Nowhere,
}

impl Shared {
    fn lead(&self) -> Lead {
        if let Some(inner) = self.lead.borrow().clone() {
            return Lead::Here(inner);
        }
        match self.store.leader() {
            Some(leader) if leader.node_id != self.node_id => {
                Lead::There { node: leader.node_id, addr: leader.addr }
            }
            _ => Lead::Nowhere,
        }
    }
}

impl Manager {
    /// The control API, whether this manager leads or not.
    pub fn control(&self) -> Control {
        Control(self.clone())
    }

    /// Makes a call of the leader, wherever it is.
    pub(crate) async fn ask<R: DeserializeOwned>(&self, call: Call) -> Result<R, ControlError> {
        let value = self.carry(&call).await?;
        serde_json::from_value(value).map_err(|e| {
            refuse(ErrorKind::Unknown, format!("the leader's answer is not understood: {e}"))
        })
    }

    async fn carry(&self, call: &Call) -> Result<Value, ControlError> {
        let deadline = Instant::now() + LEADER_WAIT;
        loop {
            match self.0.lead() {
                Lead::Here(inner) => return self.answer(&inner, call.clone()).await,
                Lead::There { node, addr } => match self.forward(&node, &addr, call).await {
                    Ok(answer) => return answer,
                    Err(PeerError::Refused { status, .. }) if !elsewhere(&status) => {
                        return Err(refused_by(&status));
                    }
                    Err(PeerError::Lost { reason, .. }) if !call.repeatable() => {
                        let text = format!(
                            "the leader was lost before it answered ({reason}): look whether the \
                             change was made before you try again"
                        );
                        return Err(unavailable(text));
                    }
                    Err(error) => tracing::debug!(%error, "the leader has not answered"),
                },
                Lead::Nowhere => {}
            }
            if Instant::now() >= deadline {
                return Err(no_leader());
            }
            sleep(LOOK).await;
        }
    }

    async fn forward(
        &self,
        node: &str,
        addr: &str,
        call: &Call,
    ) -> Result<Result<Value, ControlError>, PeerError> {
        let unreadable = |e: serde_json::Error| PeerError::Refused {
            node: node.to_owned(),
            status: Status::internal(format!("a call between managers is not understood: {e}")),
        };
        let limit = call.patience() + LEADER_WAIT;
        let call = serde_json::to_vec(call).map_err(unreadable)?;
        let reply = self.0.peers.call(node, addr, limit, |channel| async {
            let client = ControlClient::new(channel);
            client.max_decoding_message_size(MAX_MESSAGE).forward(ForwardRequest { call }).await
        });
        match reply.await?.result {
            Some(forward_reply::Result::Value(json)) => {
                serde_json::from_slice(&json).map(Ok).map_err(unreadable)
            }
            Some(forward_reply::Result::Refusal(json)) => {
                serde_json::from_slice(&json).map(Err).map_err(unreadable)
            }
            None => Ok(Ok(Value::Null)),
        }
    }

    /// The leader's answer; bounded, since without the other managers nothing can be changed.
    async fn answer(&self, inner: &Arc<Inner>, call: Call) -> Result<Value, ControlError> {
        let patience = call.patience();
        let answered = timeout(patience, self.answer_here(inner, call)).await;
        answered.unwrap_or_else(|_| Err(no_leader()))
    }

    async fn answer_here(&self, inner: &Arc<Inner>, call: Call) -> Result<Value, ControlError> {
        match call {
            Call::Version => {
                inner.store.barrier().await.map_err(from_store)?;
                Ok(inner.store.read(|state| state.version).into())
            }
            Call::UpdateSwarm { version, spec, rotate } => {
                self.update_swarm(version, *spec, rotate).await.map(done)
            }
            Call::UpdateNode { id, version, spec } => {
                self.update_node(&id, version, spec).await.map(done)
            }
            Call::RemoveNode { id, force } => self.remove_node(&id, force).await.map(done),
            Call::CreateService { spec } => self.create_service(*spec).await.map(Value::from),
            Call::UpdateService { id, version, spec, rollback } => {
                self.update_service(&id, version, *spec, rollback).await.map(done)
            }
            Call::RemoveService { id } => self.remove_service(&id).await.map(done),
            Call::CreateNetwork { request } => self.create_network(*request).await.map(Value::from),
            Call::RemoveNetwork { id } => self.remove_network(&id).await.map(done),
            Call::CreateDependency { kind, spec } => {
                self.create_dependency(kind, *spec).await.map(Value::from)
            }
            Call::UpdateDependency { kind, id, version, spec } => {
                self.update_dependency(kind, &id, version, *spec).await.map(done)
            }
            Call::RemoveDependency { kind, id } => {
                self.remove_dependency(kind, &id).await.map(done)
            }
            Call::Issue { request } => {
                let reply = crate::certificates::issue(inner, &request).await;
                let reply = reply.map_err(|status| refused_by(&status))?;
                serde_json::to_value(reply).map_err(|e| refuse(ErrorKind::Unknown, e))
            }
            Call::Admit { node_id, addr } => self.admit(inner, &node_id, addr).await.map(done),
            Call::Retire { node_id } => self.retire(inner, &node_id).await.map(done),
        }
    }
}

fn done((): ()) -> Value {
    Value::Null
}

/// Whether a manager refused because another leads.
fn elsewhere(status: &Status) -> bool {
    status.code() == tonic::Code::Unavailable && !status.details().is_empty()
}
