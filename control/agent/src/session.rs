//! The session with the leading manager: says hello, beats, sends statuses, receives assignments. One
//! tokio task; it connects again with growing pauses for as long as it is not cancelled, to whichever
//! manager leads.
mod body;
mod config;

pub use body::Body;
pub use config::{SessionConfig, WantedTls};

pub(crate) use config::say_leave;

use crate::{
    managers::{self, Attempt},
    silence::silent,
};
use anyhow::{Context, Result, bail};
use futures_util::future::AbortHandle;
use prost::Message;
use shoal_identity::{IdentityError, NodeCertificate, chain};
use shoal_model::patience;
use shoal_rpc::{
    AgentMessage, Applied, Bearings, Heartbeat, Hello, ManagerMessage, Resync, TaskStatus,
    TaskStatuses, Tls, agent_message, dispatcher_client::DispatcherClient, manager_message::Kind,
};
use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, transport::Channel};

/// Longest silence of the manager before the session is given up: it sends on change only, so this
/// is for the first word.
const WELCOME: Duration = Duration::from_secs(10);
/// Heartbeat period, and longest pause between attempts, until the manager has told one, and the bounds
/// of what it may tell.
const FIRST: Pace = Pace { beat: Duration::from_secs(1), longest_pause: Duration::from_secs(1) };
const SHORTEST_BEAT: Duration = Duration::from_millis(100);
const LONGEST_BEAT: Duration = Duration::from_secs(60);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Messages waiting to be sent.
const QUEUE: usize = 64;
/// Largest message taken, bytes: a part of an assignment is full at 16 KiB, but a single task may
/// be as large as the store's largest proposal.
const MESSAGE: usize = 4 << 20;
/// Log subscriptions served at once.
const MAX_SUBSCRIPTIONS: usize = 64;

/// How often a node is to speak to its manager.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Pace {
    beat: Duration,
    /// Between attempts to find a manager, when this one is gone.
    longest_pause: Duration,
}

impl Pace {
    /// The longest silence of the manager: it answers every beat.
    fn silence(&self) -> Duration {
        managers::beat(self.beat, 1.0) + patience(self.longest_pause)
    }
}

/// State of the session, for `docker info`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SessionState {
    /// Whether the manager has answered in this session.
    pub connected: bool,
    /// Why the last session ended; empty when there is none.
    pub error: String,
}

/// A node's session with whichever manager leads.
pub struct Session<B> {
    /// What it says of the node.
    pub config: SessionConfig,
    /// The node.
    pub body: Arc<B>,
    /// Told how it goes.
    pub state: watch::Sender<SessionState>,
}

impl<B: Body> Session<B> {
    /// Keeps a session, for ever.
    pub async fn run(self) {
        let mut inbox = B::Inbox::default();
        let pace = watch::Sender::new(FIRST);
        loop {
            let Some(manager) = self.config.book().target() else { return };
            let ended = self.once(manager, &mut inbox, &pace).await;
            let mut attempt = match self.state.borrow().connected {
                true => Attempt::Held,
                false => Attempt::Failed,
            };
            if let Err(error) = ended {
                if let Some(IdentityError::Busy { .. }) = error.downcast_ref::<IdentityError>() {
                    attempt = Attempt::Busy;
                }
                let refusal = error.downcast_ref::<Status>();
                let bearings = refusal.filter(|s| !s.details().is_empty());
                if let Some(bearings) = bearings.and_then(|s| Bearings::decode(s.details()).ok()) {
                    self.config.learn(&bearings);
                    attempt = Attempt::Redirected;
                }
                let said = chain(error.as_ref());
                if attempt == Attempt::Redirected && self.config.book().leader().is_some() {
                    tracing::debug!(%manager, said, "sent on to the leader");
                } else {
                    tracing::warn!(%manager, "no session with the manager: {said}");
                }
                self.state.send_replace(SessionState { connected: false, error: said });
            }
            let longest = pace.borrow().longest_pause;
            let pause = self.config.book().after(attempt, longest);
            sleep(managers::jittered(pause, rand::random())).await;
        }
    }

    async fn once(
        &self,
        manager: SocketAddr,
        inbox: &mut B::Inbox,
        pace: &watch::Sender<Pace>,
    ) -> Result<()> {
        let longest_pause = pace.borrow().longest_pause;
        let channel = self.config.connect(manager, longest_pause).await?;
        let known = self.body.begin(inbox);
        let (tx, rx) = mpsc::channel(QUEUE);
        let hello = Hello {
            description: serde_json::to_vec(&self.config.description)?,
            public_key: self.config.public_key.clone(),
            data_path_addr: self.config.data_path_addr.clone(),
            data_path_port: self.config.data_path_port.into(),
            tls: Some(tls_of(&self.config.certificate.borrow())),
            known,
        };
        tx.send(message(agent_message::Kind::Hello(hello))).await?;
        let mut client = DispatcherClient::new(channel.clone()).max_decoding_message_size(MESSAGE);
        let opened = timeout(WELCOME, client.session(ReceiverStream::new(rx))).await;
        let mut incoming = opened.context("the manager did not answer")??.into_inner();
        let first = timeout(WELCOME, incoming.message()).await.context("no word in time")??;
        let first = first.context("the manager closed the session")?;
        self.state.send_replace(SessionState { connected: true, error: String::new() });
        self.body.reports().resend();
        let heard = watch::Sender::new(Instant::now());
        let receive = async {
            let mut next = Some(first);
            let mut subscriptions = Subscriptions::default();
            while let Some(said) = next {
                heard.send_replace(Instant::now());
                self.obey(said, inbox, &mut subscriptions, &channel, &tx, pace).await?;
                heard.send_replace(Instant::now()); // what took its time here is not the manager's silence
                next = incoming.message().await?;
            }
            bail!("the manager closed the session")
        };
        tokio::select! {
            result = receive => result,
            result = self.send(&tx, pace.subscribe()) => result,
            silence = silent(heard.subscribe(), || pace.borrow().silence()) => {
                bail!("the manager was silent for {silence:?}")
            }
        }
    }

