//! What agents report of their tasks, gathered into proposals.
use crate::{edit, error::chain, manager::Inner};
use shoal_cores::{Report, accept};
use std::sync::Arc;
use tokio::sync::mpsc;

/// Reports that may wait; a session that reports more waits itself.
const QUEUE: usize = 1_000;

/// Reports of one proposal.
const BATCH: usize = 200;

pub(crate) type Sender = mpsc::Sender<Report>;
pub(crate) type Receiver = mpsc::Receiver<Report>;

pub(crate) fn channel() -> (Sender, Receiver) {
    mpsc::channel(QUEUE)
}

/// Writes reports until the manager stops.
pub(crate) async fn run(inner: Arc<Inner>, mut reports: Receiver) {
    loop {
        let first = tokio::select! {
            () = inner.stop.cancelled() => return,
            report = reports.recv() => report,
        };
        let Some(first) = first else { return };
        // What comes while a proposal is under way shares the next; nothing waits for company.
        let mut batch = vec![first];
        while batch.len() < BATCH
            && let Ok(report) = reports.try_recv()
        {
            batch.push(report);
        }
        let written = edit::change(&inner.store, |state| {
            let changes = accept(state, &batch);
            (!changes.is_empty()).then_some(changes)
        });
        if let Err(error) = written.await {
            tracing::error!(error = %chain(&error), "cannot write what nodes report");
            // They report everything again when they come back.
            batch.iter().for_each(|report| inner.sessions.end(&report.node));
        }
    }
}
