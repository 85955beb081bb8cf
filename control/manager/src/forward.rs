//! Control calls, answered by the leader wherever they are made.
//!
//! [`Control`] is what the API of any manager calls. The leader answers by itself; another manager
//! sends the call on, and waits for a leader for some seconds when there is none.
use crate::{
    Manager,
    certificates::Request as IssueRequest,
    error::{from_store, no_leader, refuse, refused_by, status_of, unavailable},
    manager::{Inner, Shared},
    peers::PeerError,
};
use futures_util::{StreamExt, stream::BoxStream};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;
use shoal_model::{
    ControlError, DependencyKind, DependencySpec, ErrorKind, LogLine, LogOptions, Rotations,
    Timestamp, docker,
};
use shoal_rpc::{
    ForwardReply, ForwardRequest, ForwardedLine, LogsRequest, control_client::ControlClient,
    control_server, forward_reply,
};
use std::{future::ready, net::SocketAddr, sync::Arc, time::Duration};
use tokio::time::{Instant, sleep, timeout};
use tonic::{Request, Response, Status};

/// How long a call waits for a leader: several elections.
const LEADER_WAIT: Duration = Duration::from_secs(5);

/// Pause between two looks at who leads.
const LOOK: Duration = Duration::from_millis(30);

/// How long the leader may take to answer: it has lost the others when a change takes longer.
const ANSWER_WAIT: Duration = Duration::from_secs(10);

/// The same for what makes another manager catch up.
const ADMISSION_WAIT: Duration = Duration::from_secs(45);

/// The same for signing: an external CA may be asked, and the node gives up after 20 s.
const SIGNATURE_WAIT: Duration = Duration::from_secs(13);

/// How long reading waits until the state is the newest.
const CATCH_UP_WAIT: Duration = Duration::from_secs(5);

/// Largest call or answer between managers, bytes: specifications are below 1.5 MiB.
const MAX_MESSAGE: usize = 4 << 20;

/// A call that only the leader answers.
#[derive(Clone, Serialize, Deserialize)]
#[serde(tag = "method", content = "arguments", rename_all = "snake_case")]
pub(crate) enum Call {
    /// The number of the newest transaction.
    Version,
    UpdateSwarm {
        version: u64,
        spec: Box<docker::SwarmSpec>,
        rotate: Rotations,
    },
    UpdateNode {
        id: String,
        version: u64,
        spec: docker::NodeSpec,
    },
    RemoveNode {
        id: String,
        force: bool,
    },
    CreateService {
        spec: Box<docker::ServiceSpec>,
    },
    UpdateService {
        id: String,
        version: u64,
        spec: Box<docker::ServiceSpec>,
        rollback: bool,
    },
    RemoveService {
        id: String,
    },
    CreateNetwork {
        request: Box<docker::NetworkCreateRequest>,
    },
    RemoveNetwork {
        id: String,
    },
    CreateDependency {
        kind: DependencyKind,
        spec: Box<DependencySpec>,
    },
    UpdateDependency {
        kind: DependencyKind,
        id: String,
        version: u64,
        spec: Box<DependencySpec>,
    },
    RemoveDependency {
        kind: DependencyKind,
        id: String,
    },
    /// Signs a certificate.
    Issue {
        request: IssueRequest,
    },
    /// Gives a new manager its vote.
    Admit {
        node_id: String,
        addr: SocketAddr,
    },
    /// Takes a manager's vote away that leaves.
    Retire {
        node_id: String,
    },
}

impl Call {
    fn patience(&self) -> Duration {
        match self {
            Call::Admit { .. } => ADMISSION_WAIT,
            Call::Issue { .. } => SIGNATURE_WAIT,
            _ => ANSWER_WAIT,
        }
    }

    /// Whether it may be made twice.
    fn repeatable(&self) -> bool {
        matches!(self, Call::Version | Call::Admit { .. } | Call::Retire { .. })
    }
}

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
                    let request = logs_request(tasks.clone(), options);
                    let called = self.0.0.peers.call(&node, &addr, ANSWER_WAIT, |channel| async {
                        ControlClient::new(channel).logs(request).await
                    });
                    match called.await {
                        Ok(lines) => {
                            let lines = lines.take_while(|line| ready(line.is_ok()));
                            let lines = lines.filter_map(|l| ready(l.ok().and_then(log_line)));
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
        let options = LogOptions {
            stdout: request.stdout,
            stderr: request.stderr,
            follow: request.follow,
            tail: u64::try_from(request.tail).ok(),
            since: (request.since > 0).then_some(Timestamp(request.since)),
        };
        let lines = Manager(self.0.clone()).service_logs(request.tasks, options);
        let lines = lines.map_err(|e| status_of(&e))?;
        let lines = lines.map(|line| {
            Ok(ForwardedLine {
                node_id: line.node_id,
                line: Some(shoal_rpc::LogLine {
                    task_id: line.task_id,
                    stderr: line.stderr,
                    time: line.time.0,
                    line: line.line,
                }),
            })
        });
        Ok(Response::new(lines.boxed()))
    }
}

/// Whether a manager refused because another leads.
fn elsewhere(status: &Status) -> bool {
    status.code() == tonic::Code::Unavailable && !status.details().is_empty()
}

fn logs_request(tasks: Vec<String>, options: LogOptions) -> LogsRequest {
    LogsRequest {
        tasks,
        follow: options.follow,
        stdout: options.stdout,
        stderr: options.stderr,
        tail: options.tail.map_or(-1, |n| i64::try_from(n).unwrap_or(i64::MAX)),
        since: options.since.map_or(0, |t| t.0),
    }
}

fn log_line(forwarded: ForwardedLine) -> Option<LogLine> {
    let line = forwarded.line?;
    Some(LogLine {
        task_id: line.task_id,
        node_id: forwarded.node_id,
        stderr: line.stderr,
        time: Timestamp(line.time),
        line: line.line,
    })
}
