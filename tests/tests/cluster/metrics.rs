//! What a node counts.

use crate::fixture::{MEMBERS, Scene, cluster};
use shoal_tests::{metric_sum, patiently, wait_for};

#[test]
fn connections_bytes_tasks_and_the_overlay_are_counted() {
    const REQUESTS: u32 = 40;
    let cluster = cluster();
    let mut scene = Scene::on(&cluster);
    scene.network("met-app", &[]);
    let probe = scene.probe("met-probe", "met-app");
    scene.service("met-web", 3, &["--network", "met-app"], &[]);
    let ask = "timeout 5 wget -q -O /dev/null http://met-web/";
    wait_for("an answer", patiently(), || cluster.exec(&probe, ask)?.ok()).unwrap();
    let any = |name: &str, labels: &[(&str, &str)]| {
        let texts = cluster.nodes()[..MEMBERS].iter().map(|n| n.metrics().unwrap());
        let found = texts.filter_map(|text| metric_sum(&text, name, labels).ok());
        found.reduce(|sum, value| sum + value).unwrap_or_else(|| panic!("nobody has {name}"))
    };
    let of_web = [("service", "met-web")];
    let count = || {
        let bytes = any("shoal_lb_bytes_total", &of_web);
        let packets = any("shoal_lb_packets_total", &of_web);
        (any("shoal_lb_connections_total", &of_web), bytes, packets)
    };
    let before = count();
    let script = format!("i=0; while [ $i -lt {REQUESTS} ]; do {ask}; i=$((i+1)); done");
    cluster.exec(&probe, &script).unwrap().ok().unwrap();
    let after = count();
    let requests = f64::from(REQUESTS);
    assert_eq!(after.0 - before.0, requests);
    // A request and its page are more than 100 bytes and, with the handshake, 4 packets.
    assert!(after.1 - before.1 > requests * 100.0, "{before:?} {after:?}");
    assert!(after.2 - before.2 > requests * 4.0, "{before:?} {after:?}");
    assert_eq!(any("shoal_lb_active_connections", &of_web), 0.0);
    // The overlay's process is asked each second, and peers are new with the network.
    wait_for("the overlay's counts", patiently(), || {
        let texts = cluster.nodes()[..MEMBERS].iter().map(|n| n.metrics());
        let texts = texts.collect::<Result<Vec<_>, _>>()?;
        let sum = |name: &str, labels: &[(&str, &str)]| {
            texts.iter().filter_map(|text| metric_sum(text, name, labels).ok()).sum::<f64>()
        };
        let sent = sum("shoal_overlay_bytes_total", &[("direction", "tx")]);
        let handshakes = sum("shoal_overlay_handshakes_total", &[]);
        anyhow::ensure!(sent > 0.0 && handshakes > 0.0, "{sent} bytes, {handshakes} handshakes");
        Ok(())
    })
    .unwrap();
    assert!(any("shoal_node_tasks", &[("state", "running")]) >= 4.0);
}

#[test]
fn an_open_connection_is_counted_as_active() {
    let cluster = cluster();
    let mut scene = Scene::on(&cluster);
    scene.network("met-open", &[]);
    let probe = scene.probe("met-open-probe", "met-open");
    scene.service("met-open-web", 1, &["--network", "met-open"], &[]);
    let ask = "timeout 5 wget -q -O /dev/null http://met-open-web/";
    wait_for("an answer", patiently(), || cluster.exec(&probe, ask)?.ok()).unwrap();
    let active = || {
        let text = cluster.node(probe.node).metrics().unwrap();
        metric_sum(&text, "shoal_lb_active_connections", &[("service", "met-open-web")]).unwrap()
    };
    // A request that is never finished.
    let hold = "sleep 1000 2>/dev/null | nc met-open-web 80 >/dev/null 2>&1 & echo $! >/tmp/holder";
    cluster.exec(&probe, hold).unwrap().ok().unwrap();
    let becomes = |wanted: f64| {
        wait_for("the count", patiently(), || {
            anyhow::ensure!(active() == wanted, "{} are active", active());
            Ok(())
        })
        .unwrap();
    };
    becomes(1.0);
    cluster.exec(&probe, "kill $(cat /tmp/holder)").unwrap().ok().unwrap();
    becomes(0.0);
}

#[test]
fn a_packet_that_isolation_drops_is_counted_with_its_reason() {
    let cluster = cluster();
    let mut scene = Scene::on(&cluster);
    scene.network("met-a", &[]);
    scene.network("met-b", &[]);
    let target = scene.probe("met-a-probe", "met-a");
    let stranger = scene.probe("met-b-probe", "met-b");
    let address = target.address_on(&cluster.network_id("met-a").unwrap()).unwrap();
    let node = cluster.node(stranger.node);
    let dropped =
        || metric_sum(&node.metrics().unwrap(), "shoal_lb_drops_total", &[]).unwrap_or(0.0);
    let before = dropped();
    let ping = format!("ping -c 3 -W 1 {address}");
    cluster.exec(&stranger, &ping).unwrap().message().unwrap();
    assert!(dropped() - before >= 3.0, "{} then {}", before, dropped());
    let text = node.metrics().unwrap();
    let lines = text.lines().filter(|line| line.starts_with("shoal_lb_drops_total{"));
    assert!(lines.clone().count() > 0 && lines.clone().all(|l| l.contains("reason=\"")), "{text}");
}
