//! The OCI configuration of a container, as libcontainer reads it. Pure.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Value, json};

use crate::memory;
use crate::process::Process;
use crate::seccomp;
use crate::spec::{ContainerSpec, Mount, short};
use crate::user::User;

/// Hidden from containers: they show or steer the host (Docker's list).
const MASKED: [&str; 11] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/firmware",
];
/// Shown but not writable (Docker's list).
const READ_ONLY: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];
/// Period of the CPU limit, microseconds (Docker's).
const CPU_PERIOD_US: i64 = 100_000;
/// Size of `/dev/shm`, bytes (Docker's).
const SHM_SIZE: &str = "size=67108864";

/// What the configuration is made from, besides the specification.
pub(crate) struct Parts<'a> {
    pub(crate) spec: &'a ContainerSpec,
    pub(crate) process: &'a Process,
    pub(crate) user: &'a User,
    pub(crate) capabilities: &'a BTreeSet<String>,
    pub(crate) rootfs: &'a Path,
    /// `/<parent>/<id>`.
    pub(crate) cgroup: &'a str,
    /// The folder with `hosts`, `hostname`, `resolv.conf`.
    pub(crate) data: &'a Path,
    /// The folder with the files it was given.
    pub(crate) files: &'a Path,
    /// Whether the host has only cgroup version 2.
    pub(crate) unified: bool,
}

/// The content of `config.json`.
pub(crate) fn config(parts: &Parts<'_>) -> Value {
    let Parts { spec, process, user, capabilities, .. } = parts;
    let mut object =
        process_object(&process.args, &process.env, &process.cwd, user, capabilities, spec.tty);
    if let Some(adjust) = spec.oom_score_adj {
        object["oomScoreAdj"] = json!(adjust);
    }
    let hostname = spec.hostname.as_deref().unwrap_or_else(|| short(&spec.id));
    json!({
        "ociVersion": "1.0.2",
        "process": object,
        "root": { "path": parts.rootfs, "readonly": spec.read_only },
        "hostname": hostname,
        "mounts": mounts(parts),
        "linux": {
            "cgroupsPath": parts.cgroup,
            "namespaces": namespaces(spec),
            "resources": resources(spec),
            "seccomp": seccomp::profile(capabilities),
            "maskedPaths": MASKED,
            "readonlyPaths": READ_ONLY,
            "sysctl": {
                "net.ipv4.ping_group_range": "0 2147483647",
                "net.ipv4.ip_unprivileged_port_start": "0",
            },
        },
    })
}

/// An OCI `process`. Without `noNewPrivileges`, as Docker: absent, not false, is what makes libcontainer
/// load the filter while it still may.
pub(crate) fn process_object(
    args: &[String],
    env: &[String],
    cwd: &str,
    user: &User,
    capabilities: &BTreeSet<String>,
    tty: bool,
) -> Value {
    json!({
        "terminal": tty,
        "user": { "uid": user.uid, "gid": user.gid, "additionalGids": user.groups },
        "args": args,
        "env": env,
        "cwd": cwd,
        "capabilities": {
            "bounding": capabilities, "effective": capabilities, "permitted": capabilities,
        },
    })
}

fn namespaces(spec: &ContainerSpec) -> Value {
    let network = match &spec.netns {
        Some(path) => json!({ "type": "network", "path": path }),
        None => json!({ "type": "network" }),
    };
    json!([
        network,
        { "type": "mount" }, { "type": "pid" }, { "type": "ipc" }, { "type": "uts" },
        { "type": "cgroup" },
    ])
}

