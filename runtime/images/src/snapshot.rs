//! A container's file system: an overlay of the image's layers under a folder of its own.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::mount::{UnmountFlags, unmount};

use crate::error::{ImageError, IoContext};
use crate::overlay;

/// The folders of one container's snapshot.
pub(crate) struct Snapshot {
    dir: PathBuf,
}

impl Snapshot {
    pub(crate) fn new(snapshots: &Path, container_id: &str) -> Result<Self, ImageError> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
        if container_id.is_empty()
            || container_id.starts_with('.')
            || container_id.len() > 128
            || !container_id.bytes().all(plain)
        {
            return Err(ImageError::InvalidContainerId { id: container_id.to_owned() });
        }
        Ok(Self { dir: snapshots.join(container_id) })
    }

    /// Where the file system is mounted.
    pub(crate) fn merged(&self) -> PathBuf {
        self.dir.join("merged")
    }

    /// The id of the image this snapshot stands on.
    pub(crate) fn image(&self) -> Option<String> {
        fs::read_to_string(self.dir.join("image")).ok()
    }

    /// Mounts `lowers` (bottom first) under the container's own folder. Mounted already: nothing to do.
    pub(crate) fn mount(&self, image: &str, lowers: &[PathBuf]) -> Result<PathBuf, ImageError> {
        let merged = self.merged();
        let (upper, work) = (self.dir.join("upper"), self.dir.join("work"));
        for folder in [&upper, &work, &merged] {
            fs::create_dir_all(folder).at("create", folder)?;
        }
        let mark = self.dir.join("image");
        fs::write(&mark, image).at("write", &mark)?;
        if is_mounted(&merged).at("look at", &merged)? {
            return Ok(merged);
        }
        overlay::mount(lowers, &upper, &work, &merged)?;
        Ok(merged)
    }

    /// Unmounts and keeps what the container wrote. Idempotent.
    pub(crate) fn unmount(&self) -> Result<(), ImageError> {
        let merged = self.merged();
        if merged.exists() && is_mounted(&merged).at("look at", &merged)? {
            // Detached: a process that is still in there must not keep us from going on.
            unmount(&merged, UnmountFlags::DETACH).at("unmount", &merged)?;
        }
        Ok(())
    }

    /// Unmounts and deletes everything. Idempotent.
    pub(crate) fn delete(&self) -> Result<(), ImageError> {
        self.unmount()?;
        match fs::remove_dir_all(&self.dir) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e).at("delete", &self.dir),
            _ => Ok(()),
        }
    }
}

/// Whether something is mounted exactly here: its device differs from its parent's.
fn is_mounted(path: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let parent = path.parent().unwrap_or(Path::new("/"));
    Ok(fs::metadata(path)?.dev() != fs::metadata(parent)?.dev())
}
