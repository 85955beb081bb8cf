//! What the host must have, found by trying, and what to do where it is missing.
use crate::{filter, kernel};
use aya::{
    programs::{ProgramType, SchedClassifier, TcAttachType},
    sys::{BpfHelper, is_helper_supported},
};
use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

/// Oldest kernel Shoal is tested with.
const TESTED_SINCE: &str = "6.1";
/// Oldest kernel with tcx.
const TCX_SINCE: &str = "6.6";
/// Oldest kernel with the youngest of the helpers that all of Shoal needs, `bpf_set_retval`: by it a
/// refused `connect()` says why.
const HELPERS_SINCE: &str = "5.18";
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
    /// Whether the helper `bpf_set_retval` is there; `None` when that could not be asked.
    pub helpers: Option<bool>,
    /// Whether tcx answered; `None` when that could not be asked.
    pub tcx: Option<bool>,
    /// Whether an interface can have a clsact qdisc; `None` when that could not be asked, or was not
    /// because there is tcx.
    pub clsact: Option<bool>,
    /// Whether the kernel knows the BPF file system.
    pub bpffs: bool,
    /// Where a cgroup v2 file system is mounted.
    pub cgroup2: Option<PathBuf>,
}

/// How programs hang on interfaces.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hook {
    /// By links, which are pinned (Linux 6.6).
    Tcx,
    /// By filters of a clsact qdisc, which belong to the interface.
    Clsact,
}

impl HostProbe {
    /// How programs hang on interfaces of this host: by links unless the kernel is known to have none.
    pub fn hook(&self) -> Hook {
        if self.tcx == Some(false) { Hook::Clsact } else { Hook::Tcx }
    }
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
    if probe.helpers == Some(false) {
        found.push(Problem {
            what: format!(
                "the BPF helper bpf_set_retval needs Linux {HELPERS_SINCE}, this is {}",
                probe.release
            ),
            remedy: format!("boot a kernel of at least {TESTED_SINCE}"),
        });
    }
    if probe.tcx == Some(false) && probe.clsact == Some(false) {
        found.push(Problem {
            what: format!(
                "tcx needs Linux {TCX_SINCE}, this is {}, and its stead, the clsact qdisc, is not \
                 there either",
                probe.release
            ),
            remedy: format!(
                "load the module (modprobe sch_ingress), or boot a kernel of at least {TCX_SINCE}, \
                 or one built with CONFIG_NET_SCH_INGRESS and CONFIG_NET_CLS_BPF, as distributions' \
                 are"
            ),
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
    let tcx = probe_tcx();
    // Tried where it disturbs nobody; the kernel loads the module if that is all that is missing.
    let clsact = (tcx == Some(false))
        .then(|| kernel::in_empty_namespace(|| filter::probe("lo")).flatten())
        .flatten();
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    HostProbe {
        capabilities,
        helpers: is_helper_supported(ProgramType::CgroupSockAddr, BpfHelper::BPF_FUNC_set_retval)
            .ok(),
        tcx,
        clsact,
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
            helpers: Some(true),
            tcx: Some(true),
            clsact: None,
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
        let probe = HostProbe { helpers: Some(false), release: "5.10.0-30-amd64".into(), ..able() };
        assert_eq!(
            said(&probe),
            [
                "the BPF helper bpf_set_retval needs Linux 5.18, this is 5.10.0-30-amd64: boot a kernel \
              of at least 6.1"
            ]
        );
        let unknown = HostProbe { helpers: None, tcx: None, ..able() };
        assert_eq!(said(&unknown), Vec::<String>::new());
    }

    #[test]
    fn a_kernel_without_tcx_serves_by_clsact_and_is_told_when_it_has_neither() {
        let probe = HostProbe {
            tcx: Some(false),
            clsact: Some(true),
            release: "6.1.0-37-amd64".into(),
            ..able()
        };
        assert_eq!((said(&probe), probe.hook()), (vec![], Hook::Clsact));
        assert_eq!(able().hook(), Hook::Tcx);
        let said = said(&HostProbe { clsact: Some(false), ..probe });
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(said[0].starts_with("tcx needs Linux 6.6, this is 6.1.0-37-amd64, "), "{said:?}");
        assert!(said[0].contains("modprobe sch_ingress"), "{said:?}");
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
