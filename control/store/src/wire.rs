//! Encoding of the calls between managers: a byte that says which, then postcard.

use serde::{Serialize, de::DeserializeOwned};

/// Changed whenever a call could be misread by a manager of an earlier version.
const VERSION: u8 = 1;

/// Why bytes from another manager could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WireError {
    #[error(
        "the other manager speaks another version of the log's protocol ({0:?}, not {VERSION})"
    )]
    Version(Option<u8>),
    #[error("what the other manager sent cannot be read")]
    Format(#[source] postcard::Error),
}

pub(crate) fn encode(value: &impl Serialize) -> Result<Vec<u8>, WireError> {
    postcard::to_extend(value, vec![VERSION]).map_err(WireError::Format)
}

pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, WireError> {
    match bytes.split_first() {
        Some((&VERSION, rest)) => postcard::from_bytes(rest).map_err(WireError::Format),
        other => Err(WireError::Version(other.map(|(version, _)| *version))),
    }
}
