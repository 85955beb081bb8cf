//! The virtual address of a service, from inside: at the socket, and packet by packet.

use crate::{
    dns::Serving,
    fixture::{Scene, cluster},
};
use shoal_tests::{Page, RunningTask, in_network_of, nslookup, patiently, wait_for};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, UdpSocket},
};

/// How often each task answers this many requests in a row.
fn spread(scene: &Scene<'_>, probe: &RunningTask, url: &str, count: usize) -> Vec<usize> {
    let script =
        format!("i=0; while [ $i -lt {count} ]; do timeout 5 wget -q -O - {url}; i=$((i+1)); done");
    let pages = scene.cluster.exec(probe, &script).unwrap().ok().unwrap();
    let mut tasks: BTreeMap<String, usize> = BTreeMap::new();
    for line in pages.lines() {
        *tasks.entry(Page::parse(line).unwrap().task).or_default() += 1;
    }
    tasks.into_values().collect()
}

#[test]
fn requests_through_the_vip_reach_every_task_evenly() {
    let cluster = cluster();
    let mut scene = Scene::on(&cluster);
    scene.network("vip-even", &[]);
    let probe = scene.probe("vip-even-probe", "vip-even");
    scene.service("vip-even-web", 3, &["--network", "vip-even"], &[]);
    wait_for("all three to answer", patiently(), || {
        anyhow::ensure!(spread(&scene, &probe, "http://vip-even-web/", 12).len() == 3);
        Ok(())
    })
    .unwrap();
    let counts = spread(&scene, &probe, "http://vip-even-web/", 300);
    assert_eq!(counts.iter().sum::<usize>(), 300);
    assert!(counts.iter().all(|n| (90..=110).contains(n)), "{counts:?}");
}

#[test]
fn a_vip_answers_ping_and_udp() {
    let cluster = cluster();
    let mut scene = Scene::on(&cluster);
    scene.network("vip-udp", &[]);
    let probe = scene.probe("vip-udp-probe", "vip-udp");
    let task = scene.probe("vip-udp-names", "vip-udp");
    let vip = cluster.vip("vip-udp-names", "vip-udp").unwrap();
    let script = format!("ping -c 1 -W 2 {vip}");
    wait_for("a ping", patiently(), || cluster.exec(&probe, &script)?.ok()).unwrap();
    // busybox' one client of UDP asks name servers; what answers sits in the task's network.
    let own = task.address_on(&cluster.network_id("vip-udp").unwrap()).unwrap();
    let answer = Ipv4Addr::new(203, 0, 113, 9);
    let socket = in_network_of(task.pid, || UdpSocket::bind((own, 53)).unwrap()).unwrap();
    let serving = Serving::start(socket, answer);
    let result = wait_for("an answer", patiently(), || {
        let script = format!("nslookup -type=a anything.example {vip}");
        let found = nslookup(&cluster.exec(&probe, &script)?.stdout);
        anyhow::ensure!(found == BTreeSet::from([IpAddr::from(answer)]), "{found:?}");
        Ok(())
    });
    drop(serving);
    result.unwrap();
}

#[test]
fn a_container_on_another_network_gets_neither_name_nor_packet() {
    let cluster = cluster();
    let mut scene = Scene::on(&cluster);
    scene.network("vip-mine", &[]);
    scene.network("vip-theirs", &[]);
    let tasks = scene.service("vip-mine-web", 3, &["--network", "vip-mine"], &[]);
    let friend = scene.probe("vip-mine-probe", "vip-mine");
    let stranger = scene.probe("vip-theirs-probe", "vip-theirs");
    let ask = |from, address| {
        let script = format!("timeout 2 wget -q -O - http://{address}/");
        cluster.exec(from, &script).unwrap()
    };
    let mine = cluster.network_id("vip-mine").unwrap();
    let mut addresses = vec![cluster.vip("vip-mine-web", "vip-mine").unwrap()];
    addresses.extend(tasks.iter().map(|task| task.address_on(&mine).unwrap()));
    for address in addresses {
        // The friend shows that the address is right.
        wait_for("the friend's answer", patiently(), || ask(&friend, address).ok()).unwrap();
        ask(&stranger, address).message().unwrap();
        let ping = format!("ping -c 1 -W 1 {address}");
        cluster.exec(&stranger, &ping).unwrap().message().unwrap();
    }
    let lookup = cluster.exec(&stranger, "nslookup vip-mine-web").unwrap();
    assert!(nslookup(&lookup.stdout).is_empty(), "{}", lookup.stdout);
}

#[test]
fn a_vip_works_over_ipv6_where_the_network_has_it() {
    let cluster = cluster();
    let mut scene = Scene::on(&cluster);
    scene.network("vip-six", &["--ipv6"]);
    let probe = scene.probe("vip-six-probe", "vip-six");
    scene.service("vip-six-web", 2, &["--network", "vip-six"], &[]);
    let lookup = || cluster.exec(&probe, "nslookup -type=aaaa vip-six-web").unwrap().stdout;
    let vip = wait_for("an IPv6 address", patiently(), || {
        let found = nslookup(&lookup());
        found.into_iter().find(|a| a.is_ipv6()).ok_or_else(|| anyhow::anyhow!("{}", lookup()))
    })
    .unwrap();
    let script = format!("timeout 5 wget -q -O - 'http://[{vip}]/'");
    let page = wait_for("an answer over IPv6", patiently(), || cluster.exec(&probe, &script)?.ok());
    assert!(Page::parse(&page.unwrap()).unwrap().client.is_ipv6());
}
