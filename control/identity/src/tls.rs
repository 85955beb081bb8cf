//! TLS settings between nodes. TLS 1.3 only; no resumption, so every connection is checked anew.
//!
//! Host names are not looked at: a server must show a certificate of the cluster's root, or of one of
//! both while the root is rotated, with the role of a manager. Clients may come without a certificate (a new node has none); one that is
//! shown must be a node's of this cluster.

use crate::{Identity, IdentityError, NodeCertificate, RootCertificate, Trust};
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

/// Each root, with what certificates are checked by against it alone: an expired one counts for nothing.
type Anchors<V> = Vec<(RootCertificate, V)>;

fn anchors<V>(
    trust: &Trust,
    make: impl Fn(&RootCertificate) -> Result<V, IdentityError>,
) -> Result<Anchors<V>, IdentityError> {
    trust.roots().iter().map(|root| Ok((root.clone(), make(root)?))).collect()
}

/// The first root that answers for the certificate shown. With several, the last one's reason is told.
fn first_of<V, R>(
    anchors: &Anchors<V>,
    now: UnixTime,
    check: impl Fn(&V) -> Result<R, Error>,
) -> Result<R, Error> {
    let mut last = Error::General("no root is trusted".to_owned());
    for (root, anchor) in anchors {
        match check_root(root, now).and_then(|()| check(anchor)) {
            Ok(verified) => return Ok(verified),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// A certificate of another root, in words that say what to do.
fn of_another_root(
    error: Error,
    whose: &'static str,
    roots: impl Iterator<Item = String>,
    remedy: &str,
) -> Error {
    match error {
        Error::InvalidCertificate(
            CertificateError::BadSignature | CertificateError::UnknownIssuer,
        ) => {
            let roots: Vec<String> = roots.collect();
            let roots = roots.join(" or ");
            refused(whose, format!("no root trusted here has signed it ({roots}): {remedy}"))
        }
        other => other,
    }
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
    inner: Anchors<Arc<dyn ClientCertVerifier>>,
    /// The same for all roots.
    signatures: Arc<dyn ClientCertVerifier>,
    cluster_id: String,
}

impl NodesOnly {
    fn new(
        node: &NodeCertificate,
        provider: Arc<CryptoProvider>,
    ) -> Result<NodesOnly, IdentityError> {
        let inner = anchors(node.trust(), |root| {
            let roots = Arc::new(store(root)?);
            WebPkiClientVerifier::builder_with_provider(roots, provider.clone())
                .allow_unauthenticated()
                .build()
                .map_err(|e| IdentityError::invalid("root certificate", e))
        })?;
        let signatures = Arc::clone(&inner[0].1); // there is always one
        let cluster_id = node.identity().cluster_id.clone();
        Ok(NodesOnly { inner, signatures, cluster_id })
    }
}

impl ClientCertVerifier for NodesOnly {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    /// None: roots made by a rotation have the same name, and a client shows what it has.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let checked = first_of(&self.inner, now, |verifier| {
            verifier.verify_client_cert(certificate, intermediates, now)
        });
        let verified = match checked {
            // What the client is told by TLS is no more than a word; this one says most.
            Err(Error::InvalidCertificate(CertificateError::BadSignature)) => {
                return Err(CertificateError::UnknownIssuer.into());
            }
            checked => checked?,
        };
        node_of(certificate, Some(&self.cluster_id))?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signatures.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signatures.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.signatures.supported_verify_schemes()
    }
}

/// For clients: managers of the cluster; one of them, where a node id is given.
#[derive(Debug)]
struct ManagersOnly {
    roots: Anchors<RootCertStore>,
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
        let parsed = ParsedCertificate::try_from(certificate)?;
        let checked = first_of(&self.roots, now, |roots| {
            verify_server_cert_signed_by_trust_anchor(
                &parsed,
                roots,
                intermediates,
                now,
                self.provider.signature_verification_algorithms.all,
            )
        });
        checked.map_err(|error| {
            let roots = self.roots.iter().map(|(root, _)| root.digest().to_string());
            of_another_root(error, "server's certificate", roots, ROTATED)
        })?;
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

/// Whether both sides of a connection will believe a node's certificate, by this root alone.
pub(crate) fn check_usable(
    certificate: &CertificateDer<'_>,
    root: &RootCertificate,
    now: UnixTime,
) -> Result<(), Error> {
    check_root(root, now)?;
    let provider = Arc::new(ring::default_provider());
    let roots = Arc::new(store(root).map_err(|e| refused("cluster's root certificate", e))?);
    let algorithms = provider.signature_verification_algorithms.all;
    let parsed = ParsedCertificate::try_from(certificate)?;
    verify_server_cert_signed_by_trust_anchor(&parsed, &roots, &[], now, algorithms)?;
    WebPkiClientVerifier::builder_with_provider(roots, provider)
        .build()
        .map_err(|e| refused("cluster's root certificate", e))?
        .verify_client_cert(certificate, &[], now)
        .map(drop)
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

const ROTATED: &str = "the manager is of another swarm, or the swarm's root CA was rotated while this \
     node was away; then leave with `swarm leave --force` and join again";

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
        let (leaf, others) = client.shown().split_first().unwrap();
        match verifier.verify_client_cert(leaf, others, now) {
            Ok(_) => "ok".to_owned(),
            Err(error) => format!("{error:?}"),
        }
    }

