//! Generic resources: things of a host that the cluster counts and does not understand.
use serde::{Deserialize, Serialize};

/// Some of a generic resource, as a node has it or as a task was given it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum GenericResource {
    /// So many of a kind, none different from another.
    Discrete {
        /// Kind (`gpu`).
        kind: String,
        /// How many.
        value: i64,
    },
    /// One of a kind that has a name.
    Named {
        /// Kind (`gpu`).
        kind: String,
        /// Its name (`UUID1`).
        value: String,
    },
}

impl GenericResource {
    /// Its kind.
    pub fn kind(&self) -> &str {
        match self {
            GenericResource::Discrete { kind, .. } | GenericResource::Named { kind, .. } => kind,
        }
    }
}
