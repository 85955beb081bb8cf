//! Where a container's own files are: a file system in memory, made whole before anybody can see it.
//!
//! It is filled while it is mounted nowhere, and then appears in `exec_root/<id>/files` by one call of the
//! kernel. If the daemon dies before that, it is gone with the daemon; after that it has every file. The
//! files are named by their place in the specification. A container that runs has them mounted one by
//! one, so that it does not depend on this place; it stays until the container has ended, since the shim
//! may only just have been started.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Gid, Mode, OFlags, Uid, fchmod, fchown, openat};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, FsPickFlags, MountAttrFlags, MoveMountFlags, UnmountFlags,
    fsconfig_create, fsconfig_reconfigure, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen,
    fspick, move_mount, unmount,
};

use crate::disk::Dirs;
use crate::error::{IoContext, RuntimeError};
use crate::files::FileSpec;
use crate::spec::short;

/// Files are accounted in pages; the largest of those Linux has is 64 KiB. A smaller one only leaves
/// room that is not used.
const PAGE: u64 = 64 << 10;
/// How often a folder is unmounted at most. More than once never happens by itself.
const MOST_MOUNTS: u32 = 8;

/// Where file number `n` of a container is on the host.
pub(crate) fn path(files: &Path, n: usize) -> PathBuf {
    files.join(n.to_string())
}

/// Puts a container's files into memory. They are all there when this returns, or none is.
pub(crate) fn keep(dirs: &Dirs, files: &[FileSpec]) -> Result<(), RuntimeError> {
    if files.is_empty() {
        return Ok(());
    }
    release(dirs)?;
    let at = dirs.files();
    fs::create_dir_all(&at).at("create", &at)?;
    let mount = filled(files).at("fill a file system in memory for", &at)?;
    move_mount(mount.as_fd(), "", CWD, &at, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .at("mount a file system in memory at", &at)
}

/// Whether the files are still there.
pub(crate) fn check(dirs: &Dirs, id: &str, files: &[FileSpec]) -> Result<(), RuntimeError> {
    let at = dirs.files();
    // Nothing but the whole is ever here.
    match files.is_empty() || path(&at, files.len() - 1).is_file() {
        true => Ok(()),
        false => Err(RuntimeError::FilesGone { id: short(id).to_owned() }),
    }
}

/// Lets the files go. Idempotent.
pub(crate) fn release(dirs: &Dirs) -> Result<(), RuntimeError> {
    let at = dirs.files();
    for _ in 0..MOST_MOUNTS {
        // Detached: a process that has one open must not keep us from going on.
        match unmount(&at, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            Ok(()) => {}
            // Nothing is mounted here.
            Err(Errno::INVAL | Errno::NOENT) => break,
            Err(e) => return Err(e).at("unmount", &at),
        }
    }
    match fs::remove_dir(&at) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e).at("delete", &at),
        _ => Ok(()),
    }
}

/// A file system with these files, mounted nowhere.
fn filled(files: &[FileSpec]) -> io::Result<OwnedFd> {
    let fs = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    let pages = |file: &FileSpec| (file.content.bytes().len() as u64).div_ceil(PAGE).max(1);
    let size: u64 = files.iter().map(pages).sum::<u64>() * PAGE;
    for (key, value) in [
        ("source", "shoal".to_owned()),
        ("mode", "0700".to_owned()),
        ("size", size.to_string()),
        // The folder has one too.
        ("nr_inodes", (files.len() + 1).to_string()),
    ] {
        fsconfig_set_string(fs.as_fd(), key, value)?;
    }
    // Linux 6.4. Before, what is in memory may come to lie in the swap.
    match fsconfig_set_flag(fs.as_fd(), "noswap") {
        Ok(()) | Err(Errno::INVAL) => {}
        Err(e) => return Err(e.into()),
    }
    fsconfig_create(fs.as_fd())?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let mount = fsmount(fs.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    for (n, file) in files.iter().enumerate() {
        write(mount.as_fd(), n, file)?;
    }
    // The file system, not only this mount of it: nobody who mounts it again can write.
    let flags = FsPickFlags::FSPICK_EMPTY_PATH | FsPickFlags::FSPICK_CLOEXEC;
    let fs = fspick(mount.as_fd(), "", flags)?;
    fsconfig_set_flag(fs.as_fd(), "ro")?;
    fsconfig_reconfigure(fs.as_fd())?;
    Ok(mount)
}

fn write(folder: BorrowedFd<'_>, n: usize, spec: &FileSpec) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let mut file = File::from(openat(folder, n.to_string(), flags, Mode::empty())?);
    file.write_all(spec.content.bytes())?;
    fchown(&file, Some(Uid::from_raw(spec.uid)), Some(Gid::from_raw(spec.gid)))?;
    // After the owner, which takes some bits away; and without the mask of this process.
    fchmod(&file, Mode::from_raw_mode(spec.mode))?;
    Ok(())
}
