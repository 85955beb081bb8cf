//! What can fail, with the object it failed on.
use crate::host::AdvertiseError;
use std::{io, net::IpAddr, path::PathBuf};

/// Failure of an operation on links or namespaces. The cause is in `source()`.
#[derive(Debug, thiserror::Error)]
pub enum LinksError {
    /// The file of a network namespace.
    #[error("cannot {action} network namespace {path}")]
    NetNs {
        /// What was tried: create, open, enter, remove, list.
        action: &'static str,
        /// Its file.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// A network namespace that is no longer there.
    #[error("no network namespace at {path}: it was removed, or the host was restarted")]
    NoNetNs {
        /// Its file.
        path: PathBuf,
    },
    /// The netlink socket.
    #[error("cannot open a netlink socket")]
    Socket(#[source] io::Error),
    /// A netlink request.
    #[error("cannot {action} {object}")]
    Netlink {
        /// What was tried.
        action: &'static str,
        /// The link, address or route.
        object: String,
        /// The kernel's answer.
        source: rtnetlink::Error,
    },
    /// A link that does not exist.
    #[error("no link named {0}")]
    NoLink(String),
    /// An address that no link has.
    #[error(
        "no network interface of this host has the address {0}: advertise an address of this host"
    )]
    NoSuchAddress(IpAddr),
    /// A kernel setting.
    #[error("cannot set {key} to {value}")]
    Sysctl {
        /// Its path below `/proc/sys`.
        key: String,
        /// The value.
        value: String,
        /// Cause.
        source: io::Error,
    },
    /// A specification that makes no sense.
    #[error("cannot plug {ifname}: {reason}")]
    Spec {
        /// The host's end.
        ifname: String,
        /// Why.
        reason: String,
    },
    /// No single address to advertise.
    #[error(transparent)]
    Advertise(#[from] AdvertiseError),
}
