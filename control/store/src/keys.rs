//! The node's data key on disk, and the key-encryption key of autolock.
//!
//! The key file holds the data keys by number: one, or two while they are being changed. Each is as
//! it is, or sealed under the key-encryption key when the cluster is locked. The file is replaced
//! whole and synced before a key is used, so that at any moment it has every key that a record on
//! the disk needs.

use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
use ring::{
    aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    rand::{SecureRandom, SystemRandom},
};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

const KEY_BYTES: usize = 32;

/// Docker's: what a key-encryption key begins with where people see it.
const UNLOCK_PREFIX: &str = "SWMKEY-1-";

/// The present format of the key file.
const FILE_VERSION: u32 = 1;

/// Where the data key is, and what unlocks it.
#[derive(Clone, Debug)]
pub struct Keys {
    file: PathBuf,
    unlock: Option<UnlockKey>,
}

impl Keys {
    /// The data key is kept in `file`.
    pub fn new(file: impl Into<PathBuf>) -> Keys {
        Keys { file: file.into(), unlock: None }
    }

    /// With the key that unlocks it. A file that is not locked yet becomes so when it is opened.
    #[must_use]
    pub fn with_unlock_key(self, unlock: UnlockKey) -> Keys {
        Keys { unlock: Some(unlock), ..self }
    }

    /// Whether an unlock key is needed.
    pub fn locked(&self) -> Result<bool, KeyError> {
        Ok(read(&self.file)?.is_some_and(|stored| stored.locked))
    }

    pub(crate) fn file(&self) -> &Path {
        &self.file
    }

    pub(crate) fn set_unlock_key(&mut self, unlock: Option<UnlockKey>) {
        self.unlock = unlock;
    }

    /// The data keys in the file; none if there is no file.
    pub(crate) fn load(&self) -> Result<Option<DataKeys>, KeyError> {
        let Some(stored) = read(&self.file)? else { return Ok(None) };
        let damaged = |reason: &str| self.damaged(reason);
        let mut keys = BTreeMap::new();
        for StoredKey { number, key } in &stored.keys {
            let bytes = STANDARD_NO_PAD.decode(key).map_err(|_| damaged("a key is no base64"))?;
            let bytes = Zeroizing::new(bytes);
            let key = match (stored.locked, &self.unlock) {
                (false, _) => DataKey::try_from(bytes.as_slice())
                    .map_err(|()| damaged("a key has not 32 bytes"))?,
                (true, None) => return Err(KeyError::Locked),
                (true, Some(unlock)) => unlock.unwrap(*number, &bytes).ok_or(KeyError::WrongKey)?,
            };
            keys.insert(*number, key);
        }
        match keys.keys().next_back() {
            None => Err(damaged("it holds no key")),
            Some(_) if !stored.locked && self.unlock.is_some() => {
                let keys = DataKeys(keys);
                self.save(&keys)?;
                Ok(Some(keys))
            }
            Some(_) => Ok(Some(DataKeys(keys))),
        }
    }

    /// Replaces the file; what was in it is there until the new content is on the disk.
    pub(crate) fn save(&self, keys: &DataKeys) -> Result<(), KeyError> {
        let keys = keys.0.iter().map(|(number, key)| {
            let bytes = match &self.unlock {
                Some(unlock) => unlock.wrap(*number, key),
                None => Zeroizing::new(key.0.to_vec()),
            };
            StoredKey { number: *number, key: STANDARD_NO_PAD.encode(&bytes) }
        });
        let stored =
            Stored { version: FILE_VERSION, locked: self.unlock.is_some(), keys: keys.collect() };
        let json = serde_json::to_vec(&stored).expect("numbers and text can be written as JSON");
        replace(&self.file, &Zeroizing::new(json)).map_err(|source| KeyError::File {
            action: "write",
            file: self.file.clone(),
            source,
        })
    }

    fn damaged(&self, reason: &str) -> KeyError {
        KeyError::Damaged { file: self.file.clone(), reason: reason.to_owned() }
    }
}

/// The data keys by number; the greatest seals, all open.
#[derive(Clone)]
pub(crate) struct DataKeys(BTreeMap<u32, DataKey>);

impl DataKeys {
    pub(crate) fn random() -> DataKeys {
        DataKeys(BTreeMap::from([(1, DataKey::random())]))
    }

    pub(crate) fn get(&self, number: u32) -> Option<&DataKey> {
        self.0.get(&number)
    }

    /// The key that seals.
    pub(crate) fn newest(&self) -> (u32, &DataKey) {
        let (number, key) = self.0.iter().next_back().expect("there is always one");
        (*number, key)
    }

    /// There are keys that only open, left by a change of keys that is not complete.
    pub(crate) fn changing(&self) -> bool {
        self.0.len() > 1
    }

