//! The folders the data plane lives in: pins in a BPF file system, programs at a control group.
use crate::{LbError, attach, kernel};
use rustix::mount::{MountFlags, mount};
use shoal_maps::LAYOUT_VERSION;
use std::{
    fs::{self, File},
    io,
    os::fd::AsFd,
    path::{Path, PathBuf},
};

/// Magic numbers of file systems (`include/uapi/linux/magic.h`).
const BPF_FS_MAGIC: u64 = 0xcafe_4a11;
const CGROUP2_MAGIC: u64 = 0x6367_7270;

/// Mounts a BPF file system at `root` unless there is one, and makes this layout's folder in it.
pub(crate) fn prepare(root: &Path) -> Result<PathBuf, LbError> {
    make(root)?;
    if kind(root)? != BPF_FS_MAGIC {
        mount("bpf", root, "bpf", MountFlags::NOSUID | MountFlags::NODEV, Some(c"mode=0700"))
            .map_err(failed("mount a BPF file system at", root))?;
    }
    let folder = root.join(format!("v{LAYOUT_VERSION}"));
    make(&folder)?;
    Ok(folder)
}

/// Makes and opens the control group the programs attach to.
pub(crate) fn open_cgroup(path: &Path) -> Result<File, LbError> {
    let exists = path.ancestors().find(|p| p.exists()).unwrap_or(path);
    if kind(exists)? != CGROUP2_MAGIC {
        return Err(LbError::NotCgroup { path: path.into() });
    }
    make(path)?;
    File::open(path).map_err(failed("open", path))
}

/// Names of what is pinned in a folder.
pub(crate) fn pins(folder: &Path) -> Result<Vec<String>, LbError> {
    let entries = match fs::read_dir(folder) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(failed("read", folder))?,
    };
    entries
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<io::Result<_>>()
        .map_err(failed("read", folder))
}

/// Detaches and unpins a link; nothing there is success.
pub(crate) fn unpin_link(path: &Path) -> Result<(), LbError> {
    if let Ok(link) = kernel::pinned(path) {
        // Refused only when it hangs on nothing any more.
        let _ = kernel::detach(link.as_fd());
    }
    unpin(path)
}

/// Removes a pin; nothing there is success.
pub(crate) fn unpin(path: &Path) -> Result<(), LbError> {
    match fs::remove_file(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(failed("unpin", path)),
    }
}

/// Removes a layout's folder with all pins: what is attached first, so that no program runs without
/// its maps.
pub(crate) fn remove(folder: &Path) -> Result<(), LbError> {
    let (attached, maps): (Vec<_>, Vec<_>) =
        pins(folder)?.into_iter().partition(|name| attach::is_attachment(name));
    attached.iter().chain(&maps).try_for_each(|name| attach::remove(folder, name))?;
    match fs::remove_dir(folder) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(failed("remove", folder)),
    }
}

/// Folders of layouts in `root` but `except`.
pub(crate) fn layouts(root: &Path, except: Option<&Path>) -> Result<Vec<PathBuf>, LbError> {
    let is_layout = |name: &String| {
        name.strip_prefix('v').is_some_and(|version| version.parse::<u32>().is_ok())
    };
    let all = pins(root)?.into_iter().filter(is_layout).map(|name| root.join(name));
    Ok(all.filter(|path| Some(path.as_path()) != except).collect())
}

fn make(folder: &Path) -> Result<(), LbError> {
    fs::create_dir_all(folder).map_err(failed("make", folder))
}

fn kind(path: &Path) -> Result<u64, LbError> {
    let found = rustix::fs::statfs(path).map_err(failed("look at", path))?;
    // Some platforms' C libraries have the number signed or narrower.
    Ok(found.f_type as u64 & 0xffff_ffff)
}

/// Names action and folder of a failure.
pub(crate) fn failed<E: Into<io::Error>>(
    action: &'static str,
    path: &Path,
) -> impl FnOnce(E) -> LbError {
    move |source| LbError::Path { action, path: path.into(), source: source.into() }
}