    async fn send(
        &self,
        tx: &mpsc::Sender<AgentMessage>,
        mut pace: watch::Receiver<Pace>,
    ) -> Result<()> {
        let mut next_beat = Instant::now();
        let mut certificate = self.config.certificate.clone();
        let mut applied = self.body.applied();
        applied.mark_changed();
        loop {
            let kind = tokio::select! {
                () = sleep_until(next_beat) => {
                    next_beat = Instant::now() + managers::beat(pace.borrow().beat, rand::random());
                    agent_message::Kind::Heartbeat(Heartbeat {})
                }
                changed = pace.changed() => {
                    changed?;
                    let beat = pace.borrow_and_update().beat;
                    next_beat = Instant::now() + managers::beat(beat, rand::random());
                    continue;
                }
                changed = certificate.changed() => {
                    changed?;
                    agent_message::Kind::Tls(tls_of(&certificate.borrow_and_update()))
                }
                changed = applied.changed() => {
                    changed?;
                    let generation = *applied.borrow_and_update();
                    agent_message::Kind::Applied(Applied { generation })
                }
                statuses = self.body.reports().take() => {
                    let statuses = statuses.into_iter().map(|(task_id, status)| {
                        Ok(TaskStatus { task_id, status: serde_json::to_vec(&status)? })
                    });
                    let statuses = statuses.collect::<Result<_>>()?;
                    agent_message::Kind::Statuses(TaskStatuses { statuses })
                }
            };
            tx.send(message(kind)).await.context("the session was closed")?;
        }
    }

    /// Does what the manager says.
    async fn obey(
        &self,
        said: ManagerMessage,
        inbox: &mut B::Inbox,
        subscriptions: &mut Subscriptions,
        channel: &Channel,
        tx: &mpsc::Sender<AgentMessage>,
        pace: &watch::Sender<Pace>,
    ) -> Result<()> {
        match said.kind {
            Some(Kind::Assignment(part)) => {
                if let Some(wrong) = self.body.take(inbox, part)? {
                    tracing::info!("asking for the whole assignment: {wrong}");
                    tx.send(message(agent_message::Kind::Resync(Resync {}))).await?;
                }
            }
            Some(Kind::Release(release)) => self.body.release(release.tasks),
            Some(Kind::Subscribe(subscription)) => {
                if subscriptions.0.len() >= MAX_SUBSCRIPTIONS {
                    tracing::warn!("too many log subscriptions; one more is not served");
                } else {
                    let id = subscription.id.clone();
                    let publish = self.body.publish(channel.clone(), subscription);
                    let (publish, handle) = futures_util::future::abortable(publish);
                    tokio::spawn(publish);
                    subscriptions.0.insert(id, handle);
                }
            }
            Some(Kind::Unsubscribe(gone)) => {
                if let Some(handle) = subscriptions.0.remove(&gone.id) {
                    handle.abort();
                }
            }
            Some(Kind::Bearings(bearings)) => {
                self.config.learn(&bearings);
                if let Some(role) = managers::role(&bearings) {
                    self.config.role.send_replace(Some(role));
                }
            }
            Some(Kind::Trust(trust)) => {
                self.config.tls.send_modify(|tls| {
                    tls.trust = Some(trust.roots);
                    tls.trusts += 1;
                });
            }
            Some(Kind::Renew(renew)) => {
                // Said again, in case it was lost what the node has.
                let tls = tls_of(&self.config.certificate.borrow());
                tx.send(message(agent_message::Kind::Tls(tls))).await?;
                self.config.tls.send_modify(|tls| {
                    tls.root = Some(renew.root);
                    tls.orders += 1;
                });
            }
            Some(Kind::Welcome(welcome)) => {
                let ms = |ms: u32| Duration::from_millis(ms.into());
                let beat = ms(welcome.heartbeat_period_ms).clamp(SHORTEST_BEAT, LONGEST_BEAT);
                let longest_pause =
                    ms(welcome.longest_pause_ms).clamp(FIRST.longest_pause, LONGEST_PAUSE);
                pace.send_replace(Pace { beat, longest_pause });
            }
            Some(Kind::Beat(_)) | None => {}
        }
        Ok(())
    }
}

/// Running log subscriptions; they end with the session.
#[derive(Default)]
struct Subscriptions(BTreeMap<String, AbortHandle>);

impl Drop for Subscriptions {
    fn drop(&mut self) {
        for handle in self.0.values() {
            handle.abort();
        }
    }
}

fn tls_of(certificate: &NodeCertificate) -> Tls {
    Tls { certificate: certificate.pem().to_owned(), trust: certificate.trust().pem() }
}

fn message(kind: agent_message::Kind) -> AgentMessage {
    AgentMessage { kind: Some(kind) }
}
