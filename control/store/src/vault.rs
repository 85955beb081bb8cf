//! The keys in use: seals with the newest, opens with whichever a record names.

use crate::{
    keys::{DataKeys, KeyError, Keys, UnlockKey},
    seal::{Cipher, KeyId, Label, OpenError, Sealer},
};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError, RwLock},
};

/// Ciphers kept for opening; all are forgotten when there are more. There is one per opening of the
/// store that left records.
const MAX_CIPHERS: usize = 64;

pub(crate) struct Vault {
    keys: Mutex<Keys>,
    in_use: RwLock<InUse>,
    ciphers: Mutex<BTreeMap<KeyId, Arc<Cipher>>>,
}

struct InUse {
    data_keys: DataKeys,
    sealer: Sealer,
}

impl InUse {
    fn new(data_keys: DataKeys) -> InUse {
        let (number, key) = data_keys.newest();
        let sealer = Sealer::new(number, key);
        InUse { data_keys, sealer }
    }
}

impl Vault {
    /// Reads the keys, or makes the first one where there is no store yet.
    pub(crate) fn open(keys: Keys, new_store: bool) -> Result<Vault, KeyError> {
        let data_keys = match keys.load()? {
            Some(data_keys) => data_keys,
            None if new_store => {
                let data_keys = DataKeys::random();
                keys.save(&data_keys)?;
                data_keys
            }
            None => return Err(KeyError::Missing { file: keys.file().to_owned() }),
        };
        Ok(Vault {
            keys: Mutex::new(keys),
            in_use: RwLock::new(InUse::new(data_keys)),
            ciphers: Mutex::default(),
        })
    }

    pub(crate) fn seal(&self, label: Label<'_>, content: &[u8]) -> Vec<u8> {
        self.in_use.read().unwrap_or_else(PoisonError::into_inner).sealer.seal(label, content)
    }

    pub(crate) fn unseal(&self, label: Label<'_>, record: &[u8]) -> Result<Vec<u8>, OpenError> {
        let id = KeyId::of(record)?;
        let known = self.lock_ciphers().get(&id).cloned();
        let cipher = match known {
            Some(cipher) => cipher,
            None => {
                let in_use = self.in_use.read().unwrap_or_else(PoisonError::into_inner);
                let key = in_use.data_keys.get(id.number).ok_or(OpenError::NoKey(id.number))?;
                Arc::new(Cipher::new(key, &id))
            }
        };
        let content = cipher.open(label, record)?;
        // Only what has proven to be right is kept.
        let mut ciphers = self.lock_ciphers();
        if ciphers.len() >= MAX_CIPHERS {
            ciphers.clear();
        }
        ciphers.insert(id, cipher);
        Ok(content)
    }

    /// A change of keys is not complete: old records may be left.
    pub(crate) fn changing(&self) -> bool {
        self.in_use.read().unwrap_or_else(PoisonError::into_inner).data_keys.changing()
    }

    /// From now on new records are sealed with a new key. The old ones stay, to open what is there.
    pub(crate) fn begin_change(&self) -> Result<(), KeyError> {
        self.replace(DataKeys::with_new)
    }

    /// Nothing is left that was sealed with an old key: they are forgotten.
    pub(crate) fn end_change(&self) -> Result<(), KeyError> {
        self.replace(DataKeys::only_newest)
    }

    /// Locks the data keys under another key-encryption key, or unlocks them.
    pub(crate) fn set_unlock_key(&self, unlock: Option<UnlockKey>) -> Result<(), KeyError> {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        let in_use = self.in_use.read().unwrap_or_else(PoisonError::into_inner);
        let mut changed = keys.clone();
        changed.set_unlock_key(unlock);
        changed.save(&in_use.data_keys)?;
        *keys = changed;
        Ok(())
    }

    fn replace(&self, change: impl FnOnce(&DataKeys) -> DataKeys) -> Result<(), KeyError> {
        let keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        let mut in_use = self.in_use.write().unwrap_or_else(PoisonError::into_inner);
        let changed = change(&in_use.data_keys);
        keys.save(&changed)?;
        let same = changed.newest().0 == in_use.data_keys.newest().0;
        if same {
            in_use.data_keys = changed;
        } else {
            *in_use = InUse::new(changed);
        }
        self.lock_ciphers().clear();
        Ok(())
    }

    fn lock_ciphers(&self) -> std::sync::MutexGuard<'_, BTreeMap<KeyId, Arc<Cipher>>> {
        self.ciphers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_stay_readable_while_keys_change_and_not_after() {
        let dir = tempfile::tempdir().unwrap();
        let keys = Keys::new(dir.path().join("data.key"));
        assert!(matches!(Vault::open(keys.clone(), false), Err(KeyError::Missing { .. })));
        let vault = Vault::open(keys.clone(), true).unwrap();
        let old = vault.seal(Label::Entry(1), b"old");
        vault.begin_change().unwrap();
        assert!(vault.changing());
        let new = vault.seal(Label::Entry(2), b"new");
        let reopened = Vault::open(keys.clone(), false).unwrap();
        assert!(reopened.changing(), "so that it can be completed");
        for vault in [&vault, &reopened] {
            assert_eq!(vault.unseal(Label::Entry(1), &old).unwrap(), b"old");
            assert_eq!(vault.unseal(Label::Entry(2), &new).unwrap(), b"new");
        }
        vault.end_change().unwrap();
        assert!(!vault.changing());
        for vault in [&vault, &Vault::open(keys, false).unwrap()] {
            assert_eq!(vault.unseal(Label::Entry(1), &old), Err(OpenError::NoKey(1)));
            assert_eq!(vault.unseal(Label::Entry(2), &new).unwrap(), b"new");
        }
    }

    #[test]
    fn the_lock_changes_without_the_records() {
        let dir = tempfile::tempdir().unwrap();
        let keys = Keys::new(dir.path().join("data.key"));
        let vault = Vault::open(keys.clone(), true).unwrap();
        let record = vault.seal(Label::Entry(1), b"x");
        let unlock = [UnlockKey::random(), UnlockKey::random()];
        for key in &unlock {
            vault.set_unlock_key(Some(key.clone())).unwrap();
            vault.begin_change().unwrap();
            assert!(matches!(Vault::open(keys.clone(), false), Err(KeyError::Locked)));
            let opened = Vault::open(keys.clone().with_unlock_key(key.clone()), false).unwrap();
            assert_eq!(opened.unseal(Label::Entry(1), &record).unwrap(), b"x");
        }
        let old = keys.clone().with_unlock_key(unlock[0].clone());
        assert!(matches!(Vault::open(old, false), Err(KeyError::WrongKey)));
        vault.set_unlock_key(None).unwrap();
        assert_eq!(
            Vault::open(keys, false).unwrap().unseal(Label::Entry(1), &record).unwrap(),
            b"x"
        );
    }
}
