//! Sessions with the nodes' agents.
//!
//! Each session has a task: it reads what the agent says, and tells it what is new on the board.
//! What is new travels through a place of one and is looked up only when that is free, so that a
//! slow agent gets everything that happened meanwhile as one difference.
use crate::{
    board::{self, Common},
    edit,
    error::{chain, from_store, status_of},
    manager::{Inner, Shared},
    managers::role_of,
    parts::parts,
    session::{Outgoing, QUEUE, Session},
    turns::Turn,
    watchdog,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use futures_util::{StreamExt, stream::BoxStream};
use shoal_cores::{Report, Subscriber};
use shoal_identity::{Peer, unknown_node};
use shoal_model::{NodeDescription, NodeState, NodeTls, TaskStatus};
use shoal_rpc::{
    AgentMessage, Assignment, Bearings, Beat, Hello, LeaveReply, LeaveRequest, LogAck, LogBatch,
    ManagerMessage, TaskStatuses, Tls, Trust, Welcome, agent_message::Kind as FromAgent,
    dispatcher_server::Dispatcher, manager_message::Kind,
};
use std::{
    collections::VecDeque,
    net::{IpAddr, SocketAddr},
    pin::pin,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

/// How long an agent may take to say hello.
const HELLO_WAIT: Duration = Duration::from_secs(5);

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
        let (assignments, next) = mpsc::channel(1);
        let session = Session::new(messages);
        let talk = Talk {
            turn: inner.turns.of_node(session.concerned.clone()),
            subscriber: Subscriber::new(&node),
            inner: inner.clone(),
            seen: peer.addr.ip().to_canonical(),
            node,
            session,
            assignments,
            unsent: VecDeque::new(),
            told: None,
        };
        let incoming = request.into_inner();
        inner.tasks.spawn(talk.run(incoming));
        let (queued, next) = (ReceiverStream::new(queued), ReceiverStream::new(next));
        let outgoing = futures_util::stream::select(queued, next);
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
    assignments: mpsc::Sender<Outgoing>,
    turn: Turn,
    subscriber: Subscriber,
    /// Parts of a difference that are still to be sent. Bounded by what a node is told in all.
    unsent: VecDeque<Assignment>,
    /// What it was told with all others, and its role.
    told: Option<(Arc<Common>, &'static str)>,
}

impl Talk {
    async fn run(mut self, mut incoming: Streaming<AgentMessage>) {
        let ended = match self.greet(&mut incoming).await {
            Ok(()) => {
                self.inner.sessions.begin(&self.node, self.session.clone());
                board::reconnected(&self.inner, &self.node);
                let ended = self.talk(&mut incoming).await;
                self.inner.sessions.forget(&self.node, &self.session);
                ended
            }
            refused => refused,
        };
        self.inner.beats.left(&self.node);
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
        self.inner.beats.beat(&self.node); // it is there, also if it is refused for a while
        self.inner.herd.admit(&self.node)?;
        let known = hello.known.iter().map(|s| (s.network.clone(), s.digest));
        self.subscriber.has(known.collect());
        let place = tokio::select! {
            () = self.inner.stop.cancelled() => return Err(stopping()),
            place = self.waits(self.inner.herd.place()) => place,
        };
        let _place = place.map_err(|_| stopping())?;
        self.waits(self.register(&hello)).await
    }

    /// The node waits for this manager, which does not read from it meanwhile: neither is silent.
    async fn waits<T>(&self, ours: impl Future<Output = T>) -> T {
        let often = self.inner.board.common().period / 2;
        let mut ours = pin!(ours);
        loop {
            match tokio::time::timeout(often, ours.as_mut()).await {
                Ok(done) => return done,
                Err(_) => {
                    self.inner.beats.beat(&self.node);
                    if self.told.is_some() {
                        let _ = self.session.tell(Kind::Beat(Beat {})); // as in `hear`
                    }
                }
            }
        }
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
            let twin = state.nodes_with_key(&hello.public_key).find(|id| *id != self.node);
            (if port == 0 { default } else { port }, twin.map(str::to_owned))
        });
        if let Some(twin) = twin {
            return Err(Status::already_exists(format!(
                "node {twin} has the same WireGuard key: was the data root copied from it? Remove the key on this node and start the daemon again"
            )));
        }
        let tls = hello.tls.as_ref().map(|tls| self.tls(tls)).transpose()?;
        let registered = edit::node(&self.inner.store, &self.node, |node| {
            node.description = Some(description.clone());
            node.overlay.public_key = Some(hello.public_key.clone());
            node.overlay.endpoint = Some(SocketAddr::new(address, port));
            node.status.state = NodeState::Ready;
            node.status.message = String::new();
            node.status.addr = seen.to_string();
            if tls.is_some() {
                node.tls.clone_from(&tls);
            }
        });
        registered.await.map_err(|e| Status::unavailable(from_store(e).message))
    }

    /// Until the agent is gone, the session is ended, or the node is removed.
    async fn talk(&mut self, incoming: &mut Streaming<AgentMessage>) -> Result<(), Status> {
        // It beats from when it is told how often. What its networks are may still have to be read.
        self.check()?;
        // The board may not have seen yet that the node is here.
        let registered = self.inner.store.read(|state| state.version);
        let mut versions = self.inner.board.versions();
        let ended = self.session.ended.clone();
        let (stop, news) = (self.inner.stop.clone(), self.session.news.clone());
        let (mut seen, mut behind) = (false, false);
        loop {
            let turn_ends = self.turn.until();
            let goes_on = !self.unsent.is_empty();
            let may_tell = turn_ends.is_some() && (goes_on || behind && self.turn.is_fresh());
            tokio::select! {
                () = stop.cancelled() => return Err(stopping()),
                () = ended.cancelled() => return Err(Status::aborted("the session was ended by the manager")),
                message = incoming.message() => match message {
                    Ok(Some(message)) => {
                        behind |= matches!(message.kind, Some(FromAgent::Resync(_)));
                        self.hear(message).await?;
                    }
                    Ok(None) => return Ok(()),
                    Err(status) => {
                        tracing::debug!(node = self.node, %status, "the agent is gone");
                        return Ok(());
                    }
                },
                reached = async { versions.wait_for(|v| *v >= registered).await.is_ok() }, if !seen => {
                    if !reached {
                        return Err(stopping());
                    }
                    (seen, behind) = (true, true);
                }
                () = news.notified(), if seen => {
                    self.check()?;
                    behind = true;
                }
                () = self.turn.mine(), if (behind || goes_on) && turn_ends.is_none() => {}
                place = async { self.assignments.reserve().await.is_ok() }, if may_tell => {
                    if !place {
                        return Ok(()); // the agent is gone
                    }
                    if !goes_on {
                        behind = false;
                        self.look_up_news()?;
                    }
                    self.tell_news();
                }
                () = sleep_until(turn_ends.unwrap_or_else(Instant::now)), if turn_ends.is_some() => {
                    self.turn.over();
                }
            }
        }
    }

    async fn hear(&mut self, message: AgentMessage) -> Result<(), Status> {
        self.inner.beats.beat(&self.node);
        match message.kind {
            // A node that does not read its messages will find out by itself.
            Some(FromAgent::Heartbeat(_)) => drop(self.session.tell(Kind::Beat(Beat {}))),
            Some(FromAgent::Statuses(statuses)) => self.report(statuses).await?,
            Some(FromAgent::Applied(applied)) => {
                self.session.applied.fetch_max(applied.generation, Ordering::Relaxed);
                self.turn.applied(applied.generation);
                board::applied(&self.inner, &self.node, applied.generation);
            }
            Some(FromAgent::Resync(_)) => {
                tracing::info!(node = self.node, "the node wants its assignment whole");
                self.unsent.clear();
                self.subscriber.reset();
                self.turn.over();
            }
            Some(FromAgent::Tls(tls)) => self.certified(&tls).await?,
            Some(FromAgent::Hello(_)) => {
                return Err(Status::invalid_argument(
                    "hello was said already; begin a new session",
                ));
            }
            None => return Err(Status::invalid_argument("a message of unknown kind")),
        }
        Ok(())
    }

    /// What the node says of its certificate, checked.
    fn tls(&self, tls: &Tls) -> Result<NodeTls, Status> {
        let authority = self.inner.authority().map_err(|e| status_of(&e))?;
        let (identity, tls) = authority
            .report(&tls.certificate, &tls.trust)
            .map_err(|e| Status::invalid_argument(chain(&e)))?;
        match identity.node_id == self.node && identity.cluster_id == self.inner.cluster_id {
            true => Ok(tls),
            false => Err(Status::invalid_argument(format!("it has a certificate of {identity}"))),
        }
    }

    async fn certified(&self, tls: &Tls) -> Result<(), Status> {
        let tls = self.tls(tls)?;
        let taken = edit::node(&self.inner.store, &self.node, |node| node.tls = Some(tls.clone()));
        taken.await.map_err(|e| Status::unavailable(from_store(e).message))
    }

    async fn report(&self, statuses: TaskStatuses) -> Result<(), Status> {
        for reported in statuses.statuses {
            let status: TaskStatus = serde_json::from_slice(&reported.status).map_err(|e| {
                let task = &reported.task_id;
                Status::invalid_argument(format!("cannot read the status of task {task}: {e}"))
            })?;
            let report = Report { node: self.node.clone(), task: reported.task_id, status };
            self.waits(self.inner.statuses.send(report)).await.map_err(|_| stopping())?;
        }
        Ok(())
    }

    /// Whether the node is still there; tells it who manages, what it shall be, how often to speak and which
    /// roots to trust, each if it is another now.
    fn check(&mut self) -> Result<(), Status> {
        let node = &self.node;
        let common = self.inner.board.common();
        let present = self
            .inner
            .store
            .read(|state| state.nodes.get(node).map(|n| (n.status.state, role_of(n))));
        let role = match present {
            None => return Err(unknown_node(node)),
            // Marked down at the moment it registered. Nobody would set that right while it beats.
            Some((NodeState::Down, _)) => {
                return Err(Status::aborted("the node was marked down; it has to register again"));
            }
            Some((_, role)) => role,
        };
        let before = self.told.as_ref();
        let same = |(told, known): &(Arc<Common>, &str)| {
            *known == role && (Arc::ptr_eq(told, &common) || told.bearings == common.bearings)
        };
        if !before.is_some_and(same) {
            let role = role.to_owned();
            self.tell(Kind::Bearings(Bearings { role, ..common.bearings.clone() }))?;
        }
        let pace = |common: &Common| (common.period, common.longest_pause);
        if before.is_none_or(|(told, _)| pace(told) != pace(&common)) {
            let ms = |time: Duration| u32::try_from(time.as_millis()).unwrap_or(u32::MAX);
            let (heartbeat_period_ms, longest_pause_ms) =
                (ms(common.period), ms(common.longest_pause));
            let node_id = node.clone();
            self.tell(Kind::Welcome(Welcome { node_id, heartbeat_period_ms, longest_pause_ms }))?;
        }
        if before.is_none_or(|(told, _)| told.roots != common.roots) && !common.roots.is_empty() {
            self.tell(Kind::Trust(Trust { roots: common.roots.clone() }))?;
        }
        self.told = Some((common, role));
        Ok(())
    }

    fn tell(&self, kind: Kind) -> Result<(), Status> {
        let told = self.session.tell(kind).then_some(());
        told.ok_or_else(|| Status::resource_exhausted("the agent does not read its messages"))
    }

    /// Looks up what is new, to be sent in parts.
    fn look_up_news(&mut self) -> Result<(), Status> {
        self.session.concerned.store(false, Ordering::Relaxed);
        let (board, subscriber) = (&self.inner.board, &mut self.subscriber);
        let Some(delta) = self.inner.store.read(|state| board.difference(state, subscriber)) else {
            self.turn.over();
            return Ok(());
        };
        self.turn.tells(delta.generation);
        self.unsent = parts(&delta).map_err(|e| {
            tracing::error!(self.node, error = %chain(&e), "cannot write the assignment");
            Status::internal("the assignment cannot be written")
        })?;
        Ok(())
    }

    /// Sends the next part of what is new.
    fn tell_news(&mut self) {
        if let Some(part) = self.unsent.pop_front() {
            let message = ManagerMessage { kind: Some(Kind::Assignment(part)) };
            // There is place: nobody else sends here.
            let _ = self.assignments.try_send(Ok(message));
        }
    }
}

fn stopping() -> Status {
    Status::unavailable("the manager is stopping")
}
