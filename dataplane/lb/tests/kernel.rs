//! The load balancer on the running kernel. Each test has mount and network namespaces, a BPF file
//! system and a control group of its own, which go with it.
#![expect(clippy::unwrap_used, reason = "a test's helpers fail by panicking")]
mod bench;

use bench::{Bench, bench_by, bench_each, chain, run};
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
use shoal_lb::{
    BackendEntry, Caller, Contents, EndpointEntry, Hook, Lb, LbConfig, LbError, LbTable, Local,
    NodeSettings, VipEntry, check_host, contents, id, probe_host,
};
use shoal_links::NetNs;
use std::{
    fs,
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, TcpListener},
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    process::{Command, Output},
    thread,
};

/// Runs a test the way the host offers.
fn bench(name: &str, test: impl FnOnce(&Bench) + Send) {
    bench_by(probe_host().hook(), name, test);
}

fn folder(bench: &Bench) -> PathBuf {
    bench.config.bpf_root.join(format!("v{}", shoal_maps::LAYOUT_VERSION))
}

fn pins(bench: &Bench) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder(bench))
        .map(|entries| entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect())
        .unwrap_or_default();
    names.sort();
    names
}

/// Runs a shell script as a process of the control group.
fn shell(bench: &Bench, script: &str) -> Output {
    let script = format!("echo $$ > {}/cgroup.procs; {script}", bench.config.cgroup.display());
    Command::new("bash").arg("-c").arg(script).output().unwrap()
}

fn ip(n: u8) -> IpAddr {
    Ipv4Addr::new(10, 0, 1, n).into()
}

/// Service `web` at 10.0.1.2 with tasks `t<n>` at 10.0.1.<n>; `callers` may use it.
fn web(tasks: &[u8], callers: &[u64]) -> LbTable {
    let task = |n: &u8| format!("t{n}");
    LbTable {
        node: NodeSettings { overlay_mtu: 1_380, addresses: vec![ip(250)], ..Default::default() },
        endpoints: tasks
            .iter()
            .map(|n| EndpointEntry {
                address: ip(*n),
                network: "app".into(),
                task: Some(task(n)),
                local: Some(Local { ifindex: 1, mac: [6; 6], host_mac: [2; 6] }),
            })
            .collect(),
        callers: callers
            .iter()
            .map(|cookie| Caller { netns_cookie: *cookie, network: "app".into() })
            .collect(),
        vips: vec![VipEntry {
            service: "web".into(),
            network: "app".into(),
            address: ip(2),
            backends: tasks
                .iter()
                .map(|n| BackendEntry { task: task(n), address: ip(*n) })
                .collect(),
        }],
        ports: vec![shoal_lb::PortEntry {
            protocol: shoal_lb::Protocol::Tcp,
            published: 8_080,
            target: 80,
            service: "web".into(),
            tasks: tasks.iter().map(|n| u32::from(*n)).collect(),
        }],
        ingress_tasks: tasks
            .iter()
            .map(|n| shoal_lb::IngressTaskEntry {
                key: u32::from(*n),
                task: task(n),
                node: None,
                v4: Ipv4Addr::new(10, 0, 0, *n),
                v6: None,
            })
            .collect(),
    }
}

#[test]
fn this_host_has_what_is_needed() {
    assert_eq!(check_host(), []);
}

#[test]
fn it_can_be_handed_to_another_thread() {
    fn is_send<T: Send + 'static>() {}
    is_send::<Lb>();
}

#[test]
fn maps_hold_what_was_asked_also_after_a_restart_and_stale_entries_go() {
    bench("restart", |bench| {
        let mut lb = bench.open();
        assert_eq!(lb.read().unwrap(), Contents::default());
        let first = web(&[11, 12, 13], &[5]);
        assert!(lb.apply(&first).unwrap() > 1_000, "a Maglev table and more");
        let held = contents(&first, &Contents::default()).unwrap();
        assert_eq!(lb.read().unwrap(), held);
        assert_eq!(lb.apply(&first).unwrap(), 0, "nothing to do twice");
        drop(lb);

        let mut lb = bench.open();
        assert_eq!(lb.read().unwrap(), held);
        assert_eq!(lb.apply(&first).unwrap(), 0, "nothing to do after a restart");
        drop(lb);

        let mut lb = bench.open();
        let second = web(&[12, 14], &[]);
        lb.apply(&second).unwrap();
        assert_eq!(lb.read().unwrap(), contents(&second, &held).unwrap());
        lb.apply(&LbTable::default()).unwrap();
        assert_eq!(lb.read().unwrap(), Contents::default());
    });
}

