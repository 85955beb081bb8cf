//! Why a manager does not start, and how refusals reach the user.
use shoal_identity::IdentityError;
use shoal_model::{ApplyError, ControlError, ErrorKind, ObjectKind};
use shoal_store::{KeyError, StoreError};
use std::net::SocketAddr;
use tonic::{Code, Status};

/// Why a manager could not be started.
#[derive(Debug, thiserror::Error)]
pub enum ManagerError {
    /// The request to make a cluster is wrong.
    #[error(transparent)]
    Request(#[from] ControlError),
    /// The address for the other nodes cannot be listened on.
    #[error(
        "cannot listen on {addr}: {source}; choose another --listen-addr, or stop what uses it"
    )]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The system gives no threads.
    #[error("cannot start the replicated log's threads: {0}; is a limit of processes reached?")]
    Threads(#[source] std::io::Error),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A certificate or TLS.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The store is there but has no cluster in it: making it was interrupted.
    #[error(
        "the store holds no cluster: making it was interrupted; remove {0} and run swarm init again"
    )]
    NoCluster(String),
    /// The certificate is for another cluster or no manager's.
    #[error("the node's certificate is not one of a manager of this cluster")]
    WrongCertificate,
    /// The only manager of a cluster does not lead it.
    #[error("the manager has not taken the lead of its cluster in time; its log says why")]
    NoLead,
    /// The other managers did not take this one in.
    #[error("the swarm's managers did not take this one in: {0}")]
    NotAdmitted(String),
}

impl ManagerError {
    /// Whether the node has no store yet: it has never been a manager, or becoming one was interrupted.
    pub fn is_missing_store(&self) -> bool {
        matches!(self, ManagerError::Store(StoreError::Missing { .. }))
    }

    /// Whether the store is locked, and there is no key for it.
    pub fn is_locked(&self) -> bool {
        matches!(self, ManagerError::Store(StoreError::Key(KeyError::Locked)))
    }

    /// Whether the unlock key is not the right one, or none at all.
    pub fn is_wrong_key(&self) -> bool {
        let wrong = |e: &KeyError| matches!(e, KeyError::WrongKey | KeyError::NoUnlockKey);
        matches!(self, ManagerError::Store(StoreError::Key(error)) if wrong(error))
    }
}

impl From<ManagerError> for ControlError {
    fn from(error: ManagerError) -> ControlError {
        match error {
            ManagerError::Request(refusal) => refusal,
            ManagerError::Listen { .. } => {
                ControlError::new(ErrorKind::FailedPrecondition, error.to_string())
            }
            other => ControlError::new(ErrorKind::Unknown, chain(&other)),
        }
    }
}

/// An error with its causes.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// A refusal in the form Docker gives those of its cluster: `rpc error: code = … desc = …`.
pub(crate) fn refuse(kind: ErrorKind, text: impl std::fmt::Display) -> ControlError {
    let code = match kind {
        ErrorKind::InvalidArgument => "InvalidArgument",
        ErrorKind::FailedPrecondition => "FailedPrecondition",
        ErrorKind::NotFound => "NotFound",
        ErrorKind::AlreadyExists => "AlreadyExists",
        ErrorKind::Unavailable => "Unavailable",
        ErrorKind::PermissionDenied => "PermissionDenied",
        ErrorKind::Unknown => "Unknown",
    };
    ControlError::new(kind, format!("rpc error: code = {code} desc = {text}"))
}

/// The request itself is wrong.
pub(crate) fn invalid(text: impl std::fmt::Display) -> ControlError {
    refuse(ErrorKind::InvalidArgument, text)
}

/// Not found, in the words of Docker's daemon (which looks objects up itself).
pub(crate) fn not_found(kind: ObjectKind, id: &str) -> ControlError {
    ControlError::new(ErrorKind::NotFound, format!("{} {id} not found", kind.as_str()))
}

/// The object was changed since the user read it.
pub(crate) fn out_of_sequence() -> ControlError {
    refuse(ErrorKind::Unknown, "update out of sequence")
}

/// What the store refused.
pub(crate) fn from_store(error: StoreError) -> ControlError {
    match error {
        StoreError::Refused(ApplyError::OutOfSequence { .. }) => out_of_sequence(),
        StoreError::Refused(taken @ ApplyError::NameTaken { .. }) => {
            let text = format!("name conflicts with an existing object: {taken}");
            refuse(ErrorKind::AlreadyExists, text)
        }
        StoreError::Refused(present @ ApplyError::IngressPresent { .. }) => {
            refuse(ErrorKind::AlreadyExists, present)
        }
        StoreError::Refused(taken @ ApplyError::SubnetTaken { .. }) => {
            refuse(ErrorKind::FailedPrecondition, taken)
        }
        StoreError::Refused(used @ (ApplyError::InUse { .. } | ApplyError::Missing { .. })) => {
            invalid(used)
        }
        StoreError::TooLarge { .. } => invalid(error),
        StoreError::NotLeader { .. } | StoreError::NoLeader => no_leader(),
        StoreError::Interrupted | StoreError::NotCaughtUp { .. } => {
            refuse(ErrorKind::Unavailable, error)
        }
        StoreError::LastManager | StoreError::QuorumLoss { .. } => {
            refuse(ErrorKind::FailedPrecondition, error)
        }
        other => refuse(ErrorKind::Unknown, chain(&other)),
    }
}

/// There is nobody to ask. Docker's words, with its code for it.
pub(crate) fn no_leader() -> ControlError {
    unavailable(
        "rpc error: code = Unknown desc = The swarm does not have a leader. It's possible that too \
         few managers are online. Make sure more than half of the managers are online.",
    )
}

/// Not now; the text is complete.
pub(crate) fn unavailable(text: impl Into<String>) -> ControlError {
    ControlError::new(ErrorKind::Unavailable, text)
}

/// A refusal, for a caller over gRPC.
pub(crate) fn status_of(refusal: &ControlError) -> Status {
    let code = match refusal.kind {
        ErrorKind::InvalidArgument => Code::InvalidArgument,
        ErrorKind::FailedPrecondition => Code::FailedPrecondition,
        ErrorKind::NotFound => Code::NotFound,
        ErrorKind::AlreadyExists => Code::AlreadyExists,
        ErrorKind::Unavailable => Code::Unavailable,
        ErrorKind::PermissionDenied => Code::PermissionDenied,
        ErrorKind::Unknown => Code::Unknown,
    };
    Status::new(code, &refusal.message)
}

/// The refusal that another manager gave over gRPC.
pub(crate) fn refused_by(status: &Status) -> ControlError {
    let kind = match status.code() {
        Code::InvalidArgument => ErrorKind::InvalidArgument,
        Code::FailedPrecondition => ErrorKind::FailedPrecondition,
        Code::NotFound => ErrorKind::NotFound,
        Code::AlreadyExists => ErrorKind::AlreadyExists,
        Code::Unavailable | Code::ResourceExhausted => ErrorKind::Unavailable,
        Code::PermissionDenied | Code::Unauthenticated => ErrorKind::PermissionDenied,
        _ => ErrorKind::Unknown,
    };
    ControlError::new(kind, status.message())
}
