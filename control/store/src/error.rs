use crate::{
    keys::KeyError,
    transport::RaftCall,
    types::{MAX_NODE_ID, ManagerId, Peer},
};
use openraft::AnyError;
use openraft::error::{CheckIsLeaderError, ClientWriteError, Fatal, ForwardToLeader, RaftError};
use shoal_model::ApplyError;
use std::{error::Error, path::PathBuf, time::Duration};

/// Why the store could not be opened, or a proposal was not applied.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The state refused the proposal; nothing of it was applied.
    #[error(transparent)]
    Refused(#[from] ApplyError),
    /// Another manager leads.
    #[error("this manager does not lead the swarm; node {leader} does")]
    NotLeader {
        /// Node id of the leader.
        leader: String,
    },
    /// Nobody leads, or nobody can be reached who does. Docker's text.
    #[error(
        "rpc error: code = Unknown desc = The swarm does not have a leader. It's possible that too \
         few managers are online. Make sure more than half of the managers are online."
    )]
    NoLeader,
    /// The lead was lost while a change was under way.
    #[error(
        "this manager lost the lead while the change was under way: it may or may not have been \
         made, look before you try again"
    )]
    Interrupted,
    /// A manager was being taken in and did not receive the log in time.
    #[error(
        "manager {node_id} did not receive the cluster's state within {} s: is {addr} reachable from \
         the other managers?",
        .patience.as_secs()
    )]
    NotCaughtUp {
        /// Its node id.
        node_id: String,
        /// Where it was to be reached.
        addr: String,
        /// How long was waited.
        patience: Duration,
    },
    /// Docker's text.
    #[error("attempting to demote the last manager of the swarm")]
    LastManager,
    /// Docker's text, and why.
    #[error(
        "can't remove member from the raft: this would result in a loss of quorum ({reachable} of the \
         {voters} managers that would stay are reachable)"
    )]
    QuorumLoss {
        /// Managers that stay and can be reached.
        reachable: usize,
        /// Managers that stay.
        voters: usize,
    },
    /// The lead could not be given away.
    #[error(
        "no other manager could take the lead: is one reachable, and has it received everything?"
    )]
    NoSuccessor,
    /// Docker's text.
    #[error("can't find manager {node_id} in raft memberlist")]
    NoMember {
        /// The node id asked for.
        node_id: String,
    },
    /// This node was a manager and is none any more.
    #[error(
        "this node ({node_id}) was removed from the managers; the store in {} is of no use any more: \
         remove the folder and join the swarm anew",
        .dir.display()
    )]
    Removed {
        /// The store's folder.
        dir: PathBuf,
        /// This node's id.
        node_id: String,
    },
    /// Another manager sent what it must not, or what cannot be read.
    #[error("the call {call} of manager {from} is refused: {reason}")]
    Call {
        /// Who called.
        from: String,
        /// What was called.
        call: RaftCall,
        /// What is wrong with it.
        reason: String,
    },
    /// More than fits into a log entry.
    #[error("the change is too large: {bytes} bytes, at most {max} are possible")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The bound.
        max: usize,
    },
    /// The store has stopped, by [`crate::Store::shutdown`] or because its disk failed.
    #[error("the store has stopped: {0}")]
    Stopped(String),
    /// Somebody has it open.
    #[error(
        "the store in {} is in use by another process: is a second daemon running with this data \
         root? Stop it, or give this one its own --data-root",
        .dir.display()
    )]
    InUse {
        /// Its folder.
        dir: PathBuf,
    },
    /// There is none to open.
    #[error("there is no store in {}: this node is not a manager of a swarm yet", .dir.display())]
    Missing {
        /// The folder.
        dir: PathBuf,
    },
    /// There is one already.
    #[error(
        "there is a store in {} already: leave the swarm first, or remove the folder",
        .dir.display()
    )]
    Exists {
        /// The folder.
        dir: PathBuf,
    },
    /// The node id given.
    #[error("{0:?} is not a node id: 1 to {MAX_NODE_ID} printable ASCII characters")]
    NodeId(String),
    /// It is another node's.
    #[error(
        "the store in {} belongs to {owner}, not to this node ({node_id}): the node's \
         certificates and its store do not come from the same node",
        .dir.display()
    )]
    OtherNode {
        /// Its folder.
        dir: PathBuf,
        /// This node's id.
        node_id: String,
        /// Whose it is.
        owner: String,
    },
    /// The files cannot be read or written.
    #[error("cannot {action} {}", .path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The files are there but damaged.
    #[error(
        "cannot read the store in {}; restore it from a backup, or remove the folder and join the \
         swarm anew",
        .path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Why.
        source: redb::DatabaseError,
    },
    /// Reading or writing an open store failed.
    #[error("reading or writing the store failed")]
    Disk(#[from] DiskError),
    /// The key that seals the files cannot be had.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// openraft refused; its text.
    #[error("the replicated log: {0}")]
    Raft(String),
}

