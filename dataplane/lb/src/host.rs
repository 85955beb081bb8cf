//! What the host must have, found by trying, and what to do where it is missing.
use aya::programs::{SchedClassifier, TcAttachType};
use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

/// Oldest kernel with tcx.
const TCX_SINCE: &str = "6.6";
/// Capabilities needed: their bits (`include/uapi/linux/capability.h`), one of which is enough, the
/// name of the narrowest, and what for.
const CAPABILITIES: [(u64, &str, &str); 3] = [
    (1 << 12, "CAP_NET_ADMIN", "to make links and attach programs to them"),
    (1 << SYS_ADMIN, "CAP_SYS_ADMIN", "to make namespaces and mounts"),
    (1 << 39 | 1 << SYS_ADMIN, "CAP_BPF", "to load programs"),
];
/// The one that stands for many others.
const SYS_ADMIN: u32 = 21;

/// Something the host lacks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    /// What is missing.
    pub what: String,
    /// What to do.
    pub remedy: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.remedy)
    }
}

/// What was found on the host.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HostProbe {
    /// Effective capabilities, a bit each.
    pub capabilities: u64,
    /// Release of the kernel, for messages.
    pub release: String,
    /// Whether tcx answered; `None` when that could not be asked.
    pub tcx: Option<bool>,
    /// Whether the kernel knows the BPF file system.
    pub bpffs: bool,
    /// Where a cgroup v2 file system is mounted.
    pub cgroup2: Option<PathBuf>,
}

/// What this host lacks for the data plane; empty when nothing.
pub fn check_host() -> Vec<Problem> {
    problems(&probe_host())
}

/// What follows from a probe. Pure.
pub fn problems(probe: &HostProbe) -> Vec<Problem> {
    let mut found = Vec::new();
    for (bits, name, purpose) in CAPABILITIES {
        if probe.capabilities & bits == 0 {
            found.push(Problem {
                what: format!("missing capability {name}, needed {purpose}"),
                remedy: format!("run as root, or give the process {name}"),
            });
        }
    }
    if probe.tcx == Some(false) {
        found.push(Problem {
            what: format!("tcx needs Linux {TCX_SINCE}, this is {}", probe.release),
            remedy: format!("boot a kernel of at least {TCX_SINCE}"),
        });
    }
    if !probe.bpffs {
        found.push(Problem {
            what: "this kernel has no BPF file system".into(),
            remedy: "boot a kernel built with CONFIG_BPF_SYSCALL, as distributions' are".into(),
        });
    }
    if probe.cgroup2.is_none() {
        found.push(Problem {
            what: "no cgroup v2 file system is mounted".into(),
            remedy: "mount one: mkdir -p /sys/fs/cgroup/unified && mount -t cgroup2 none \
                     /sys/fs/cgroup/unified"
                .into(),
        });
    }
    found
}

/// Looks at the host.
pub fn probe_host() -> HostProbe {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let status = read("/proc/thread-self/status");
    let capabilities = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .unwrap_or(0);
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    HostProbe {
        capabilities,
        tcx: probe_tcx(),
        release,
        bpffs: read("/proc/filesystems").lines().any(|line| line.ends_with("\tbpf")),
        cgroup2: cgroup_root(),
    }
}

/// Asks which programs hang on the loopback interface, which every namespace has.
fn probe_tcx() -> Option<bool> {
    match SchedClassifier::query_tcx("lo", TcAttachType::Ingress) {
        Ok(_) => Some(true),
        Err(aya::programs::ProgramError::SyscallError(e)) => match e.io_error.raw_os_error() {
            // The kernel does not know the attach type.
            Some(libc::EINVAL) => Some(false),
            _ => None,
        },
        Err(_) => None,
    }
}

/// Where a cgroup v2 file system is mounted.
pub fn cgroup_root() -> Option<PathBuf> {
    cgroup2_of(&fs::read_to_string("/proc/thread-self/mountinfo").unwrap_or_default())
}

/// The last one in a table of mounts: it lies on top. Fields: proc(5).
fn cgroup2_of(mountinfo: &str) -> Option<PathBuf> {
    mountinfo.lines().rev().find_map(|line| {
        let (mount, file_system) = line.split_once(" - ")?;
        let of_kind = file_system.split(' ').next() == Some("cgroup2");
        let point = mount.split(' ').nth(4)?;
        of_kind.then(|| Path::new(&point.replace("\\040", " ")).to_path_buf())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn able() -> HostProbe {
        HostProbe {
            capabilities: u64::MAX,
            release: "6.18.0".into(),
            tcx: Some(true),
            bpffs: true,
            cgroup2: Some("/sys/fs/cgroup".into()),
        }
    }

    fn said(probe: &HostProbe) -> Vec<String> {
        problems(probe).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_host_with_everything_has_no_problem() {
        assert_eq!(said(&able()), Vec::<String>::new());
    }

    #[test]
    fn each_missing_capability_is_named() {
        for (bits, names) in [
            (1 << 12, vec!["CAP_NET_ADMIN"]),
            (1 << 21, vec!["CAP_SYS_ADMIN"]),
            (1 << 21 | 1 << 39, vec!["CAP_SYS_ADMIN", "CAP_BPF"]),
            (1 << 39, vec![]),
        ] {
            let said = said(&HostProbe { capabilities: !bits, ..able() });
            assert_eq!(said.len(), names.len(), "{said:?}");
            for (said, name) in said.iter().zip(names) {
                assert!(said.starts_with(&format!("missing capability {name}, needed ")), "{said}");
            }
        }
    }

    #[test]
    fn an_old_kernel_is_told_the_feature_and_the_version() {
        let probe = HostProbe { tcx: Some(false), release: "6.1.0-37-amd64".into(), ..able() };
        assert_eq!(
            said(&probe),
            ["tcx needs Linux 6.6, this is 6.1.0-37-amd64: boot a kernel of at least 6.6"]
        );
        let unknown = HostProbe { tcx: None, ..able() };
        assert_eq!(said(&unknown), Vec::<String>::new());
    }

    #[test]
    fn missing_file_systems_are_told_with_their_remedy() {
        let probe = HostProbe { bpffs: false, cgroup2: None, ..able() };
        let said = said(&probe);
        assert_eq!(said.len(), 2);
        assert!(said[0].contains("BPF file system"), "{said:?}");
        assert!(said[1].contains("mount -t cgroup2"), "{said:?}");
    }

    #[test]
    fn the_cgroup_v2_mount_is_found_beside_version_1() {
        let table = "30 24 0:26 / /sys/fs/cgroup ro - tmpfs tmpfs ro\n\
                     31 30 0:27 / /sys/fs/cgroup/unified rw shared:9 - cgroup2 cgroup2 rw\n\
                     32 30 0:28 / /sys/fs/cgroup/memory rw shared:10 - cgroup cgroup rw,memory\n";
        assert_eq!(cgroup2_of(table), Some("/sys/fs/cgroup/unified".into()));
        assert_eq!(cgroup2_of("30 24 0:26 / / rw - ext4 /dev/vda rw\n"), None);
    }
}
