//! Unpacks one layer's tar into overlayfs form: whiteouts become 0:0 character devices, opaque
//! folders get `trusted.overlay.opaque`, folder times are set last.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags, chmodat,
    chownat, fchmod, fsetxattr, linkat, lsetxattr, makedev, mkdirat, mknodat, openat, symlinkat,
    utimensat,
};
use rustix::io::Errno;
use tar::{Entry, EntryType};

use crate::archive::{confined, decompressed};
use crate::confine::{Root, clear, is_folder};
use crate::digest::HashingReader;
use crate::error::{ImageError, REMEDY_BUILD, REMEDY_COPY};

/// Most bytes of one uncompressed layer: far above real images, below what would fill a disk unseen.
const MAX_LAYER: u64 = 64 << 30;
/// Most entries of one layer (a large distribution has some 500,000 files).
const MAX_ENTRIES: u64 = 4_000_000;
/// Prefix of a file that deletes its namesake from lower layers (OCI image layer specification).
const WHITEOUT: &[u8] = b".wh.";
/// Hides everything the folder has in lower layers.
const OPAQUE: &[u8] = b".wh..wh..opq";

/// What unpacking gave.
pub(crate) struct Unpacked {
    /// Digest of the uncompressed tar.
    pub(crate) diff_id: String,
    /// Sum of the sizes of its regular files, bytes.
    pub(crate) size: u64,
}

/// The digest of a layer's uncompressed tar, without unpacking.
pub(crate) fn diff_id_of(layer: impl Read, what: &str) -> Result<String, ImageError> {
    let plain = decompressed(layer).map_err(|e| damaged(what, &e))?;
    HashingReader::new(plain, MAX_LAYER).finish().map_err(|e| damaged(what, &e))
}

/// Unpacks `layer` into the empty folder `into`. `what` names the layer in errors.
pub(crate) fn unpack(layer: impl Read, into: &Path, what: &str) -> Result<Unpacked, ImageError> {
    let plain = decompressed(layer).map_err(|e| damaged(what, &e))?;
    let mut reader = HashingReader::new(plain, MAX_LAYER);
    let root = Root::open(into).map_err(|e| damaged(what, &e))?;
    let mut unpacking = Unpacking { root, folders: Vec::new(), size: 0 };
    {
        let mut tar = tar::Archive::new(&mut reader);
        let mut count = 0;
        for entry in tar.entries().map_err(|e| damaged(what, &e))? {
            let mut entry = entry.map_err(|e| damaged(what, &e))?;
            let raw = entry.path().map_err(|e| damaged(what, &e))?.into_owned();
            count += 1;
            if count > MAX_ENTRIES {
                let reason = format!("more than {MAX_ENTRIES} entries");
                return Err(ImageError::corrupt(what, reason, REMEDY_BUILD));
            }
            unpacking.entry(&mut entry, &raw).map_err(|problem| problem.named(what, &raw))?;
        }
    }
    unpacking.set_folder_times().map_err(|e| damaged(what, &e))?;
    let diff_id = reader.finish().map_err(|e| damaged(what, &e))?;
    Ok(Unpacked { diff_id, size: unpacking.size })
}

/// What is wrong with one entry.
enum Problem {
    /// The archive's fault: refused.
    Refused(String, &'static str),
    /// The disk's or the kernel's fault, or damage found while reading.
    Failed(io::Error),
}

impl Problem {
    fn named(self, what: &str, entry: &Path) -> ImageError {
        let what = format!("{what}, entry {entry:?}");
        match self {
            Self::Refused(reason, remedy) => ImageError::corrupt(what, reason, remedy),
            Self::Failed(e) => damaged(&what, &e),
        }
    }
}

impl<E: Into<io::Error>> From<E> for Problem {
    fn from(e: E) -> Self {
        Self::Failed(e.into())
    }
}

struct Unpacking {
    root: Root,
    /// Folders in the order met, with their times: set last, since every file made in one changes it.
    folders: Vec<(PathBuf, Timespec)>,
    size: u64,
}

impl Unpacking {
    fn entry<R: Read>(&mut self, entry: &mut Entry<'_, R>, raw: &Path) -> Result<(), Problem> {
        let refuse = |reason: &str| Problem::Refused(reason.to_owned(), REMEDY_BUILD);
        let path = confined(raw).ok_or_else(|| refuse("its path leaves the image (\"..\")"))?;
        let name = path.file_name().map(OsStr::as_bytes).unwrap_or_default();
        if let Some(hidden) = name.strip_prefix(WHITEOUT) {
            return self.whiteout(&path, hidden);
        }
        let kind = entry.header().entry_type();
        match kind {
            EntryType::Directory => return self.folder(entry, path),
            EntryType::XGlobalHeader => return Ok(()),
            _ if name.is_empty() => return Err(refuse("the image's root is not a folder")),
            _ => {}
        }
        let (parent, name) = self.root.parent_of(&path)?;
        clear(&parent, name)?;
        match kind {
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                self.file(entry, &parent, name)
            }
            EntryType::Symlink => {
                let target = entry.link_name_bytes().unwrap_or_default();
                symlinkat(&*target, &parent, name)?;
                dress(entry, &parent, name, false)
            }
            EntryType::Link => self.hard_link(entry, &parent, name),
            EntryType::Char => self.node(entry, &parent, name, FileType::CharacterDevice),
            EntryType::Block => self.node(entry, &parent, name, FileType::BlockDevice),
            EntryType::Fifo => self.node(entry, &parent, name, FileType::Fifo),
            other => Err(refuse(&format!("unknown kind of entry {:?}", other.as_byte() as char))),
        }
    }