#[test]
fn a_refused_table_changes_nothing() {
    bench("refused", |bench| {
        let mut lb = bench.open();
        let good = web(&[11], &[]);
        lb.apply(&good).unwrap();
        let held = lb.read().unwrap();
        let mut bad = web(&[11, 12], &[]);
        bad.ports[0].published = 0;
        assert!(matches!(lb.apply(&bad), Err(LbError::Table(_))));
        assert_eq!(lb.read().unwrap(), held);
        assert_eq!(lb.apply(&good).unwrap(), 0);
    });
}

#[test]
fn counters_tell_tasks_drops_and_how_full_the_tables_are() {
    bench("counters", |bench| {
        let mut lb = bench.open();
        lb.apply(&web(&[11, 12], &[5])).unwrap();
        let counters = lb.counters().unwrap();
        let tasks = |keys: Vec<u64>| keys.len() == 2 && keys.contains(&id("t11"));
        assert!(tasks(counters.backends.keys().copied().collect()));
        assert!(tasks(counters.traffic.keys().copied().collect()));
        assert!(counters.backends.values().all(|s| (s.connections, s.active) == (0, 0)));
        assert_eq!(counters.drops.get("no_endpoint"), Some(&0));
        assert_eq!(counters.tables["ENDPOINTS"], (2, 65_536));
        assert_eq!(counters.tables["VIPS"], (1, 16_384));
    });
}

/// A listener of which a client reads which task it is; serves until dropped by the process.
fn serve(address: IpAddr, port: u16, name: &'static str) -> TcpListener {
    let listener = TcpListener::bind((address, port)).unwrap();
    let serving = listener.try_clone().unwrap();
    thread::spawn(move || {
        for stream in serving.incoming() {
            let Ok(mut stream) = stream else { return };
            let _ = stream.write_all(name.as_bytes());
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let _ = stream.read(&mut [0]);
        }
    });
    listener
}

#[test]
fn an_attached_process_reaches_backends_through_the_vip_also_while_no_daemon_runs() {
    bench("connect", |bench| {
        for n in [11, 12] {
            run(&format!("ip addr add {}/32 dev lo", ip(n)));
        }
        let _one = serve(ip(11), 4_080, "t11\n");
        let _two = serve(ip(12), 4_080, "t12\n");
        let cookie = NetNs::open(Path::new("/proc/thread-self/ns/net")).unwrap().cookie().unwrap();
        let ask = "exec 3<>/dev/tcp/10.0.1.2/4080 && cat <&3";

        let mut lb = bench.open();
        lb.apply(&web(&[11, 12], &[])).unwrap();
        let refused = shell(bench, ask);
        assert!(!refused.status.success());
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(said.contains("No route to host"), "not attached to the network: {said}");

        lb.apply(&web(&[11, 12], &[cookie])).unwrap();
        let ten = format!("for i in 1 2 3 4 5 6 7 8 9 10; do ({ask}); done");
        let answers = String::from_utf8(shell(bench, &ten).stdout).unwrap();
        let of = |task: &str| answers.lines().filter(|l| *l == task).count();
        assert_eq!((of("t11"), of("t12")), (5, 5), "{answers}");
        drop(lb);

        let answers = shell(bench, ask).stdout;
        assert!(answers.starts_with(b"t1"), "pinned links work without a daemon");
        let mut lb = bench.open();
        let counters = lb.counters().unwrap();
        let connections: u64 = counters.backends.values().map(|s| s.connections).sum();
        assert_eq!(connections, 11, "the counters outlive the daemon");
        assert!(counters.backends.values().all(|s| s.active == 0), "{counters:?}");
        // Programs replaced by the restart still serve, once each.
        assert!(shell(bench, ask).stdout.starts_with(b"t1"));
        let connections: u64 =
            lb.counters().unwrap().backends.values().map(|s| s.connections).sum();
        assert_eq!(connections, 12);

        let none = web(&[], &[cookie]);
        lb.apply(&none).unwrap();
        let said = String::from_utf8_lossy(&shell(bench, ask).stderr).into_owned();
        assert!(said.contains("Connection refused"), "no backend: {said}");
    });
}

/// What `tc` shows of the filters at the ingress of an interface, one a line.
fn filters_at(ifname: &str) -> Vec<String> {
    let tc = ["filter", "show", "dev", ifname, "ingress"];
    let output = Command::new("tc").args(tc).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let filters = text.lines().filter(|line| line.contains(" handle ") || line.contains(" fh "));
    filters.map(str::to_owned).collect()
}

/// Number of programs at the ingress of an interface, whichever way they hang there.
fn programs_at(ifname: &str) -> usize {
    use aya::programs::{SchedClassifier, TcAttachType};
    // None can be asked for where there is no tcx.
    let links = SchedClassifier::query_tcx(ifname, TcAttachType::Ingress).map_or(0, |q| q.1.len());
    links + filters_at(ifname).len()
}

