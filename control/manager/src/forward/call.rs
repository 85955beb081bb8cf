//! Calls that only the leader answers.

use crate::certificates::Request as IssueRequest;
use serde::{Deserialize, Serialize};
use shoal_model::{DependencyKind, DependencySpec, Rotations, docker};
use std::{net::SocketAddr, time::Duration};

/// How long the leader may take to answer: it has lost the others when a change takes longer.
pub(super) const ANSWER_WAIT: Duration = Duration::from_secs(10);

/// The same for what makes another manager catch up.
const ADMISSION_WAIT: Duration = Duration::from_secs(45);

/// The same for signing: an external CA may be asked, and the node gives up after 20 s.
const SIGNATURE_WAIT: Duration = Duration::from_secs(13);

/// A call that only the leader answers.
#[derive(Clone, Serialize, Deserialize)]
#[serde(tag = "method", content = "arguments", rename_all = "snake_case")]
pub(crate) enum Call {
    /// The number of the newest transaction.
    Version,
    UpdateSwarm {
        version: u64,
        spec: Box<docker::SwarmSpec>,
        rotate: Rotations,
    },
    UpdateNode {
        id: String,
        version: u64,
        spec: docker::NodeSpec,
    },
    RemoveNode {
        id: String,
        force: bool,
    },
    CreateService {
        spec: Box<docker::ServiceSpec>,
    },
    UpdateService {
        id: String,
        version: u64,
        spec: Box<docker::ServiceSpec>,
        rollback: bool,
    },
    RemoveService {
        id: String,
    },
    CreateNetwork {
        request: Box<docker::NetworkCreateRequest>,
    },
    RemoveNetwork {
        id: String,
    },
    CreateDependency {
        kind: DependencyKind,
        spec: Box<DependencySpec>,
    },
    UpdateDependency {
        kind: DependencyKind,
        id: String,
        version: u64,
        spec: Box<DependencySpec>,
    },
    RemoveDependency {
        kind: DependencyKind,
        id: String,
    },
    /// Signs a certificate.
    Issue {
        request: IssueRequest,
    },
    /// Gives a new manager its vote.
    Admit {
        node_id: String,
        addr: SocketAddr,
    },
    /// Takes a manager's vote away that leaves.
    Retire {
        node_id: String,
    },
}

impl Call {
    pub(super) fn patience(&self) -> Duration {
        match self {
            Call::Admit { .. } => ADMISSION_WAIT,
            Call::Issue { .. } => SIGNATURE_WAIT,
            _ => ANSWER_WAIT,
        }
    }

    /// Whether it may be made twice.
    pub(super) fn repeatable(&self) -> bool {
        matches!(self, Call::Version | Call::Admit { .. } | Call::Retire { .. })
    }
}
