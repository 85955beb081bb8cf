//! Between nodes: everything encrypted, and the daemon not needed.

use crate::fixture::{MEMBERS, Scene, cluster};
use anyhow::ensure;
use rustix::process::{Pid, Signal, kill_process};
use shoal_tests::{Cluster, Node, Page, patiently, wait_for};
use std::{
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

#[test]
fn no_plain_byte_of_a_container_crosses_the_wire() {
    let cluster = cluster();
    let mut scene = Scene::on(&cluster);
    scene.network("wire-app", &[]);
    let probe = scene.probe("wire-probe", "wire-app");
    let web = scene.service("wire-web", 3, &["--network", "wire-app"], &[]);
    let network = cluster.network_id("wire-app").unwrap();
    let remote = web.iter().find(|task| task.node != probe.node).expect("three tasks, three nodes");
    let address = remote.address_on(&network).unwrap();
    let script = format!("timeout 5 wget -q -O - http://{address}/");
    wait_for("an answer", patiently(), || cluster.exec(&probe, &script)?.ok()).unwrap();
    let capture = cluster.capture().unwrap();
    let page = cluster.exec(&probe, &script).unwrap().ok().unwrap();
    assert!(Page::parse(&page).is_ok());
    let recording = capture.finish().unwrap();
    assert!(!recording.packets("udp port 51820").unwrap().is_empty());
    assert!(!recording.contains("GET /") && !recording.contains("HTTP/1."));
    let inner = recording.packets("net 10.0.0.0/8").unwrap();
    assert!(inner.is_empty(), "{inner:?}");
}

/// A swarm that waits long before it takes a node for down: a busy machine may start a daemon
/// slowly, and what is tested is not how soon others step in. Ends when dropped.
struct Patient<'a>(&'a Cluster);

impl<'a> Patient<'a> {
    fn new(cluster: &'a Cluster) -> Self {
        let patient = Patient(cluster);
        patient.beat("1m").unwrap();
        patient
    }

    fn beat(&self, period: &str) -> anyhow::Result<String> {
        self.0.node(0).docker(&["swarm", "update", "--dispatcher-heartbeat", period])?.ok()
    }
}

impl Drop for Patient<'_> {
    fn drop(&mut self) {
        // Docker's default. A cluster that no longer answers fails the next test by itself.
        let _ = self.beat("5s");
    }
}

/// Requests from inside by name, and from outside by a published port, while `act` goes on. None
/// may fail.
fn nothing_fails_while(name: &str, port: u16, act: impl FnOnce(&Cluster)) {
    let cluster = cluster();
    let _patient = Patient::new(&cluster);
    let mut scene = Scene::on(&cluster);
    let network = format!("{name}-app");
    scene.network(&network, &[]);
    let probe = scene.probe(&format!("{name}-probe"), &network);
    let (web, publish) = (format!("{name}-web"), format!("{port}:80"));
    let before = scene.service(&web, 3, &["--network", &network, "-p", &publish], &[]);
    let ask = format!("timeout 5 wget -q -O /dev/null http://{web}/");
    wait_for("an answer", patiently(), || cluster.exec(&probe, &ask)?.ok()).unwrap();
    let url = |node: &Node| format!("http://{}:{port}/", node.addr());
    for node in &cluster.nodes()[..MEMBERS] {
        wait_for("an answer outside", patiently(), || cluster.client(0).http_get(&url(node)))
            .unwrap();
    }
    // A loop in the container itself: `docker exec` would need the daemon.
    let script = format!(
        "rm -f /tmp/failed /tmp/count /tmp/done; n=0; (while [ ! -e /tmp/stop ]; do \
         {ask} || echo x >>/tmp/failed; n=$((n+1)); echo $n >/tmp/count; usleep 10000; done; \
         touch /tmp/done) >/dev/null 2>&1 </dev/null &"
    );
    cluster.exec(&probe, &script).unwrap().ok().unwrap();
    let stop = AtomicBool::new(false);
    let outside = thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let mut count = 0;
            while !stop.load(Ordering::SeqCst) {
                for node in &cluster.nodes()[..MEMBERS] {
                    let response = cluster.client(0).http_get(&url(node))?;
                    ensure!(response.status == 200, "{}: {}", node.name(), response.status);
                    count += 1;
                }
                thread::sleep(Duration::from_millis(20));
            }
            Ok(count)
        });
        // Or the other thread would go on for ever.
        let acted = catch_unwind(AssertUnwindSafe(|| act(&cluster)));
        stop.store(true, Ordering::SeqCst);
        let outside = asking.join().unwrap();
        acted.map(|()| outside).unwrap_or_else(|panic| resume_unwind(panic))
    });
    let count = wait_for("the count", patiently(), || {
        cluster.exec(&probe, "touch /tmp/stop; [ -e /tmp/done ] && cat /tmp/count")?.ok()
    })
    .unwrap();
    let failed = cluster.exec(&probe, "cat /tmp/failed 2>/dev/null | wc -l").unwrap();
    assert!(count.parse::<u32>().unwrap() > 20, "only {count} requests were made inside");
    assert_eq!(failed.ok().unwrap(), "0", "of {count} inside");
    assert!(outside.unwrap() > 20);
    let after = cluster.wait_for_tasks(&web, 3, patiently()).unwrap();
    let ids = |tasks: &[shoal_tests::RunningTask]| {
        let mut ids: Vec<_> = tasks.iter().map(|t| (t.id.clone(), t.pid)).collect();
        ids.sort();
        ids
    };
    assert_eq!(ids(&after), ids(&before), "containers did not survive");
}

