//! Gathers proposals that wait at the same time into one log entry.
//!
//! One task, which ends when the last [`Proposals`] is dropped, and one per entry under way. There are
//! few of these, and whatever arrives meanwhile goes into the next.

use crate::{
    bugs::{self, Bug},
    error::StoreError,
    leadership::{Leadership, not_leader, while_leading},
    network::Contacts,
    outside,
    types::{Ahead, Batch, ManagerId, Peer, Raft, Transaction, Types},
};
use openraft::{
    error::{ClientWriteError, RaftError},
    raft::ClientWriteResponse,
};
use shoal_model::{Change, Timestamp};
use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

/// The largest proposal, bytes of JSON. Docker's bound is 1.5 MiB too (a Raft entry must fit into
/// a message).
pub const MAX_PROPOSAL_BYTES: usize = 3 << 19;

/// Proposals that wait; more make their callers wait.
const QUEUE: usize = 256;

/// Entries under way: while the other managers write one, the leader writes the next.
const UNDER_WAY: usize = 2;

/// Proposals in one entry.
const MAX_BATCH: usize = 128;

/// No more proposals are added to an entry of this size, so one never exceeds it by more than
/// [`MAX_PROPOSAL_BYTES`].
const MAX_BATCH_BYTES: usize = 1 << 20;

/// How often it is looked whether the lead has been given away.
const PAUSE: Duration = Duration::from_millis(10);

pub(crate) struct Proposals(mpsc::Sender<Proposal>);

struct Proposal {
    transaction: Arc<[u8]>,
    ahead: Arc<Ahead>,
    answer: oneshot::Sender<Result<u64, StoreError>>,
}

impl Proposals {
    pub(crate) fn start(
        raft: Raft,
        leadership: watch::Receiver<Leadership>,
        contacts: Arc<Contacts>,
    ) -> Proposals {
        let (sender, receiver) = mpsc::channel(QUEUE);
        tokio::spawn(gather(raft, leadership, contacts, receiver));
        Proposals(sender)
    }

    pub(crate) async fn propose(&self, changes: Vec<Change>) -> Result<u64, StoreError> {
        let transaction = Transaction { now: now(), changes };
        let transaction: Arc<[u8]> = transaction.encode().map_err(StoreError::raft)?.into();
        let bytes = transaction.len();
        if bytes > MAX_PROPOSAL_BYTES {
            return Err(StoreError::TooLarge { bytes, max: MAX_PROPOSAL_BYTES });
        }
        let stopped = || StoreError::Stopped("nobody takes proposals any more".into());
        let (answer, answered) = oneshot::channel();
        let ahead = Arc::<Ahead>::default();
        let proposal = Proposal { transaction: transaction.clone(), ahead: ahead.clone(), answer };
        self.0.send(proposal).await.map_err(|_| stopped())?;
        ahead.read(&transaction);
        answered.await.map_err(|_| stopped())?
    }
}

async fn gather(
    raft: Raft,
    leadership: watch::Receiver<Leadership>,
    contacts: Arc<Contacts>,
    mut waiting: mpsc::Receiver<Proposal>,
) {
    let under_way = Arc::new(Semaphore::new(UNDER_WAY));
    loop {
        // A place first: whatever arrives until there is one shares the entry.
        let Ok(place) = under_way.clone().acquire_owned().await else { return };
        let Some(first) = waiting.recv().await else { return };
        let mut bytes = first.transaction.len();
        let mut transactions = vec![first.transaction];
        let (mut ahead, mut answers) = (vec![first.ahead], vec![first.answer]);
        while transactions.len() < MAX_BATCH && bytes < MAX_BATCH_BYTES {
            let Ok(next) = waiting.try_recv() else { break };
            bytes += next.transaction.len();
            transactions.push(next.transaction);
            ahead.push(next.ahead);
            answers.push(next.answer);
        }
        if bugs::active(Bug::Reorder) {
            transactions.reverse();
            ahead.reverse();
            answers.reverse();
        }
        while contacts.silent.load(Ordering::Relaxed) && leadership.borrow().ours {
            tokio::time::sleep(PAUSE).await;
        }
        let written = match leadership.borrow().ours {
            true => Ok(Batch::new(&transactions).read_by(ahead)),
            false => Err(not_leader(&leadership)),
        };
        // Handed over here, so that entries are in the order of the proposals.
        let written = match written {
            Ok(batch) => raft.client_write_ff(batch).await.map_err(StoreError::from),
            Err(error) => Err(error),
        };
        let leadership = leadership.clone();
        tokio::spawn(async move {
            let written = match written {
                Ok(response) => while_leading(leadership, answered(response)).await,
                Err(error) => Err(error),
            };
            drop(place);
            answer(answers, written);
        });
    }
}

type Written = Result<ClientWriteResponse<Types>, ClientWriteError<ManagerId, Peer>>;

async fn answered(
    response: impl Future<Output = Result<Written, impl std::error::Error>>,
) -> Result<ClientWriteResponse<Types>, StoreError> {
    match response.await {
        Ok(written) => written.map_err(|error| RaftError::APIError(error).into()),
        Err(_) => Err(StoreError::Stopped("the log has ended".into())),
    }
}

fn answer(
    answers: Vec<oneshot::Sender<Result<u64, StoreError>>>,
    written: Result<ClientWriteResponse<Types>, StoreError>,
) {
    match written {
        Ok(response) => {
            debug_assert_eq!(response.data.len(), answers.len());
            for (answer, result) in answers.into_iter().zip(response.data) {
                drop(answer.send(result.map_err(StoreError::Refused)));
            }
        }
        Err(error) => {
            for answer in answers {
                drop(answer.send(Err(error.again())));
            }
        }
    }
}

fn now() -> Timestamp {
    Timestamp::default().after(outside::now())
}
