//! Real sockets in a control group with the socket programs attached.
use std::{
    env, fs,
    fs::File,
    path::{Path, PathBuf},
    process::{self, Command},
};

use aya::programs::{CgroupSock, CgroupSockAddr, links::CgroupAttachMode};

use crate::{Tables, ip, isolated, system};

/// Set in the process a socket test really runs in: its control group.
const VARIABLE: &str = "SHOAL_TEST_CGROUP";
const ADDRESS_PROGRAMS: [&str; 8] = [
    "vip_connect4",
    "vip_connect6",
    "vip_sendmsg4",
    "vip_sendmsg6",
    "vip_recvmsg4",
    "vip_recvmsg6",
    "vip_getpeername4",
    "vip_getpeername6",
];

/// The programs at work on this process.
pub struct Cgroup {
    /// The tables.
    pub tables: Tables,
    /// Cookie of the network namespace the test runs in.
    pub cookie: u64,
}

impl Cgroup {
    /// Runs a test in a process of its own inside a new control group: a group holds whole
    /// processes, and the tests of a binary share one. `name` is the test's full name.
    ///
    /// # Panics
    ///
    /// When the test does.
    pub fn run(name: &str, test: impl FnOnce(&mut Cgroup) + Send) {
        match env::var_os(VARIABLE) {
            Some(group) => isolated(|| test(&mut Cgroup::enter(Path::new(&group)))),
            None => {
                let group = Group::new(name);
                let output = Command::new(env::current_exe().expect("this binary"))
                    .args([name, "--exact", "--nocapture"])
                    .env(VARIABLE, &group.0)
                    .output()
                    .expect("this binary runs");
                let said = String::from_utf8_lossy(&output.stdout);
                assert!(
                    output.status.success() && said.contains("1 passed"),
                    "{said}{}",
                    String::from_utf8_lossy(&output.stderr)
                );
            }
        }
    }

    fn enter(group: &Path) -> Cgroup {
        let mut tables = Tables::new();
        let file = File::open(group).expect("the control group");
        for name in ADDRESS_PROGRAMS {
            let program: &mut CgroupSockAddr =
                tables.object.program_mut(name).expect("a program").try_into().expect("its type");
            program.load().unwrap_or_else(|error| panic!("{name}: {error}"));
            program.attach(&file, CgroupAttachMode::Single).expect("attached");
        }
        let program: &mut CgroupSock = tables
            .object
            .program_mut("vip_release")
            .expect("a program")
            .try_into()
            .expect("its type");
        program.load().unwrap_or_else(|error| panic!("vip_release: {error}"));
        program.attach(&file, CgroupAttachMode::Single).expect("attached");
        fs::write(group.join("cgroup.procs"), process::id().to_string()).expect("moved there");
        for family in [crate::Family::V4, crate::Family::V6] {
            for host in 11..=13 {
                // Backends listen on addresses of the loopback device.
                let nodad = if family == crate::Family::V6 { " nodad" } else { "" };
                ip(&format!("address add {} dev lo{nodad}", family.app(host)));
                system::wait_for_address(family.app(host));
            }
        }
        Cgroup { tables, cookie: system::netns_cookie() }
    }
}

/// A control group removed at the end, when its processes are gone.
struct Group(PathBuf);

impl Group {
    fn new(name: &str) -> Group {
        let mounts = fs::read_to_string("/proc/self/mounts").expect("/proc");
        let root = mounts
            .lines()
            .map(|line| line.split(' ').collect::<Vec<_>>())
            .find(|fields| fields.get(2) == Some(&"cgroup2"))
            .map(|fields| PathBuf::from(fields[1]))
            .expect("a cgroup2 file system is mounted");
        let path = root.join(format!("shoal-test-{}-{}", process::id(), name.replace("::", "-")));
        fs::create_dir(&path).expect("a control group");
        Group(path)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}
