//! Puts entries on the disk, on a thread of its own; behind the back of whoever leads.
//!
//! openraft sends entries to the other managers only once they are said to be in the leader's own log. A
//! leader therefore says so at once ([`Writer::later`]), and both disks write at the same time. What was
//! said too early is made good where it would be seen: nothing is applied, and so acknowledged, and nobody
//! is told that it is committed before it is on the leader's disk, too ([`Written`]). A leader that dies
//! before that has simply never had the entry: it asks for votes without it, and never leads on in the term
//! it lost the entry in (`Log::read_vote`).

use crate::{disk::Disk, error::DiskError, outside::DiskThread, types::Entry};
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{sync::watch, time::Instant};

/// Writes entries in the order they were handed over, those that wait in one transaction. What waits is
/// bounded by who hands over: `proposals` has few entries under way, and waits until they are applied.
pub(crate) struct Writer {
    disk: Arc<Disk>,
    thread: DiskThread,
    queue: Mutex<Queue>,
    progress: watch::Sender<Progress>,
}

#[derive(Default)]
struct Queue {
    waiting: Vec<Entry>,
    /// A thread is at it, and will look again.
    busy: bool,
}

#[derive(Default)]
struct Progress {
    /// The first entry that is not on the disk yet.
    pending: Option<u64>,
    /// Since when the disk has been at it.
    since: Option<Instant>,
    /// Nothing is written any more.
    failed: Option<Arc<DiskError>>,
}

impl Progress {
    fn begin(&mut self, pending: Option<u64>) {
        (self.pending, self.since) = (pending, pending.map(|_| Instant::now()));
    }

    fn has(&self, index: u64) -> bool {
        self.pending.is_none_or(|pending| index < pending)
    }
}

impl Writer {
    pub(crate) fn new(disk: Arc<Disk>) -> Result<Arc<Writer>, DiskError> {
        let (thread, queue, progress) =
            (DiskThread::start()?, Mutex::default(), watch::Sender::default());
        Ok(Arc::new(Writer { disk, thread, queue, progress }))
    }

    /// Takes entries that follow those before them.
    pub(crate) fn later(self: &Arc<Writer>, entries: Vec<Entry>) -> Result<(), Arc<DiskError>> {
        if let Some(error) = &self.progress.borrow().failed {
            return Err(error.clone());
        }
        let Some(first) = entries.first().map(|entry| entry.log_id.index) else { return Ok(()) };
        let mut queue = self.queue();
        queue.waiting.extend(entries);
        if !queue.busy {
            queue.busy = true;
            self.progress.send_if_modified(|progress| {
                progress.begin(Some(first));
                false // nobody waits for a beginning
            });
            let (writer, at_work) = (self.clone(), self.clone());
            self.thread.run(move || at_work.work(), move |error| writer.fail(error));
        }
        Ok(())
    }

    /// Writes until nothing waits.
    fn work(&self) -> Result<(), DiskError> {
        loop {
            let entries = {
                let mut queue = self.queue();
                let entries = std::mem::take(&mut queue.waiting);
                let first = entries.first().map(|entry| entry.log_id.index);
                queue.busy = first.is_some();
                // The first batch was announced when it was handed over.
                self.progress.send_if_modified(|progress| {
                    let news = progress.pending != first;
                    progress.begin(first);
                    news
                });
                entries
            };
            if entries.is_empty() {
                return Ok(());
            }
            self.disk.append(&entries)?;
        }
    }

    fn fail(&self, error: DiskError) {
        self.progress.send_modify(|progress| progress.failed = Some(Arc::new(error)));
    }

    /// How far it has come.
    pub(crate) fn written(&self) -> Written {
        Written(self.progress.subscribe())
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How far a [`Writer`] has come.
#[derive(Clone)]
pub(crate) struct Written(watch::Receiver<Progress>);

impl Written {
    /// Whether the entry, and so all before it, is on the disk.
    pub(crate) fn has(&self, index: u64) -> bool {
        self.0.borrow().has(index)
    }

    /// Whether one write has taken longer than this.
    pub(crate) fn hangs(&self, longer_than: Duration) -> bool {
        self.0.borrow().since.is_some_and(|since| since.elapsed() > longer_than)
    }

    /// Returns once the entry, and so all before it, is on the disk.
    pub(crate) async fn until(&self, index: u64) -> Result<(), Arc<DiskError>> {
        let mut progress = self.0.clone();
        let reached = progress.wait_for(|now| now.has(index) || now.failed.is_some()).await;
        match reached {
            Ok(now) if now.has(index) => Ok(()),
            Ok(now) => Err(now.failed.clone().unwrap_or_else(|| Arc::new(DiskError::Ending))),
            Err(_) => Err(Arc::new(DiskError::Ending)),
        }
    }

    /// Returns once nothing waits.
    pub(crate) async fn idle(&self) -> Result<(), Arc<DiskError>> {
        self.until(u64::MAX).await
    }
}
