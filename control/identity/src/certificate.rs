//! Keys and certificates of nodes, and the root certificate they are checked against.

use crate::{Identity, IdentityError, RootDigest, Trust, der};
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use shoal_model::Timestamp;
use std::fmt;
use x509_parser::{
    certificate::X509Certificate,
    prelude::{FromDer, Validity},
};
use zeroize::{Zeroize, Zeroizing};

/// A text longer than this is no certificate, request or key of ours (they are below 1 KiB, and two
/// roots and a chain fit if each is as long as it may be).
pub(crate) const MAX_PEM: usize = 16 * 1024;

/// Longest root certificate, bytes of DER: twice that of an RSA key of 8,192 bits.
const MAX_ROOT: usize = 4 * 1024;

/// Certificates a node shows: its own and the cross-signed root's.
const MOST_SHOWN: usize = 2;

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
        if der.len() > MAX_ROOT {
            return Err(IdentityError::invalid(WHAT, "it is too long"));
        }
        let certificate = parse(WHAT, &der)?;
        if !certificate.is_ca() {
            return Err(IdentityError::invalid(WHAT, "it is not a certificate authority's"));
        }
        certificate
            .verify_signature(None)
            .map_err(|_| IdentityError::invalid(WHAT, "it is not signed by its own key"))?;
        let validity = times(certificate.validity());
        // Written anew: files of users have words and spaces around the certificate.
        Ok(RootCertificate { pem: der::pem("CERTIFICATE", &der), der, validity })
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

    /// Whether it has signed a certificate and is named by it.
    pub(crate) fn has_signed(&self, certificate: &X509Certificate<'_>) -> bool {
        parse("root certificate", &self.der).is_ok_and(|root| has_signed(&root, certificate))
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

/// A node's certificate with its key and what it chains to; what a node needs to be known.
#[derive(Clone, Debug)]
pub struct NodeCertificate {
    key: NodeKey,
    pem: String,
    /// What the node shows: its certificate, then the cross-signed one of its root if there is one.
    shown: Vec<CertificateDer<'static>>,
    trust: Trust,
    identity: Identity,
    validity: [Timestamp; 2],
}

impl NodeCertificate {
    /// Puts the three together and checks that they belong together. `pem` may have the certificate of
    /// the root's successor after the node's own, signed by the root. Validity in time is not looked
    /// at; see [`NodeCertificate::validity`].
    pub fn new(
        key: NodeKey,
        pem: &str,
        trust: impl Into<Trust>,
    ) -> Result<NodeCertificate, IdentityError> {
        let trust = trust.into();
        let shown = ders_of(WHAT, pem, MOST_SHOWN)?;
        let identity = Identity::of(&shown[0])?;
        let certificate = parse(WHAT, &shown[0])?;
        if !chains_to(&shown, trust.roots())? {
            return Err(IdentityError::invalid(WHAT, "the cluster's root has not signed it"));
        }
        with_key("node key", &key.0, |pair| match certificate.public_key().raw {
            spki if spki == rcgen::PublicKeyData::subject_public_key_info(pair) => Ok(()),
            _ => Err(IdentityError::KeyMismatch("node")),
        })?;
        let validity = times(certificate.validity());
        Ok(NodeCertificate { key, pem: pem.to_owned(), shown, trust, identity, validity })
    }

    /// The same certificate with other roots to trust; it must chain to one of them.
    pub fn trusting(&self, trust: Trust) -> Result<NodeCertificate, IdentityError> {
        NodeCertificate::new(self.key.clone(), &self.pem, trust)
    }

    /// Whether the root with this digest has signed it, with nothing in between, and is trusted.
    pub fn is_signed_by(&self, digest: &str) -> bool {
        let root = self.trust.roots().iter().find(|root| root.digest().to_string() == digest);
        let certificate = parse(WHAT, &self.shown[0]);
        root.zip(certificate.ok()).is_some_and(|(root, certificate)| root.has_signed(&certificate))
    }

    /// Who it names.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// First and last second of its validity.
    pub fn validity(&self) -> [Timestamp; 2] {
        self.validity
    }

    /// What the node trusts; the certificate chains to one of them.
    pub fn trust(&self) -> &Trust {
        &self.trust
    }

    /// Its key.
    pub fn key(&self) -> &NodeKey {
        &self.key
    }

    /// PEM form, with the cross-signed certificate if there is one.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// What it shows to others.
    pub(crate) fn shown(&self) -> &[CertificateDer<'static>] {
        &self.shown
    }
}

const WHAT: &str = "node certificate";

/// Checks a certificate that somebody else has made for a node: that it is for the key of the request,
/// for this node and by this root. `csr` is in PEM form, `der` the certificate.
pub(crate) fn check_issued(
    der: &CertificateDer<'_>,
    csr: &str,
    wanted: &Identity,
    root: &RootCertificate,
) -> Result<[Timestamp; 2], IdentityError> {
    let wrong = |reason: String| Err(IdentityError::Invalid { what: WHAT, reason });
    let (certificate, found) = (parse(WHAT, der)?, Identity::of(der)?);
    let csr = rcgen::CertificateSigningRequestParams::from_pem(csr)
        .map_err(|e| IdentityError::invalid("certificate signing request", e))?;
    let key = rcgen::PublicKeyData::subject_public_key_info(&csr.public_key);
    if certificate.public_key().raw != key {
        return wrong("it is for another key than the request's".to_owned());
    }
    if found != *wanted {
        return wrong(format!("it names {found}, and was to name {wanted}"));
    }
    if certificate.is_ca() {
        return wrong("it is a certificate authority's".to_owned());
    }
    match root.has_signed(&certificate) {
        true => Ok(times(certificate.validity())),
        false => wrong(format!("the root {} has not signed it", root.digest())),
    }
}

/// A certificate that a node says it has, as far as it can be believed: what it proves itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reported {
    /// Who it names.
    pub identity: Identity,
    /// Which of the roots has signed it, with nothing in between.
    pub signed_by: Option<RootDigest>,
}

