//! Gathers proposals that wait at the same time into one log entry.
//!
//! One task; it ends when the last [`Proposals`] is dropped. One entry is under way at a time, and
//! whatever arrives meanwhile goes into the next.

use crate::{
    error::StoreError,
    types::{Batch, Raft, Transaction},
};
use shoal_model::{Change, Timestamp};
use std::{
    io,
    time::{SystemTime, UNIX_EPOCH},
};
use tokio::sync::{mpsc, oneshot};

/// The largest proposal, bytes of JSON. Docker's bound is 1.5 MiB too (a Raft entry must fit into
/// a message).
pub const MAX_PROPOSAL_BYTES: usize = 3 << 19;

/// Proposals that wait; more make their callers wait.
const QUEUE: usize = 256;

/// Proposals in one entry.
const MAX_BATCH: usize = 128;

/// No more proposals are added to an entry of this size, so one never exceeds it by more than
/// [`MAX_PROPOSAL_BYTES`].
const MAX_BATCH_BYTES: usize = 1 << 20;

pub(crate) struct Proposals(mpsc::Sender<Proposal>);

struct Proposal {
    transaction: Transaction,
    bytes: usize,
    answer: oneshot::Sender<Result<u64, StoreError>>,
}

impl Proposals {
    pub(crate) fn start(raft: Raft) -> Proposals {
        let (sender, receiver) = mpsc::channel(QUEUE);
        tokio::spawn(gather(raft, receiver));
        Proposals(sender)
    }

    pub(crate) async fn propose(&self, changes: Vec<Change>) -> Result<u64, StoreError> {
        let transaction = Transaction { now: now(), changes };
        let mut bytes = Counter(0);
        serde_json::to_writer(&mut bytes, &transaction).map_err(StoreError::raft)?;
        let bytes = bytes.0;
        if bytes > MAX_PROPOSAL_BYTES {
            return Err(StoreError::TooLarge { bytes, max: MAX_PROPOSAL_BYTES });
        }
        let stopped = || StoreError::Stopped("nobody takes proposals any more".into());
        let (answer, answered) = oneshot::channel();
        let proposal = Proposal { transaction, bytes, answer };
        self.0.send(proposal).await.map_err(|_| stopped())?;
        answered.await.map_err(|_| stopped())?
    }
}

async fn gather(raft: Raft, mut waiting: mpsc::Receiver<Proposal>) {
    while let Some(first) = waiting.recv().await {
        let mut bytes = first.bytes;
        let (mut transactions, mut answers) = (vec![first.transaction], vec![first.answer]);
        while transactions.len() < MAX_BATCH && bytes < MAX_BATCH_BYTES {
            let Ok(next) = waiting.try_recv() else { break };
            bytes += next.bytes;
            transactions.push(next.transaction);
            answers.push(next.answer);
        }
        match raft.client_write(Batch(transactions)).await {
            Ok(response) => {
                debug_assert_eq!(response.data.len(), answers.len());
                for (answer, result) in answers.into_iter().zip(response.data) {
                    drop(answer.send(result.map_err(StoreError::Refused)));
                }
            }
            Err(error) => {
                for answer in answers {
                    drop(answer.send(Err(error.clone().into())));
                }
            }
        }
    }
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::default().after(since)
}

/// Counts what would be written.
struct Counter(usize);

impl io::Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
