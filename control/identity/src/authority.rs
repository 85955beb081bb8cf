//! The cluster's certificate authority. Only managers have it.

use crate::{
    IdentityError, RootCertificate, RootDigest,
    certificate::{MAX_PEM, new_key, parse, with_key},
    cross, keys,
    peer::unit,
};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, DnValue, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, string::PrintableString,
};
use rustls::pki_types::CertificateDer;
use shoal_model::{Role, Timestamp};
use std::{fmt, time::Duration};
use time::OffsetDateTime;
use zeroize::Zeroizing;

/// How long a node's certificate is valid unless the cluster says otherwise: 90 days, Docker's.
pub const NODE_VALIDITY: Duration = Duration::from_secs(90 * 24 * 3600);

/// How long the root is valid: 20 years of 365 days, Docker's.
const ROOT_VALIDITY: Duration = Duration::from_secs(20 * 365 * 24 * 3600);

/// Certificates begin so much before they are signed, for clocks that are behind.
const BACKDATE: Duration = Duration::from_secs(3600);

/// Root certificate and key. The key is wiped when dropped and not shown by `Debug`.
#[derive(Clone)]
pub struct RootCa {
    root: RootCertificate,
    key_pem: Zeroizing<String>,
}

impl RootCa {
    /// A new CA (ECDSA P-256, self-signed, CN `swarm-ca`), valid for 20 years from `now`.
    pub fn create(now: Timestamp) -> Result<RootCa, IdentityError> {
        let (mut key, key_pem) = new_key()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        // In the form that other programs write, too: an external CA may have to repeat it.
        let name = PrintableString::try_from("swarm-ca").map_err(IdentityError::signing("name"))?;
        params.distinguished_name.push(DnType::CommonName, DnValue::PrintableString(name));
        // Between it and a node's certificate there may be its successor's.
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        (params.not_before, params.not_after) = validity(now, ROOT_VALIDITY)?;
        let certificate = params
            .self_signed(&key)
            .map_err(IdentityError::signing("sign the root certificate"))?;
        zeroize::Zeroize::zeroize(&mut key);
        Ok(RootCa { root: RootCertificate::from_pem(&certificate.pem())?, key_pem })
    }

    /// Reads certificate and key; both must belong together. The key is ECDSA (P-256 or P-384), RSA or
    /// Ed25519, in the form of PKCS #8, SEC 1 or PKCS #1.
    pub fn from_pem(certificate: &str, key: &str) -> Result<RootCa, IdentityError> {
        let root = RootCertificate::from_pem(certificate)?;
        let key_pem = keys::pkcs8("root key", key)?;
        with_key("root key", &key_pem, |pair| {
            let of_certificate = parse(ROOT, root.der())?;
            match of_certificate.public_key().raw {
                spki if spki == rcgen::PublicKeyData::subject_public_key_info(pair) => Ok(()),
                _ => Err(IdentityError::KeyMismatch("root")),
            }
        })?;
        Ok(RootCa { root, key_pem })
    }

    /// Certifies another root with this one's key, so that whoever trusts this root believes what the
    /// other has signed. Valid from an hour before `now` until the first of the two ends.
    pub fn cross_sign(
        &self,
        other: &RootCertificate,
        now: Timestamp,
    ) -> Result<String, IdentityError> {
        let end = self.root.validity()[1].min(other.validity()[1]);
        let [begin, end] = [moment(now)? - BACKDATE, moment(end)?];
        let serial = rand::random::<[u8; 16]>();
        with_key("root key", &self.key_pem, |key| {
            cross::sign(self.root.der(), key, other.der(), serial, [begin, end])
        })
    }

    /// The root certificate, which everybody may see.
    pub fn certificate(&self) -> &RootCertificate {
        &self.root
    }

    /// The key in PEM form (PKCS #8). Only for the managers' store.
    pub fn key_pem(&self) -> &Zeroizing<String> {
        &self.key_pem
    }

    /// Digest of the root certificate, for join tokens.
    pub fn digest(&self) -> RootDigest {
        self.root.digest()
    }

    /// A request to have its key certified by another authority, under its own name.
    pub fn csr_pem(&self) -> Result<String, IdentityError> {
        cross::request(self.root.der(), &self.key_pem)
    }

    /// Certifies the key of a request for a node and returns the certificate in PEM form.
    ///
    /// Whatever else the request asks for is ignored. Valid from an hour before `now` until
    /// `lifetime` after it.
    pub fn sign_node(
        &self,
        csr_pem: &str,
        node_id: &str,
        role: Role,
        cluster_id: &str,
        now: Timestamp,
        lifetime: Duration,
    ) -> Result<String, IdentityError> {
        const WHAT: &str = "certificate signing request";
        if csr_pem.len() > MAX_PEM {
            return Err(IdentityError::invalid(WHAT, "it is too long"));
        }
        let csr = CertificateSigningRequestParams::from_pem(csr_pem)
            .map_err(|e| IdentityError::invalid(WHAT, e))?;
        if csr.public_key.algorithm() != &PKCS_ECDSA_P256_SHA256 {
            return Err(IdentityError::invalid(WHAT, "its key is not of type ECDSA P-256"));
        }
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, node_id);
        params.distinguished_name.push(DnType::OrganizationalUnitName, unit(role));
        params.distinguished_name.push(DnType::OrganizationName, cluster_id);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        (params.not_before, params.not_after) = validity(now, lifetime)?;
        with_key("root key", &self.key_pem, |key| {
            let sign = IdentityError::signing;
            let issuer = Issuer::from_ca_cert_der(self.root.der(), key)
                .map_err(sign("use the root certificate"))?;
            let certificate = params
                .signed_by(&csr.public_key, &issuer)
                .map_err(sign("sign a node certificate"))?;
            self.check_names(certificate.der())?;
            Ok(certificate.pem())
        })
    }

    /// Whether a certificate it has made names it as the root names itself, bit by bit: a name of an
    /// unusual form may have been written differently.
    fn check_names(&self, made: &CertificateDer<'_>) -> Result<(), IdentityError> {
        let (root, made) = (parse(ROOT, self.root.der())?, parse("node certificate", made)?);
        match root.subject().as_raw() == made.issuer().as_raw() {
            true => Ok(()),
            false => Err(IdentityError::invalid(
                ROOT,
                "its subject has a form that cannot be used; make one with a single, plain CN",
            )),
        }
    }
}

const ROOT: &str = "root certificate";

impl fmt::Debug for RootCa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RootCa").field("digest", &self.digest()).finish_non_exhaustive()
    }
}

/// Begin and end for a certificate made at `now`.
fn validity(
    now: Timestamp,
    lifetime: Duration,
) -> Result<(OffsetDateTime, OffsetDateTime), IdentityError> {
    let now = moment(now)?;
    let end = time::Duration::try_from(lifetime)
        .ok()
        .and_then(|lifetime| now.checked_add(lifetime))
        .ok_or_else(|| IdentityError::invalid("certificate lifetime", "it is too long"))?;
    Ok((now - BACKDATE, end))
}

fn moment(at: Timestamp) -> Result<OffsetDateTime, IdentityError> {
    OffsetDateTime::from_unix_timestamp(at.0.div_euclid(1_000_000_000))
        .map_err(|e| IdentityError::invalid("present time", e))
}
