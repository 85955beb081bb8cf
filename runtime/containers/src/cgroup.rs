//! Cgroups: where the hierarchies are mounted, joining the version 2 one, and cleaning up.
//!
//! On a hybrid host libcontainer uses the version 1 controllers only; the version 2 hierarchy, where
//! BPF programs are attached, is ours to handle. On a unified host libcontainer handles it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

/// How often a cgroup that still has dying processes is tried again, and how long in between.
const REMOVE_TRIES: u32 = 100;
const REMOVE_PAUSE: Duration = Duration::from_millis(20);

/// Which hierarchies this host has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hierarchies {
    /// Mount point of version 2.
    pub(crate) v2: PathBuf,
    /// Mount points of the version 1 controllers; empty on a unified host.
    pub(crate) v1: Vec<PathBuf>,
}

impl Hierarchies {
    /// Reads `/proc/self/mountinfo`.
    pub(crate) fn find() -> io::Result<Self> {
        let text = fs::read_to_string("/proc/self/mountinfo")?;
        parse(&text).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::NotFound,
                "no cgroup2 file system is mounted; mount one: mount -t cgroup2 none /sys/fs/cgroup/unified",
            )
        })
    }

    /// Whether version 1 controllers are in use beside version 2.
    pub(crate) fn hybrid(&self) -> bool {
        !self.v1.is_empty()
    }

    /// A container's node in version 2.
    pub(crate) fn v2_node(&self, path: &str) -> PathBuf {
        self.v2.join(path.trim_start_matches('/'))
    }

    /// How many processes the kernel killed in there for want of memory.
    pub(crate) fn oom_kills(&self, path: &str) -> u64 {
        let path = path.trim_start_matches('/');
        let files = self
            .v1
            .iter()
            .map(|m| m.join(path).join("memory.oom_control"))
            .chain([self.v2.join(path).join("memory.events")]);
        files.filter_map(|f| fs::read_to_string(f).ok()).map(|text| oom_count(&text)).sum()
    }

    /// Kills what still runs in there.
    pub(crate) fn kill(&self, path: &str) {
        // Absent below Linux 5.14, and where the node is gone already: nothing else to do then.
        let _ = fs::write(self.v2_node(path).join("cgroup.kill"), "1");
    }

    /// Removes a container's nodes from every hierarchy.
    pub(crate) fn remove(&self, path: &str) {
        let path = path.trim_start_matches('/');
        for root in self.v1.iter().chain([&self.v2]) {
            remove_node(&root.join(path));
        }
    }
}

/// Mount point of the version 2 hierarchy: `/sys/fs/cgroup`, or `/sys/fs/cgroup/unified` on a hybrid
/// host.
pub fn v2_root() -> io::Result<PathBuf> {
    Ok(Hierarchies::find()?.v2)
}

/// Removes the (empty) parent of a runtime's containers from every hierarchy.
pub fn remove_parent(cgroup_parent: &str) -> io::Result<()> {
    let found = Hierarchies::find()?;
    let relative = cgroup_parent.trim_matches('/');
    if !relative.is_empty() {
        found.remove(relative);
    }
    Ok(())
}

fn remove_node(node: &Path) {
    for _ in 0..REMOVE_TRIES {
        match fs::remove_dir(node) {
            // EBUSY: a killed process has not quite gone.
            Err(e) if e.kind() == io::ErrorKind::ResourceBusy => sleep(REMOVE_PAUSE),
            _ => return,
        }
    }
    tracing::warn!(node = %node.display(), "a cgroup still has processes and stays");
}

fn oom_count(text: &str) -> u64 {
    let count = text.lines().find_map(|l| l.strip_prefix("oom_kill "));
    count.and_then(|n| n.trim().parse().ok()).unwrap_or(0)
}

fn parse(mountinfo: &str) -> Option<Hierarchies> {
    let mut v2: Vec<PathBuf> = Vec::new();
    let mut v1 = Vec::new();
    for line in mountinfo.lines() {
        // "36 35 98:0 /root /mount/point options… - type source super-options" (proc(5)).
        let Some((left, right)) = line.split_once(" - ") else { continue };
        let Some(point) = left.split(' ').nth(4) else { continue };
        let mut right = right.split(' ');
        match right.next() {
            Some("cgroup2") => v2.push(point.into()),
            Some("cgroup") if !line.contains("name=") => v1.push(point.into()),
            _ => {}
        }
    }
    // Others may have mounted it in more places: the usual ones first, else the first found.
    let usual = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];
    let best = usual.iter().map(PathBuf::from).find(|u| v2.contains(u));
    let v2 = best.or_else(|| v2.first().cloned())?;
    v1.dedup();
    Some(Hierarchies { v2, v1 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hybrid_and_unified_hosts_are_told_apart() {
        let hybrid = "1 0 0:1 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
            2 1 0:2 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
            3 1 0:3 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n\
            4 1 0:4 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let found = parse(hybrid).unwrap();
        assert_eq!(found.v2, Path::new("/sys/fs/cgroup/unified"));
        assert_eq!(found.v1, [Path::new("/sys/fs/cgroup/memory")]);
        let unified = "1 0 0:1 / /run/x rw - cgroup2 cgroup2 rw\n\
            2 0 0:1 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        let found = parse(unified).unwrap();
        assert!(!found.hybrid());
        assert_eq!(found.v2, Path::new("/sys/fs/cgroup"));
        assert_eq!(parse("1 0 0:1 / / rw - ext4 /dev/x rw\n"), None);
    }

    #[test]
    fn oom_kills_are_read_from_either_version() {
        assert_eq!(oom_count("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"), 2);
        assert_eq!(oom_count("low 0\noom 3\noom_kill 3\noom_group_kill 0\n"), 3);
    }
}
