//! Threads of the replicated log.
//!
//! A leader must be heard by the other managers within 400 ms whatever else it does, and hear them. In a runtime whose
//! tasks are many, or long, or wait for each other, what managers say to each other would wait its turn. On threads of its
//! own it is the kernel that shares the time out.
use crate::ManagerError;
use tokio::runtime::{Builder, Handle, Runtime};

/// One applies entries, which may wait for somebody who reads the state, while the other goes on.
const THREADS: usize = 2;

/// A runtime that ends when this is dropped. Nobody waits for its tasks: the store has been closed by then.
pub(crate) struct RaftThreads {
    runtime: Option<Runtime>,
    handle: Handle,
}

impl RaftThreads {
    pub(crate) fn start() -> Result<RaftThreads, ManagerError> {
        let mut builder = Builder::new_multi_thread();
        let built = builder.worker_threads(THREADS).thread_name("raft").enable_all().build();
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
