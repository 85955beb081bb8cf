use crate::token::RootDigest;
use std::{net::SocketAddr, path::PathBuf};

/// Why a key, certificate or connection could not be made or trusted.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// Making or signing a certificate failed.
    #[error("cannot {action}")]
    Signing {
        /// What was tried.
        action: &'static str,
        /// Why.
        source: rcgen::Error,
    },
    /// A certificate, request or key that is not what it should be.
    #[error("{what} is not valid: {reason}")]
    Invalid {
        /// What it is.
        what: &'static str,
        /// Why.
        reason: String,
    },
    /// A key that belongs to another certificate.
    #[error("the key of the {0} does not belong to its certificate")]
    KeyMismatch(&'static str),
    /// Certificate files that are there only in part.
    #[error(
        "{} is missing but the node's other certificate files are there; \
         restore it, or remove the folder and join the swarm again",
        .0.display()
    )]
    Incomplete(PathBuf),
    /// A file could not be read or written.
    #[error("cannot {action} {}", .path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The node's key is sealed. Docker's text.
    #[error(
        "Swarm is encrypted and needs to be unlocked before it can be used. Please use \"docker \
         swarm unlock\" to unlock it."
    )]
    Locked,
    /// The unlock key is another one. Docker's text.
    #[error("swarm could not be unlocked: invalid key provided")]
    WrongKey,
    /// The TLS settings were refused.
    #[error("cannot set up TLS")]
    Tls(#[from] rustls::Error),
    /// The manager could not be reached, or its certificate was refused.
    #[error("cannot connect to the manager at {addr}: {reason}")]
    Connect {
        /// Its address.
        addr: SocketAddr,
        /// The whole chain of causes, for the user.
        reason: String,
    },
    /// It ended the connection before that was made, and did not say why: it has too much to do.
    #[error("cannot connect to the manager at {addr}: {reason}")]
    Busy {
        /// Its address.
        addr: SocketAddr,
        /// The whole chain of causes, for the user.
        reason: String,
    },
    /// The manager's root certificate is not the one the join token names.
    #[error(
        "remote CA does not match fingerprint. Expected: {expected}, got {found}: \
         the manager at {addr} belongs to another cluster, or the join token is wrong"
    )]
    WrongRoot {
        /// Address asked.
        addr: SocketAddr,
        /// Digest in the token.
        expected: RootDigest,
        /// Digest of what was offered.
        found: RootDigest,
    },
    /// Serving stopped with an error.
    #[error("serving gRPC failed")]
    Serve(#[source] tonic::transport::Error),
}

impl IdentityError {
    pub(crate) fn invalid(what: &'static str, reason: impl ToString) -> IdentityError {
        IdentityError::Invalid { what, reason: reason.to_string() }
    }

    pub(crate) fn signing(action: &'static str) -> impl FnOnce(rcgen::Error) -> IdentityError {
        move |source| IdentityError::Signing { action, source }
    }
}
