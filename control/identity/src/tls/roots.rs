//! Certificates against the roots that are trusted.

use crate::{Identity, IdentityError, RootCertificate, Trust};
use rustls::{
    CertificateError, Error, OtherError, RootCertStore,
    client::verify_server_cert_signed_by_trust_anchor,
    crypto::ring,
    pki_types::{CertificateDer, UnixTime},
    server::{ParsedCertificate, WebPkiClientVerifier},
};
use std::sync::Arc;

/// Each root, with what certificates are checked by against it alone: an expired one counts for nothing.
pub(super) type Anchors<V> = Vec<(RootCertificate, V)>;

pub(super) fn anchors<V>(
    trust: &Trust,
    make: impl Fn(&RootCertificate) -> Result<V, IdentityError>,
) -> Result<Anchors<V>, IdentityError> {
    trust.roots().iter().map(|root| Ok((root.clone(), make(root)?))).collect()
}

/// The first root that answers for the certificate shown. With several, the last one's reason is told.
pub(super) fn first_of<V, R>(
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

/// A certificate of another root, in words that say what to do.
pub(super) fn of_another_root(
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

pub(super) fn store(root: &RootCertificate) -> Result<RootCertStore, IdentityError> {
    let mut roots = RootCertStore::empty();
    roots.add(root.der().clone())?;
    Ok(roots)
}

/// A chain check does not look at the dates of the trust anchor itself.
pub(super) fn check_root(root: &RootCertificate, now: UnixTime) -> Result<(), Error> {
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    let [begin, end] = root.validity().map(|t| t.0 / 1_000_000_000);
    match now {
        now if now < begin => Err(refused("cluster's root certificate", "it is not valid yet")),
        now if now > end => Err(refused("cluster's root certificate", "it has expired")),
        _ => Ok(()),
    }
}

pub(super) fn refused(what: &'static str, reason: impl ToString) -> Error {
    let error: Box<dyn std::error::Error + Send + Sync> =
        Box::new(IdentityError::invalid(what, reason));
    CertificateError::Other(OtherError(error.into())).into()
}

/// Who the certificate names, if it is one of this cluster's nodes.
pub(super) fn node_of(
    der: &CertificateDer<'_>,
    cluster_id: Option<&str>,
) -> Result<Identity, Error> {
    let identity = Identity::of(der).map_err(|e| refused("peer's certificate", e))?;
    if cluster_id.is_some_and(|id| id != identity.cluster_id) {
        return Err(refused("peer's certificate", "it belongs to another cluster"));
    }
    Ok(identity)
}
