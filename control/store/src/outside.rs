//! What the store takes from outside besides its network: the time of day, chance, and threads that wait
//! for the disk.
//!
//! The tests on a simulated network (`tests/raft`) build this crate's source once more with `simulated.rs` in
//! the place of this file, where the simulation gives all of it and watches what is applied.

use crate::{
    disk::Disk,
    error::DiskError,
    types::{Entry, LogId},
};
use rand::Rng as _;
use redb::backends::FileBackend;
use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::mpsc,
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::{
    runtime::{Handle, RuntimeFlavor},
    sync::oneshot,
    task::block_in_place,
};

/// Nice value of a thread that gives way: a tenth of the time where others want it, too.
const GIVES_WAY: i32 = 10;

/// Since 1970.
pub(crate) fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// From 0 to 1.
pub(crate) fn random() -> f64 {
    rand::rng().random()
}

/// A file of the store in `dir`, as it is used.
pub(crate) fn file(_dir: &Path, file: FileBackend) -> FileBackend {
    file
}

/// An entry is about to be applied.
#[inline(always)]
pub(crate) fn applying(_: &Disk, _: &Entry) {}

/// A snapshot up to an entry has taken the place of the state.
#[inline(always)]
pub(crate) fn installed(_: &Disk, _: Option<LogId>) {}

/// Runs blocking work beside the runtime's threads.
pub(crate) async fn blocking<R: Send + 'static>(
    work: impl FnOnce() -> R + Send + 'static,
) -> Result<R, DiskError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => Ok(result),
        Err(error) if error.is_panic() => Err(panicked(&*error.into_panic())),
        Err(_) => Err(DiskError::Ending),
    }
}

/// Runs long work that nobody waits for, on a thread of its own that gives way to all others of this process.
pub(crate) async fn background<R: Send + 'static>(
    work: impl FnOnce() -> R + Send + 'static,
) -> Result<R, DiskError> {
    let (done, result) = oneshot::channel();
    let thread = thread::Builder::new().name("background".to_owned()).spawn(move || {
        // On Linux this is the thread's own. Where it is not allowed the work is done all the same.
        if let Err(error) = rustix::process::setpriority_process(None, GIVES_WAY) {
            tracing::debug!(%error, "cannot lower a thread's priority");
        }
        let _ = done.send(catch_unwind(AssertUnwindSafe(work)));
    });
    thread.map_err(DiskError::Thread)?;
    match result.await {
        Ok(Ok(result)) => Ok(result),
        Ok(Err(panic)) => Err(panicked(&*panic)),
        Err(_) => Err(DiskError::Ending),
    }
}

/// A thread that waits for the disk so that no other has to, for one piece of work after another. It ends when this is
/// dropped and what it was given is done.
pub(crate) struct DiskThread(mpsc::Sender<Box<dyn FnOnce() + Send>>);

impl DiskThread {
    pub(crate) fn start() -> Result<DiskThread, DiskError> {
        let (sender, receiver) = mpsc::channel::<Box<dyn FnOnce() + Send>>();
        let thread = thread::Builder::new().name("raft-log".to_owned());
        let started = thread.spawn(move || receiver.into_iter().for_each(|work| work()));
        started.map_err(DiskError::Thread)?;
        Ok(DiskThread(sender))
    }

    /// Has work done; `failed` is told when it was not.
    pub(crate) fn run(
        &self,
        work: impl FnOnce() -> Result<(), DiskError> + Send + 'static,
        failed: impl FnOnce(DiskError) + Send + 'static,
    ) {
        let work = move || match catch_unwind(AssertUnwindSafe(work)) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => failed(error),
            Err(panic) => failed(panicked(&*panic)),
        };
        // The thread is there as long as this is: work does not panic.
        let _ = self.0.send(Box::new(work));
    }
}

/// Waits on this thread of the runtime for what is seldom held for long, and lets another take over what else there is
/// to do.
pub(crate) fn waiting<R>(wait: impl FnOnce() -> R) -> R {
    match Handle::try_current().map(|runtime| runtime.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => block_in_place(wait),
        _ => wait(),
    }
}

/// redb panics on pages that make no sense; the log must end with a reason then.
fn panicked(panic: &(dyn Any + Send)) -> DiskError {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("?");
    DiskError::Panic(text.to_owned())
}
