//! Where a container's files are, and how they are written: whole or not at all.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tempfile::NamedTempFile;

use crate::error::{IoContext, RuntimeError};

/// How often it is tried to remove a folder that is being written to, and the pause between.
const REMOVALS: u32 = 10;
const PAUSE: Duration = Duration::from_millis(20);
/// The longest that a process may stand between its fork and its exec, on a machine that is busy.
const FORK_TO_EXEC: Duration = Duration::from_secs(1);

/// The two folders of one container.
#[derive(Debug, Clone)]
pub(crate) struct Dirs {
    /// Lasting: `data_root/<id>`.
    pub(crate) data: PathBuf,
    /// Fleeting: `exec_root/<id>`, the OCI bundle and the shim's socket.
    pub(crate) bundle: PathBuf,
}

impl Dirs {
    pub(crate) fn container(&self) -> PathBuf {
        self.data.join("container.json")
    }
    pub(crate) fn started(&self) -> PathBuf {
        self.data.join("started.json")
    }
    pub(crate) fn exit(&self) -> PathBuf {
        self.data.join("exit.json")
    }
    pub(crate) fn log(&self, id: &str) -> PathBuf {
        self.data.join(format!("{id}-json.log"))
    }
    pub(crate) fn files(&self) -> PathBuf {
        self.bundle.join("files")
    }
    pub(crate) fn lock(&self) -> PathBuf {
        self.bundle.join("lock")
    }
    pub(crate) fn shim_log(&self) -> PathBuf {
        self.bundle.join("shim.log")
    }

    /// Takes the lock as [`Dirs::try_lock`] does, but waits a while for one that nobody means to keep:
    /// a process that another thread has forked holds a copy of all the daemon's locks until its exec.
    pub(crate) fn lock_soon(&self) -> Result<Option<File>, RuntimeError> {
        let patience = Instant::now() + FORK_TO_EXEC;
        loop {
            let lock = self.try_lock()?;
            // A shim that has said so holds it for long.
            let runs = self.started().exists() && !self.exit().exists();
            if lock.is_some() || runs || Instant::now() > patience {
                return Ok(lock);
            }
            sleep(Duration::from_millis(5));
        }
    }

    /// Takes the lock that a living shim holds; `None` while one does.
    pub(crate) fn try_lock(&self) -> Result<Option<File>, RuntimeError> {
        let path = self.lock();
        let open = File::options().create(true).truncate(false).read(true).write(true).open(&path);
        let file = match open {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                fs::create_dir_all(&self.bundle).at("create", &self.bundle)?;
                File::create(&path).at("create", &path)?
            }
            other => other.at("open", &path)?,
        };
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(file)),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(e) => Err(e).at("lock", &path),
        }
    }
}

/// Replaces a file by a rename, synced: after a crash it is the old one or the new one.
pub(crate) fn write_atomic(path: &Path, bytes: &[u8]) -> Result<(), RuntimeError> {
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = NamedTempFile::new_in(parent).at("create a temporary file in", parent)?;
    file.write_all(bytes).and_then(|()| file.as_file().sync_all()).at("write", path)?;
    file.persist(path).map_err(|e| e.error).at("replace", path)?;
    File::open(parent).and_then(|d| d.sync_all()).at("sync", parent)
}

/// [`write_atomic`] of a value as JSON.
pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> Result<(), RuntimeError> {
    let bytes = serde_json::to_vec(value)
        .map_err(|source| RuntimeError::Damaged { path: path.to_owned(), source })?;
    write_atomic(path, &bytes)
}

/// A JSON file; `None` if it is not there.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, RuntimeError> {
    match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|source| RuntimeError::Damaged { path: path.to_owned(), source }),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e).at("read", path),
    }
}

/// Removes a file if it is there.
pub(crate) fn remove_file(path: &Path) -> Result<(), RuntimeError> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e).at("delete", path),
        _ => Ok(()),
    }
}

/// Removes a folder with all it holds if it is there.
pub(crate) fn remove_tree(path: &Path) -> Result<(), RuntimeError> {
    for _ in 0..REMOVALS {
        match fs::remove_dir_all(path) {
            // A shim that ends may just have made a folder for an exec.
            Err(e) if e.kind() == io::ErrorKind::DirectoryNotEmpty => sleep(PAUSE),
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e).at("delete", path),
            _ => return Ok(()),
        }
    }
    Err(io::Error::from(io::ErrorKind::DirectoryNotEmpty)).at("delete", path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_that_a_forked_process_has_a_copy_of_is_waited_for_and_a_shims_is_not() {
        let home = tempfile::tempdir().unwrap();
        let dirs = Dirs { data: home.path().to_owned(), bundle: home.path().join("bundle") };
        let lock = dirs.try_lock().unwrap().expect("nobody holds it");
        let copy = lock.try_clone().unwrap();
        drop(lock);
        assert!(dirs.try_lock().unwrap().is_none(), "the copy holds it");
        let exec = std::thread::spawn(move || {
            sleep(Duration::from_millis(50));
            drop(copy);
        });
        let lock = dirs.lock_soon().unwrap().expect("the copy is gone soon");
        exec.join().unwrap();
        // A shim that was started: the file says so, and there is nothing to wait for.
        fs::write(dirs.started(), "{}").unwrap();
        let begin = Instant::now();
        assert!(dirs.lock_soon().unwrap().is_none());
        assert!(begin.elapsed() < FORK_TO_EXEC);
        drop(lock);
    }
}