#[test]
fn nothing_is_interrupted_while_every_daemon_restarts() {
    nothing_fails_while("calm", 8141, |cluster| {
        for node in &cluster.nodes()[..MEMBERS] {
            node.restart_daemon().unwrap();
        }
    });
}

#[test]
fn nothing_is_interrupted_while_every_daemon_is_killed_and_started_again() {
    nothing_fails_while("killed", 8142, |cluster| {
        for node in &cluster.nodes()[..MEMBERS] {
            node.kill_daemon().unwrap();
            // Traffic goes on without it, not only soon after.
            thread::sleep(Duration::from_secs(1));
            node.start_daemon().unwrap();
        }
    });
}

#[test]
fn a_killed_overlay_process_is_back_within_seconds_with_names_and_tunnels() {
    const SECONDS: Duration = Duration::from_secs(5);
    let cluster = cluster();
    let mut scene = Scene::on(&cluster);
    scene.network("net-app", &[]);
    let probe = scene.probe("net-probe", "net-app");
    let web = scene.service("net-web", 3, &["--network", "net-app"], &[]);
    let network = cluster.network_id("net-app").unwrap();
    let remote = web.iter().find(|task| task.node != probe.node).unwrap();
    // A name, the VIP, and a task on another node.
    let script = format!(
        "timeout 1 wget -q -O /dev/null http://net-web/ && \
         timeout 1 wget -q -O /dev/null http://{}/",
        remote.address_on(&network).unwrap()
    );
    wait_for("an answer", patiently(), || cluster.exec(&probe, &script)?.ok()).unwrap();
    let node = cluster.node(probe.node);
    let killed = node.net_pid().unwrap();
    kill_process(Pid::from_raw(killed.try_into().unwrap()).unwrap(), Signal::KILL).unwrap();
    wait_for("names and tunnels", SECONDS, || cluster.exec(&probe, &script)?.ok()).unwrap();
    assert_ne!(node.net_pid().unwrap(), killed);
}

#[test]
fn a_killed_daemon_finds_its_containers_again() {
    let cluster = cluster();
    let mut scene = Scene::on(&cluster);
    let before = scene.service("found-web", 3, &[], &[]);
    let node = cluster.node(2);
    node.kill_daemon().unwrap();
    node.start_daemon().unwrap();
    let mine = |tasks: Vec<shoal_tests::RunningTask>| {
        tasks.into_iter().find(|task| task.node == 2).expect("one task a node")
    };
    let after = cluster.wait_for_tasks("found-web", 3, patiently()).unwrap();
    assert_eq!(mine(after).pid, mine(before).pid);
}
