//! TLS settings between nodes. TLS 1.3 only; no resumption, so every connection is checked anew.
//!
//! Host names are not looked at: a server must show a certificate of the cluster's root, or of one of
//! both while the root is rotated, with the role of a manager. Clients may come without a certificate
//! (a new node has none); one that is shown must be a node's of this cluster.

mod roots;
#[cfg(test)]
mod tests;
mod verifiers;

pub(crate) use roots::check_usable;

use crate::{IdentityError, NodeCertificate, RootCertificate, Trust};
use roots::{anchors, store};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    client::{Resumption, danger::ServerCertVerifier},
    crypto::{CryptoProvider, ring},
    pki_types::{PrivateKeyDer, pem::PemObject},
    server::NoServerSessionStorage,
    version::TLS13,
};
use std::sync::Arc;
use verifiers::{AnyServer, ManagersOnly, NodesOnly};

/// gRPC is HTTP/2.
const ALPN: &[u8] = b"h2";

/// Offered besides by managers that ask for the lane of their own; what is spoken is HTTP/2 all the same.
pub(crate) const LANE: &[u8] = b"shoal-managers";

/// Settings of a manager's server.
pub fn server_config(node: &NodeCertificate) -> Result<Arc<ServerConfig>, IdentityError> {
    let provider = Arc::new(ring::default_provider());
    let verifier = NodesOnly::new(node, provider.clone())?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_single_cert(node.shown().to_vec(), key(node)?)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// Settings of a client that trusts managers of these roots, and shows the node's certificate if
/// there is one already.
pub fn client_config(
    trust: &Trust,
    node: Option<&NodeCertificate>,
) -> Result<Arc<ClientConfig>, IdentityError> {
    managers_only(trust, node, None)
}

/// Settings of a client that trusts only the manager with this node id, and shows `node`.
pub fn peer_config(
    node: &NodeCertificate,
    peer_id: &str,
) -> Result<Arc<ClientConfig>, IdentityError> {
    managers_only(node.trust(), Some(node), Some(peer_id.to_owned()))
}

/// The same of a connection in the managers' lane (see [`crate::Lane`]).
pub fn lane_config(
    node: &NodeCertificate,
    peer_id: &str,
) -> Result<Arc<ClientConfig>, IdentityError> {
    let mut config = peer_config(node, peer_id)?;
    Arc::make_mut(&mut config).alpn_protocols.push(LANE.to_vec());
    Ok(config)
}

fn managers_only(
    trust: &Trust,
    node: Option<&NodeCertificate>,
    node_id: Option<String>,
) -> Result<Arc<ClientConfig>, IdentityError> {
    let provider = Arc::new(ring::default_provider());
    let verifier = ManagersOnly {
        roots: anchors(trust, store)?,
        cluster_id: node.map(|n| n.identity().cluster_id.clone()),
        node_id,
        provider: provider.clone(),
    };
    client(provider, Arc::new(verifier), node)
}

/// Settings that accept any server. Only for asking for the root certificate, whose digest is
/// compared before anything is believed.
pub(crate) fn unverified_client_config() -> Result<Arc<ClientConfig>, IdentityError> {
    let provider = Arc::new(ring::default_provider());
    client(provider.clone(), Arc::new(AnyServer { provider }), None)
}

fn client(
    provider: Arc<CryptoProvider>,
    verifier: Arc<dyn ServerCertVerifier>,
    node: Option<&NodeCertificate>,
) -> Result<Arc<ClientConfig>, IdentityError> {
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match node {
        Some(node) => builder.with_client_auth_cert(node.shown().to_vec(), key(node)?)?,
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// Settings for talking to an external CA: its certificate must be of one of the roots and for its host,
/// as everywhere on the web; it is shown the node's certificate if there is one.
pub(crate) fn external_config(
    roots: &[RootCertificate],
    node: Option<&NodeCertificate>,
) -> Result<Arc<ClientConfig>, IdentityError> {
    let mut trusted = RootCertStore::empty();
    for root in roots {
        trusted.add(root.der().clone())?;
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(trusted);
    let mut config = match node {
        Some(node) => builder.with_client_auth_cert(node.shown().to_vec(), key(node)?)?,
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

fn key(node: &NodeCertificate) -> Result<PrivateKeyDer<'static>, IdentityError> {
    PrivateKeyDer::from_pem_slice(node.key().pem().as_bytes())
        .map_err(|e| IdentityError::invalid("node key", e))
}
