//! What the log holds.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Visitor};
use shoal_model::{ApplyError, Change, Timestamp};
use std::{fmt, io::Cursor, sync::Arc};

openraft::declare_raft_types!(
    /// openraft's types for this store.
    pub(crate) Types:
        D = Batch,
        R = Vec<Result<u64, ApplyError>>,
        NodeId = ManagerId,
        Node = Peer,
        SnapshotData = Cursor<Vec<u8>>,
);

pub(crate) type Raft = openraft::Raft<Types>;
pub(crate) type Entry = openraft::Entry<Types>;
pub(crate) type LogId = openraft::LogId<ManagerId>;
pub(crate) type Vote = openraft::Vote<ManagerId>;
pub(crate) type Membership = openraft::Membership<ManagerId, Peer>;
pub(crate) type StoredMembership = openraft::StoredMembership<ManagerId, Peer>;
pub(crate) type SnapshotMeta = openraft::SnapshotMeta<ManagerId, Peer>;
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

/// Where a manager is reached.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub(crate) struct Peer {
    /// Host and port.
    pub(crate) addr: String,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.addr)
    }
}

/// A text that is no node id.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not a node id: 1 to {MAX_NODE_ID} printable ASCII characters")]
pub(crate) struct NotAnId(pub(crate) String);

/// One log entry: proposals that were made at about the same time, each on its own. It stays encoded
/// on its way to the disk and to the other managers, and is read only when it is applied.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Batch(Arc<[u8]>);

impl Batch {
    /// Joins what [`Transaction::encode`] returned.
    pub(crate) fn new(transactions: &[Vec<u8>]) -> Batch {
        let mut json =
            Vec::with_capacity(2 + transactions.iter().map(|t| t.len() + 1).sum::<usize>());
        json.push(b'[');
        for (i, transaction) in transactions.iter().enumerate() {
            if i > 0 {
                json.push(b',');
            }
            json.extend_from_slice(transaction);
        }
        json.push(b']');
        Batch(json.into())
    }

    pub(crate) fn transactions(&self) -> serde_json::Result<Vec<Transaction>> {
        serde_json::from_slice(&self.0)
    }

    /// Of what it holds.
    #[cfg(feature = "seeded-bugs")]
    pub(crate) fn digest(&self) -> u32 {
        crc32fast::hash(&self.0)
    }

    /// Bytes it takes.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

impl Serialize for Batch {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Batch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Batch, D::Error> {
        struct Bytes;

        impl Visitor<'_> for Bytes {
            type Value = Batch;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the bytes of a log entry")
            }

            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Batch, E> {
                Ok(Batch(bytes.into()))
            }
        }

        deserializer.deserialize_bytes(Bytes)
    }
}

/// A proposal.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Transaction {
    /// When it was proposed.
    pub(crate) now: Timestamp,
    /// Applied whole or not at all.
    pub(crate) changes: Vec<Change>,
}

impl Transaction {
    /// JSON: the objects are Docker's own types, which only a format with names can carry, and
    /// which managers of different versions must both be able to read.
    pub(crate) fn encode(&self) -> serde_json::Result<Vec<u8>> {
        serde_json::to_vec(self)
    }
}

/// Without the changes: the cluster's key and tokens are among them, and openraft logs entries.
impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Batch({} bytes)", self.len())
    }
}
