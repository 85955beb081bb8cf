//! The node's key: in memory, in its file, and as text.

use crate::error::KeyError;
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::Path,
    sync::atomic::{AtomicU32, Ordering},
};
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

/// Length of a key in base64.
const TEXT_LEN: usize = 44;

/// Makes the names of drafts differ within this process.
static DRAFTS: AtomicU32 = AtomicU32::new(0);

/// A Curve25519 private key, overwritten in memory when dropped.
#[derive(Clone)]
pub struct PrivateKey(StaticSecret);

impl PrivateKey {
    /// A new key from the kernel's random numbers.
    pub fn generate() -> PrivateKey {
        PrivateKey(StaticSecret::random())
    }

    /// The key with these bytes. The caller overwrites its own copy.
    pub fn from_bytes(bytes: [u8; 32]) -> PrivateKey {
        PrivateKey(StaticSecret::from(bytes))
    }

    /// The public half.
    pub fn public_key(&self) -> [u8; 32] {
        PublicKey::from(&self.0).to_bytes()
    }

    pub(crate) fn secret(&self) -> &StaticSecret {
        &self.0
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKey(of {})", encode_public_key(&self.public_key()))
    }
}

/// A public key as WireGuard's tools write it: base64.
pub fn encode_public_key(key: &[u8; 32]) -> String {
    BASE64.encode(key)
}

/// Reads what [`encode_public_key`] writes; blanks around it are ignored.
pub fn decode_public_key(text: &str) -> Result<[u8; 32], KeyError> {
    let decoded = BASE64.decode(text.trim()).ok();
    decoded
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or_else(|| KeyError::Format { what: format!("{text:?}") })
}

/// The key in the file at `path`, in the format of `wg genkey`. If there is no file, makes a key
/// and the file, with mode 0600; the file appears whole or not at all, and of two processes that
/// do this at once both get the same key. The folder must exist.
pub fn load_or_create_key(path: &Path) -> Result<PrivateKey, KeyError> {
    match File::open(path) {
        Ok(file) => load(file, path),
        Err(e) if e.kind() == io::ErrorKind::NotFound => create(path),
        Err(source) => Err(failed("open", path)(source)),
    }
}

fn failed<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> KeyError + 'a {
    move |source| KeyError::File { action, path: path.to_path_buf(), source }
}

fn load(file: File, path: &Path) -> Result<PrivateKey, KeyError> {
    let mode = file.metadata().map_err(failed("inspect", path))?.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(KeyError::Exposed { path: path.to_path_buf(), mode });
    }
    let mut text = Zeroizing::new(Vec::with_capacity(2 * TEXT_LEN));
    // Two more bytes than a key and a newline, so that a longer file is seen to be wrong, without
    // reading all of it.
    file.take(TEXT_LEN as u64 + 2).read_to_end(&mut text).map_err(failed("read", path))?;
    let mut bytes = Zeroizing::new([0; 33]); // one more than needed, for the decoder's estimate
    match BASE64.decode_slice(text.trim_ascii(), bytes.as_mut_slice()) {
        Ok(32) => {
            let mut key = Zeroizing::new([0; 32]);
            key.copy_from_slice(&bytes[..32]);
            Ok(PrivateKey::from_bytes(*key))
        }
        _ => Err(KeyError::Format { what: path.display().to_string() }),
    }
}

fn create(path: &Path) -> Result<PrivateKey, KeyError> {
    let key = PrivateKey::generate();
    let mut name = path.as_os_str().to_owned();
    let number = DRAFTS.fetch_add(1, Ordering::Relaxed);
    name.push(format!(".new-{}-{number}", std::process::id()));
    let draft = Path::new(&name);
    let result = write_draft(draft, &key).map_err(failed("write", path)).and_then(|()| {
        match renameat_with(CWD, draft, CWD, path, RenameFlags::NOREPLACE) {
            Ok(()) => sync_folder(path).map(|()| key).map_err(failed("make durable", path)),
            // Another process was quicker: its key counts.
            Err(rustix::io::Errno::EXIST) => {
                File::open(path).map_err(failed("open", path)).and_then(|file| load(file, path))
            }
            Err(e) => Err(failed("create", path)(e.into())),
        }
    });
    // Gone already unless something failed; then it holds a key nobody uses.
    let _ = fs::remove_file(draft);
    result
}

fn write_draft(draft: &Path, key: &PrivateKey) -> io::Result<()> {
    let mut text = Zeroizing::new([0; TEXT_LEN + 1]);
    let bytes = Zeroizing::new(key.secret().to_bytes());
    BASE64.encode_slice(bytes.as_slice(), text.as_mut_slice()).expect("44 characters fit 45 bytes");
    text[TEXT_LEN] = b'\n';
    // Left over by a process of the same number that was killed just here.
    let _ = fs::remove_file(draft);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(draft)?;
    file.write_all(text.as_slice())?;
    file.sync_all()
}

fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_second_start_finds_the_key_of_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("wg.key");
        let first = load_or_create_key(&path).unwrap();
        let second = load_or_create_key(&path).unwrap();
        assert_eq!(first.public_key(), second.public_key());
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "a draft was left behind");
    }

    #[test]
    fn all_who_start_at_once_get_the_same_key() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("wg.key");
        let keys: Vec<_> = std::thread::scope(|scope| {
            let starts: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| load_or_create_key(&path).unwrap().public_key()))
                .collect();
            starts.into_iter().map(|start| start.join().unwrap()).collect()
        });
        assert!(keys.iter().all(|key| *key == keys[0]));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "a draft was left behind");
    }

    #[test]
    fn the_file_has_the_format_of_wg_genkey() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("wg.key");
        // Key pair from RFC 7748, section 6.1 (Alice).
        fs::write(&path, "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let key = load_or_create_key(&path).unwrap();
        let public = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=";
        assert_eq!(encode_public_key(&key.public_key()), public);
        assert_eq!(decode_public_key(public).unwrap(), key.public_key());
    }

    #[test]
    fn a_readable_file_is_refused_with_the_remedy() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("wg.key");
        load_or_create_key(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let message = load_or_create_key(&path).unwrap_err().to_string();
        assert!(message.contains("644") && message.contains("chmod 600"), "{message}");
    }

    #[test]
    fn a_file_that_is_no_key_is_refused_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("wg.key");
        for content in ["", "hello\n", &"A".repeat(44), &format!("{}=\nmore", "A".repeat(43))] {
            fs::write(&path, content).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            let message = load_or_create_key(&path).unwrap_err().to_string();
            assert!(message.contains("not a WireGuard key"), "{content:?}: {message}");
            assert_eq!(fs::read_to_string(&path).unwrap(), *content);
        }
    }

    #[test]
    fn a_private_key_is_not_shown() {
        let key = PrivateKey::generate();
        let shown = format!("{key:?}");
        assert!(!shown.contains(&BASE64.encode(key.secret().to_bytes())), "{shown}");
    }
}
