//! What the log holds.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Visitor};
use shoal_model::{ApplyError, Change, Timestamp};
use std::{
    fmt,
    io::Cursor,
    sync::{Arc, Mutex, PoisonError},
};

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
#[derive(Clone)]
pub(crate) struct Batch {
    json: Arc<[u8]>,
    /// One of each proposal, if they were made here.
    ahead: Option<Arc<[Arc<Ahead>]>>,
}

/// A proposal that was read ahead by whoever made it, while the log was at work.
#[derive(Default)]
pub(crate) struct Ahead(Mutex<Reading>);

#[derive(Default)]
enum Reading {
    #[default]
    Open,
    Done(Transaction),
    /// It has been applied: what comes now is too late.
    Closed,
}

impl Ahead {
    /// Reads what the log has; what was proposed must not be applied in its place, lest one manager apply something else
    /// than the others. Whether it can be read will be seen when it is applied.
    pub(crate) fn read(&self, transaction: &[u8]) {
        let read = serde_json::from_slice(transaction);
        let mut reading = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let (Reading::Open, Ok(transaction)) = (&*reading, read) {
            *reading = Reading::Done(transaction);
        }
    }

    fn take(&self) -> Option<Transaction> {
        let mut reading = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match std::mem::replace(&mut *reading, Reading::Closed) {
            Reading::Done(transaction) => Some(transaction),
            Reading::Open | Reading::Closed => None,
        }
    }
}

impl Batch {
    /// Joins what [`Transaction::encode`] returned.
    pub(crate) fn new(transactions: &[impl AsRef<[u8]>]) -> Batch {
        let transactions = transactions.iter().map(AsRef::as_ref);
        let bytes = transactions.clone().map(|t| t.len() + 1).sum::<usize>();
        let mut json = Vec::with_capacity(2 + bytes);
        json.push(b'[');
        for (i, transaction) in transactions.enumerate() {
            if i > 0 {
                json.push(b',');
            }
            json.extend_from_slice(transaction);
        }
        json.push(b']');
        Batch { json: json.into(), ahead: None }
    }

    /// The same, with its transactions read ahead, or about to be.
    pub(crate) fn read_by(self, ahead: Vec<Arc<Ahead>>) -> Batch {
        Batch { ahead: Some(ahead.into()), ..self }
    }

    /// What it holds. The first call gives what was read ahead.
    pub(crate) fn transactions(&self) -> serde_json::Result<Vec<Transaction>> {
        let ahead = self.ahead.as_deref();
        let read: Option<Vec<Option<Transaction>>> =
            ahead.map(|all| all.iter().map(|one| one.take()).collect());
        let read = read.and_then(|all| all.into_iter().collect());
        read.map_or_else(|| serde_json::from_slice(&self.json), Ok)
    }

    /// Of what it holds.
    #[cfg(feature = "seeded-bugs")]
    pub(crate) fn digest(&self) -> u32 {
        crc32fast::hash(&self.json)
    }

    /// Bytes it takes.
    pub(crate) fn len(&self) -> usize {
        self.json.len()
    }
}

impl PartialEq for Batch {
    fn eq(&self, other: &Batch) -> bool {
        self.json == other.json
    }
}

impl Eq for Batch {}

impl Serialize for Batch {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.json)
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
                Ok(Batch { json: bytes.into(), ahead: None })
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

#[cfg(test)]
mod tests {
    use super::*;
    use shoal_model::ObjectKind;

    fn delete(id: &str) -> Arc<[u8]> {
        let changes = vec![Change::Delete(ObjectKind::Service, id.to_owned())];
        Transaction { now: Timestamp(1), changes }.encode().unwrap().into()
    }

    fn ids(batch: &Batch) -> Vec<String> {
        let all = batch.transactions().unwrap().into_iter().flat_map(|t| t.changes);
        let id = |change| match change {
            Change::Delete(_, id) => id,
            Change::Put(object) => object.id().to_owned(),
        };
        all.map(id).collect()
    }

    #[test]
    fn what_was_read_ahead_is_given_once_and_only_whole() {
        let (all, ahead) = ([delete("a"), delete("b")], [(); 2].map(|()| Arc::<Ahead>::default()));
        let batch = Batch::new(&all).read_by(ahead.to_vec());
        assert_eq!(ids(&batch), ["a", "b"], "nobody has read ahead");
        ahead[0].read(&all[0]);
        assert!(ahead[0].take().is_none(), "it came too late and is not kept");

        // What was read is given, which here is told from what the log has.
        let ahead = [(); 2].map(|()| Arc::<Ahead>::default());
        let batch = Batch::new(&all).read_by(ahead.to_vec());
        ahead[0].read(&delete("other"));
        ahead[1].read(&all[1]);
        assert_eq!(ids(&batch), ["other", "b"]);
        assert_eq!(ids(&batch), ["a", "b"]);

        let ahead = [(); 2].map(|()| Arc::<Ahead>::default());
        let batch = Batch::new(&all).read_by(ahead.to_vec());
        ahead[0].read(&delete("other"));
        ahead[1].read(b"no transaction");
        assert_eq!(ids(&batch), ["a", "b"], "one is missing");
    }
}
