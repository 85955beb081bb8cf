//! Keys and certificates of nodes, and the root certificate they are checked against.

use crate::{Identity, IdentityError, RootDigest};
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use shoal_model::Timestamp;
use std::fmt;
use x509_parser::{
    certificate::X509Certificate,
    prelude::{FromDer, Validity},
};
use zeroize::{Zeroize, Zeroizing};

/// A text longer than this is no certificate, request or key of ours (they are below 1 KiB).
pub(crate) const MAX_PEM: usize = 16 * 1024;

/// The cluster's root certificate, without its key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RootCertificate {
    pem: String,
    der: CertificateDer<'static>,
    validity: [Timestamp; 2],
}

impl RootCertificate {
    /// Reads a root certificate and checks that it is a CA's, signed by itself.
    pub fn from_pem(pem: &str) -> Result<RootCertificate, IdentityError> {
        const WHAT: &str = "root certificate";
        let der = der_of(WHAT, pem)?;
        let certificate = parse(WHAT, &der)?;
        if !certificate.is_ca() {
            return Err(IdentityError::invalid(WHAT, "it is not a certificate authority's"));
        }
        certificate
            .verify_signature(None)
            .map_err(|_| IdentityError::invalid(WHAT, "it is not signed by its own key"))?;
        let validity = times(certificate.validity());
        Ok(RootCertificate { pem: pem.to_owned(), der, validity })
    }

    /// PEM form.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// Its digest, as join tokens carry it.
    pub fn digest(&self) -> RootDigest {
        RootDigest::of(&self.der)
    }

    /// First and last second of its validity.
    pub fn validity(&self) -> [Timestamp; 2] {
        self.validity
    }

    pub(crate) fn der(&self) -> &CertificateDer<'static> {
        &self.der
    }
}

/// A node's private key (ECDSA P-256). Wiped when dropped and not shown by `Debug`.
#[derive(Clone)]
pub struct NodeKey(Zeroizing<String>);

impl NodeKey {
    /// A new key.
    pub fn create() -> Result<NodeKey, IdentityError> {
        new_key().map(|(_, pem)| NodeKey(pem))
    }

    /// Reads a key in PEM form (PKCS #8).
    pub fn from_pem(pem: &str) -> Result<NodeKey, IdentityError> {
        with_key("node key", pem, |_| Ok(()))?;
        Ok(NodeKey(Zeroizing::new(pem.to_owned())))
    }

    /// A request, in PEM form, to have its public half certified. It names nobody: the CA decides.
    pub fn csr_pem(&self) -> Result<String, IdentityError> {
        with_key("node key", &self.0, |key| {
            let mut params = CertificateParams::default();
            params.distinguished_name = DistinguishedName::new();
            params
                .serialize_request(key)
                .and_then(|csr| csr.pem())
                .map_err(IdentityError::signing("make a certificate signing request"))
        })
    }

    /// PEM form (PKCS #8). Only for the node's own disk.
    pub fn pem(&self) -> &Zeroizing<String> {
        &self.0
    }
}

impl fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NodeKey(…)")
    }
}

/// A node's certificate with its key and the root it chains to; what a node needs to be known.
#[derive(Clone, Debug)]
pub struct NodeCertificate {
    key: NodeKey,
    pem: String,
    der: CertificateDer<'static>,
    root: RootCertificate,
    identity: Identity,
    validity: [Timestamp; 2],
}

impl NodeCertificate {
    /// Puts the three together and checks that they belong together. Its validity in time is not
    /// looked at; see [`NodeCertificate::validity`].
    pub fn new(
        key: NodeKey,
        pem: &str,
        root: RootCertificate,
    ) -> Result<NodeCertificate, IdentityError> {
        const WHAT: &str = "node certificate";
        let der = der_of(WHAT, pem)?;
        let identity = Identity::of(&der)?;
        let certificate = parse(WHAT, &der)?;
        let authority = parse("root certificate", &root.der)?;
        certificate
            .verify_signature(Some(authority.public_key()))
            .map_err(|_| IdentityError::invalid(WHAT, "the cluster's root has not signed it"))?;
        with_key("node key", &key.0, |pair| match certificate.public_key().raw {
            spki if spki == rcgen::PublicKeyData::subject_public_key_info(pair) => Ok(()),
            _ => Err(IdentityError::KeyMismatch("node")),
        })?;
        let validity = times(certificate.validity());
        Ok(NodeCertificate { key, pem: pem.to_owned(), der, root, identity, validity })
    }

    /// Who it names.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// First and last second of its validity.
    pub fn validity(&self) -> [Timestamp; 2] {
        self.validity
    }

    /// The root it chains to.
    pub fn root(&self) -> &RootCertificate {
        &self.root
    }

    /// Its key.
    pub fn key(&self) -> &NodeKey {
        &self.key
    }

    /// PEM form.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    pub(crate) fn der(&self) -> &CertificateDer<'static> {
        &self.der
    }
}

/// A new ECDSA P-256 key and its PEM form.
pub(crate) fn new_key() -> Result<(KeyPair, Zeroizing<String>), IdentityError> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)
        .map_err(IdentityError::signing("make a key"))?;
    let pem = Zeroizing::new(key.serialize_pem());
    Ok((key, pem))
}

/// Runs `f` with the key `pem` holds, and wipes it afterwards.
pub(crate) fn with_key<R>(
    what: &'static str,
    pem: &str,
    f: impl FnOnce(&KeyPair) -> Result<R, IdentityError>,
) -> Result<R, IdentityError> {
    if pem.len() > MAX_PEM {
        return Err(IdentityError::invalid(what, "it is too long"));
    }
    let mut key = KeyPair::from_pem(pem)
        .map_err(|_| IdentityError::invalid(what, "it is not a private key in PEM form"))?;
    let result = f(&key);
    key.zeroize();
    result
}

pub(crate) fn parse<'a>(
    what: &'static str,
    der: &'a CertificateDer<'_>,
) -> Result<X509Certificate<'a>, IdentityError> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        _ => Err(IdentityError::invalid(what, "it is not an X.509 certificate")),
    }
}

fn der_of(what: &'static str, pem: &str) -> Result<CertificateDer<'static>, IdentityError> {
    if pem.len() > MAX_PEM {
        return Err(IdentityError::invalid(what, "it is too long"));
    }
    let mut all = CertificateDer::pem_slice_iter(pem.as_bytes());
    match (all.next(), all.next()) {
        (Some(Ok(der)), None) => Ok(der),
        _ => Err(IdentityError::invalid(what, "it is not one certificate in PEM form")),
    }
}

fn times(validity: &Validity) -> [Timestamp; 2] {
    [validity.not_before, validity.not_after]
        .map(|t| Timestamp(t.timestamp().saturating_mul(1_000_000_000)))
}
