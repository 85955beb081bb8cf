//! Bad input gets an error that names the object, the reason and the remedy, and loses nothing.

use crate::fixture::{SPARE, Scene, cluster};
use anyhow::ensure;
use shoal_tests::{Cluster, Outcome, WEB_IMAGE, patiently, wait_for, web_image};
use std::fs;

/// The message of a docker command that must fail.
fn refused(cluster: &Cluster, node: usize, args: &[&str]) -> String {
    cluster.node(node).docker(args).unwrap().message().unwrap()
}

#[track_caller]
fn assert_says(message: &str, words: &[&str]) {
    let lower = message.to_lowercase();
    for word in words {
        assert!(lower.contains(&word.to_lowercase()), "no {word:?} in: {message}");
    }
}

fn assert_spare_is_in_no_swarm(cluster: &Cluster) {
    let state = cluster.node(SPARE).docker(&["info", "-f", "{{.Swarm.LocalNodeState}}"]);
    assert_eq!(state.unwrap().ok().unwrap(), "inactive");
}

/// The token with one part in another's place.
fn token_with(token: &str, part: usize, replacement: &str) -> String {
    let mut parts: Vec<&str> = token.split('-').collect();
    parts[part] = replacement;
    parts.join("-")
}

#[test]
fn a_wrong_token_is_refused() {
    let cluster = cluster();
    let scene = Scene::on(&cluster);
    let token = scene.docker(&["swarm", "join-token", "-q", "worker"]);
    let manager = format!("{}:2377", cluster.node(0).addr());
    let wrong = token_with(&token, 3, &"0".repeat(25));
    let said = refused(&cluster, SPARE, &["swarm", "join", "--token", &wrong, &manager]);
    assert_says(&said, &["token", "join-token"]);
    assert_spare_is_in_no_swarm(&cluster);
    let said = refused(&cluster, SPARE, &["swarm", "join", "--token", "nonsense", &manager]);
    assert_says(&said, &["invalid join token"]);
}

#[test]
fn a_token_that_was_rotated_away_is_refused() {
    let cluster = cluster();
    let scene = Scene::on(&cluster);
    let old = scene.docker(&["swarm", "join-token", "-q", "worker"]);
    let new = scene.docker(&["swarm", "join-token", "--rotate", "-q", "worker"]);
    assert_ne!(old, new);
    let manager = format!("{}:2377", cluster.node(0).addr());
    let said = refused(&cluster, SPARE, &["swarm", "join", "--token", &old, &manager]);
    assert_says(&said, &["token", "join-token"]);
    assert_spare_is_in_no_swarm(&cluster);
}

#[test]
fn a_token_of_another_cluster_authority_is_refused() {
    let cluster = cluster();
    let scene = Scene::on(&cluster);
    let token = scene.docker(&["swarm", "join-token", "-q", "worker"]);
    let manager = format!("{}:2377", cluster.node(0).addr());
    let wrong = token_with(&token, 2, &"1".repeat(50));
    let said = refused(&cluster, SPARE, &["swarm", "join", "--token", &wrong, &manager]);
    assert_says(&said, &["CA", "fingerprint"]);
    assert_spare_is_in_no_swarm(&cluster);
}

#[test]
fn an_image_that_no_node_has_is_named_by_the_task() {
    let cluster = cluster();
    let scene = Scene::on(&cluster);
    let create = ["service", "create", "-d", "--name", "err-image", "nowhere/nothing:9"];
    scene.docker(&create);
    let ps =
        ["service", "ps", "--no-trunc", "--format", "{{.CurrentState}} {{.Error}}", "err-image"];
    let result = wait_for("the task to be rejected", patiently(), || {
        let tasks = scene.docker(&ps);
        ensure!(tasks.contains("Rejected"), "{tasks}");
        Ok(tasks)
    });
    scene.docker(&["service", "rm", "err-image"]);
    assert_says(&result.unwrap(), &["no such image", "nowhere/nothing:9"]);
}

#[test]
fn a_bad_name_is_refused() {
    let cluster = cluster();
    let said = refused(&cluster, 0, &["service", "create", "-d", "--name", "no_", WEB_IMAGE]);
    assert_says(&said, &["name", "no_"]);
    let said = refused(&cluster, 0, &["network", "create", "-d", "overlay", "bad name"]);
    assert_says(&said, &["name", "bad name"]);
    let said = refused(&cluster, 0, &["service", "inspect", "nobody"]);
    assert_says(&said, &["no such service: nobody"]);
}

