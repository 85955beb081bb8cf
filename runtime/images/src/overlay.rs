//! Mounting an overlay: layer by layer where the kernel can (Linux 6.7), else all in one list.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use rustix::fs::{CWD, Mode, OFlags, open};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, fsconfig_create,
    fsconfig_set_string, fsmount, fsopen, move_mount,
};

use crate::error::{ImageError, IoContext};

/// Most layers of one list. mount(2) takes 4,095 bytes of options; a layer takes 22 of them at most,
/// `/proc/self/fd/` with a descriptor of seven digits (the kernel's `nr_open` is 1,048,576) and a
/// colon, and what is not layers 79. Docker's images have 127 at most.
pub(crate) const MAX_LISTED: usize = 180;
/// A folder that does not exist.
const NOWHERE: &str = "/proc/self/fd/none";

/// Mounts `lowers` (bottom first) below `upper` at a folder.
pub(crate) fn mount(
    lowers: &[PathBuf],
    upper: &Path,
    work: &Path,
    at: &Path,
) -> Result<(), ImageError> {
    static LAYER_BY_LAYER: OnceLock<bool> = OnceLock::new();
    mount_by(*LAYER_BY_LAYER.get_or_init(takes_layers_one_by_one), lowers, upper, work, at)
}

fn mount_by(
    one_by_one: bool,
    lowers: &[PathBuf],
    upper: &Path,
    work: &Path,
    at: &Path,
) -> Result<(), ImageError> {
    let mounted = match one_by_one {
        true => layer_by_layer(lowers, upper, work, at),
        false if lowers.len() > MAX_LISTED => {
            let found = lowers.len();
            return Err(ImageError::TooManyLayers { path: at.into(), found, max: MAX_LISTED });
        }
        false => listed(lowers, upper, work, at),
    };
    mounted.at("mount an overlay at", at)
}

/// Whether the kernel knows `lowerdir+`. One that does looks for the folder at once and says that it
/// is not there; Linux 6.5 does not know the key, and older ones look at no key before the mount.
fn takes_layers_one_by_one() -> bool {
    let asked = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)
        .and_then(|fs| fsconfig_set_string(fs.as_fd(), "lowerdir+", NOWHERE));
    matches!(asked, Err(rustix::io::Errno::NOENT))
}