/// Why reading or writing the files failed.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// In the database.
    #[error("the database of the store failed")]
    Database(#[source] Box<redb::Error>),
    /// A file beside the database.
    #[error("cannot {action} {}", .path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// What was read does not carry its seal.
    #[error(
        "the {what} in {} cannot be read; restore the store from a backup, or remove its folder and \
         join the swarm anew",
        .path.display()
    )]
    Sealed {
        /// What it is.
        what: String,
        /// The file it is in.
        path: PathBuf,
        /// What is wrong.
        source: Box<dyn Error + Send + Sync>,
    },
    /// Something in it cannot be understood.
    #[error("the {what} cannot be understood: was it written by another version of this program?")]
    Format {
        /// What it is.
        what: &'static str,
        /// Why.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The database found itself in a state that cannot be.
    #[error(
        "the database of the store is damaged ({0}); restore it from a backup, or remove its folder \
         and join the swarm anew"
    )]
    Panic(String),
    /// The system gives no thread.
    #[error(
        "no thread for the store: is the limit of processes or of the control group's pids reached?"
    )]
    Thread(#[source] std::io::Error),
    /// The program is ending.
    #[error("the program is ending")]
    Ending,
}

impl<E: Into<redb::Error>> From<E> for DiskError {
    fn from(error: E) -> DiskError {
        DiskError::Database(Box::new(error.into()))
    }
}

/// For openraft, which keeps texts only: the error with its causes.
pub(crate) fn any(error: &DiskError) -> AnyError {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    AnyError::error(text)
}

impl StoreError {
    /// The same once more, for another who waits for the same log entry.
    pub(crate) fn again(&self) -> StoreError {
        match self {
            StoreError::NotLeader { leader } => StoreError::NotLeader { leader: leader.clone() },
            StoreError::NoLeader => StoreError::NoLeader,
            StoreError::Interrupted => StoreError::Interrupted,
            StoreError::Stopped(reason) => StoreError::Stopped(reason.clone()),
            other => StoreError::Raft(other.to_string()),
        }
    }

    pub(crate) fn raft(error: impl Error) -> StoreError {
        StoreError::Raft(error.to_string())
    }
}

impl From<Fatal<ManagerId>> for StoreError {
    fn from(error: Fatal<ManagerId>) -> StoreError {
        StoreError::Stopped(error.to_string())
    }
}

impl From<RaftError<ManagerId, ClientWriteError<ManagerId, Peer>>> for StoreError {
    fn from(error: RaftError<ManagerId, ClientWriteError<ManagerId, Peer>>) -> StoreError {
        match error {
            RaftError::APIError(ClientWriteError::ForwardToLeader(to)) => to.into(),
            RaftError::APIError(ClientWriteError::ChangeMembershipError(error)) => {
                StoreError::raft(error)
            }
            RaftError::Fatal(error) => error.into(),
        }
    }
}

impl From<RaftError<ManagerId, CheckIsLeaderError<ManagerId, Peer>>> for StoreError {
    fn from(error: RaftError<ManagerId, CheckIsLeaderError<ManagerId, Peer>>) -> StoreError {
        match error {
            RaftError::APIError(CheckIsLeaderError::ForwardToLeader(to)) => to.into(),
            RaftError::APIError(CheckIsLeaderError::QuorumNotEnough(_)) => StoreError::NoLeader,
            RaftError::Fatal(error) => error.into(),
        }
    }
}

impl From<ForwardToLeader<ManagerId, Peer>> for StoreError {
    fn from(to: ForwardToLeader<ManagerId, Peer>) -> StoreError {
        match to.leader_id {
            Some(leader) => StoreError::NotLeader { leader: leader.into() },
            None => StoreError::NoLeader,
        }
    }
}
