//! What the log holds.

use openraft::EmptyNode;
use serde::{Deserialize, Serialize};
use shoal_model::{ApplyError, Change, Timestamp};
use std::{fmt, io::Cursor};

openraft::declare_raft_types!(
    /// openraft's types for this store.
    pub(crate) Types:
        D = Batch,
        R = Vec<Result<u64, ApplyError>>,
        NodeId = ManagerId,
        Node = EmptyNode,
        SnapshotData = Cursor<Vec<u8>>,
);

pub(crate) type Raft = openraft::Raft<Types>;
pub(crate) type Entry = openraft::Entry<Types>;
pub(crate) type LogId = openraft::LogId<ManagerId>;
pub(crate) type Vote = openraft::Vote<ManagerId>;
pub(crate) type StoredMembership = openraft::StoredMembership<ManagerId, EmptyNode>;
pub(crate) type SnapshotMeta = openraft::SnapshotMeta<ManagerId, EmptyNode>;
pub(crate) type StorageError = openraft::StorageError<ManagerId>;

/// Node id of a manager. openraft copies ids about, so it is an array, padded with zeros. The empty
/// one is openraft's: nobody's, in the id of the very first log entry.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct ManagerId([u8; MAX_NODE_ID]);

/// Characters of a node id.
pub(crate) const MAX_NODE_ID: usize = 25;

impl ManagerId {
    fn as_str(&self) -> &str {
        let text = self.0.split(|b| *b == 0).next().unwrap_or_default();
        str::from_utf8(text).expect("only made from ASCII text")
    }
}

impl TryFrom<String> for ManagerId {
    type Error = NotAnId;

    fn try_from(text: String) -> Result<ManagerId, NotAnId> {
        if text.len() > MAX_NODE_ID || !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(NotAnId(text));
        }
        let mut id = ManagerId::default();
        id.0[..text.len()].copy_from_slice(text.as_bytes());
        Ok(id)
    }
}

impl From<ManagerId> for String {
    fn from(id: ManagerId) -> String {
        id.as_str().to_owned()
    }
}

impl fmt::Display for ManagerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for ManagerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that is no node id.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not a node id: 1 to {MAX_NODE_ID} printable ASCII characters")]
pub(crate) struct NotAnId(pub(crate) String);

/// One log entry: proposals that were made at about the same time, each on its own.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Batch(pub(crate) Vec<Transaction>);

/// A proposal.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Transaction {
    /// When it was proposed.
    pub(crate) now: Timestamp,
    /// Applied whole or not at all.
    pub(crate) changes: Vec<Change>,
}

/// Without the changes: the cluster's key and tokens are among them, and openraft logs entries.
impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Batch({} transactions)", self.0.len())
    }
}
