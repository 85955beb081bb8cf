//! Keeps nodes that come back all at once from running the manager down.
use crate::clock::Uptime;
use shoal_cores::Registrations;
use std::sync::{Mutex, PoisonError};
use tokio::sync::{AcquireError, Semaphore, SemaphorePermit};
use tonic::Status;

/// Registrations under way at the same time; each is a transaction, and those that wait together
/// share a flush of the store.
const AT_ONCE: usize = 64;

pub(crate) struct Herd {
    uptime: Uptime,
    registrations: Mutex<Registrations>,
    places: Semaphore,
}

impl Herd {
    pub(crate) fn new(uptime: Uptime) -> Herd {
        Herd { uptime, registrations: Mutex::default(), places: Semaphore::new(AT_ONCE) }
    }

    /// Refuses a node that registers too often.
    pub(crate) fn admit(&self, node: &str) -> Result<(), Status> {
        let mut registrations = self.registrations.lock().unwrap_or_else(PoisonError::into_inner);
        registrations.admit(node, self.uptime.now()).map_err(|wait| {
            Status::unavailable(format!(
                "node {node} registers too often; try again in {:.1} s",
                wait.as_secs_f64()
            ))
        })
    }

    /// Waits for a place among those that register now.
    pub(crate) async fn place(&self) -> Result<SemaphorePermit<'_>, AcquireError> {
        self.places.acquire().await
    }
}
