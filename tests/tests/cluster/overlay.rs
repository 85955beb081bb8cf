//! Between nodes: everything encrypted, and the daemon not needed.

use crate::fixture::{MEMBERS, Scene, cluster};
use shoal_tests::{Page, patiently, wait_for};

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

#[test]
fn nothing_is_interrupted_while_every_daemon_restarts() {
    let cluster = cluster();
    let mut scene = Scene::on(&cluster);
    scene.network("calm-app", &[]);
    let probe = scene.probe("calm-probe", "calm-app");
    let before = scene.service("calm-web", 3, &["--network", "calm-app"], &[]);
    let ask = "timeout 5 wget -q -O /dev/null http://calm-web/";
    wait_for("an answer", patiently(), || cluster.exec(&probe, ask)?.ok()).unwrap();
    // A loop in the container itself: `docker exec` would need the daemon.
    let script = format!(
        "rm -f /tmp/failed /tmp/count; n=0; (while [ ! -e /tmp/stop ]; do \
         {ask} || echo x >>/tmp/failed; n=$((n+1)); echo $n >/tmp/count; usleep 10000; done) \
         >/dev/null 2>&1 </dev/null &"
    );
    cluster.exec(&probe, &script).unwrap().ok().unwrap();
    for node in &cluster.nodes()[..MEMBERS] {
        node.restart_daemon().unwrap();
    }
    let count = wait_for("the count", patiently(), || {
        cluster.exec(&probe, "touch /tmp/stop; cat /tmp/count")?.ok()
    })
    .unwrap();
    let failed = cluster.exec(&probe, "cat /tmp/failed 2>/dev/null | wc -l").unwrap();
    assert!(count.parse::<u32>().unwrap() > 20, "only {count} requests were made");
    assert_eq!(failed.ok().unwrap(), "0");
    let after = cluster.wait_for_tasks("calm-web", 3, patiently()).unwrap();
    let ids = |tasks: &[shoal_tests::RunningTask]| {
        let mut ids: Vec<_> = tasks.iter().map(|t| (t.id.clone(), t.pid)).collect();
        ids.sort();
        ids
    };
    assert_eq!(ids(&after), ids(&before), "containers did not survive");
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