#[test]
fn programs_stay_on_interfaces_over_restarts_and_go_when_asked() {
    bench_each("attach", |bench| {
        run("ip link add shv-1 type veth peer name c1");
        run("ip link add up.1 type veth peer name up.2");
        run("ip link add ov0 type veth peer name ov1");
        let mut lb = bench.open();
        lb.attach_container("shv-1").unwrap();
        lb.attach_uplink("up.1").unwrap();
        lb.attach_overlay("ov0").unwrap();
        lb.attach_container("shv-1").unwrap();
        drop(lb);
        for ifname in ["shv-1", "up.1", "ov0"] {
            assert_eq!(programs_at(ifname), 1, "{ifname}");
        }

        let mut lb = bench.open();
        assert_eq!(lb.attached_containers().unwrap(), ["shv-1"]);
        lb.attach_uplink("up.2").unwrap();
        assert_eq!((programs_at("up.1"), programs_at("up.2")), (0, 1), "one uplink at a time");
        lb.detach_uplink("up.2").unwrap();
        lb.detach_overlay("ov0").unwrap();
        assert_eq!((programs_at("up.2"), programs_at("ov0")), (0, 0));

        // Another interface of the same name is another interface.
        run("ip link del shv-1");
        run("ip link add shv-1 type veth peer name c1");
        lb.attach_container("shv-1").unwrap();
        assert_eq!(programs_at("shv-1"), 1);
        run("ip link del shv-1");
        drop(lb);
        let mut lb = bench.open();
        assert_eq!(lb.attached_containers().unwrap(), Vec::<String>::new());
        lb.detach_container("shv-1").unwrap();

        let error = chain(&lb.attach_container("shv-none").unwrap_err());
        assert!(error.starts_with("cannot attach from_container to network interface shv-none: "));
        assert!(error.contains("No such device"), "{error}");
    });
}

/// The program of a line of [`filters_at`].
fn program_of(filter: &str) -> &str {
    filter.split(" id ").nth(1).unwrap().split(' ').next().unwrap()
}

#[test]
fn filters_get_the_new_program_and_those_of_others_stay_as_they_are() {
    bench_by(Hook::Clsact, "others", |bench| {
        run("ip link add shv-1 type veth peer name c1");
        run("ip link add ov0 type veth peer name ov1");
        let mut lb = bench.open();
        lb.attach_overlay("ov0").unwrap();
        // A firewall's, and one at our very priority.
        run("tc qdisc add dev shv-1 clsact");
        run("tc filter add dev shv-1 ingress pref 10 protocol all u32 match u32 0 0");
        let pinned = folder(bench).join("filter-from_overlay-ov0");
        run(&format!(
            "tc filter add dev shv-1 ingress pref 49153 bpf da object-pinned {}",
            pinned.display()
        ));
        let others = filters_at("shv-1");
        assert_eq!(others.len(), 2 + 1, "a table and its rule, and a program: {others:?}");

        lb.attach_container("shv-1").unwrap();
        let ours = |all: &[String]| -> Vec<String> {
            all.iter().filter(|line| line.contains("from_container")).cloned().collect()
        };
        let all = filters_at("shv-1");
        let first = ours(&all);
        assert_eq!((all.len(), first.len()), (others.len() + 1, 1), "{all:?}");
        assert!(first[0].contains(" direct-action "), "{first:?}");
        drop(lb);

        let mut lb = bench.open();
        let second = ours(&filters_at("shv-1"));
        assert_eq!(second.len(), 1, "{second:?}");
        assert_ne!(program_of(&first[0]), program_of(&second[0]), "the new daemon's program");
        lb.attach_container("shv-1").unwrap();
        assert_eq!(ours(&filters_at("shv-1")), second, "nothing to do twice");

        lb.detach_container("shv-1").unwrap();
        assert_eq!(filters_at("shv-1"), others);
        lb.detach_container("shv-1").unwrap();
        lb.attach_container("shv-1").unwrap();
        lb.release_pins().unwrap();
        assert_eq!(filters_at("shv-1"), others);
        assert_eq!(filters_at("ov0"), Vec::<String>::new());
    });
}

#[test]
fn a_filter_whose_record_was_lost_is_taken_over_by_who_attaches_there() {
    bench_by(Hook::Clsact, "lost", |bench| {
        run("ip link add shv-1 type veth peer name c1");
        let mut lb = bench.open();
        lb.attach_container("shv-1").unwrap();
        let first = filters_at("shv-1");
        fs::remove_file(folder(bench).join("filter-from_container-shv-1")).unwrap();
        drop(lb);
        let mut lb = bench.open();
        assert_eq!(lb.attached_containers().unwrap(), Vec::<String>::new());
        lb.attach_container("shv-1").unwrap();
        let second = filters_at("shv-1");
        assert_eq!((first.len(), second.len()), (1, 1), "{second:?}");
        assert_ne!(program_of(&first[0]), program_of(&second[0]));
        lb.detach_container("shv-1").unwrap();
        assert_eq!(programs_at("shv-1"), 0);
    });
}