fn layer_by_layer(lowers: &[PathBuf], upper: &Path, work: &Path, at: &Path) -> io::Result<()> {
    let fs = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for lower in lowers.iter().rev() {
        fsconfig_set_string(fs.as_fd(), "lowerdir+", lower)?;
    }
    fsconfig_set_string(fs.as_fd(), "upperdir", upper)?;
    fsconfig_set_string(fs.as_fd(), "workdir", work)?;
    fsconfig_create(fs.as_fd())?;
    let mount =
        fsmount(fs.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::MOUNT_ATTR_NODEV)?;
    move_mount(mount.as_fd(), "", CWD, at, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    Ok(())
}

/// By one list of layers, for mount(2): fsconfig(2) takes values of 255 bytes. Each folder is named by
/// a descriptor of ours, so that the list's length does not depend on where the store is, and no
/// colon or comma in a path ends one.
fn listed(lowers: &[PathBuf], upper: &Path, work: &Path, at: &Path) -> io::Result<()> {
    let open_folder = |path: &Path| -> io::Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(open(path, flags, Mode::empty())?)
    };
    let named = |fd: &OwnedFd| format!("/proc/self/fd/{}", fd.as_raw_fd());
    let layers = lowers.iter().rev().map(|l| open_folder(l)).collect::<io::Result<Vec<_>>>()?;
    let (upper, work) = (open_folder(upper)?, open_folder(work)?);
    let list = layers.iter().map(named).collect::<Vec<_>>().join(":");
    let options = format!("lowerdir={list},upperdir={},workdir={}", named(&upper), named(&work));
    let options = CString::new(options)?;
    rustix::mount::mount("overlay", at, "overlay", MountFlags::NODEV, Some(options.as_c_str()))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]
    use super::*;
    use std::fs;
    use tempfile::TempDir;

    /// Folders for `layers` layers, each with a file of its own and its word on a common one, in a
    /// store with a long path that has the list's own separators in it.
    struct Bench {
        folder: TempDir,
        lowers: Vec<PathBuf>,
    }

    impl Bench {
        fn new(layers: usize) -> Bench {
            let folder = TempDir::new().unwrap();
            let store = folder.path().join("a:b,c".repeat(30));
            let lowers: Vec<_> = (0..layers).map(|n| store.join(format!("{n:064}"))).collect();
            for (n, lower) in lowers.iter().enumerate() {
                fs::create_dir_all(lower).unwrap();
                fs::write(lower.join(format!("own-{n}")), "").unwrap();
                fs::write(lower.join("common"), n.to_string()).unwrap();
            }
            for name in ["upper", "work", "merged"] {
                fs::create_dir(folder.path().join(name)).unwrap();
            }
            Bench { folder, lowers }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.folder.path().join(name)
        }

        fn mount(&self, one_by_one: bool) -> Result<(), String> {
            let [upper, work, merged] = ["upper", "work", "merged"].map(|name| self.path(name));
            mount_by(one_by_one, &self.lowers, &upper, &work, &merged).map_err(|e| e.to_string())
        }
    }

    impl Drop for Bench {
        fn drop(&mut self) {
            let flags = rustix::mount::UnmountFlags::DETACH;
            let _ = rustix::mount::unmount(self.path("merged"), flags);
        }
    }

    #[test]
    fn as_many_layers_as_a_list_may_have_are_mounted_topmost_first_wherever_they_are() {
        let bench = Bench::new(MAX_LISTED);
        // Descriptors of three digits, as a busy daemon's are.
        let _many: Vec<_> = (0..700).map(|_| fs::File::open("/").unwrap()).collect();
        bench.mount(false).unwrap();
        let merged = bench.path("merged");
        assert_eq!(fs::read_to_string(merged.join("common")).unwrap(), "179");
        for n in 0..MAX_LISTED {
            assert!(merged.join(format!("own-{n}")).exists(), "layer {n}");
        }
        fs::write(merged.join("new"), "").unwrap();
        assert!(bench.path("upper/new").exists(), "writes go above the layers");
    }

    #[test]
    fn the_list_of_the_most_layers_fits_whatever_their_descriptors_are() {
        let layer = "/proc/self/fd/1048575:".len();
        let rest = "lowerdir=,upperdir=/proc/self/fd/1048575,workdir=/proc/self/fd/1048575".len();
        assert!(MAX_LISTED * layer + rest <= 4_095);
    }

    #[test]
    fn a_missing_layer_is_told_whichever_way() {
        let mut bench = Bench::new(2);
        bench.lowers.push(bench.path("none"));
        let ways = if takes_layers_one_by_one() { vec![false, true] } else { vec![false] };
        for one_by_one in ways {
            let error = bench.mount(one_by_one).unwrap_err();
            assert!(error.starts_with("cannot mount an overlay at "), "{error}");
            assert!(error.contains("No such file or directory"), "{error}");
        }
    }

    #[test]
    fn more_layers_than_a_list_takes_are_refused_with_the_bound_and_the_remedy() {
        let bench = Bench::new(MAX_LISTED + 1);
        assert_eq!(
            bench.mount(false).unwrap_err(),
            format!(
                "cannot mount an overlay at {}: the image has 181 layers, and this kernel takes 180 \
                 (Linux 6.7 and newer: 500): build the image with fewer, or boot a newer kernel",
                bench.path("merged").display()
            )
        );
        if takes_layers_one_by_one() {
            bench.mount(true).unwrap();
        }
    }
}
