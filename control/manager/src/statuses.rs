//! What agents report of their tasks, gathered into proposals.
use crate::{edit, error::chain, manager::Inner};
use shoal_model::{Change, Object, State, Task, TaskState, TaskStatus};
use std::{collections::BTreeMap, sync::Arc};
use tokio::sync::mpsc;

/// Reports that may wait; a session that reports more waits itself.
const QUEUE: usize = 1_000;

/// Reports of one proposal.
const BATCH: usize = 200;

/// Longest text kept of a status, bytes.
const LONGEST_TEXT: usize = 4_096;

/// A report of a node about a task.
pub(crate) struct Report {
    pub(crate) node: String,
    pub(crate) task: String,
    pub(crate) status: TaskStatus,
}

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
            let changes = changes(state, &batch);
            (!changes.is_empty()).then_some(changes)
        });
        if let Err(error) = written.await {
            tracing::error!(error = %chain(&error), "cannot write what nodes report");
            // They report everything again when they come back.
            batch.iter().for_each(|report| inner.sessions.end(&report.node));
        }
    }
}

/// The tasks with what was reported, as far as it may be.
fn changes(state: &State, batch: &[Report]) -> Vec<Change> {
    let mut tasks: BTreeMap<&str, Task> = BTreeMap::new();
    for report in batch {
        let present = tasks.get(report.task.as_str()).or_else(|| state.tasks.get(&report.task));
        let Some(present) = present.filter(|task| acceptable(task, report)) else { continue };
        let mut task = present.clone();
        task.status = bounded(report.status.clone());
        tasks.insert(&report.task, task);
    }
    let changed = tasks.into_values().filter(|t| state.tasks.get(&t.id) != Some(t));
    changed.map(|task| Change::Put(Object::Task(task))).collect()
}

/// Only a task's own node may report it, only states it owns, and never backwards.
fn acceptable(task: &Task, report: &Report) -> bool {
    let (from, to) = (task.status.state, report.status.state);
    let own = task.node_id.as_deref() == Some(&report.node);
    let agents = (TaskState::Accepted..=TaskState::Rejected).contains(&to);
    let forward = to > from && !from.is_terminal() || to == from;
    if !(own && agents && forward) {
        tracing::debug!(report.node, task.id, ?from, ?to, own, "report not accepted");
    }
    own && agents && forward
}

fn bounded(mut status: TaskStatus) -> TaskStatus {
    for text in [&mut status.message, &mut status.err] {
        let mut end = text.len().min(LONGEST_TEXT);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
    }
    status
}