#[test]
fn a_name_that_is_taken_is_refused() {
    let cluster = cluster();
    let mut scene = Scene::on(&cluster);
    scene.service("err-twice", 1, &[], &[]);
    let said = refused(&cluster, 0, &["service", "create", "-d", "--name", "err-twice", WEB_IMAGE]);
    assert_says(&said, &["err-twice", "already exists"]);
}

#[test]
fn a_port_that_is_published_already_is_refused() {
    let cluster = cluster();
    let mut scene = Scene::on(&cluster);
    scene.service("err-port", 1, &["-p", "8120:80"], &[]);
    let create = ["service", "create", "-d", "--name", "err-port2", "-p", "8120:80", WEB_IMAGE];
    let said = refused(&cluster, 0, &create);
    assert_says(&said, &["8120", "already in use", "err-port"]);
    assert!(!scene.docker(&["service", "ls", "--format", "{{.Name}}"]).contains("err-port2"));
}

#[test]
fn a_network_in_use_is_not_removed() {
    let cluster = cluster();
    let mut scene = Scene::on(&cluster);
    scene.network("err-net", &[]);
    scene.probe("err-net-probe", "err-net");
    let said = refused(&cluster, 0, &["network", "rm", "err-net"]);
    assert_says(&said, &["err-net", "in use", "err-net-probe"]);
    assert!(cluster.network_id("err-net").is_ok());
}

#[test]
fn an_exhausted_address_pool_is_named() {
    let cluster = cluster();
    let spare = cluster.node(SPARE);
    let addr = spare.addr().to_string();
    // Two subnets: one for the routing mesh, one for the first network.
    let pool = ["--default-addr-pool", "10.99.0.0/23", "--default-addr-pool-mask-length", "24"];
    let init = [&["swarm", "init", "--advertise-addr", &addr], &pool[..]].concat();
    spare.docker(&init).unwrap().ok().unwrap();
    let create = |name| spare.docker(&["network", "create", "-d", "overlay", name]).unwrap();
    let first = create("first").ok();
    let second = create("second").message();
    spare.docker(&["swarm", "leave", "--force"]).unwrap().ok().unwrap();
    first.unwrap();
    assert_says(&second.unwrap(), &["pool", "10.99.0.0/23", "default-addr-pool"]);
}

#[test]
fn a_second_daemon_on_the_same_folder_is_refused_and_the_first_goes_on() {
    let cluster = cluster();
    let node = cluster.node(SPARE);
    let first = node.daemon_pid().unwrap();
    let said = Outcome::of(&mut node.daemon_command().unwrap()).unwrap().message().unwrap();
    assert_says(&said, &[node.data_root().to_str().unwrap(), &first.to_string()]);
    assert_eq!(node.api("GET", "/_ping", "").unwrap().status, 200);
}

#[test]
fn a_missing_privilege_is_named() {
    let cluster = cluster();
    let node = cluster.node(SPARE);
    node.stop_daemon().unwrap();
    let whole = node.daemon_command().unwrap();
    // nsenter's own arguments end at `--`; the capability goes between it and the daemon.
    let args: Vec<_> = whole.get_args().collect();
    let split = args.iter().position(|arg| *arg == "--").unwrap() + 1;
    let mut command = std::process::Command::new(whole.get_program());
    command.args(&args[..split]);
    command.args(["setpriv", "--inh-caps=-net_admin", "--bounding-set=-net_admin"]);
    let outcome = Outcome::of(command.args(&args[split..]));
    node.start_daemon().unwrap();
    assert_says(&outcome.unwrap().message().unwrap(), &["CAP_NET_ADMIN"]);
}

#[test]
fn a_corrupt_archive_is_refused_and_no_image_lost() {
    let cluster = cluster();
    let node = cluster.node(SPARE);
    let images = || node.docker(&["images", "--no-trunc"]).unwrap().ok().unwrap();
    let before = images();
    let archive = web_image().unwrap();
    let mut flipped = archive.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 0xff;
    let cases = [
        ("cut short", &archive[..archive.len() / 2]),
        ("one byte changed", &flipped[..]),
        ("not an archive", b"this is not a tar"),
    ];
    for (what, bytes) in cases {
        let file = cluster.folder().join("corrupt.tar");
        fs::write(&file, bytes).unwrap();
        let outcome = node.docker(&["load", "-i", file.to_str().unwrap()]).unwrap();
        let said = outcome.message().unwrap_or_else(|e| panic!("{what}: {e}"));
        assert_says(&said, &["archive"]);
        assert_eq!(images(), before, "{what}");
    }
}
