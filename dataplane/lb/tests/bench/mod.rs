//! Namespaces, a BPF file system and a control group for one test, which go with it.
#![expect(unsafe_code, reason = "unshare of a thread")]
#![expect(unreachable_pub, reason = "a module of several test programs")]
use rustix::{
    mount::{MountPropagationFlags, UnmountFlags, mount_change, unmount},
    thread::{UnshareFlags, unshare_unsafe},
};
use shoal_lb::{Hook, Lb, LbConfig, cgroup_root, probe_host};
use std::{fs, path::Path, process::Command, thread, time::Duration};

/// What a test has for itself.
pub struct Bench {
    pub config: LbConfig,
    /// How programs are to hang on interfaces.
    pub hook: Hook,
    pub folder: tempfile::TempDir,
}

impl Bench {
    pub fn open(&self) -> Lb {
        Lb::open_by(self.hook, &self.config).map_err(|e| chain(&e)).unwrap()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        // Mounts would keep the folder from being removed; the last made lie on top.
        let table = fs::read_to_string("/proc/thread-self/mountinfo").unwrap_or_default();
        for point in table.lines().rev().filter_map(|line| line.split(' ').nth(4)) {
            if Path::new(point).starts_with(self.folder.path()) {
                let _ = unmount(point, UnmountFlags::DETACH);
            }
        }
        // A group can be removed once its last process has been reaped.
        for _ in 0..40 {
            if !self.config.cgroup.exists() || fs::remove_dir(&self.config.cgroup).is_ok() {
                return;
            }
            thread::sleep(Duration::from_millis(50));
        }
    }
}

/// Runs a test once for each way this kernel has for programs to hang on interfaces.
pub fn bench_each(name: &str, test: impl Fn(&Bench) + Sync) {
    let ways = match probe_host().hook() {
        Hook::Tcx => vec![Hook::Tcx, Hook::Clsact],
        Hook::Clsact => vec![Hook::Clsact],
    };
    for hook in ways {
        eprintln!("{hook:?}");
        bench_by(hook, name, &test);
    }
}

/// Runs a test on a thread with namespaces of its own.
pub fn bench_by(hook: Hook, name: &str, test: impl FnOnce(&Bench) + Send) {
    thread::scope(|scope| {
        let run = scope.spawn(|| {
            // SAFETY: only this thread changes, and it ends with the test.
            unsafe { unshare_unsafe(UnshareFlags::NEWNS | UnshareFlags::NEWNET) }.unwrap();
            let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
            mount_change("/", private).unwrap();
            let folder = tempfile::tempdir().unwrap();
            let cgroup = cgroup_root().expect("a cgroup v2 file system");
            let bench = Bench {
                config: LbConfig {
                    bpf_root: folder.path().join("bpf"),
                    cgroup: cgroup.join(format!("shoal-lb-{name}-{}", std::process::id())),
                },
                hook,
                folder,
            };
            run("ip link set lo up");
            test(&bench);
        });
        run.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

pub fn run(command: &str) {
    let mut words = command.split(' ');
    let output = Command::new(words.next().unwrap()).args(words).output().unwrap();
    assert!(output.status.success(), "{command}: {output:?}");
}

/// An error with all its causes.
pub fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", chain(source)),
        None => error.to_string(),
    }
}
