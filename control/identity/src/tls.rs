//! TLS settings between nodes. TLS 1.3 only; no resumption, so every connection is checked anew.
//!
//! Host names are not looked at: a server must show a certificate of the cluster's root with the
//! role of a manager. Clients may come without a certificate (a new node has none); one that is
//! shown must be a node's of this cluster.

use crate::{Identity, IdentityError, NodeCertificate, RootCertificate};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, OtherError,
    RootCertStore, ServerConfig, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor,
    },
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
    server::{
        NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    version::TLS13,
};
use shoal_model::Role;
use std::sync::Arc;

/// gRPC is HTTP/2.
const ALPN: &[u8] = b"h2";

/// Settings of a manager's server.
pub fn server_config(node: &NodeCertificate) -> Result<Arc<ServerConfig>, IdentityError> {
    let provider = Arc::new(ring::default_provider());
    let verifier = NodesOnly::new(node, provider.clone())?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_single_cert(vec![node.der().clone()], key(node)?)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// Settings of a client that trusts managers of this root, and shows the node's certificate if
/// there is one already.
pub fn client_config(
    root: &RootCertificate,
    node: Option<&NodeCertificate>,
) -> Result<Arc<ClientConfig>, IdentityError> {
    managers_only(root, node, None)
}

/// Settings of a client that trusts only the manager with this node id, and shows `node`.
pub fn peer_config(
    node: &NodeCertificate,
    peer_id: &str,
) -> Result<Arc<ClientConfig>, IdentityError> {
    managers_only(node.root(), Some(node), Some(peer_id.to_owned()))
}

fn managers_only(
    root: &RootCertificate,
    node: Option<&NodeCertificate>,
    node_id: Option<String>,
) -> Result<Arc<ClientConfig>, IdentityError> {
    let provider = Arc::new(ring::default_provider());
    let verifier = ManagersOnly {
        roots: store(root)?,
        root: root.clone(),
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
        Some(node) => builder.with_client_auth_cert(vec![node.der().clone()], key(node)?)?,
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

fn store(root: &RootCertificate) -> Result<RootCertStore, IdentityError> {
    let mut roots = RootCertStore::empty();
    roots.add(root.der().clone())?;
    Ok(roots)
}

fn key(node: &NodeCertificate) -> Result<PrivateKeyDer<'static>, IdentityError> {
    PrivateKeyDer::from_pem_slice(node.key().pem().as_bytes())
        .map_err(|e| IdentityError::invalid("node key", e))
}

/// A chain check does not look at the dates of the trust anchor itself.
fn check_root(root: &RootCertificate, now: UnixTime) -> Result<(), Error> {
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    let [begin, end] = root.validity().map(|t| t.0 / 1_000_000_000);
    match now {
        now if now < begin => Err(refused("cluster's root certificate", "it is not valid yet")),
        now if now > end => Err(refused("cluster's root certificate", "it has expired")),
        _ => Ok(()),
    }
}

fn refused(what: &'static str, reason: impl ToString) -> Error {
    let error: Box<dyn std::error::Error + Send + Sync> =
        Box::new(IdentityError::invalid(what, reason));
    CertificateError::Other(OtherError(error.into())).into()
}

/// Who the certificate names, if it is one of this cluster's nodes.
fn node_of(der: &CertificateDer<'_>, cluster_id: Option<&str>) -> Result<Identity, Error> {
    let identity = Identity::of(der).map_err(|e| refused("peer's certificate", e))?;
    if cluster_id.is_some_and(|id| id != identity.cluster_id) {
        return Err(refused("peer's certificate", "it belongs to another cluster"));
    }
    Ok(identity)
}

/// For servers: clients without a certificate, and nodes of the cluster.
#[derive(Debug)]
struct NodesOnly {
    inner: Arc<dyn ClientCertVerifier>,
    root: RootCertificate,
    cluster_id: String,
}

impl NodesOnly {
    fn new(
        node: &NodeCertificate,
        provider: Arc<CryptoProvider>,
    ) -> Result<NodesOnly, IdentityError> {
        let roots = Arc::new(store(node.root())?);
        let inner = WebPkiClientVerifier::builder_with_provider(roots, provider)
            .allow_unauthenticated()
            .build()
            .map_err(|e| IdentityError::invalid("root certificate", e))?;
        let cluster_id = node.identity().cluster_id.clone();
        Ok(NodesOnly { inner, root: node.root().clone(), cluster_id })
    }
}

impl ClientCertVerifier for NodesOnly {
    fn client_auth_mandatory(&self) -> bool {
        self.inner.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        check_root(&self.root, now)?;
        let verified = self.inner.verify_client_cert(certificate, intermediates, now)?;
        node_of(certificate, Some(&self.cluster_id))?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// For clients: managers of the cluster; one of them, where a node id is given.
#[derive(Debug)]
struct ManagersOnly {
    roots: RootCertStore,
    root: RootCertificate,
    cluster_id: Option<String>,
    node_id: Option<String>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for ManagersOnly {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        check_root(&self.root, now)?;
        verify_server_cert_signed_by_trust_anchor(
            &ParsedCertificate::try_from(certificate)?,
            &self.roots,
            intermediates,
            now,
            self.provider.signature_verification_algorithms.all,
        )?;
        let server = node_of(certificate, self.cluster_id.as_deref())?;
        if self.node_id.as_ref().is_some_and(|id| *id != server.node_id) {
            let found = server.node_id;
            return Err(refused("server's certificate", format!("it is node {found}'s")));
        }
        match server.role {
            Role::Manager => Ok(ServerCertVerified::assertion()),
            Role::Worker => Err(refused("server's certificate", "it is a worker's")),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Accepts whoever holds the key of the certificate shown.
#[derive(Debug)]
struct AnyServer {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{NODE_VALIDITY, NodeKey, RootCa};
    use shoal_model::Timestamp;
    use std::time::Duration;

    const BEGIN: Timestamp = Timestamp(1_800_000_000_000_000_000);
    const DAY: Duration = Duration::from_secs(24 * 3600);
    const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

    fn node(ca: &RootCa, role: Role, cluster: &str, from: Timestamp) -> NodeCertificate {
        let key = NodeKey::create().unwrap();
        let csr = key.csr_pem().unwrap();
        let pem = ca.sign_node(&csr, "node", role, cluster, from, NODE_VALIDITY).unwrap();
        NodeCertificate::new(key, &pem, ca.certificate().clone()).unwrap()
    }

    fn after(d: Duration) -> UnixTime {
        let time = BEGIN.after(d).0 / 1_000_000_000;
        UnixTime::since_unix_epoch(Duration::from_secs(time.try_into().unwrap()))
    }

    /// What a server of cluster `c` says of a client.
    fn server_says(ca: &RootCa, client: &NodeCertificate, now: UnixTime) -> String {
        let server = node(ca, Role::Manager, "c", BEGIN);
        let verifier = NodesOnly::new(&server, Arc::new(ring::default_provider())).unwrap();
        match verifier.verify_client_cert(client.der(), &[], now) {
            Ok(_) => "ok".to_owned(),
            Err(error) => format!("{error:?}"),
        }
    }

    /// What a client of cluster `c` says of a server.
    fn client_says(ca: &RootCa, server: &NodeCertificate, now: UnixTime) -> String {
        peer_says(ca, server, None, now)
    }

    /// The same, of one that wants to talk to a certain manager.
    fn peer_says(
        ca: &RootCa,
        server: &NodeCertificate,
        wanted: Option<&str>,
        now: UnixTime,
    ) -> String {
        let verifier = ManagersOnly {
            roots: store(ca.certificate()).unwrap(),
            root: ca.certificate().clone(),
            cluster_id: Some("c".to_owned()),
            node_id: wanted.map(str::to_owned),
            provider: Arc::new(ring::default_provider()),
        };
        let name = ServerName::try_from("ignored").unwrap();
        match verifier.verify_server_cert(server.der(), &[], &name, &[], now) {
            Ok(_) => "ok".to_owned(),
            Err(error) => format!("{error:?}"),
        }
    }

    #[test]
    fn both_sides_check_root_cluster_dates_and_role() {
        let ca = RootCa::create(BEGIN).unwrap();
        let other = RootCa::create(BEGIN).unwrap();
        let worker = node(&ca, Role::Worker, "c", BEGIN);
        let manager = node(&ca, Role::Manager, "c", BEGIN);
        let elsewhere = node(&ca, Role::Manager, "d", BEGIN);
        let foreign = node(&other, Role::Manager, "c", BEGIN);
        let late = node(&ca, Role::Manager, "c", BEGIN.after(20 * YEAR));
        // Certificate, when, what a server says of it, what a client says of it.
        let table = [
            (&worker, after(DAY), "ok", "it is a worker's"),
            (&manager, after(DAY), "ok", "ok"),
            (&elsewhere, after(DAY), "another cluster", "another cluster"),
            (&foreign, after(DAY), "BadSignature", "BadSignature"),
            (&manager, after(91 * DAY), "Expired", "Expired"),
            (&late, after(DAY), "NotValidYet", "NotValidYet"),
            // Valid by itself, but its root is no more.
            (&late, after(20 * YEAR + DAY), "root certificate", "root certificate"),
        ];
        for (certificate, now, server, client) in table {
            let said = server_says(&ca, certificate, now);
            assert!(said.contains(server), "server: {said}, expected {server}");
            let said = client_says(&ca, certificate, now);
            assert!(said.contains(client), "client: {said}, expected {client}");
        }
    }
    #[test]
    fn a_certain_manager_is_not_mistaken_for_another() {
        let ca = RootCa::create(BEGIN).unwrap();
        let manager = node(&ca, Role::Manager, "c", BEGIN);
        let said = |wanted| peer_says(&ca, &manager, Some(wanted), after(DAY));
        assert_eq!(said("node"), "ok");
        assert!(said("other").contains("it is node node's"), "{}", said("other"));
    }
}
