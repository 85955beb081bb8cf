//! The other side of the calls: what other managers ask of this one.

use crate::{
    Store,
    elector::{Alive, Ask, STALL, would_vote},
    error::StoreError,
    handover::TakeOver,
    transport::RaftCall,
    types::{ManagerId, Types, Vote},
    wire,
};
use openraft::raft::{AppendEntriesRequest, InstallSnapshotRequest, VoteRequest};
use serde::{Serialize, de::DeserializeOwned};
use tokio::time::Instant;

/// Bytes of the largest snapshot that is taken in. It is kept in memory until it is complete.
const MAX_SNAPSHOT_BYTES: u64 = 4 << 30;

impl Store {
    /// Answers a call of another manager. `from` is its node id as its certificate proves it; whether
    /// it is a manager at all is the caller's to check, because a manager that was away may not
    /// know the newest ones by its own log. What a manager says in another's name is refused.
    pub async fn handle(
        &self,
        from: &str,
        call: RaftCall,
        request: &[u8],
    ) -> Result<Vec<u8>, StoreError> {
        let caller = Caller { from, call };
        match call {
            RaftCall::Append => {
                let request: AppendEntriesRequest<Types> = caller.decode(request)?;
                let id = caller.check(&request.vote)?;
                let _heard = self.leads(&request.vote).then(|| self.contacts().leader_calls(id));
                caller.encode(&self.raft().append_entries(request).await)
            }
            RaftCall::Vote => {
                let request: VoteRequest<ManagerId> = caller.decode(request)?;
                caller.check(&request.vote)?;
                caller.encode(&self.raft().vote(request).await)
            }
            RaftCall::Snapshot => {
                let request: InstallSnapshotRequest<Types> = caller.decode(request)?;
                let id = caller.check(&request.vote)?;
                if request.offset + request.data.len() as u64 > MAX_SNAPSHOT_BYTES {
                    return Err(caller.refuse(format!(
                        "the snapshot is larger than {MAX_SNAPSHOT_BYTES} bytes"
                    )));
                }
                let _heard = self.leads(&request.vote).then(|| self.contacts().leader_calls(id));
                caller.encode(&self.raft().install_snapshot(request).await)
            }
            RaftCall::Alive => {
                let Alive { vote } = caller.decode(request)?;
                let id = caller.check(&vote)?;
                // openraft itself has not heard of it: only a leader it knows counts.
                if vote != self.raft().metrics().borrow().vote {
                    return Err(caller.refuse("it is not the leader this manager knows".to_owned()));
                }
                self.contacts().leader_lives(id);
                match self.contacts().hangs(STALL) {
                    true => Err(caller.refuse("the disk of this manager hangs".to_owned())),
                    false => caller.encode(&()),
                }
            }
            RaftCall::TakeOver => {
                let TakeOver { vote } = caller.decode(request)?;
                caller.check(&vote)?;
                if vote != self.raft().metrics().borrow().vote {
                    return Err(caller.refuse("it does not lead".to_owned()));
                }
                self.raft().trigger().elect().await?;
                caller.encode(&())
            }
            RaftCall::Ask => {
                let ask: Ask = caller.decode(request)?;
                caller.is(ask.candidate)?;
                let own_last = self.raft().data_metrics().borrow().last_log;
                let since = self.contacts().leader_heard().map(|at| at.elapsed());
                let mut candidacy = self.contacts().candidacy();
                let now = Instant::now();
                let rival = candidacy.is_under_way(now).then(|| self.raft().metrics().borrow().id);
                let answer = would_vote(own_last, &ask, self.is_leader(), since, rival);
                if answer {
                    candidacy.stand_back(now);
                }
                drop(candidacy);
                caller.encode(&answer)
            }
        }
    }
}

impl Store {
    /// Whether the vote is the present leader's, or a newer one's.
    fn leads(&self, vote: &Vote) -> bool {
        *vote >= self.raft().metrics().borrow().vote
    }
}

struct Caller<'a> {
    from: &'a str,
    call: RaftCall,
}

impl Caller<'_> {
    /// Who leads, or wants to, must be who calls.
    fn check(&self, vote: &Vote) -> Result<ManagerId, StoreError> {
        self.is(vote.leader_id.node_id)
    }

    fn is(&self, id: ManagerId) -> Result<ManagerId, StoreError> {
        match id.to_string() == self.from {
            true => Ok(id),
            false => Err(self.refuse(format!("it speaks in the name of {id}"))),
        }
    }

    fn decode<T: DeserializeOwned>(&self, request: &[u8]) -> Result<T, StoreError> {
        wire::decode(request).map_err(|error| self.refuse(error.to_string()))
    }

    fn encode(&self, answer: &impl Serialize) -> Result<Vec<u8>, StoreError> {
        wire::encode(answer).map_err(|error| self.refuse(error.to_string()))
    }

    fn refuse(&self, reason: String) -> StoreError {
        StoreError::Call { from: self.from.to_owned(), call: self.call, reason }
    }
}
