//! The few calls aya has no safe way for: replacing the program of a pinned link of any kind, asking a
//! link what it hangs on, and a namespace to try things in. Layouts are those of `include/uapi/linux/bpf.h`.
#![expect(unsafe_code, reason = "system calls")]
use std::{
    ffi::CString,
    io,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    os::unix::ffi::OsStrExt,
    path::Path,
    thread,
};

/// `BPF_OBJ_GET`.
const OBJ_GET: libc::c_long = 7;
/// `BPF_OBJ_GET_INFO_BY_FD`.
const OBJ_GET_INFO_BY_FD: libc::c_long = 15;
/// `BPF_LINK_UPDATE`.
const LINK_UPDATE: libc::c_long = 29;
/// `BPF_LINK_DETACH`.
const LINK_DETACH: libc::c_long = 34;
/// `BPF_LINK_TYPE_CGROUP`.
const LINK_CGROUP: u32 = 3;
/// `BPF_LINK_TYPE_TCX`.
const LINK_TCX: u32 = 11;

/// What a link hangs on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Target {
    /// A control group, by its id, which is the inode number of its folder.
    Cgroup(u64),
    /// A network interface, by its index; 0 when it is gone.
    Interface(u32),
    /// Something else.
    Other,
}

/// The kernel's `struct bpf_link_info` up to what is read of it.
#[repr(C)]
#[derive(Default)]
struct LinkInfo {
    kind: u32,
    id: u32,
    program: u32,
    pad: u32,
    /// The start of the union: `cgroup_id`, or `tcx.ifindex` and `tcx.attach_type`.
    first: [u32; 2],
    rest: [u64; 4],
}

/// Opens a pinned object.
pub(crate) fn pinned(path: &Path) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Attr {
        path: u64,
        fd: u32,
        flags: u32,
    }
    let path = CString::new(path.as_os_str().as_bytes())?;
    let attr = Attr { path: path.as_ptr() as u64, fd: 0, flags: 0 };
    // SAFETY: `attr` has the layout of this command, and `path` outlives the call.
    let fd = unsafe { bpf(OBJ_GET, &attr) }?;
    // SAFETY: the call has just made this descriptor, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// What a link hangs on.
pub(crate) fn target(link: BorrowedFd<'_>) -> io::Result<Target> {
    #[repr(C)]
    struct Attr {
        fd: u32,
        length: u32,
        info: u64,
    }
    let mut info = LinkInfo::default();
    let attr = Attr {
        fd: link.as_raw_fd() as u32,
        length: size_of::<LinkInfo>() as u32,
        info: (&raw mut info) as u64,
    };
    // SAFETY: `attr` has the layout of this command; the kernel writes at most `length` bytes of
    // integers to `info`.
    unsafe { bpf(OBJ_GET_INFO_BY_FD, &attr) }?;
    Ok(match info.kind {
        LINK_CGROUP => {
            let [low, high] = info.first.map(u32::to_ne_bytes);
            let mut id = [0; 8];
            id[..4].copy_from_slice(&low);
            id[4..].copy_from_slice(&high);
            Target::Cgroup(u64::from_ne_bytes(id))
        }
        LINK_TCX => Target::Interface(info.first[0]),
        _ => Target::Other,
    })
}

/// Replaces the program of a link; no packet sees neither or both.
pub(crate) fn replace(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    #[repr(C)]
    struct Attr {
        link: u32,
        program: u32,
        flags: u32,
        old: u32,
    }
    let attr = Attr {
        link: link.as_raw_fd() as u32,
        program: program.as_raw_fd() as u32,
        flags: 0,
        old: 0,
    };
    // SAFETY: `attr` has the layout of this command.
    unsafe { bpf(LINK_UPDATE, &attr) }.map(drop)
}

/// Takes a link off what it hangs on, at once; removing its pin alone does so some time later.
pub(crate) fn detach(link: BorrowedFd<'_>) -> io::Result<()> {
    let fd = link.as_raw_fd() as u32;
    // SAFETY: the command's layout is one `u32`.
    unsafe { bpf(LINK_DETACH, &fd) }.map(drop)
}

/// Index of a network interface of the calling thread's namespace.
pub(crate) fn interface_index(name: &str) -> io::Result<u32> {
    let name = CString::new(name)?;
    // SAFETY: `name` ends with a zero and outlives the call.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => Err(io::Error::last_os_error()),
        index => Ok(index),
    }
}

/// Runs something in a network namespace that holds a loopback interface and goes with it. `None`
/// when there cannot be one.
pub(crate) fn in_empty_namespace<T: Send>(job: impl FnOnce() -> T + Send) -> Option<T> {
    let inside = || {
        // SAFETY: only this thread moves, and it ends with the job.
        match unsafe { libc::unshare(libc::CLONE_NEWNET) } {
            0 => Some(job()),
            _ => None,
        }
    };
    thread::scope(|scope| scope.spawn(inside).join().ok().flatten())
}

/// # Safety
///
/// `attr` must be of the command's layout, with all pointers in it valid.
unsafe fn bpf<T>(command: libc::c_long, attr: &T) -> io::Result<i32> {
    let length = size_of::<T>();
    // SAFETY: the kernel reads `length` bytes of `attr`; the rest is the caller's promise.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attr), length) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
}