    fn whiteout(&self, path: &Path, hidden: &[u8]) -> Result<(), Problem> {
        let parent = path.parent().unwrap_or(Path::new(""));
        if path.file_name().is_some_and(|n| n.as_bytes() == OPAQUE) {
            let folder = self.root.make_folder(parent)?;
            fsetxattr(&folder, "trusted.overlay.opaque", b"y", XattrFlags::empty())?;
            return Ok(());
        }
        if hidden.starts_with(WHITEOUT) {
            return Ok(()); // AUFS bookkeeping of old archives: means nothing here.
        }
        if matches!(hidden, b"" | b"." | b"..") {
            let reason = "a whiteout that names no file".to_owned();
            return Err(Problem::Refused(reason, REMEDY_BUILD));
        }
        let folder = self.root.make_folder(parent)?;
        let hidden = OsStr::from_bytes(hidden);
        clear(&folder, hidden)?;
        mknodat(&folder, hidden, FileType::CharacterDevice, Mode::empty(), 0)?;
        Ok(())
    }

    fn folder<R: Read>(&mut self, entry: &mut Entry<'_, R>, path: PathBuf) -> Result<(), Problem> {
        let time = time_of(entry)?;
        if path.as_os_str().is_empty() {
            dress_fd(entry, &self.root.folder(&path)?)?;
        } else {
            let (parent, name) = self.root.parent_of(&path)?;
            if !is_folder(&parent, name) {
                clear(&parent, name)?;
                mkdirat(&parent, name, Mode::from_raw_mode(0o755))?;
            }
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            dress_fd(entry, &openat(&parent, name, flags, Mode::empty())?)?;
        }
        self.folders.push((path, time));
        Ok(())
    }

    fn file<R: Read>(
        &mut self,
        entry: &mut Entry<'_, R>,
        parent: &OwnedFd,
        name: &OsStr,
    ) -> Result<(), Problem> {
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(openat(parent, name, flags, Mode::from_raw_mode(0o600))?);
        let want = entry.size();
        let got = io::copy(entry, &mut file)?;
        if got != want {
            let reason = format!("truncated: {got} of {want} bytes");
            return Err(Problem::Refused(reason, REMEDY_COPY));
        }
        self.size += got;
        dress_fd(entry, &OwnedFd::from(file))?;
        set_time(parent, name, time_of(entry)?)
    }

    fn hard_link<R: Read>(
        &self,
        entry: &Entry<'_, R>,
        parent: &OwnedFd,
        name: &OsStr,
    ) -> Result<(), Problem> {
        let link = entry.link_name()?.unwrap_or_default().into_owned();
        let refuse = |reason: &str| {
            Problem::Refused(format!("hard link to {link:?}, {reason}"), REMEDY_BUILD)
        };
        let target = confined(&link).ok_or_else(|| refuse("which leaves the image (\"..\")"))?;
        let file_name = target.file_name().ok_or_else(|| refuse("which is no file"))?;
        let folder = self
            .root
            .folder(target.parent().unwrap_or(Path::new("")))
            .map_err(|_| refuse("which is not in this layer"))?;
        match linkat(&folder, file_name, parent, name, AtFlags::empty()) {
            Ok(()) => Ok(()),
            Err(Errno::NOENT) => Err(refuse("which is not in this layer")),
            Err(e) => Err(e.into()),
        }
    }

    fn node<R: Read>(
        &self,
        entry: &mut Entry<'_, R>,
        parent: &OwnedFd,
        name: &OsStr,
        kind: FileType,
    ) -> Result<(), Problem> {
        let header = entry.header();
        let major = header.device_major()?.unwrap_or(0);
        let minor = header.device_minor()?.unwrap_or(0);
        let device = if kind == FileType::Fifo { 0 } else { makedev(major, minor) };
        mknodat(parent, name, kind, Mode::from_raw_mode(0o600), device)?;
        dress(entry, parent, name, true)
    }

    fn set_folder_times(&self) -> io::Result<()> {
        for (path, time) in self.folders.iter().rev() {
            // A later entry may have replaced the folder by something else: nothing to do then.
            let Ok(folder) = self.root.folder(path) else { continue };
            rustix::fs::futimens(&folder, &both(*time))?;
        }
        Ok(())
    }
}