fn resources(spec: &ContainerSpec) -> Value {
    let mut limits = json!({ "devices": [{ "allow": false, "access": "rwm" }] });
    if let Some(bytes) = spec.memory {
        limits["memory"] = json!({ "limit": bytes });
    }
    if let Some(nano) = spec.nano_cpus {
        let quota = i128::from(nano) * i128::from(CPU_PERIOD_US) / 1_000_000_000;
        // 1,000 µs is the least the kernel takes.
        let quota = i64::try_from(quota).unwrap_or(i64::MAX).max(1_000);
        limits["cpu"] = json!({ "quota": quota, "period": CPU_PERIOD_US });
    }
    if let Some(limit) = spec.pids {
        limits["pids"] = json!({ "limit": limit });
    }
    limits
}

fn mounts(parts: &Parts<'_>) -> Vec<Value> {
    let mount = |target: &str, kind: &str, options: &[&str]| json!({ "destination": target, "type": kind, "source": kind, "options": options });
    let mut all = vec![
        mount("/proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount(
            "/dev/pts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        mount("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777", SHM_SIZE]),
        mount("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
    ];
    if parts.unified {
        // On version 1 libcontainer ignores "ro" here, which would hand out the controllers.
        all.push(mount("/sys/fs/cgroup", "cgroup", &["nosuid", "noexec", "nodev", "ro"]));
    }
    let mut bind = |source: &Path, target: &Path, read_only: bool| {
        let mode = if read_only { "ro" } else { "rw" };
        all.push(json!({
            "destination": target, "type": "bind", "source": source,
            "options": ["rbind", "rprivate", mode],
        }));
    };
    bind(&parts.data.join("hosts"), Path::new("/etc/hosts"), false);
    bind(&parts.data.join("hostname"), Path::new("/etc/hostname"), false);
    if parts.spec.resolv_conf.is_some() {
        bind(&parts.data.join("resolv.conf"), Path::new("/etc/resolv.conf"), false);
    }
    for mount in &parts.spec.mounts {
        if let Mount::Bind { source, target, read_only } = mount {
            bind(source, target, *read_only);
        }
    }
    for mount in &parts.spec.mounts {
        if let Mount::Tmpfs { target, size, mode } = mount {
            let mut options = vec!["nosuid".to_owned(), "nodev".to_owned(), "noexec".to_owned()];
            options.push(format!("mode={:o}", mode.unwrap_or(0o1777)));
            options.extend(size.map(|bytes| format!("size={bytes}")));
            all.push(json!({
                "destination": target, "type": "tmpfs", "source": "tmpfs", "options": options,
            }));
        }
    }
    // Last, so that no mount hides one.
    for (n, file) in parts.spec.files.iter().enumerate() {
        all.push(json!({
            "destination": file.target, "type": "bind", "source": memory::path(parts.files, n),
            // Where they come from nothing may be executed; in a container, a script may be.
            "options": ["bind", "rprivate", "ro", "nosuid", "nodev", "rexec"],
        }));
    }
    all
}

/// The content of `/etc/hosts`.
pub(crate) fn hosts(spec: &ContainerSpec) -> String {
    let mut text = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n\
        fe00::\tip6-localnet\nff00::\tip6-mcastprefix\nff02::1\tip6-allnodes\n\
        ff02::2\tip6-allrouters\n"
        .to_owned();
    for (address, name) in &spec.hosts {
        text.push_str(&format!("{address}\t{name}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_in_the_kernels_units() {
        let spec = ContainerSpec {
            memory: Some(1 << 20),
            nano_cpus: Some(1_500_000_000),
            pids: Some(7),
            ..ContainerSpec::default()
        };
        let limits = resources(&spec);
        assert_eq!(limits["cpu"]["quota"], 150_000);
        assert_eq!(limits["memory"]["limit"], 1 << 20);
        assert_eq!(limits["pids"]["limit"], 7);
        assert!(resources(&ContainerSpec::default()).get("cpu").is_none());
    }

    #[test]
    fn no_new_privileges_is_absent() {
        let user = User { uid: 0, gid: 0, groups: vec![] };
        let object = process_object(&[], &[], "/", &user, &BTreeSet::new(), false);
        assert!(object.get("noNewPrivileges").is_none());
    }
}