impl Reported {
    /// Looks at a certificate in PEM form, which may have another after it. `roots`: the first that
    /// has signed it counts.
    pub fn read(pem: &str, roots: &[&RootCertificate]) -> Result<Reported, IdentityError> {
        let shown = ders_of(WHAT, pem, MOST_SHOWN)?;
        let certificate = parse(WHAT, &shown[0])?;
        let signer = roots.iter().find(|root| root.has_signed(&certificate));
        let signed_by = signer.map(|root| root.digest());
        Ok(Reported { identity: Identity::of(&shown[0])?, signed_by })
    }
}

/// Whether the first certificate is signed by one of the roots, or by the second, and that by a root.
fn chains_to(
    shown: &[CertificateDer<'_>],
    roots: &[RootCertificate],
) -> Result<bool, IdentityError> {
    let leaf = parse(WHAT, &shown[0])?;
    if roots.iter().any(|root| root.has_signed(&leaf)) {
        return Ok(true);
    }
    let Some(next) = shown.get(1) else { return Ok(false) };
    let next = parse("cross-signed root certificate", next)?;
    Ok(next.is_ca() && has_signed(&next, &leaf) && roots.iter().any(|root| root.has_signed(&next)))
}

fn has_signed(authority: &X509Certificate<'_>, certificate: &X509Certificate<'_>) -> bool {
    certificate.issuer().as_raw() == authority.subject().as_raw()
        && certificate.verify_signature(Some(authority.public_key())).is_ok()
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
    let mut all = ders_of(what, pem, 1)?;
    all.pop().ok_or_else(|| IdentityError::invalid(what, "it is not one certificate in PEM form"))
}

/// One certificate or several, at most `most`.
pub(crate) fn ders_of(
    what: &'static str,
    pem: &str,
    most: usize,
) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    if pem.len() > MAX_PEM {
        return Err(IdentityError::invalid(what, "it is too long"));
    }
    let all = CertificateDer::pem_slice_iter(pem.as_bytes()).take(most + 1);
    let all: Vec<_> = all.collect::<Result<_, _>>().unwrap_or_default();
    match all.len() {
        0 => Err(IdentityError::invalid(what, "it is not one certificate in PEM form")),
        count if count > most && most == 1 => {
            Err(IdentityError::invalid(what, "it is not one certificate in PEM form but several"))
        }
        count if count > most => {
            Err(IdentityError::invalid(what, format!("there are more than {most} in a row")))
        }
        _ => Ok(all),
    }
}

fn times(validity: &Validity) -> [Timestamp; 2] {
    [validity.not_before, validity.not_after]
        .map(|t| Timestamp(t.timestamp().saturating_mul(1_000_000_000)))
}