#[test]
fn a_filter_hangs_on_an_ingress_qdisc_of_somebody_else_s_too() {
    bench_by(Hook::Clsact, "ingress", |bench| {
        run("ip link add up0 type veth peer name up1");
        run("tc qdisc add dev up0 ingress");
        let mut lb = bench.open();
        lb.attach_uplink("up0").unwrap();
        assert_eq!(programs_at("up0"), 1);
        lb.detach_uplink("up0").unwrap();
        assert_eq!(programs_at("up0"), 0);
    });
}

#[test]
fn leaving_takes_everything_away() {
    bench_each("leave", |bench| {
        run("ip link add shv-1 type veth peer name c1");
        let mut lb = bench.open();
        lb.attach_container("shv-1").unwrap();
        lb.apply(&web(&[11], &[])).unwrap();
        assert!(pins(bench).contains(&"link-vip_connect4".to_owned()));
        lb.release_pins().unwrap();
        assert_eq!(pins(bench), Vec::<String>::new());
        assert_eq!(programs_at("shv-1"), 0);
        let lb = bench.open();
        assert_eq!(lb.read().unwrap(), Contents::default(), "a new start is a new start");
    });
}

#[test]
fn pins_of_another_layout_are_removed_once_this_one_serves() {
    bench("layout", |bench| {
        drop(bench.open());
        let (now, old) = (folder(bench), bench.config.bpf_root.join("v0"));
        fs::rename(&now, &old).unwrap();
        drop(bench.open());
        assert!(!old.exists());
        assert!(pins(bench).contains(&"CONFIG".to_owned()));
    });
}

#[test]
fn a_pinned_map_of_another_shape_is_refused_with_the_remedy() {
    bench("shape", |bench| {
        drop(bench.open());
        let folder = folder(bench);
        fs::rename(folder.join("CALLERS"), folder.join("away")).unwrap();
        fs::rename(folder.join("VIPS"), folder.join("CALLERS")).unwrap();
        let error = Lb::open(&bench.config).unwrap_err().to_string();
        assert!(error.starts_with("map CALLERS has 16384 entries of 16 and "), "{error}");
        assert!(error.contains(&format!("remove {}", folder.display())), "{error}");
    });
}

#[test]
fn without_a_capability_opening_names_it() {
    bench("capability", |bench| {
        let mut sets = capabilities(None).unwrap();
        sets.effective.remove(CapabilitySet::NET_ADMIN);
        set_capabilities(None, sets).unwrap();
        let error = Lb::open(&bench.config).unwrap_err().to_string();
        sets.effective.insert(CapabilitySet::NET_ADMIN);
        set_capabilities(None, sets).unwrap();
        assert!(error.contains("missing capability CAP_NET_ADMIN"), "{error}");
        assert!(error.contains("run as root"), "{error}");
        assert!(!bench.config.bpf_root.exists(), "nothing was begun");
    });
}

#[test]
fn a_cgroup_folder_outside_a_cgroup_file_system_is_refused() {
    bench("nocgroup", |bench| {
        let cgroup: PathBuf = bench.folder.path().join("group");
        let config = LbConfig { cgroup, ..bench.config.clone() };
        let error = Lb::open(&config).unwrap_err().to_string();
        assert!(error.contains("is not in a cgroup v2 file system"), "{error}");
    });
}

#[test]
fn a_control_group_made_anew_is_attached_to_again() {
    bench("anew", |bench| {
        drop(bench.open());
        // Some other file holds the old group's programs.
        let held: OwnedFd = fs::File::open(&bench.config.cgroup).unwrap().into();
        fs::remove_dir(&bench.config.cgroup).unwrap();
        drop(bench.open());
        let group = fs::File::open(&bench.config.cgroup).unwrap();
        assert_ne!(
            rustix::fs::fstat(held.as_fd()).unwrap().st_ino,
            rustix::fs::fstat(&group).unwrap().st_ino
        );
        let mut lb = bench.open();
        lb.apply(&web(&[], &[])).unwrap();
        let said = shell(bench, "exec 3<>/dev/tcp/10.0.1.2/80");
        let said = String::from_utf8_lossy(&said.stderr).into_owned();
        assert!(said.contains("No route to host"), "the hook answers: {said}");
    });
}