    /// What a client of cluster `c` says of a server.
    fn client_says(ca: &RootCa, server: &NodeCertificate, now: UnixTime) -> String {
        peer_says(&ca.certificate().clone().into(), server, None, now)
    }

    /// The same, of one that wants to talk to a certain manager.
    fn peer_says(
        trust: &Trust,
        server: &NodeCertificate,
        wanted: Option<&str>,
        now: UnixTime,
    ) -> String {
        let verifier = ManagersOnly {
            roots: anchors(trust, store).unwrap(),
            cluster_id: Some("c".to_owned()),
            node_id: wanted.map(str::to_owned),
            provider: Arc::new(ring::default_provider()),
        };
        let name = ServerName::try_from("ignored").unwrap();
        let (leaf, others) = server.shown().split_first().unwrap();
        match verifier.verify_server_cert(leaf, others, &name, &[], now) {
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
            (&foreign, after(DAY), "UnknownIssuer", "no root trusted here has signed it"),
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
        let trust = Trust::from(ca.certificate().clone());
        let said = |wanted| peer_says(&trust, &manager, Some(wanted), after(DAY));
        assert_eq!(said("node"), "ok");
        assert!(said("other").contains("it is node node's"), "{}", said("other"));
    }

    /// A certificate as it is issued while the root is rotated: with the cross-signed one.
    fn crossed(old: &RootCa, new: &RootCa, role: Role, trust: Trust) -> NodeCertificate {
        let key = NodeKey::create().unwrap();
        let csr = key.csr_pem().unwrap();
        let leaf = new.sign_node(&csr, "node", role, "c", BEGIN, NODE_VALIDITY).unwrap();
        let chain = leaf + &old.cross_sign(new.certificate(), BEGIN).unwrap();
        NodeCertificate::new(key, &chain, trust).unwrap()
    }

    #[test]
    fn while_the_root_is_rotated_every_stage_believes_every_other_and_afterwards_the_old_is_none() {
        let [old, new] = [(); 2].map(|()| RootCa::create(BEGIN).unwrap());
        let [first, second] = [&old, &new].map(|ca| Trust::from(ca.certificate().clone()));
        let both = Trust::both(old.certificate().clone(), new.certificate().clone());
        let manager = |ca: &RootCa| node(ca, Role::Manager, "c", BEGIN);
        // What a node shows: before, in between, and when its certificate was renewed once more.
        let shown =
            [manager(&old), crossed(&old, &new, Role::Manager, both.clone()), manager(&new)];
        let table =
            [(&first, [true, true, false]), (&both, [true; 3]), (&second, [false, true, true])];
        for (trust, expected) in table {
            let base = [&old, &new].map(|ca| node(ca, Role::Manager, "c", BEGIN));
            let own = base.iter().find_map(|own| own.trusting(trust.clone()).ok()).unwrap();
            let verifier = NodesOnly::new(&own, Arc::new(ring::default_provider())).unwrap();
            for (certificate, believed) in shown.iter().zip(expected) {
                let said = peer_says(trust, certificate, None, after(DAY));
                assert_eq!(said == "ok", believed, "client: {said}");
                let (leaf, others) = certificate.shown().split_first().unwrap();
                let said = verifier.verify_client_cert(leaf, others, after(DAY));
                assert_eq!(said.is_ok(), believed, "server: {said:?}");
            }
        }
    }

    #[test]
    fn an_expired_root_is_no_reason_to_refuse_what_the_other_has_signed() {
        let old = RootCa::create(BEGIN).unwrap();
        let new = RootCa::create(BEGIN.after(19 * YEAR)).unwrap();
        let both = Trust::both(old.certificate().clone(), new.certificate().clone());
        let late = BEGIN.after(20 * YEAR);
        let [of_old, of_new] = [&old, &new].map(|ca| node(ca, Role::Manager, "c", late));
        assert_eq!(peer_says(&both, &of_new, None, after(20 * YEAR + DAY)), "ok");
        assert_ne!(peer_says(&both, &of_old, None, after(20 * YEAR + DAY)), "ok");
    }
}