/// Owner, mode (unless a link) and times of something that is best not opened.
fn dress<R: Read>(
    entry: &mut Entry<'_, R>,
    parent: &OwnedFd,
    name: &OsStr,
    has_mode: bool,
) -> Result<(), Problem> {
    let (uid, gid) = owner(entry)?;
    chownat(parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    if has_mode {
        chmodat(parent, name, mode(entry)?, AtFlags::empty())?;
    }
    for (key, value) in xattrs(entry)? {
        let path = PathBuf::from(format!("/proc/self/fd/{}", raw(parent))).join(name);
        tolerant(lsetxattr(&path, &key, &value, XattrFlags::empty()))?;
    }
    set_time(parent, name, time_of(entry)?)
}

/// Owner, mode and extended attributes by descriptor. Owner first: it clears set-uid bits and
/// file capabilities.
fn dress_fd<R: Read>(entry: &mut Entry<'_, R>, fd: &OwnedFd) -> Result<(), Problem> {
    let (uid, gid) = owner(entry)?;
    rustix::fs::fchown(fd, Some(uid), Some(gid))?;
    fchmod(fd, mode(entry)?)?;
    for (key, value) in xattrs(entry)? {
        tolerant(fsetxattr(fd, &key, &value, XattrFlags::empty()))?;
    }
    Ok(())
}

/// A file system or kernel without this kind of attribute is no reason to refuse an image.
fn tolerant(result: Result<(), Errno>) -> Result<(), Problem> {
    match result {
        Ok(()) | Err(Errno::NOTSUP) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

fn xattrs<R: Read>(entry: &mut Entry<'_, R>) -> Result<Vec<(OsString, Vec<u8>)>, Problem> {
    let mut found = Vec::new();
    let Some(records) = entry.pax_extensions()? else { return Ok(found) };
    for record in records {
        let record = record?;
        let Some(key) = record.key_bytes().strip_prefix(b"SCHILY.xattr.") else { continue };
        // These steer overlayfs itself: an image could hide or redirect what lies below it.
        if key.starts_with(b"trusted.overlay.") {
            let reason = "an extended attribute trusted.overlay.*".to_owned();
            return Err(Problem::Refused(reason, REMEDY_BUILD));
        }
        found.push((OsStr::from_bytes(key).to_owned(), record.value_bytes().to_vec()));
    }
    Ok(found)
}

fn owner<R: Read>(entry: &Entry<'_, R>) -> Result<(Uid, Gid), Problem> {
    let narrow = |id: u64| u32::try_from(id).ok().filter(|id| *id != u32::MAX);
    let (uid, gid) = (entry.header().uid()?, entry.header().gid()?);
    match (narrow(uid), narrow(gid)) {
        (Some(uid), Some(gid)) => Ok((Uid::from_raw(uid), Gid::from_raw(gid))),
        _ => Err(Problem::Refused(format!("owner {uid}:{gid} is out of range"), REMEDY_BUILD)),
    }
}

fn mode<R: Read>(entry: &Entry<'_, R>) -> io::Result<Mode> {
    Ok(Mode::from_raw_mode(entry.header().mode()? & 0o7777))
}

fn time_of<R: Read>(entry: &Entry<'_, R>) -> io::Result<Timespec> {
    let seconds = i64::try_from(entry.header().mtime()?).unwrap_or(i64::MAX >> 24);
    Ok(Timespec { tv_sec: seconds, tv_nsec: 0 })
}

fn set_time(parent: &OwnedFd, name: &OsStr, time: Timespec) -> Result<(), Problem> {
    utimensat(parent, name, &both(time), AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(())
}

fn both(time: Timespec) -> Timestamps {
    Timestamps { last_access: time, last_modification: time }
}

fn raw(fd: &OwnedFd) -> i32 {
    use std::os::fd::AsRawFd;
    fd.as_fd().as_raw_fd()
}

/// Flushes the file system that holds `path`.
pub(crate) fn sync_tree(path: &Path) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = openat(CWD, path, flags, Mode::empty())?;
    Ok(rustix::fs::syncfs(&fd)?)
}

/// Bad content is the archive's fault; a full disk or a missing privilege is not.
fn damaged(what: &str, e: &io::Error) -> ImageError {
    let errno = e.raw_os_error().map(Errno::from_raw_os_error);
    let by_content =
        [Errno::LOOP, Errno::NOTDIR, Errno::NAMETOOLONG, Errno::NOTEMPTY, Errno::EXIST];
    match errno {
        Some(errno) if !by_content.contains(&errno) => {
            ImageError::Io { action: "unpack", path: what.into(), source: errno.into() }
        }
        _ => ImageError::corrupt(what, format!("cannot be unpacked: {e}"), REMEDY_COPY),
    }
}
