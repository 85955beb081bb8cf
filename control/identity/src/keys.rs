//! Private keys as users have them, in the one form that is used here.

use crate::{
    IdentityError,
    certificate::MAX_PEM,
    der::{INTEGER, OCTET_STRING, SEQUENCE, element, pem, split},
};
use rustls::pki_types::{PrivateKeyDer, pem::PemObject};
use zeroize::Zeroizing;

/// `id-ecPublicKey` (RFC 5480, 2.1.1) and `rsaEncryption` with its NULL (RFC 8017, A.1), as elements.
const EC: &[u8] = b"\x06\x07\x2a\x86\x48\xce\x3d\x02\x01";
/// Tag of a key's curve in SEC 1.
const PARAMETERS: u8 = 0xa0;
const RSA: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00";

/// The key in the form of PKCS #8. OpenSSL and cfssl write SEC 1 (`EC PRIVATE KEY`) and PKCS #1
/// (`RSA PRIVATE KEY`), too; only the envelope is another.
pub(crate) fn pkcs8(what: &'static str, text: &str) -> Result<Zeroizing<String>, IdentityError> {
    if text.len() > MAX_PEM {
        return Err(IdentityError::invalid(what, "it is too long"));
    }
    if text.contains("ENCRYPTED") {
        let reason = "it is encrypted with a passphrase; decrypt it first (openssl pkey)";
        return Err(IdentityError::invalid(what, reason));
    }
    let no_key = || IdentityError::invalid(what, "it is not a private key in PEM form");
    let key = PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|_| no_key())?;
    let der = match &key {
        PrivateKeyDer::Pkcs8(key) => Zeroizing::new(key.secret_pkcs8_der().to_vec()),
        PrivateKeyDer::Sec1(key) => {
            let curve = curve(key.secret_sec1_der()).ok_or_else(no_key)?;
            wrapped(&[EC, &curve], key.secret_sec1_der())
        }
        PrivateKeyDer::Pkcs1(key) => wrapped(&[RSA], key.secret_pkcs1_der()),
        _ => return Err(no_key()),
    };
    Ok(Zeroizing::new(pem("PRIVATE KEY", &der)))
}

/// `PrivateKeyInfo` (RFC 5208, 5): version 0, algorithm, key.
fn wrapped(algorithm: &[&[u8]], key: &[u8]) -> Zeroizing<Vec<u8>> {
    let key = Zeroizing::new(element(OCTET_STRING, &[key]));
    let parts = [&element(INTEGER, &[&[0]])[..], &element(SEQUENCE, algorithm), &key];
    Zeroizing::new(element(SEQUENCE, &parts))
}

/// The curve's name as an element: `ECPrivateKey` has it as `[0]` (RFC 5915, 3).
fn curve(sec1: &[u8]) -> Option<Vec<u8>> {
    let (SEQUENCE, outer, _) = split(sec1)? else { return None };
    let (INTEGER, _, rest) = split(outer)? else { return None };
    let (OCTET_STRING, _, rest) = split(rest)? else { return None };
    let (PARAMETERS, curve, _) = split(rest)? else { return None };
    Some(curve.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{NodeKey, certificate::with_key};
    use rcgen::PublicKeyData;

    /// Made with `openssl ecparam -name prime256v1 -genkey` and `openssl genrsa -traditional 2048`.
    const SEC1: &str = include_str!("../tests/keys/sec1.pem");
    const PKCS1: &str = include_str!("../tests/keys/pkcs1.pem");

    #[test]
    fn every_form_of_a_key_is_read() {
        let own = NodeKey::create().unwrap();
        for (text, bits) in [(own.pem().as_str(), 64 * 8), (SEC1, 64 * 8), (PKCS1, 2_048)] {
            let key = pkcs8("root key", text).unwrap();
            with_key("root key", &key, |pair| {
                assert!(pair.der_bytes().len() * 8 >= bits);
                Ok(())
            })
            .unwrap();
        }
    }

    #[test]
    fn what_is_no_key_or_is_encrypted_is_refused_with_the_reason() {
        let long = "x".repeat(MAX_PEM + 1);
        for (text, reason) in [
            ("", "not a private key in PEM form"),
            (
                "-----BEGIN EC PRIVATE KEY-----\nMAA=\n-----END EC PRIVATE KEY-----\n",
                "not a private",
            ),
            ("-----BEGIN ENCRYPTED PRIVATE KEY-----\n", "passphrase"),
            (&long, "too long"),
        ] {
            let error = pkcs8("root key", text).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }
}
