//! Sealing of what is written: ChaCha20-Poly1305 under the node's data key.
//!
//! Each [`Sealer`] (one per opening of the store and data key) draws a random salt, derives a key of
//! its own from data key and salt, and counts its nonces from 0. So no nonce is used twice, even
//! where a folder was copied or restored from a backup. What a record is and which place it has is
//! authenticated with it ([`Label`]), so that records cannot change places.
//!
//! A sealed record: format (1 byte), number of the data key (4), salt (16), nonce (8), ciphertext,
//! tag (16); numbers are big-endian.

use crate::keys::DataKey;
use ring::{
    aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    hkdf,
    rand::{SecureRandom, SystemRandom},
};
use std::sync::atomic::{AtomicU64, Ordering};

const FORMAT: u8 = 1;
const SALT: usize = 16;
const HEADER: usize = 1 + 4 + SALT + 8;

/// Bytes a record is longer than its content.
pub(crate) const OVERHEAD: usize = HEADER + 16;

/// What a record is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Label<'a> {
    /// The log entry of this index.
    Entry(u64),
    /// This piece of the snapshot of this id; whether it is the last.
    Snapshot(&'a str, u64, bool),
}

impl Label<'_> {
    fn bytes(self) -> Vec<u8> {
        match self {
            Label::Entry(index) => [b"log entry ".as_slice(), &index.to_be_bytes()].concat(),
            Label::Snapshot(id, piece, last) => {
                [b"snapshot ".as_slice(), &piece.to_be_bytes(), &[u8::from(last)], id.as_bytes()]
                    .concat()
            }
        }
    }
}

/// Why a record was not opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum OpenError {
    #[error("it is too short, or of another version")]
    Format,
    #[error("it was sealed with data key {0}, which is not there")]
    NoKey(u32),
    #[error("it is damaged, or was put there by somebody else")]
    Forged,
}

/// The number of the data key and the salt a record was sealed with.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct KeyId {
    pub(crate) number: u32,
    salt: [u8; SALT],
}

impl KeyId {
    pub(crate) fn of(record: &[u8]) -> Result<KeyId, OpenError> {
        if record.len() < OVERHEAD || record[0] != FORMAT {
            return Err(OpenError::Format);
        }
        let (mut number, mut salt) = ([0; 4], [0; SALT]);
        number.copy_from_slice(&record[1..5]);
        salt.copy_from_slice(&record[5..5 + SALT]);
        Ok(KeyId { number: u32::from_be_bytes(number), salt })
    }
}

/// The key of one [`KeyId`].
pub(crate) struct Cipher(LessSafeKey);

impl Cipher {
    pub(crate) fn new(data_key: &DataKey, id: &KeyId) -> Cipher {
        let extracted = hkdf::Salt::new(hkdf::HKDF_SHA256, &id.salt).extract(data_key.bytes());
        let expanded = extracted
            .expand(&[b"shoal store record"], &CHACHA20_POLY1305)
            .expect("32 bytes are less than 255 hashes");
        Cipher(LessSafeKey::new(UnboundKey::from(expanded)))
    }

    pub(crate) fn open(&self, label: Label<'_>, record: &[u8]) -> Result<Vec<u8>, OpenError> {
        KeyId::of(record)?;
        let mut nonce = [0; NONCE_LEN];
        nonce[NONCE_LEN - 8..].copy_from_slice(&record[HEADER - 8..HEADER]);
        let mut content = record[HEADER..].to_vec();
        let nonce = Nonce::assume_unique_for_key(nonce);
        let plain = self.0.open_in_place(nonce, Aad::from(label.bytes()), &mut content);
        let length = plain.map_err(|_| OpenError::Forged)?.len();
        content.truncate(length);
        Ok(content)
    }
}

/// Seals new records.
pub(crate) struct Sealer {
    id: KeyId,
    cipher: Cipher,
    nonces: AtomicU64,
}

impl Sealer {
    pub(crate) fn new(number: u32, data_key: &DataKey) -> Sealer {
        let mut salt = [0; SALT];
        SystemRandom::new().fill(&mut salt).expect("the kernel gives random bytes");
        let id = KeyId { number, salt };
        Sealer { id, cipher: Cipher::new(data_key, &id), nonces: AtomicU64::new(0) }
    }

    pub(crate) fn seal(&self, label: Label<'_>, content: &[u8]) -> Vec<u8> {
        let count = self.nonces.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        let mut nonce = [0; NONCE_LEN];
        nonce[NONCE_LEN - 8..].copy_from_slice(&count);
        let mut record = Vec::with_capacity(content.len() + OVERHEAD);
        record.push(FORMAT);
        record.extend_from_slice(&self.id.number.to_be_bytes());
        record.extend_from_slice(&self.id.salt);
        record.extend_from_slice(&count);
        record.extend_from_slice(content);
        let nonce = Nonce::assume_unique_for_key(nonce);
        let label = Aad::from(label.bytes());
        let sealed = self.cipher.0.seal_in_place_separate_tag(nonce, label, &mut record[HEADER..]);
        let tag = sealed.expect("records are below ChaCha20's 256 GiB");
        record.extend_from_slice(tag.as_ref());
        record
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn open(sealer: &Sealer, label: Label<'_>, record: &[u8]) -> Result<Vec<u8>, OpenError> {
        sealer.cipher.open(label, record)
    }

    #[test]
    fn a_record_is_read_back_only_in_its_own_place() {
        let sealer = Sealer::new(7, &DataKey::random());
        for content in [b"".as_slice(), b"x", &[9; 5000]] {
            let record = sealer.seal(Label::Entry(3), content);
            assert_eq!(record.len(), content.len() + OVERHEAD);
            assert_eq!(KeyId::of(&record).unwrap(), sealer.id);
            assert_eq!(open(&sealer, Label::Entry(3), &record).unwrap(), content);
            for other in
                [Label::Entry(4), Label::Snapshot("", 3, false), Label::Snapshot("3", 0, false)]
            {
                assert_eq!(open(&sealer, other, &record), Err(OpenError::Forged), "{other:?}");
            }
        }
        let last = sealer.seal(Label::Snapshot("a", 0, true), b"x");
        assert_eq!(open(&sealer, Label::Snapshot("a", 0, false), &last), Err(OpenError::Forged));
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let sealer = Sealer::new(7, &DataKey::random());
        let record = sealer.seal(Label::Entry(3), b"content");
        // Number and salt choose the key, which is a question for the key ring.
        for bit in (0..8).chain((HEADER - 8) * 8..record.len() * 8) {
            let mut flipped = record.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            open(&sealer, Label::Entry(3), &flipped).unwrap_err();
        }
        for length in 0..record.len() {
            open(&sealer, Label::Entry(3), &record[..length]).unwrap_err();
        }
    }

    #[test]
    fn no_nonce_repeats_and_sealers_of_one_key_differ() {
        let key = DataKey::random();
        let sealers = [Sealer::new(1, &key), Sealer::new(1, &key)];
        let heads: BTreeSet<Vec<u8>> = (0..1000)
            .map(|i| sealers[i % 2].seal(Label::Entry(0), b"same")[..HEADER].to_vec())
            .collect();
        assert_eq!(heads.len(), 1000);
        let record = sealers[0].seal(Label::Entry(0), b"same");
        assert_eq!(open(&sealers[1], Label::Entry(0), &record), Err(OpenError::Forged));
        let again = Cipher::new(&key, &KeyId::of(&record).unwrap());
        assert_eq!(again.open(Label::Entry(0), &record).unwrap(), b"same");
    }
}
