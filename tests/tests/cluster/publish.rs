//! Published ports: every node answers, and the page sees the real client.

use crate::fixture::{MEMBERS, Scene, cluster};
use anyhow::ensure;
use shoal_tests::{Cluster, Page, Segment, address, in_network_of, patiently, wait_for};
use std::{net::UdpSocket, time::Duration};

/// What the client sees at a port of every member, over both families.
fn ask_everywhere(cluster: &Cluster, port: u16) {
    let (own4, own6) = address(Segment::Clients, 0);
    for node in &cluster.nodes()[..MEMBERS] {
        for (url, own) in [
            (format!("http://{}:{port}/", node.addr()), own4),
            (format!("http://[{}]:{port}/", node.addr6()), own6),
        ] {
            let what = format!("{url} on {}", node.name());
            let page = wait_for(&what, patiently(), || {
                let response = cluster.client(0).http_get(&url)?;
                ensure!(response.status == 200, "{}", response.status);
                Page::parse(&response.body)
            });
            assert_eq!(page.unwrap().client, own, "{url}");
        }
    }
}

#[test]
fn every_node_answers_and_the_page_sees_the_clients_own_address() {
    let cluster = cluster();
    let mut scene = Scene::on(&cluster);
    // One task: two of three nodes have none.
    scene.service("pub-one", 1, &["-p", "8101:80"], &[]);
    ask_everywhere(&cluster, 8101);
}

#[test]
fn a_port_is_closed_again_when_its_service_is_gone() {
    let cluster = cluster();
    let url = format!("http://{}:8102/", cluster.node(1).addr());
    {
        let mut scene = Scene::on(&cluster);
        scene.service("pub-gone", 2, &["-p", "8102:80"], &[]);
        wait_for("an answer", patiently(), || cluster.client(0).http_get(&url)).unwrap();
    }
    wait_for("no answer", patiently(), || match cluster.client(0).http_get(&url) {
        Ok(response) => anyhow::bail!("it still answers: {}", response.body),
        Err(_) => Ok(()),
    })
    .unwrap();
}

#[test]
fn a_published_udp_port_answers_on_every_node_and_sees_the_client() {
    const PORT: u16 = 8103;
    let cluster = cluster();
    let mut scene = Scene::on(&cluster);
    let task = scene.service("pub-udp", 1, &["-p", "8103:7/udp"], &[]).remove(0);
    let echo = in_network_of(task.pid, || UdpSocket::bind("[::]:7").unwrap()).unwrap();
    echo.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let client = cluster.client(0).in_network(|| UdpSocket::bind("0.0.0.0:0").unwrap()).unwrap();
    client.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let own = address(Segment::Clients, 0).0;
    for node in &cluster.nodes()[..MEMBERS] {
        let what = format!("an echo through {}", node.name());
        wait_for(&what, patiently(), || {
            client.send_to(b"over-udp", (node.addr(), PORT))?;
            let mut packet = [0; 16];
            let (length, from) = echo.recv_from(&mut packet)?;
            ensure!(from.ip().to_canonical() == own, "the task sees {from}");
            echo.send_to(&packet[..length], from)?;
            let (length, from) = client.recv_from(&mut packet)?;
            ensure!(&packet[..length] == b"over-udp" && from == (node.addr(), PORT).into());
            Ok(())
        })
        .unwrap();
    }
}
