//! The certificate of a root that another root has signed.
//!
//! Its subject, key and key identifier are the other root's, bit by bit: a certificate that the other
//! root has signed chains through it. So it is put together from pieces of both roots and not made anew.

use crate::{
    IdentityError, RootCertificate,
    certificate::{parse, with_key},
    der::{BIT_STRING, INTEGER, OCTET_STRING, SEQUENCE, element, pem, time},
};
use ::time::OffsetDateTime;
use rcgen::{
    KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_RSA_SHA256,
    SigningKey,
};
use rustls::pki_types::CertificateDer;
use x509_parser::extensions::ParsedExtension;

/// Version 3 as `[0]`; `[3]` holds the extensions (RFC 5280, 4.1).
const VERSION_3: &[u8] = &[0xa0, 3, INTEGER, 1, 2];
const EXTENSIONS: u8 = 0xa3;

/// Basic constraints, critical: an authority with nothing but nodes below it.
const AUTHORITY: &[u8] =
    b"\x30\x12\x06\x03\x55\x1d\x13\x01\x01\xff\x04\x08\x30\x06\x01\x01\xff\x02\x01\x00";
/// Key usage, critical: signing of certificates and of revocation lists.
const USAGE: &[u8] = b"\x30\x0e\x06\x03\x55\x1d\x0f\x01\x01\xff\x04\x04\x03\x02\x01\x06";
/// Version 1 of requests; `[0]` holds their attributes.
const VERSION_1: &[u8] = &[INTEGER, 1, 0];
const ATTRIBUTES: u8 = 0xa0;
const SET: u8 = 0x31;
/// The object identifier of the attribute that asks for extensions (RFC 2985, 5.4.2).
const EXTENSION_REQUEST: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x09\x0e";
const CROSS_SIGNED: &str = "cross-signed root certificate";
/// The object identifier of a subject's key identifier.
const KEY_IDENTIFIER: &[u8] = b"\x06\x03\x55\x1d\x0e";

/// The certificate in PEM form.
pub(crate) fn sign(
    root: &CertificateDer<'_>,
    key: &KeyPair,
    other: &CertificateDer<'_>,
    serial: [u8; 16],
    [begin, end]: [OffsetDateTime; 2],
) -> Result<String, IdentityError> {
    let (root, other) = (parse("root certificate", root)?, parse("new root certificate", other)?);
    let algorithm = signature_algorithm(key)?;
    let mut serial = serial;
    serial[0] = serial[0] & 0x7f | 0x40; // positive, and of full length
    let identifier =
        other.extensions().iter().find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
            _ => None,
        });
    let identifier = identifier.map(|id| {
        let value = element(OCTET_STRING, &[&element(OCTET_STRING, &[&id])]);
        element(SEQUENCE, &[KEY_IDENTIFIER, &value])
    });
    let extensions =
        element(SEQUENCE, &[AUTHORITY, USAGE, identifier.as_deref().unwrap_or_default()]);
    let content = element(
        SEQUENCE,
        &[
            VERSION_3,
            &element(INTEGER, &[&serial]),
            algorithm,
            root.subject().as_raw(),
            &element(SEQUENCE, &[&time(begin), &time(end)]),
            other.subject().as_raw(),
            other.public_key().raw,
            &element(EXTENSIONS, &[&extensions]),
        ],
    );
    let signature =
        key.sign(&content).map_err(IdentityError::signing("sign the new root certificate"))?;
    // A bit string begins with the number of bits its last byte lacks.
    let signature = element(BIT_STRING, &[&[0], &signature]);
    Ok(pem("CERTIFICATE", &element(SEQUENCE, &[&content, algorithm, &signature])))
}

/// A request (RFC 2986, 4) for the same subject and key, in PEM form.
pub(crate) fn request(root: &CertificateDer<'_>, key: &str) -> Result<String, IdentityError> {
    let root = parse("root certificate", root)?;
    with_key("root key", key, |key| {
        let algorithm = signature_algorithm(key)?;
        let extensions = element(SEQUENCE, &[AUTHORITY, USAGE]);
        let wanted = element(SEQUENCE, &[EXTENSION_REQUEST, &element(SET, &[&extensions])]);
        let content = element(
            SEQUENCE,
            &[
                VERSION_1,
                root.subject().as_raw(),
                root.public_key().raw,
                &element(ATTRIBUTES, &[&wanted]),
            ],
        );
        let signature = key
            .sign(&content)
            .map_err(IdentityError::signing("make a certificate signing request"))?;
        let signature = element(BIT_STRING, &[&[0], &signature]);
        let request = element(SEQUENCE, &[&content, algorithm, &signature]);
        Ok(pem("CERTIFICATE REQUEST", &request))
    })
}

/// Checks what another authority made of a [`request`].
pub(crate) fn check(
    made: &CertificateDer<'_>,
    old: &RootCertificate,
    new: &RootCertificate,
) -> Result<(), IdentityError> {
    let wrong = |reason: &str| Err(IdentityError::invalid(CROSS_SIGNED, reason));
    let (made, root) = (parse(CROSS_SIGNED, made)?, parse("root certificate", new.der())?);
    if made.public_key().raw != root.public_key().raw {
        return wrong("it is for another key");
    }
    if made.subject().as_raw() != root.subject().as_raw() {
        return wrong("it has another subject than the new root");
    }
    if !made.is_ca() {
        return wrong("it is not a certificate authority's");
    }
    match old.has_signed(&made) {
        true => Ok(()),
        false => wrong("the present root has not signed it"),
    }
}

/// The name of what `key` signs with, as an element (RFC 5758, 3.2; RFC 8017, A.2.4; RFC 8410, 3).
fn signature_algorithm(key: &KeyPair) -> Result<&'static [u8], IdentityError> {
    let known: [(_, &'static [u8]); 4] = [
        (&PKCS_ECDSA_P256_SHA256, b"\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02"),
        (&PKCS_ECDSA_P384_SHA384, b"\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x03"),
        (&PKCS_RSA_SHA256, b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0b\x05\x00"),
        (&PKCS_ED25519, b"\x30\x05\x06\x03\x2b\x65\x70"),
    ];
    let found = known.into_iter().find(|(algorithm, _)| *algorithm == key.algorithm());
    found
        .map(|(_, name)| name)
        .ok_or_else(|| IdentityError::invalid("root key", "it signs with an unknown algorithm"))
}
