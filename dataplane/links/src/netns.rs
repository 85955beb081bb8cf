//! Network namespaces held by a bind mount, as `ip netns` holds them.
#![expect(unsafe_code, reason = "unshare of a thread, and a socket option rustix does not have")]
use crate::{Links, LinksError};
use rustix::{
    io::Errno,
    mount::{MountPropagationFlags, UnmountFlags, mount_bind, mount_change, unmount},
    thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe},
};
use std::{
    fs::{self, File},
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    sync::Arc,
    thread,
};

/// `getsockopt` at level `SOL_SOCKET`: cookie of the socket's network namespace, `u64`
/// (`include/uapi/asm-generic/socket.h`, Linux 5.14).
const SO_NETNS_COOKIE: libc::c_int = 71;

/// An open network namespace. Clones share the file.
#[derive(Clone, Debug)]
pub struct NetNs {
    path: PathBuf,
    file: Arc<OwnedFd>,
}

impl NetNs {
    /// Makes an empty namespace and mounts it at `path`. Its folder is made, too, and put on a shared
    /// mount, so that removing the namespace also removes the copies of the mount in other mount
    /// namespaces, which would keep it alive.
    ///
    /// # Errors
    /// When something is at `path` already, or without CAP_SYS_ADMIN.
    pub fn create(path: &Path) -> Result<NetNs, LinksError> {
        let failed =
            |source: io::Error| LinksError::NetNs { action: "create", path: path.into(), source };
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(failed)?;
            share(folder).map_err(failed)?;
        }
        File::create_new(path).map_err(failed)?;
        let made = on_a_thread(|| -> io::Result<()> {
            // SAFETY: only the network namespace of this thread changes, and the thread ends here.
            unsafe { unshare_unsafe(UnshareFlags::NEWNET) }?;
            Ok(mount_bind("/proc/thread-self/ns/net", path)?)
        });
        if let Err(source) = made {
            // The empty file would look like a namespace to the next start.
            let _ = fs::remove_file(path);
            return Err(failed(source));
        }
        NetNs::open(path)
    }

    /// Opens a namespace made by [`NetNs::create`], also one of `/proc/PID/ns/net`.
    ///
    /// # Errors
    /// [`LinksError::NoNetNs`] when there is none, also when only the empty file is left.
    pub fn open(path: &Path) -> Result<NetNs, LinksError> {
        let file = File::open(path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => LinksError::NoNetNs { path: path.into() },
            _ => LinksError::NetNs { action: "open", path: path.into(), source },
        })?;
        let kind = rustix::fs::fstatfs(&file).map_err(|e| LinksError::NetNs {
            action: "open",
            path: path.into(),
            source: e.into(),
        })?;
        if kind.f_type as u64 != NSFS_MAGIC {
            return Err(LinksError::NoNetNs { path: path.into() });
        }
        Ok(NetNs { path: path.into(), file: Arc::new(file.into()) })
    }

    /// Removes the file and its mount. The namespace itself lives as long as a process or an open
    /// file is in it. Nothing there is success.
    ///
    /// # Errors
    /// Without CAP_SYS_ADMIN, or when the file is not a namespace's and not empty.
    pub fn remove(path: &Path) -> Result<(), LinksError> {
        let failed =
            |e: Errno| LinksError::NetNs { action: "remove", path: path.into(), source: e.into() };
        match unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            // EINVAL: not a mount point, as after a restart of the host.
            Ok(()) | Err(Errno::INVAL | Errno::NOENT) => {}
            Err(e) => return Err(failed(e)),
        }
        match rustix::fs::unlink(path) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(e) => Err(failed(e)),
        }
    }

    /// Its file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Runs `f` in this namespace, on a thread that ends with it: for opening sockets, reading
    /// `/proc/net`. Blocks the caller, so `f` must be short.
    ///
    /// # Errors
    /// When the namespace cannot be entered (CAP_SYS_ADMIN).
    pub fn run_in<T: Send>(&self, f: impl FnOnce() -> T + Send) -> Result<T, LinksError> {
        on_a_thread(|| -> io::Result<T> {
            move_into_link_name_space(self.file.as_fd(), Some(LinkNameSpaceType::Network))?;
            Ok(f())
        })
        .map_err(|source| LinksError::NetNs {
            action: "enter",
            path: self.path.clone(),
            source,
        })
    }

    /// The kernel's cookie of the namespace, as the programs at the socket see it. Unique while the
    /// host runs.
    ///
    /// # Errors
    /// As [`NetNs::run_in`], or on a kernel older than 5.14.
    pub fn cookie(&self) -> Result<u64, LinksError> {
        self.run_in(|| {
            let socket = std::net::UdpSocket::bind(("127.0.0.1", 0)).or_else(|_| {
                // Without `lo` up there is no 127.0.0.1, but any address can be bound.
                std::net::UdpSocket::bind(("0.0.0.0", 0))
            })?;
            socket_netns_cookie(socket.as_fd())
        })?
        .map_err(|source| LinksError::NetNs {
            action: "identify",
            path: self.path.clone(),
            source,
        })
    }

    /// Netlink in this namespace. Must be called within a tokio runtime, which serves the socket.
    ///
    /// # Errors
    /// As [`NetNs::run_in`], or when there is no socket to be had.
    pub fn links(&self) -> Result<Links, LinksError> {
        let runtime = tokio::runtime::Handle::current();
        self.run_in(|| {
            let _entered = runtime.enter();
            Links::new()
        })?
    }
}