    pub(crate) fn with_new(&self) -> DataKeys {
        let mut keys = self.clone();
        keys.0.insert(self.newest().0 + 1, DataKey::random());
        keys
    }

    pub(crate) fn only_newest(&self) -> DataKeys {
        let (number, key) = self.newest();
        DataKeys(BTreeMap::from([(number, key.clone())]))
    }
}

/// Seals what a node writes.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub(crate) struct DataKey([u8; KEY_BYTES]);

impl DataKey {
    pub(crate) fn random() -> DataKey {
        DataKey(random())
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl TryFrom<&[u8]> for DataKey {
    type Error = ();

    fn try_from(bytes: &[u8]) -> Result<DataKey, ()> {
        bytes.try_into().map(DataKey).map_err(|_| ())
    }
}

/// The key-encryption key of a locked cluster, as `docker swarm unlock` takes it.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct UnlockKey([u8; KEY_BYTES]);

impl UnlockKey {
    /// A new one.
    pub fn random() -> UnlockKey {
        UnlockKey(random())
    }

    /// Reads `SWMKEY-1-` and 43 characters of base64.
    pub fn parse(text: &str) -> Result<UnlockKey, KeyError> {
        let base64 = text.trim().strip_prefix(UNLOCK_PREFIX).ok_or(KeyError::NoUnlockKey)?;
        let bytes = STANDARD_NO_PAD.decode(base64).map_err(|_| KeyError::NoUnlockKey)?;
        let bytes = Zeroizing::new(bytes);
        bytes.as_slice().try_into().map(UnlockKey).map_err(|_| KeyError::NoUnlockKey)
    }

    /// What [`UnlockKey::parse`] reads. For people's eyes, not for logs.
    pub fn reveal(&self) -> Zeroizing<String> {
        Zeroizing::new(format!("{UNLOCK_PREFIX}{}", STANDARD_NO_PAD.encode(self.0)))
    }

    fn cipher(&self) -> LessSafeKey {
        LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, &self.0).expect("32 bytes"))
    }

    /// Random nonce, sealed key, tag. A key-encryption key seals a handful of keys in its life.
    fn wrap(&self, number: u32, key: &DataKey) -> Zeroizing<Vec<u8>> {
        let nonce: [u8; NONCE_LEN] = random();
        let mut wrapped = Zeroizing::new([nonce.as_slice(), &key.0].concat());
        let sealed = self.cipher().seal_in_place_separate_tag(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(label(number)),
            &mut wrapped[NONCE_LEN..],
        );
        wrapped.extend_from_slice(sealed.expect("32 bytes are few").as_ref());
        wrapped
    }

    fn unwrap(&self, number: u32, wrapped: &[u8]) -> Option<DataKey> {
        let (nonce, sealed) = wrapped.split_first_chunk::<NONCE_LEN>()?;
        let mut sealed = Zeroizing::new(sealed.to_vec());
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let key = self.cipher().open_in_place(nonce, Aad::from(label(number)), &mut sealed).ok()?;
        DataKey::try_from(&*key).ok()
    }
}

impl fmt::Debug for UnlockKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UnlockKey(…)")
    }
}

/// Why the data key cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// Docker's text.
    #[error(
        "Swarm is encrypted and needs to be unlocked before it can be used. Please use \"docker \
         swarm unlock\" to unlock it."
    )]
    Locked,
    /// Docker's text.
    #[error("swarm could not be unlocked: invalid key provided")]
    WrongKey,
    /// It does not look like one.
    #[error("this is no unlock key: {UNLOCK_PREFIX} and 43 characters of base64 are expected")]
    NoUnlockKey,
    /// The file cannot be read or written.
    #[error("cannot {action} the data key in {}", .file.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// The file.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is there but cannot be understood.
    #[error(
        "the data key in {} cannot be read ({reason}); restore it from a backup together with the \
         store, or remove both and join the swarm anew",
        .file.display()
    )]
    Damaged {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// There is a store but no key file.
    #[error(
        "the data key of the store is missing: {} is not there; restore it from a backup, or remove \
         the store's folder and join the swarm anew",
        .file.display()
    )]
    Missing {
        /// The file.
        file: PathBuf,
    },
}

#[derive(Serialize, Deserialize)]
struct Stored {
    version: u32,
    locked: bool,
    keys: Vec<StoredKey>,
}

#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
struct StoredKey {
    number: u32,
    /// Base64 of the key, or of the sealed key.
    key: String,
}

