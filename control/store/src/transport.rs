//! What the store asks of whoever carries its calls to other managers.

use async_trait::async_trait;
use std::{error::Error, fmt};

/// Bytes of the largest request or answer a [`Transport`] must carry.
pub const MAX_CALL_BYTES: usize = 4 << 20;

/// Which call of the store's it is. The bytes are the store's own.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum RaftCall {
    /// Log entries, or none as a sign of life of the leader.
    Append,
    /// A sign of life of a leader whose disk is slow at the moment.
    Alive,
    /// A manager that misses its leader asks whether it would get a vote.
    Ask,
    /// A candidate asks for a vote.
    Vote,
    /// The leader asks a manager to follow it at once.
    TakeOver,
    /// A piece of a snapshot.
    Snapshot,
}

impl RaftCall {
    /// All there are.
    pub const ALL: [RaftCall; 6] = [
        RaftCall::Append,
        RaftCall::Alive,
        RaftCall::Ask,
        RaftCall::Vote,
        RaftCall::TakeOver,
        RaftCall::Snapshot,
    ];

    /// Its name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            RaftCall::Append => "append",
            RaftCall::Alive => "alive",
            RaftCall::Ask => "ask",
            RaftCall::Vote => "vote",
            RaftCall::TakeOver => "take-over",
            RaftCall::Snapshot => "snapshot",
        }
    }

    /// The call of that name.
    pub fn named(name: &str) -> Option<RaftCall> {
        RaftCall::ALL.into_iter().find(|call| call.as_str() == name)
    }
}

impl fmt::Display for RaftCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Carries calls to the stores of other managers. The other side gives what arrives to
/// [`crate::Store::handle`], and its answer back.
#[async_trait]
pub trait Transport: Send + Sync + 'static {
    /// Carries a call to the store of the manager `node_id` at `addr` (host and port), and its
    /// answer back. It must reach that very node or fail. The deadline is the caller's: it drops
    /// the future.
    async fn call(
        &self,
        node_id: &str,
        addr: &str,
        call: RaftCall,
        request: Vec<u8>,
    ) -> Result<Vec<u8>, TransportError>;
}

/// Why a call was not answered.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// Nobody could be asked there; asked again after a pause.
    #[error("the manager cannot be reached")]
    Unreachable(#[source] Box<dyn Error + Send + Sync>),
    /// It was asked, and answered that it will not, or not in a way one can read.
    #[error("the manager refused the call: {0}")]
    Refused(String),
}

/// Reaches nobody: for a manager that is alone.
pub struct Alone;

#[async_trait]
impl Transport for Alone {
    async fn call(
        &self,
        node_id: &str,
        addr: &str,
        call: RaftCall,
        _request: Vec<u8>,
    ) -> Result<Vec<u8>, TransportError> {
        let reason = format!("{call} to {node_id} at {addr}: this manager talks to no others");
        Err(TransportError::Unreachable(reason.into()))
    }
}
