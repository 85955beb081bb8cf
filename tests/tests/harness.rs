//! The harness keeps its own promises: hosts are apart and joined, and nothing stays behind.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};
use shoal_tests::{Cluster, Segment, address, patiently, wait_for};
use std::{
    env, fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{IpAddr, TcpListener},
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// A page from any address of a host, once, with the client's address as the body.
fn serve_once(listener: TcpListener) -> IpAddr {
    let (mut stream, peer) = listener.accept().unwrap();
    // All of the request, or closing would reset the connection before its answer is read.
    assert!(stream.read(&mut [0; 1024]).unwrap() > 0);
    write!(stream, "HTTP/1.0 200 OK\r\n\r\n{}", peer.ip()).unwrap();
    peer.ip()
}

#[test]
fn a_client_reaches_a_node_through_the_router_and_is_seen_with_its_own_address() {
    let cluster = Cluster::builder().nodes(1).clients(1).without_daemons().start().unwrap();
    let node = cluster.node(0);
    let (client4, client6) = address(Segment::Clients, 0);
    let urls = [
        (format!("http://{}:8080/", node.addr()), client4),
        (format!("http://[{}]:8080/", node.addr6()), client6),
    ];
    for (url, expected) in urls {
        let listener = node.in_network(|| TcpListener::bind("[::]:8080").unwrap()).unwrap();
        let server = thread::spawn(|| serve_once(listener));
        let response = cluster.client(0).http_get(&url).unwrap();
        assert_eq!(response.status, 200);
        assert_eq!(server.join().unwrap().to_canonical(), expected);
    }
}

#[test]
fn a_cut_node_is_reached_by_nobody_until_it_is_healed() {
    let cluster = Cluster::builder().nodes(2).without_daemons().start().unwrap();
    let target = cluster.node(1).addr().to_string();
    let ping = || cluster.node(0).run(&["busybox", "ping", "-c1", "-W1", &target]).unwrap();
    wait_for("the first ping", patiently(), || ping().ok()).unwrap();
    cluster.cut(1).unwrap();
    assert!(!ping().status.success());
    cluster.heal(1).unwrap();
    wait_for("the ping after healing", patiently(), || ping().ok()).unwrap();
}

#[test]
fn a_delayed_node_answers_later_and_loses_nothing() {
    const EACH_WAY: Duration = Duration::from_millis(50);
    let cluster = Cluster::builder().nodes(2).without_daemons().start().unwrap();
    let mut serving = 0..;
    let mut fetch = || {
        let port = 8080 + serving.next().unwrap();
        let listen = || TcpListener::bind(("0.0.0.0", port)).unwrap();
        let listener = cluster.node(1).in_network(listen).unwrap();
        let server = thread::spawn(|| serve_once(listener));
        let start = Instant::now();
        let url = format!("http://{}:{port}/", cluster.node(1).addr());
        assert_eq!(cluster.node(0).http_get(&url).unwrap().status, 200);
        server.join().unwrap();
        start.elapsed()
    };
    // Neighbours know each other afterwards.
    fetch();
    {
        let _slow = cluster.delay(1, EACH_WAY).unwrap();
        // Handshake, then request and answer: two round trips.
        let took = fetch();
        assert!(took >= 4 * EACH_WAY, "{took:?}");
        assert!(took < 12 * EACH_WAY, "{took:?}: frames were lost and sent again");
    }
    assert!(fetch() < EACH_WAY);
}

#[test]
fn a_node_has_its_own_name_and_bpf_folder_and_the_machine_sees_neither() {
    let cluster = Cluster::builder().nodes(1).without_daemons().start().unwrap();
    let node = cluster.node(0);
    assert_eq!(node.run(&["hostname"]).unwrap().ok().unwrap(), "node1");
    let bpf = cluster.folder().join("node1/bpf");
    let mounts = |text: String| text.contains(bpf.to_str().unwrap());
    assert!(mounts(node.run(&["cat", "/proc/self/mounts"]).unwrap().ok().unwrap()));
    assert!(!mounts(fs::read_to_string("/proc/self/mounts").unwrap()));
    let links = Command::new("ip").args(["-br", "link"]).output().unwrap();
    assert!(!String::from_utf8_lossy(&links.stdout).contains("node1"));
}

#[test]
fn a_capture_holds_the_bytes_that_crossed_the_wire() {
    let cluster = Cluster::builder().nodes(2).without_daemons().start().unwrap();
    let capture = cluster.capture().unwrap();
    let url = format!("http://{}:8080/a-page-nobody-else-asks-for", cluster.node(1).addr());
    let listen = || TcpListener::bind("0.0.0.0:8080").unwrap();
    let listener = cluster.node(1).in_network(listen).unwrap();
    let server = thread::spawn(|| serve_once(listener));
    cluster.node(0).http_get(&url).unwrap();
    server.join().unwrap();
    let recording = capture.finish().unwrap();
    assert!(recording.contains("GET /a-page-nobody-else-asks-for"));
    assert!(!recording.contains("GET /something-else"));
    assert!(!recording.packets("tcp port 8080").unwrap().is_empty());
    assert_eq!(recording.packets("udp port 51820").unwrap(), Vec::<String>::new());
}

/// What of a cluster with this folder is still on the machine.
fn remains(folder: &Path) -> Vec<PathBuf> {
    let name = folder.file_name().unwrap().to_str().unwrap();
    let mut found = Vec::from_iter(folder.exists().then(|| folder.to_owned()));
    let hierarchies = fs::read_dir("/sys/fs/cgroup").unwrap().flatten();
    for hierarchy in hierarchies.filter(|h| h.path().is_dir()) {
        let groups = fs::read_dir(hierarchy.path()).into_iter().flatten().flatten();
        found.extend(
            groups
                .map(|g| g.path())
                .filter(|g| g.file_name().is_some_and(|n| n.to_string_lossy().starts_with(name))),
        );
    }
    found
}

/// A control group in the first hierarchy that takes one without further settings.
fn make_cgroup(name: &str) -> PathBuf {
    let v1 = Path::new("/sys/fs/cgroup/pids").join(name);
    let v2 = Path::new("/sys/fs/cgroup").join(name);
    let group = if v1.parent().unwrap().is_dir() { v1 } else { v2 };
    fs::create_dir_all(group.join("inner")).unwrap();
    group.join("inner")
}

#[test]
fn a_panic_leaves_no_process_no_control_group_and_no_folder() {
    let mut seen = None;
    let panic = catch_unwind(AssertUnwindSafe(|| {
        let cluster = Cluster::builder().nodes(1).without_daemons().start().unwrap();
        let node = cluster.node(0);
        let folder = cluster.folder().to_owned();
        // One that has left its parent and its session, and one in other namespaces, which only
        // its control group tells.
        node.run(&["sh", "-c", "setsid sleep 1000 >/dev/null 2>&1 &"]).unwrap();
        let name = format!("{}-node1", folder.file_name().unwrap().to_str().unwrap());
        let procs = make_cgroup(&name).join("cgroup.procs");
        let script = format!("echo $$ >{}; exec sleep 1000", procs.display());
        let outsider = Command::new("sh").args(["-ec", &script]).spawn().unwrap();
        wait_for("it to join", patiently(), || {
            if fs::read_to_string(&procs)?.trim().is_empty() { bail!("not yet") } else { Ok(()) }
        })
        .unwrap();
        seen = Some((folder, node.holder(), outsider));
        panic!("as a test would that fails");
    }));
    assert!(panic.is_err());
    let (folder, holder, mut outsider) = seen.unwrap();
    assert_eq!(remains(&folder), Vec::<PathBuf>::new());
    assert!(!outsider.wait().unwrap().success(), "it ended by itself");
    // Reaped or a zombie: it has no namespaces.
    assert!(fs::metadata(format!("/proc/{holder}/ns/net")).is_err());
}

/// Starts a program that holds a cluster, and ends it with a signal.
fn cluster_of_a_process_that_gets(signal: Signal) {
    let mut deps = env::current_exe().unwrap();
    deps.pop();
    let mut program = Command::new(deps.parent().unwrap().join("examples/cluster"));
    let mut child = program.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = || lines.next().context("it ended early").unwrap().unwrap();
    let folder = PathBuf::from(next().strip_prefix("folder ").unwrap());
    let holders: Vec<u32> = (0..3)
        .map(|_| next().split("--target ").nth(1).unwrap().split(' ').next().unwrap().into())
        .map(|pid: String| pid.parse().unwrap())
        .collect();
    assert!(folder.is_dir());
    kill_process(Pid::from_child(&child), signal).unwrap();
    child.wait().unwrap();
    wait_for("the cluster to be gone", patiently(), || {
        let alive = |pid: &&u32| fs::metadata(format!("/proc/{pid}/ns/net")).is_ok();
        match (remains(&folder), holders.iter().find(alive)) {
            (paths, None) if paths.is_empty() => Ok(()),
            other => bail!("{other:?} is left"),
        }
    })
    .unwrap();
}

#[test]
fn a_killed_process_leaves_nothing() {
    cluster_of_a_process_that_gets(Signal::KILL);
}

#[test]
fn an_interrupted_process_leaves_nothing() {
    cluster_of_a_process_that_gets(Signal::INT);
}
