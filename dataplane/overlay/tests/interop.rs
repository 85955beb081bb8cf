//! Against wireguard-go, where it is installed (Debian: `wireguard-go` and `wireguard-tools`).

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod support;

use shoal_overlay::{Engine, Peer, encode_public_key};
use std::{
    fs,
    net::SocketAddr,
    process::{Child, Command, Stdio},
};
use support::{Net, Node, eventually, run, try_run};

struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn wireguard_go_and_the_engine_understand_each_other() {
    let found = |tool: &str| Command::new(tool).arg("--version").output().is_ok();
    assert!(
        found("wireguard-go") && found("wg"),
        "this test needs the packages wireguard-go and wireguard-tools; `cargo xtask test` installs them"
    );
    let net = Net::new(2);
    let a = Node::start(&net, 0);
    let (other, device) = (net.node(1).to_string(), format!("wgo{}", std::process::id()));
    let child = Command::new("ip")
        .args(["netns", "exec", &other, "wireguard-go", "-f", &device])
        .env("WG_PROCESS_FOREGROUND", "1")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let _process = Process(child);
    let wg = |line: &str| try_run(&format!("ip netns exec {other} wg {line}"));
    eventually("wireguard-go answers", || wg(&format!("show {device}")).status.success());

    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("key");
    let key = shoal_overlay::load_or_create_key(&file).unwrap();
    let ours = encode_public_key(&a.engine.public_key());
    let set = format!(
        "set {device} private-key {} listen-port 51821 peer {ours} allowed-ips {}/32,{}/128",
        file.display(),
        a.overlay4(),
        a.overlay6()
    );
    assert!(wg(&set).status.success(), "{:?}", wg(&set));
    for line in [
        format!("addr add 10.77.0.2/24 dev {device}"),
        format!("addr add fd00:77::2/64 dev {device} nodad"),
        format!("link set {device} mtu 1420 up"),
    ] {
        run(&format!("ip -n {other} {line}"));
    }
    let peer = Peer {
        public_key: key.public_key(),
        endpoint: Some(SocketAddr::new(Net::underlay4(1), 51821)),
        allowed_ips: vec!["10.77.0.2/32".parse().unwrap(), "fd00:77::2/128".parse().unwrap()],
        keepalive: None,
        ends: None,
    };
    a.engine.set_peers(vec![peer]).unwrap();
    assert!(a.pings("10.77.0.2".parse().unwrap()), "{:?}", a.engine.status());
    assert!(a.pings("fd00:77::2".parse().unwrap()), "{:?}", a.engine.status());
    let handshake = wg(&format!("show {device} latest-handshakes"));
    assert!(String::from_utf8(handshake.stdout).unwrap().starts_with(&ours));
    assert_eq!(a.engine.status().peers[0].handshakes, 1);

    // Its socket for `wg` is named after the device and outlives a kill.
    let _ = fs::remove_file(format!("/var/run/wireguard/{device}.sock"));
}
