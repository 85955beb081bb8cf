//! Who is believed in a handshake: a server's clients, a client's servers, and anybody at all.

use super::roots::{Anchors, anchors, first_of, node_of, of_another_root, refused, store};
use crate::{IdentityError, NodeCertificate};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore,
    SignatureScheme,
    client::{
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor,
    },
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::{
        ParsedCertificate, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};
use shoal_model::Role;
use std::sync::Arc;

const ROTATED: &str = "the manager is of another swarm, or the swarm's root CA was rotated while this \
     node was away; then leave with `swarm leave --force` and join again";

/// For servers: clients without a certificate, and nodes of the cluster.
#[derive(Debug)]
pub(super) struct NodesOnly {
    inner: Anchors<Arc<dyn ClientCertVerifier>>,
    /// The same for all roots.
    signatures: Arc<dyn ClientCertVerifier>,
    cluster_id: String,
}

impl NodesOnly {
    pub(super) fn new(
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
pub(super) struct ManagersOnly {
    pub(super) roots: Anchors<RootCertStore>,
    pub(super) cluster_id: Option<String>,
    pub(super) node_id: Option<String>,
    pub(super) provider: Arc<CryptoProvider>,
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

/// Accepts whoever holds the key of the certificate shown.
#[derive(Debug)]
pub(super) struct AnyServer {
    pub(super) provider: Arc<CryptoProvider>,
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
