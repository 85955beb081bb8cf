//! Sealing of a manager's private key on disk, while the cluster locks its managers.

use crate::IdentityError;
use ring::{
    aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    digest,
};
use std::fmt;
use zeroize::Zeroizing;

/// First line of a sealed key file.
const HEADER: &str = "SHOAL SEALED KEY 1";

/// What a sealed key says it is, so that it cannot stand for something else.
const LABEL: &[u8] = b"shoal node key";

/// What the cluster's unlock key opens a node's private key with. Not shown by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyLock(Zeroizing<[u8; 32]>);

impl KeyLock {
    /// From the unlock key as users see it. Another key than the one that the data key is wrapped with.
    pub fn of(unlock_key: &str) -> KeyLock {
        let text = Zeroizing::new([LABEL, unlock_key.trim().as_bytes()].concat());
        let mut key = Zeroizing::new([0; 32]);
        key.copy_from_slice(digest::digest(&digest::SHA256, &text).as_ref());
        KeyLock(key)
    }

    fn cipher(&self) -> LessSafeKey {
        let key = UnboundKey::new(&CHACHA20_POLY1305, &*self.0).expect("it has 32 bytes");
        LessSafeKey::new(key)
    }

    /// Nonce, ciphertext and tag. One lock seals a handful of keys in its life.
    fn seal(&self, text: &str) -> Vec<u8> {
        let nonce: [u8; NONCE_LEN] = rand::random();
        let mut sealed = [nonce.as_slice(), text.as_bytes()].concat();
        let tag = self.cipher().seal_in_place_separate_tag(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(LABEL),
            &mut sealed[NONCE_LEN..],
        );
        sealed.extend_from_slice(tag.expect("keys are short").as_ref());
        sealed
    }

    fn open(&self, sealed: &[u8]) -> Option<Zeroizing<String>> {
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE_LEN>()?;
        let mut content = Zeroizing::new(sealed.to_vec());
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let plain = self.cipher().open_in_place(nonce, Aad::from(LABEL), &mut content).ok()?;
        Some(Zeroizing::new(str::from_utf8(plain).ok()?.to_owned()))
    }
}

impl fmt::Debug for KeyLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyLock(…)")
    }
}

/// The text of a key file; each of the locks opens it, and without any it is as it is.
pub(crate) fn sealed(key: &Zeroizing<String>, locks: &[KeyLock]) -> Zeroizing<String> {
    if locks.is_empty() {
        return key.clone();
    }
    let lines = locks.iter().map(|lock| hex(&lock.seal(key)));
    let lines: Vec<String> = [HEADER.to_owned()].into_iter().chain(lines).collect();
    Zeroizing::new(lines.join("\n") + "\n")
}

/// The key in a key file, with the lock where it needs one.
pub(crate) fn opened(
    file: Zeroizing<String>,
    lock: Option<&KeyLock>,
) -> Result<Zeroizing<String>, IdentityError> {
    let Some(lines) = file.strip_prefix(HEADER) else { return Ok(file) };
    let lock = lock.ok_or(IdentityError::Locked)?;
    let sealed = lines.split_whitespace().filter_map(unhex);
    sealed.into_iter().find_map(|sealed| lock.open(&sealed)).ok_or(IdentityError::WrongKey)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = |i| u8::from_str_radix(text.get(i..i + 2)?, 16).ok();
    (0..text.len()).step_by(2).map(digits).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_key_is_opened_by_each_of_its_locks_and_by_nothing_else() {
        let key = Zeroizing::new("-----BEGIN PRIVATE KEY-----\n…".to_owned());
        let locks = ["SWMKEY-1-a", "SWMKEY-1-b"].map(KeyLock::of);
        let file = sealed(&key, &locks);
        assert!(!file.contains("PRIVATE"), "{}", *file);
        for lock in &locks {
            assert_eq!(opened(file.clone(), Some(lock)).unwrap(), key);
        }
        let other = KeyLock::of("SWMKEY-1-c");
        assert!(matches!(opened(file.clone(), Some(&other)), Err(IdentityError::WrongKey)));
        assert!(matches!(opened(file.clone(), None), Err(IdentityError::Locked)));
        let flipped = Zeroizing::new(file.replace('a', "b"));
        assert!(matches!(opened(flipped, Some(&locks[0])), Err(IdentityError::WrongKey)));
    }

    #[test]
    fn a_key_that_is_not_sealed_is_read_with_and_without_a_lock() {
        let key = Zeroizing::new("-----BEGIN PRIVATE KEY-----".to_owned());
        assert_eq!(sealed(&key, &[]), key);
        for lock in [None, Some(&KeyLock::of("SWMKEY-1-a"))] {
            assert_eq!(opened(key.clone(), lock).unwrap(), key);
        }
    }
}