fn read(file: &Path) -> Result<Option<Stored>, KeyError> {
    let json = match fs::read(file) {
        Ok(json) => Zeroizing::new(json),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => {
            return Err(KeyError::File { action: "read", file: file.to_owned(), source });
        }
    };
    let damaged = |reason: String| KeyError::Damaged { file: file.to_owned(), reason };
    let stored: Stored = serde_json::from_slice(&json).map_err(|e| damaged(e.to_string()))?;
    match stored.version {
        FILE_VERSION => Ok(Some(stored)),
        other => Err(damaged(format!("it has version {other}, this program knows {FILE_VERSION}"))),
    }
}

fn replace(file: &Path, content: &[u8]) -> io::Result<()> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or_else(|| Path::new("."));
    let mut name = file.as_os_str().to_owned();
    name.push(".new");
    let new = PathBuf::from(name);
    let mut opened =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    opened.write_all(content)?;
    opened.sync_all()?;
    drop(opened);
    fs::rename(&new, file)?;
    File::open(folder)?.sync_all()
}

fn label(number: u32) -> [u8; 14] {
    let mut label = *b"data key ....\0";
    label[9..13].copy_from_slice(&number.to_be_bytes());
    label
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).expect("the kernel gives random bytes");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn same(a: &DataKeys, b: &DataKeys) -> bool {
        let bytes = |keys: &DataKeys| -> Vec<(u32, Vec<u8>)> {
            keys.0.iter().map(|(number, key)| (*number, key.0.to_vec())).collect()
        };
        bytes(a) == bytes(b)
    }

    #[test]
    fn an_unlock_key_looks_like_docker_s_and_reads_back() {
        let key = UnlockKey::random();
        let text = key.reveal();
        assert_eq!(text.len(), "SWMKEY-1-".len() + 43);
        assert!(UnlockKey::parse(&format!(" {}\n", *text)).unwrap() == key);
        for bad in ["", "SWMKEY-1-", &text[1..], &text[..51], &format!("{}A", *text), "SWMKEY-1-é"]
        {
            assert!(matches!(UnlockKey::parse(bad), Err(KeyError::NoUnlockKey)), "{bad:?}");
        }
        assert_eq!(format!("{key:?}"), "UnlockKey(…)");
    }

    #[test]
    fn keys_read_back_open_and_locked_and_only_with_the_right_key() {
        let dir = tempfile::tempdir().unwrap();
        let keys = Keys::new(dir.path().join("data.key"));
        assert!(keys.load().unwrap().is_none());
        assert!(!keys.locked().unwrap());
        let data = DataKeys::random().with_new();
        keys.save(&data).unwrap();
        assert_eq!(fs::metadata(&keys.file).unwrap().permissions().mode() & 0o7777, 0o600);
        assert!(same(&keys.load().unwrap().unwrap(), &data));

        let unlock = UnlockKey::random();
        let locked = keys.clone().with_unlock_key(unlock.clone());
        assert!(same(&locked.load().unwrap().unwrap(), &data), "opening locks it");
        assert!(keys.locked().unwrap());
        assert!(same(&locked.load().unwrap().unwrap(), &data));
        assert!(matches!(keys.load(), Err(KeyError::Locked)));
        let wrong = keys.clone().with_unlock_key(UnlockKey::random());
        assert!(matches!(wrong.load(), Err(KeyError::WrongKey)));
        let text = fs::read_to_string(&keys.file).unwrap();
        for key in data.0.values() {
            assert!(!text.contains(&STANDARD_NO_PAD.encode(key.0)), "not in the clear");
        }
        assert_eq!(data.only_newest().newest().0, 2);
        assert!(data.changing() && !data.only_newest().changing());
    }

    #[test]
    fn sealed_keys_cannot_change_places() {
        let (unlock, data) = (UnlockKey::random(), DataKey::random());
        let wrapped = unlock.wrap(1, &data);
        assert_eq!(unlock.unwrap(1, &wrapped).unwrap().0, data.0);
        assert!(unlock.unwrap(2, &wrapped).is_none());
        for cut in 0..wrapped.len() {
            assert!(unlock.unwrap(1, &wrapped[..cut]).is_none());
        }
    }

    #[test]
    fn a_damaged_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let keys = Keys::new(dir.path().join("data.key"));
        for content in [
            "",
            "{}",
            r#"{"version":2,"locked":false,"keys":[]}"#,
            r#"{"version":1,"locked":false,"keys":[]}"#,
            r#"{"version":1,"locked":false,"keys":[{"number":1,"key":"AAAA"}]}"#,
            r#"{"version":1,"locked":false,"keys":[{"number":1,"key":"!"}]}"#,
        ] {
            fs::write(&keys.file, content).unwrap();
            let Err(error) = keys.load() else { panic!("{content} is taken") };
            assert!(error.to_string().contains("data.key"), "{error}");
        }
    }
}
