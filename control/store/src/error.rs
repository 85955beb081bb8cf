use crate::types::{MAX_NODE_ID, ManagerId};
use openraft::error::{ClientWriteError, Fatal, RaftError};
use shoal_model::ApplyError;
use std::path::PathBuf;

/// Why the store could not be opened, or a proposal was not applied.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The state refused the proposal; nothing of it was applied.
    #[error(transparent)]
    Refused(#[from] ApplyError),
    /// Another manager leads.
    #[error("this manager does not lead the swarm{}", .leader.as_ref().map_or_else(
        || "; no manager does at the moment, try again".to_owned(),
        |leader| format!("; node {leader} does")
    ))]
    NotLeader {
        /// Node id of the leader, if known.
        leader: Option<String>,
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
        "the store in {} belongs to {members}, not to this node ({node_id}): the node's \
         certificates and its store do not come from the same node",
        .dir.display()
    )]
    OtherNode {
        /// Its folder.
        dir: PathBuf,
        /// This node's id.
        node_id: String,
        /// The managers the log names.
        members: String,
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
    /// openraft refused; its text.
    #[error("the replicated log: {0}")]
    Raft(String),
}

/// Why reading or writing the database failed.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// In the database.
    #[error("the database failed")]
    Database(#[source] Box<redb::Error>),
    /// Something in it cannot be read back.
    #[error("the {what} is damaged")]
    Format {
        /// What it is.
        what: &'static str,
        /// Why.
        source: serde_json::Error,
    },
    /// The program is ending.
    #[error("the program is ending")]
    Ending,
}

impl<E: Into<redb::Error>> From<E> for DiskError {
    fn from(error: E) -> DiskError {
        DiskError::Database(Box::new(error.into()))
    }
}

impl StoreError {
    pub(crate) fn raft(error: impl std::error::Error) -> StoreError {
        StoreError::Raft(error.to_string())
    }
}

impl From<Fatal<ManagerId>> for StoreError {
    fn from(error: Fatal<ManagerId>) -> StoreError {
        StoreError::Stopped(error.to_string())
    }
}

impl<N: openraft::Node> From<RaftError<ManagerId, ClientWriteError<ManagerId, N>>> for StoreError {
    fn from(error: RaftError<ManagerId, ClientWriteError<ManagerId, N>>) -> StoreError {
        match error {
            RaftError::APIError(ClientWriteError::ForwardToLeader(to)) => {
                StoreError::NotLeader { leader: to.leader_id.map(String::from) }
            }
            RaftError::APIError(ClientWriteError::ChangeMembershipError(error)) => {
                StoreError::raft(error)
            }
            RaftError::Fatal(error) => error.into(),
        }
    }
}