impl AsFd for NetNs {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Magic number of the file system of namespaces (`include/uapi/linux/magic.h`).
const NSFS_MAGIC: u64 = 0x6e73_6673;

/// Names of the files in a folder of namespaces, sorted; none when it does not exist. For finding
/// those that belong to no task.
///
/// # Errors
/// When the folder cannot be read.
pub fn namespaces(folder: &Path) -> Result<Vec<String>, LinksError> {
    let failed =
        |source: io::Error| LinksError::NetNs { action: "list", path: folder.into(), source };
    let entries = match fs::read_dir(folder) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(failed)?,
    };
    let mut names = Vec::new();
    for entry in entries {
        names.push(entry.map_err(failed)?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

/// Makes `folder` a shared mount of its own unless the mount it is on is shared.
fn share(folder: &Path) -> io::Result<()> {
    match mount_change(folder, MountPropagationFlags::SHARED) {
        Ok(()) => Ok(()),
        // Not a mount point: it is on the mount of a folder above.
        Err(Errno::INVAL) => {
            if on_a_shared_mount(folder)? {
                return Ok(());
            }
            mount_bind(folder, folder)?;
            Ok(mount_change(folder, MountPropagationFlags::SHARED)?)
        }
        Err(e) => Err(e.into()),
    }
}

/// Whether the mount that holds `folder` propagates, by the longest mount point above it.
fn on_a_shared_mount(folder: &Path) -> io::Result<bool> {
    let folder = folder.canonicalize()?;
    let table = fs::read_to_string("/proc/thread-self/mountinfo")?;
    Ok(is_shared(&table, &folder))
}

/// Field 5 of a line of mountinfo is the mount point, fields from 7 to `-` are tags (proc(5)).
fn is_shared(table: &str, folder: &Path) -> bool {
    let mut best: Option<(usize, bool)> = None;
    for line in table.lines() {
        let mut fields = line.split(' ');
        let Some(point) = fields.nth(4) else { continue };
        if !folder.starts_with(point) {
            continue;
        }
        let shared = fields.skip(1).take_while(|f| *f != "-").any(|f| f.starts_with("shared:"));
        // Later lines lie on top of earlier ones.
        if best.is_none_or(|(length, _)| point.len() >= length) {
            best = Some((point.len(), shared));
        }
    }
    best.is_some_and(|(_, shared)| shared)
}

/// Runs `f` on a fresh thread, so that what it does to itself ends with it.
fn on_a_thread<T: Send>(f: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let spawned = thread::Builder::new().name("netns".into()).spawn_scoped(scope, f)?;
        spawned.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn socket_netns_cookie(socket: BorrowedFd<'_>) -> io::Result<u64> {
    let mut cookie = 0_u64;
    let mut length = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the option writes at most `length` bytes, and `cookie` has as many.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    if result == 0 { Ok(cookie) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_on_the_mount_with_the_longest_point_above_it() {
        let table = "27 1 8:1 / / rw shared:1 - ext4 /dev/vda rw\n\
                     30 27 0:5 / /run rw,nosuid - tmpfs tmpfs rw\n\
                     31 30 0:5 /n /run/n rw shared:7 master:2 - tmpfs tmpfs rw\n";
        assert!(is_shared(table, Path::new("/var/lib")));
        assert!(!is_shared(table, Path::new("/run/shoal/netns")));
        assert!(is_shared(table, Path::new("/run/n/x")));
        assert!(!is_shared("", Path::new("/run")));
    }
}
