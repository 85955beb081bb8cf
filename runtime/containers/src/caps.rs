//! Capabilities: Docker's default set, additions and removals. Pure.

use std::collections::BTreeSet;

/// What root in a container has by default (Docker's set).
const DEFAULT: [&str; 14] = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

/// The others that Linux has (capabilities(7), 5.9).
const OTHER: [&str; 27] = [
    "CAP_AUDIT_CONTROL",
    "CAP_AUDIT_READ",
    "CAP_BLOCK_SUSPEND",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
    "CAP_DAC_READ_SEARCH",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_LEASE",
    "CAP_LINUX_IMMUTABLE",
    "CAP_MAC_ADMIN",
    "CAP_MAC_OVERRIDE",
    "CAP_NET_ADMIN",
    "CAP_NET_BROADCAST",
    "CAP_PERFMON",
    "CAP_SYSLOG",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_MODULE",
    "CAP_SYS_NICE",
    "CAP_SYS_PACCT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_WAKE_ALARM",
];

/// The set of a container. `device_control` says whether a cgroup decides which devices may be opened:
/// where none does, making device nodes is not among the defaults. The error is the reason.
pub(crate) fn capabilities(
    add: &[String],
    drop: &[String],
    device_control: bool,
) -> Result<BTreeSet<String>, String> {
    let all = || DEFAULT.iter().chain(&OTHER).map(|c| (*c).to_owned());
    let mut set: BTreeSet<String> = if drop.iter().any(|c| is_all(c)) {
        BTreeSet::new()
    } else if add.iter().any(|c| is_all(c)) {
        all().collect()
    } else {
        let defaults = DEFAULT.iter().filter(|c| device_control || **c != "CAP_MKNOD");
        defaults.map(|c| (*c).to_owned()).collect()
    };
    if add.iter().any(|c| is_all(c)) {
        set.extend(all());
    }
    for name in drop.iter().filter(|c| !is_all(c)) {
        set.remove(&known(name, "CapDrop")?);
    }
    for name in add.iter().filter(|c| !is_all(c)) {
        set.insert(known(name, "CapAdd")?);
    }
    Ok(set)
}

fn is_all(name: &str) -> bool {
    name.eq_ignore_ascii_case("ALL")
}

fn known(name: &str, field: &str) -> Result<String, String> {
    let upper = name.to_ascii_uppercase();
    let full = if upper.starts_with("CAP_") { upper } else { format!("CAP_{upper}") };
    if DEFAULT.iter().chain(&OTHER).any(|c| *c == full) {
        Ok(full)
    } else {
        Err(format!("invalid {field}: unknown capability: {full:?}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(add: &[&str], drop: &[&str]) -> BTreeSet<String> {
        let own = |l: &[&str]| l.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        capabilities(&own(add), &own(drop), true).unwrap()
    }

    #[test]
    fn additions_and_removals_follow_docker() {
        assert_eq!(set(&[], &[]).len(), 14);
        assert!(set(&["net_admin"], &[]).contains("CAP_NET_ADMIN"));
        assert!(!set(&[], &["CAP_KILL"]).contains("CAP_KILL"));
        assert_eq!(set(&["KILL"], &["ALL"]).len(), 1);
        assert_eq!(set(&["ALL"], &["KILL"]).len(), 40);
    }

    #[test]
    fn an_unknown_capability_is_named() {
        let e = capabilities(&["FLY".into()], &[], true).unwrap_err();
        assert_eq!(e, "invalid CapAdd: unknown capability: \"CAP_FLY\"");
    }

    #[test]
    fn without_device_control_nobody_makes_device_nodes_by_default() {
        assert!(!capabilities(&[], &[], false).unwrap().contains("CAP_MKNOD"));
        assert!(capabilities(&["MKNOD".into()], &[], false).unwrap().contains("CAP_MKNOD"));
    }
}
