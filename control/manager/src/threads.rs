//! Threads of the replicated log.
//!
//! A leader must be heard by the other managers within 400 ms whatever else it does, and hear them. In a runtime whose
//! tasks are many, or long, or wait for each other, what managers say to each other would wait its turn. On threads of its
//! own it is the kernel that shares the time out.
//!
//! There is one, as a write is a chain of short steps, of which each would wake another thread, where there is one, that
//! finds nothing left to do: with two a write took a fifth more of all processors. Whatever may take long (the disk, a state
//! that somebody reads, snapshots) is waited for elsewhere.
use crate::ManagerError;
use tokio::runtime::{Builder, Handle, Runtime};

/// A runtime that ends when this is dropped. Nobody waits for its tasks: the store has been closed by then.
pub(crate) struct RaftThreads {
    runtime: Option<Runtime>,
    handle: Handle,
}

impl RaftThreads {
    pub(crate) fn start() -> Result<RaftThreads, ManagerError> {
        let mut builder = Builder::new_multi_thread();
        let built = builder.worker_threads(1).thread_name("raft").enable_all().build();
        let runtime = built.map_err(ManagerError::Threads)?;
        Ok(RaftThreads { handle: runtime.handle().clone(), runtime: Some(runtime) })
    }

    pub(crate) fn handle(&self) -> Handle {
        self.handle.clone()
    }
}

impl Drop for RaftThreads {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
