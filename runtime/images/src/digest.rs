//! SHA-256 digests in their `sha256:<64 hex>` form, and a reader that hashes what passes through.

use std::io::{self, Read};

use sha2::{Digest as _, Sha256};

/// Digest algorithm prefix; the only one the image formats use in practice.
const PREFIX: &str = "sha256:";

/// The hex part of `sha256:<64 hex>`, or `None` if the text is not exactly that.
pub(crate) fn hex_of(digest: &str) -> Option<&str> {
    let hex = digest.strip_prefix(PREFIX)?;
    is_hex64(hex).then_some(hex)
}

/// 64 lower-case hex digits.
pub(crate) fn is_hex64(s: &str) -> bool {
    s.len() == 64 && s.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// The digest of `bytes`.
pub(crate) fn digest_of(bytes: &[u8]) -> String {
    format!("{PREFIX}{}", hex::encode(Sha256::digest(bytes)))
}

/// Hashes and counts what is read, and ends with an error past `limit` bytes.
pub(crate) struct HashingReader<R> {
    inner: R,
    hasher: Sha256,
    read: u64,
    limit: u64,
}

impl<R: Read> HashingReader<R> {
    pub(crate) fn new(inner: R, limit: u64) -> Self {
        Self { inner, hasher: Sha256::new(), read: 0, limit }
    }

    /// Reads what is left (a tar's padding belongs to its digest) and gives the digest.
    pub(crate) fn finish(mut self) -> io::Result<String> {
        io::copy(&mut self, &mut io::sink())?;
        Ok(format!("{PREFIX}{}", hex::encode(self.hasher.finalize())))
    }
}

impl<R: Read> Read for HashingReader<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.read += n as u64;
        if self.read > self.limit {
            let reason = format!("larger than the limit of {} bytes", self.limit);
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, reason));
        }
        self.hasher.update(&buf[..n]);
        Ok(n)
    }
}
