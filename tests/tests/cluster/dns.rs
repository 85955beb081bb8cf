//! Names, as containers see them at 127.0.0.11.

use crate::fixture::{MEMBERS, Scene, cluster};
use anyhow::ensure;
use shoal_tests::{RunningTask, nslookup, patiently, wait_for};
use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

fn look_up(scene: &Scene<'_>, from: &RunningTask, name: &str) -> BTreeSet<IpAddr> {
    nslookup(&scene.cluster.exec(from, &format!("nslookup -type=a {name}")).unwrap().stdout)
}

#[test]
fn a_service_is_its_vip_and_tasks_dot_service_its_tasks() {
    let cluster = cluster();
    let mut scene = Scene::on(&cluster);
    scene.network("dns-app", &[]);
    let probe = scene.probe("dns-probe", "dns-app");
    let tasks = scene.service("dns-web", 3, &["--network", "dns-app"], &[]);
    let network = cluster.network_id("dns-app").unwrap();
    let vip = IpAddr::from(cluster.vip("dns-web", "dns-app").unwrap());
    let all: BTreeSet<IpAddr> =
        tasks.iter().map(|task| task.address_on(&network).unwrap().into()).collect();
    wait_for("the names", patiently(), || {
        let found = look_up(&scene, &probe, "dns-web");
        ensure!(found == BTreeSet::from([vip]), "dns-web is {found:?}, not {vip}");
        let found = look_up(&scene, &probe, "tasks.dns-web");
        ensure!(found == all, "tasks.dns-web is {found:?}, not {all:?}");
        Ok(())
    })
    .unwrap();
}

#[test]
fn a_name_is_gone_with_its_service() {
    let cluster = cluster();
    let mut scene = Scene::on(&cluster);
    scene.network("dns-gone", &[]);
    let probe = scene.probe("dns-gone-probe", "dns-gone");
    scene.service("dns-gone-web", 1, &["--network", "dns-gone"], &[]);
    let found = |name| !look_up(&scene, &probe, name).is_empty();
    wait_for("the name", patiently(), || {
        ensure!(found("dns-gone-web"));
        Ok(())
    })
    .unwrap();
    scene.docker(&["service", "rm", "dns-gone-web"]);
    wait_for("no name", patiently(), || {
        ensure!(!found("dns-gone-web"));
        Ok(())
    })
    .unwrap();
}

/// A name server that answers every question with one address, until it is dropped.
pub(crate) struct Serving {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Serving {
    pub(crate) fn start(socket: UdpSocket, answer: Ipv4Addr) -> Self {
        socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let thread = thread::spawn({
            let stop = Arc::clone(&stop);
            move || name_server(&socket, answer, &stop)
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // A panic in it was shown; the test fails for want of answers.
        self.thread.take().map(JoinHandle::join);
    }
}

fn name_server(socket: &UdpSocket, answer: Ipv4Addr, stop: &AtomicBool) {
    let mut packet = [0; 512];
    while !stop.load(Ordering::SeqCst) {
        let Ok((length, asker)) = socket.recv_from(&mut packet) else { continue };
        let mut reply = packet[..length].to_vec();
        // RFC 1035, 4.1.1: a response, recursion available, no error, one answer, nothing more.
        reply[2] |= 0x80;
        reply[3] = 0x80;
        let mut end = 12;
        while reply[end] != 0 {
            end += usize::from(reply[end]) + 1;
        }
        let asks_for_a = reply[end + 1..end + 3] == [0, 1];
        reply.truncate(end + 5);
        reply[6..12].copy_from_slice(&[0, u8::from(asks_for_a), 0, 0, 0, 0]);
        if asks_for_a {
            // The name by a pointer to the question, type A, class IN, 60 s, 4 bytes.
            reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
            reply.extend(answer.octets());
        }
        socket.send_to(&reply, asker).unwrap();
    }
}

#[test]
fn other_names_are_asked_of_the_hosts_own_resolvers() {
    let cluster = cluster();
    let mut scene = Scene::on(&cluster);
    scene.network("dns-out", &[]);
    let (router, answer) = (Ipv4Addr::new(192, 0, 2, 254), Ipv4Addr::new(203, 0, 113, 7));
    let socket = cluster.wire().in_network(|| UdpSocket::bind((router, 53)).unwrap()).unwrap();
    let serving = Serving::start(socket, answer);
    for node in &cluster.nodes()[..MEMBERS] {
        node.set_resolver(router.into()).unwrap();
    }
    let probe = scene.probe("dns-out-probe", "dns-out");
    let result = wait_for("an answer from outside", patiently(), || {
        let found = look_up(&scene, &probe, "www.example.net");
        ensure!(found == BTreeSet::from([IpAddr::from(answer)]), "it is {found:?}");
        Ok(())
    });
    drop(serving);
    result.unwrap();
}
