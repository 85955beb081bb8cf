//! File operations that cannot leave a folder: every look-up of a parent goes through
//! `openat2(RESOLVE_IN_ROOT)`, so a symlink in a layer, absolute or with `..`, resolves inside.

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, mkdirat, openat2, statat, unlinkat};
use rustix::io::Errno;

/// A folder as the root of look-ups.
pub(crate) struct Root {
    fd: OwnedFd,
}

impl Root {
    /// Opens `path`, which must be a folder.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self { fd: rustix::fs::open(path, flags, Mode::empty())? })
    }

    /// Opens a folder inside, without creating anything.
    pub(crate) fn folder(&self, path: &Path) -> io::Result<OwnedFd> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(openat2(&self.fd, path, flags, Mode::empty(), ResolveFlags::IN_ROOT)?)
    }

    /// Opens a folder inside and makes what is missing of it, mode 0755.
    pub(crate) fn make_folder(&self, path: &Path) -> io::Result<OwnedFd> {
        match self.folder(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
        let name = path.file_name().ok_or(Errno::NOENT)?;
        let parent = self.make_folder(path.parent().unwrap_or(Path::new("")))?;
        match mkdirat(&parent, name, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => self.folder(path),
            Err(e) => Err(e.into()),
        }
    }

    /// The parent of `path` (made if missing) and the last part of its name.
    pub(crate) fn parent_of<'p>(&self, path: &'p Path) -> io::Result<(OwnedFd, &'p OsStr)> {
        let name = path.file_name().ok_or(Errno::ISDIR)?;
        Ok((self.make_folder(path.parent().unwrap_or(Path::new("")))?, name))
    }
}

/// Removes `name` from `parent` if it is there; an empty folder too.
pub(crate) fn clear(parent: &OwnedFd, name: &OsStr) -> io::Result<()> {
    match unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(Errno::ISDIR) => Ok(unlinkat(parent, name, AtFlags::REMOVEDIR)?),
        Err(e) => Err(e.into()),
    }
}

/// Whether `name` in `parent` is a folder itself (not a link to one).
pub(crate) fn is_folder(parent: &OwnedFd, name: &OsStr) -> bool {
    statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|s| rustix::fs::FileType::from_raw_mode(s.st_mode).is_dir())
}
