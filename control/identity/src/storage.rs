//! The node's certificate files under the data root.

use crate::{
    IdentityError, KeyLock, NodeCertificate, NodeKey, Trust,
    certificate::MAX_PEM,
    lock::{opened, sealed},
};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};
use zeroize::Zeroizing;

const KEY: &str = "swarm-node.key";
const CERTIFICATE: &str = "swarm-node.crt";
const ROOT: &str = "swarm-root-ca.crt";

/// The folder `DATA_ROOT/swarm/certificates`. The files change all at once or not at all: a new
/// folder is written next to it and takes its place in one step.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CertificateDir(PathBuf);

impl CertificateDir {
    /// The folder under this data root; nothing is touched yet.
    pub fn new(data_root: &Path) -> CertificateDir {
        CertificateDir(data_root.join("swarm/certificates"))
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Writes key, certificate and root, and waits until they are on the disk.
    pub fn save(&self, node: &NodeCertificate) -> Result<(), IdentityError> {
        self.save_locked(node, &[])
    }

    /// The same with the key sealed, so that each of the locks opens it; without any it is as it is.
    pub fn save_locked(
        &self,
        node: &NodeCertificate,
        locks: &[KeyLock],
    ) -> Result<(), IdentityError> {
        let parent = self.0.parent().expect("new() gave it one");
        fs::create_dir_all(parent).map_err(at("make the folder", parent))?;
        let fresh = self.0.with_extension("new");
        remove(&fresh)?; // left by an interrupted save
        fs::DirBuilder::new().mode(0o700).create(&fresh).map_err(at("make the folder", &fresh))?;
        write(&fresh.join(KEY), 0o600, &sealed(node.key().pem(), locks))?;
        write(&fresh.join(CERTIFICATE), 0o644, node.pem())?;
        write(&fresh.join(ROOT), 0o644, &node.trust().pem())?;
        sync(&fresh)?;
        let old = self.0.try_exists().map_err(at("look for", &self.0))?;
        let flags = if old { RenameFlags::EXCHANGE } else { RenameFlags::NOREPLACE };
        renameat_with(CWD, &fresh, CWD, &self.0, flags)
            .map_err(|e| at("replace", &self.0)(e.into()))?;
        sync(parent)?;
        remove(&fresh)
    }

    /// Reads and checks the files; `None` when there are none: this host is no node yet.
    pub fn load(&self) -> Result<Option<NodeCertificate>, IdentityError> {
        self.load_with(None)
    }

    /// The same; `lock` opens the key where it is sealed.
    pub fn load_with(
        &self,
        lock: Option<&KeyLock>,
    ) -> Result<Option<NodeCertificate>, IdentityError> {
        let [key, certificate, root] = [KEY, CERTIFICATE, ROOT].map(|name| self.0.join(name));
        match (read(&key)?, read(&certificate)?, read(&root)?) {
            (None, None, None) => Ok(None),
            (None, ..) => Err(IdentityError::Incomplete(key)),
            (_, None, _) => Err(IdentityError::Incomplete(certificate)),
            (_, _, None) => Err(IdentityError::Incomplete(root)),
            (Some(key), Some(certificate), Some(root)) => NodeCertificate::new(
                NodeKey::from_pem(&opened(key, lock)?)?,
                &certificate,
                Trust::from_pem(&root)?,
            )
            .map(Some),
        }
    }

    /// Removes the folder, when the node leaves its cluster. What is not there is no error.
    pub fn remove(&self) -> Result<(), IdentityError> {
        remove(&self.0)?;
        remove(&self.0.with_extension("new"))
    }
}

fn remove(dir: &Path) -> Result<(), IdentityError> {
    match fs::remove_dir_all(dir) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(at("remove", dir)(e)),
        _ => Ok(()),
    }
}

fn write(path: &Path, mode: u32, text: &str) -> Result<(), IdentityError> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()))
        .map_err(at("write", path))
}

fn sync(dir: &Path) -> Result<(), IdentityError> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(at("write", dir))
}

fn read(path: &Path) -> Result<Option<Zeroizing<String>>, IdentityError> {
    let file = match File::open(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        file => file.map_err(at("read", path))?,
    };
    // Room for all from the start: growing would leave copies behind.
    let mut text = Zeroizing::new(String::with_capacity(MAX_PEM + 1));
    file.take(MAX_PEM as u64 + 1).read_to_string(&mut text).map_err(at("read", path))?;
    Ok(Some(text))
}

fn at(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> IdentityError {
    move |source| IdentityError::File { action, path: path.to_owned(), source }
}
