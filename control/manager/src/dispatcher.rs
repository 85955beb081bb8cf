//! Sessions with the nodes' agents.
//!
//! Each session has a task: it reads what the agent says, and computes the node's assignment anew
//! when the state changed. An assignment travels through a place of one, so that a slow agent gets
//! only the newest.
use crate::{
    edit,
    error::{chain, from_store},
    manager::{Inner, Shared},
    managers::bearings,
    session::{Outgoing, QUEUE, Session},
    watchdog,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use futures_util::{StreamExt, stream::BoxStream};
use shoal_cores::{Report, assignment, heartbeat_period};
use shoal_identity::{Peer, unknown_node};
use shoal_model::{NodeAssignment, NodeDescription, NodeState, TaskStatus};
use shoal_rpc::{
    AgentMessage, Assignment, Bearings, Hello, LeaveReply, LeaveRequest, LogAck, LogBatch,
    ManagerMessage, TaskStatuses, Welcome, agent_message::Kind as FromAgent,
    dispatcher_server::Dispatcher, manager_message::Kind,
};
use std::{
    net::{IpAddr, SocketAddr},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::{ReceiverStream, WatchStream};
use tonic::{Request, Response, Status, Streaming};

/// How long an agent may take to say hello.
const HELLO_WAIT: Duration = Duration::from_secs(5);

/// How long a change waits for others before an assignment is computed.
const DEBOUNCE: Duration = Duration::from_millis(20);

/// The gRPC service; answered by the leader alone.
pub(crate) struct DispatcherService(pub(crate) Arc<Shared>);

#[tonic::async_trait]
impl Dispatcher for DispatcherService {
    type SessionStream = BoxStream<'static, Outgoing>;

    async fn session(
        &self,
        request: Request<Streaming<AgentMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let peer = Peer::of(&request)?.clone();
        let node = peer.node()?.node_id.clone();
        let inner = self.0.leading()?;
        let (messages, queued) = mpsc::channel(QUEUE);
        let (assignments, newest) = watch::channel(None::<Assignment>);
        let talk = Talk {
            inner: inner.clone(),
            seen: peer.addr.ip().to_canonical(),
            node,
            session: Session::new(messages),
            assignments,
            sent: None,
            period: Duration::ZERO,
            told: Bearings::default(),
        };
        let incoming = request.into_inner();
        inner.tasks.spawn(talk.run(incoming));
        let newest = WatchStream::new(newest).filter_map(|assignment| async {
            assignment.map(|a| Ok(ManagerMessage { kind: Some(Kind::Assignment(a)) }))
        });
        let outgoing = futures_util::stream::select(ReceiverStream::new(queued), newest);
        Ok(Response::new(outgoing.boxed()))
    }

    async fn publish_logs(
        &self,
        request: Request<Streaming<LogBatch>>,
    ) -> Result<Response<LogAck>, Status> {
        let node = Peer::of(&request)?.node()?.node_id.clone();
        let inner = self.0.leading()?;
        tokio::select! {
            () = inner.stop.cancelled() => Err(stopping()),
            done = inner.broker.publish(&node, request.into_inner()) => done.map(Response::new),
        }
    }

    async fn leave(&self, request: Request<LeaveRequest>) -> Result<Response<LeaveReply>, Status> {
        let node = Peer::of(&request)?.node()?.node_id.clone();
        tracing::info!(node, "the node leaves");
        watchdog::down(&*self.0.leading()?, &node, "the node left the swarm").await;
        Ok(Response::new(LeaveReply {}))
    }
}

/// One session.
struct Talk {
    inner: Arc<Inner>,
    node: String,
    /// Address the agent is seen at.
    seen: IpAddr,
    session: Session,
    assignments: watch::Sender<Option<Assignment>>,
    sent: Option<NodeAssignment>,
    /// Heartbeat period the agent was told.
    period: Duration,
    /// Managers and role it was told.
    told: Bearings,
}

impl Talk {
    async fn run(mut self, mut incoming: Streaming<AgentMessage>) {
        let ended = match self.greet(&mut incoming).await {
            Ok(()) => {
                self.inner.sessions.begin(&self.node, self.session.clone());
                let ended = self.talk(&mut incoming).await;
                self.inner.sessions.forget(&self.node, &self.session);
                ended
            }
            refused => refused,
        };
        if let Err(status) = ended {
            tracing::info!(node = self.node, %status, "session ended");
            let _ = self.session.messages.try_send(Err(status)); // the agent may be gone
        }
    }

    /// Waits for the agent's hello and takes it down.
    async fn greet(&mut self, incoming: &mut Streaming<AgentMessage>) -> Result<(), Status> {
        let first = tokio::select! {
            () = self.inner.stop.cancelled() => return Err(stopping()),
            first = tokio::time::timeout(HELLO_WAIT, incoming.message()) => first,
        };
        let first = first.map_err(|_| Status::deadline_exceeded("the agent said no hello"))??;
        let Some(AgentMessage { kind: Some(FromAgent::Hello(hello)) }) = first else {
            return Err(Status::invalid_argument("the first message of a session must be hello"));
        };
        self.inner.beats.beat(&self.node);
        self.register(&hello).await
    }

    async fn register(&self, hello: &Hello) -> Result<(), Status> {
        let description: NodeDescription = serde_json::from_slice(&hello.description)
            .map_err(|e| Status::invalid_argument(format!("cannot read the description: {e}")))?;
        let key = STANDARD.decode(&hello.public_key).unwrap_or_default();
        if key.len() != 32 {
            return Err(Status::invalid_argument("the public key must be 32 bytes in base64"));
        }
        let seen = if self.seen.is_loopback() { self.inner.advertise.ip() } else { self.seen };
        let address: IpAddr = match hello.data_path_addr.as_str() {
            "" => seen,
            text => text.parse().map_err(|_| {
                Status::invalid_argument(format!("the data path address {text:?} is no IP address"))
            })?,
        };
        let port = u16::try_from(hello.data_path_port)
            .map_err(|_| Status::invalid_argument("the data path port is out of range"))?;
        let (port, twin) = self.inner.store.read(|state| {
            let default = state.cluster.as_ref().map_or(0, |c| c.data_path_port);
            let mut others = state.nodes.values().filter(|n| n.id != self.node);
            let twin = others.find(|n| n.overlay.public_key.as_ref() == Some(&hello.public_key));
            (if port == 0 { default } else { port }, twin.map(|n| n.id.clone()))
        });
        if let Some(twin) = twin {
            return Err(Status::already_exists(format!(
                "node {twin} has the same WireGuard key: was the data root copied from it? Remove the key on this node and start the daemon again"
            )));
        }
        let registered = edit::node(&self.inner.store, &self.node, |node| {
            node.description = Some(description.clone());
            node.overlay.public_key = Some(hello.public_key.clone());
            node.overlay.endpoint = Some(SocketAddr::new(address, port));
            node.status.state = NodeState::Ready;
            node.status.message = String::new();
            node.status.addr = seen.to_string();
        });
        registered.await.map_err(|e| Status::unavailable(from_store(e).message))
    }

    /// Until the agent is gone, the session is ended, or the node is removed.
    async fn talk(&mut self, incoming: &mut Streaming<AgentMessage>) -> Result<(), Status> {
        let mut versions = self.inner.store.watch();
        let ended = self.session.ended.clone();
        let stop = self.inner.stop.clone();
        let mut due = Some(tokio::time::Instant::now());
        loop {
            let compute = async {
                match due {
                    Some(due) => tokio::time::sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = stop.cancelled() => return Err(stopping()),
                () = ended.cancelled() => return Err(Status::aborted("the session was ended by the manager")),
                message = incoming.message() => match message {
                    Ok(Some(message)) => self.hear(message).await?,
                    Ok(None) => return Ok(()),
                    Err(status) => {
                        tracing::debug!(node = self.node, %status, "the agent is gone");
                        return Ok(());
                    }
                },
                changed = versions.changed(), if due.is_none() => {
                    changed.map_err(|_| stopping())?;
                    due = Some(tokio::time::Instant::now() + DEBOUNCE);
                }
                () = compute => {
                    due = None;
                    versions.borrow_and_update();
                    self.tell_news()?;
                }
            }
        }
    }

    async fn hear(&self, message: AgentMessage) -> Result<(), Status> {
        self.inner.beats.beat(&self.node);
        match message.kind {
            Some(FromAgent::Heartbeat(_)) => {}
            Some(FromAgent::Statuses(statuses)) => self.report(statuses).await?,
            Some(FromAgent::Applied(applied)) => {
                self.session.applied.fetch_max(applied.generation, Ordering::Relaxed);
            }
            Some(FromAgent::Hello(_)) => {
                return Err(Status::invalid_argument(
                    "hello was said already; begin a new session",
                ));
            }
            None => return Err(Status::invalid_argument("a message of unknown kind")),
        }
        Ok(())
    }

    async fn report(&self, statuses: TaskStatuses) -> Result<(), Status> {
        for reported in statuses.statuses {
            let status: TaskStatus = serde_json::from_slice(&reported.status).map_err(|e| {
                let task = &reported.task_id;
                Status::invalid_argument(format!("cannot read the status of task {task}: {e}"))
            })?;
            let report = Report { node: self.node.clone(), task: reported.task_id, status };
            self.inner.statuses.send(report).await.map_err(|_| stopping())?;
        }
        Ok(())
    }

    /// Says who manages the cluster and what the node shall be, if that differs from what was said.
    fn tell_bearings(&mut self) -> Result<(), Status> {
        let leader = self.inner.node_id.clone();
        let newest = self.inner.store.read(|state| bearings(state, Some(&self.node), leader));
        if newest != self.told {
            if !self.session.tell(Kind::Bearings(newest.clone())) {
                return Err(Status::resource_exhausted("the agent does not read its messages"));
            }
            self.told = newest;
        }
        Ok(())
    }

    /// Sends the heartbeat period and the assignment, each if it differs from what was sent.
    fn tell_news(&mut self) -> Result<(), Status> {
        self.tell_bearings()?;
        let node = &self.node;
        let (present, period, newest) = self.inner.store.read(|state| {
            let present = state.nodes.get(node).map(|n| n.status.state);
            (present, heartbeat_period(state), assignment(state, node))
        });
        match present {
            None => return Err(unknown_node(node)),
            // Marked down at the moment it registered. Nobody would set that right while it beats.
            Some(NodeState::Down) => {
                return Err(Status::aborted("the node was marked down; it has to register again"));
            }
            Some(_) => {}
        }
        if period != self.period {
            self.period = period;
            let heartbeat_period_ms = u32::try_from(period.as_millis()).unwrap_or(u32::MAX);
            let welcome = Welcome { node_id: node.clone(), heartbeat_period_ms };
            if !self.session.tell(Kind::Welcome(welcome)) {
                return Err(Status::resource_exhausted("the agent does not read its messages"));
            }
        }
        let same = |sent: &NodeAssignment| sent.tasks == newest.tasks && sent.table == newest.table;
        if !self.sent.as_ref().is_some_and(same) {
            let assignment = serde_json::to_vec(&newest).map_err(|e| {
                tracing::error!(node, error = %chain(&e), "cannot write the assignment");
                Status::internal("the assignment cannot be written")
            })?;
            let generation = newest.generation;
            self.assignments.send_replace(Some(Assignment { generation, assignment }));
            self.sent = Some(newest);
        }
        Ok(())
    }
}

fn stopping() -> Status {
    Status::unavailable("the manager is stopping")
}
