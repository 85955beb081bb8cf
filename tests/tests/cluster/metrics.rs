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
    let ask = "wget -q -T 5 -O /dev/null http://met-web/";
    wait_for("an answer", patiently(), || cluster.exec(&probe, ask)?.ok()).unwrap();
    let node = cluster.node(probe.node);
    let of_web = [("service", "met-web")];
    let sum = |name: &str| metric_sum(&node.metrics().unwrap(), name, &of_web).unwrap();
    let (connections, bytes) =
        (sum("shoal_backend_connections_total"), sum("shoal_backend_bytes_total"));
    let script = format!("i=0; while [ $i -lt {REQUESTS} ]; do {ask}; i=$((i+1)); done");
    cluster.exec(&probe, &script).unwrap().ok().unwrap();
    assert_eq!(sum("shoal_backend_connections_total") - connections, f64::from(REQUESTS));
    // A request and its page are more than 100 bytes.
    assert!(sum("shoal_backend_bytes_total") - bytes > f64::from(REQUESTS) * 100.0);
    assert_eq!(sum("shoal_backend_active_connections"), 0.0);
    let any = |name: &str, labels: &[(&str, &str)]| {
        let texts = cluster.nodes()[..MEMBERS].iter().map(|n| n.metrics().unwrap());
        texts.filter_map(|text| metric_sum(&text, name, labels).ok()).sum::<f64>()
    };
    assert!(any("shoal_overlay_bytes_total", &[]) > 0.0);
    assert!(any("shoal_overlay_handshakes_total", &[]) > 0.0);
    assert!(any("shoal_tasks", &[("state", "running")]) >= 4.0);
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
    let dropped = || metric_sum(&node.metrics().unwrap(), "shoal_drops_total", &[]).unwrap_or(0.0);
    let before = dropped();
    let ping = format!("ping -c 3 -W 1 {address}");
    cluster.exec(&stranger, &ping).unwrap().message().unwrap();
    assert!(dropped() - before >= 3.0, "{} then {}", before, dropped());
    let text = node.metrics().unwrap();
    let lines = text.lines().filter(|line| line.starts_with("shoal_drops_total{"));
    assert!(lines.clone().count() > 0 && lines.clone().all(|l| l.contains("reason=\"")), "{text}");
}
