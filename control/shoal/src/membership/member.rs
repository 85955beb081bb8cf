//! A membership while it lasts.

use crate::{addresses::CONTROL_PORT, record::Record};
use shoal_agent::Agent;
use shoal_identity::NodeCertificate;
use shoal_manager::Manager;
use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError, RwLock},
};
use tokio::{sync::watch, task::JoinHandle};

/// A membership while it lasts.
pub(crate) struct Member {
    pub(crate) record: Record,
    /// The node's certificate; replaced when it is renewed.
    pub(crate) certificate: watch::Sender<Arc<NodeCertificate>>,
    /// The manager part, while this node is a manager.
    pub(crate) manager: RwLock<Option<Manager>>,
    pub(crate) agent: Agent,
    /// The unlock key that key and store are locked with.
    pub(super) unlock_key: Mutex<Option<String>>,
    /// The task that keeps certificate and manager part as the cluster wants them.
    pub(super) keeper: Mutex<Option<JoinHandle<()>>>,
}

impl Member {
    pub(crate) fn manager(&self) -> Option<Manager> {
        self.manager.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_manager(&self, manager: Option<Manager>) {
        *self.manager.write().unwrap_or_else(PoisonError::into_inner) = manager;
    }

    pub(crate) fn unlock_key(&self) -> Option<String> {
        self.unlock_key.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_unlock_key(&self, key: Option<String>) {
        *self.unlock_key.lock().unwrap_or_else(PoisonError::into_inner) = key;
    }

    /// Where it listens as a manager.
    pub(crate) fn listen(&self) -> SocketAddr {
        let any = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), CONTROL_PORT);
        self.record.listen.unwrap_or(any)
    }

    /// Ends the keeper, so that nothing changes any more.
    pub(super) fn settle(&self) {
        if let Some(keeper) = self.keeper.lock().unwrap_or_else(PoisonError::into_inner).take() {
            keeper.abort();
        }
    }
}
