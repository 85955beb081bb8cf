//! What a session knows of its node, and how it finds a manager.
use super::FIRST;
use crate::managers::{self, Attempt, Book};
use anyhow::{Context, Result};
use prost::Message;
use shoal_identity::{NodeCertificate, client_config, connect_within};
use shoal_model::{NodeDescription, Role};
use shoal_rpc::{Bearings, LeaveRequest, dispatcher_client::DispatcherClient};
use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tonic::{Status, transport::Channel};

/// How long connecting to a manager may take: there are others.
const CONNECT: Duration = Duration::from_millis(1_500);
/// How long a node that leaves waits for its manager's answer.
const GOODBYE: Duration = Duration::from_secs(5);

/// What a session needs to know.
#[derive(Clone)]
pub struct SessionConfig {
    pub(crate) book: Arc<Mutex<Book>>,
    /// Where the managers are kept for the next daemon, if they are.
    pub(crate) book_file: Option<PathBuf>,
    /// The newest; each connection shows the one of its time.
    pub(crate) certificate: watch::Receiver<Arc<NodeCertificate>>,
    /// The role the managers want this node to have.
    pub(crate) role: watch::Sender<Option<Role>>,
    /// What they want of its certificate.
    pub(crate) tls: watch::Sender<WantedTls>,
    pub(crate) description: NodeDescription,
    /// WireGuard public key, base64.
    pub(crate) public_key: String,
    pub(crate) data_path_addr: String,
    pub(crate) data_path_port: u16,
}

/// What the managers want a node's connections to rest on.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct WantedTls {
    /// The roots to trust, PEM; `None` until they have said.
    pub trust: Option<String>,
    /// How often the managers have said which.
    pub trusts: u64,
    /// Digest of the root that is to sign the node's certificate; `None` if any will do.
    pub root: Option<String>,
    /// How often the managers have said to renew.
    pub orders: u64,
}

impl SessionConfig {
    /// Of a node that begins with what it was told, and keeps nothing of it on disk.
    pub fn new(
        certificate: watch::Receiver<Arc<NodeCertificate>>,
        managers: &[SocketAddr],
        description: NodeDescription,
        public_key: String,
    ) -> SessionConfig {
        SessionConfig {
            book: Arc::new(Mutex::new(Book::new(Vec::new(), managers))),
            book_file: None,
            certificate,
            role: watch::Sender::new(None),
            tls: watch::Sender::default(),
            description,
            public_key,
            data_path_addr: String::new(),
            data_path_port: 0,
        }
    }

    /// The managers this node knows.
    pub(crate) fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn learn(&self, bearings: &Bearings) {
        let mut book = self.book();
        if book.learn(bearings)
            && let Some(file) = &self.book_file
            && let Err(error) = managers::keep(file, book.all())
        {
            tracing::warn!(%error, "the managers cannot be kept at {}", file.display());
        }
    }

    pub(super) async fn connect(
        &self,
        manager: SocketAddr,
        longest_pause: Duration,
    ) -> Result<Channel> {
        let certificate = self.certificate.borrow().clone();
        let tls = client_config(certificate.trust(), Some(&certificate))?;
        let limit = CONNECT.max(longest_pause / 4);
        Ok(connect_within(limit, None, manager, tls).await?)
    }
}

/// Tells the leader that this node leaves, so that it need not find out by silence.
pub(crate) async fn say_leave(config: &SessionConfig) -> Result<()> {
    let told = async {
        loop {
            let manager = config.book().target().context("no manager is known")?;
            let said = async {
                let channel = config.connect(manager, FIRST.longest_pause).await?;
                DispatcherClient::new(channel).leave(LeaveRequest {}).await?;
                anyhow::Ok(())
            };
            let Err(error) = said.await else { return anyhow::Ok(()) };
            let refusal = error.downcast_ref::<Status>();
            let attempt = match refusal.and_then(|s| Bearings::decode(s.details()).ok()) {
                Some(bearings) if !bearings.managers.is_empty() => {
                    config.learn(&bearings);
                    Attempt::Redirected
                }
                _ => Attempt::Failed,
            };
            tracing::debug!(%manager, "the manager did not hear that this node leaves: {error:#}");
            let pause = config.book().after(attempt, GOODBYE);
            sleep(pause).await;
        }
    };
    timeout(GOODBYE, told).await.context("no manager answered")?
}
