//! Who a node is: the cluster's root CA, node certificates, join tokens, and TLS between nodes.
//!
//! A cluster has one root certificate, and two while it is rotated. A join token carries its digest, so that a new node trusts
//! nothing else from its first connection on. A node's certificate names the node (CN), its role
//! (OU, `swarm-worker` or `swarm-manager`) and the cluster (O); host names play no part. What a
//! caller may do is decided by [`authorize`], one table for all methods.
//!
//! Private keys and tokens are wiped when dropped and never appear in `Debug`.

mod authority;
mod base36;
mod certificate;
mod cross;
mod der;
mod error;
mod external;
pub mod id;
mod keys;
mod lock;
mod peer;
mod places;
mod roles;
mod storage;
mod tls;
mod token;
mod transport;
mod trust;

pub use authority::{NODE_VALIDITY, RootCa};
pub use certificate::{NodeCertificate, NodeKey, Reported, RootCertificate};
pub use error::IdentityError;
pub use external::{ExternalCa, ExternalError, ExternalUrl};
pub use lock::KeyLock;
pub use peer::{Identity, Peer};
pub use places::{Place, Places};
pub use roles::{Caller, METHODS, Members, Standing, authorize, unknown_node};
pub use storage::CertificateDir;
pub use tls::{client_config, lane_config, peer_config, server_config};
pub use token::{JoinToken, RootDigest, TokenError};
pub use transport::{
    CLIENT_PATIENCE, CONNECT_TIMEOUT, Lane, MAX_CONNECTIONS, chain, connect, connect_within,
    fetch_root, serve,
};
pub use trust::Trust;
