//! Images and containers: archives of both forms, output that is kept, commands inside.

use crate::fixture::{SPARE, Scene, cluster};
use serde_json::json;
use shoal_images::testimage;
use shoal_tests::{busybox, patiently, wait_for};
use std::fs;

#[test]
fn an_oci_layout_loads_as_well_as_a_docker_archive() {
    let cluster = cluster();
    let node = cluster.node(SPARE);
    let layer = testimage::busybox_layer(busybox().unwrap(), &[]).unwrap();
    let config = json!({"Cmd": ["/bin/true"]});
    let archive = testimage::oci_archive("from-oci:1", config, &[layer]).unwrap();
    let file = cluster.folder().join("from-oci.tar");
    fs::write(&file, archive).unwrap();
    let path = file.to_str().unwrap();
    node.shoal(&["image", "load", "-i", path]).unwrap().ok().unwrap();
    let images = ["images", "--format", "{{.Repository}}:{{.Tag}}"];
    let images = node.docker(&images).unwrap().ok().unwrap();
    assert!(images.lines().any(|line| line == "from-oci:1"), "{images}");
    assert!(images.lines().any(|line| line == shoal_tests::WEB_IMAGE), "{images}");
}

#[test]
fn what_a_container_writes_is_kept_and_shown() {
    let cluster = cluster();
    let mut scene = Scene::on(&cluster);
    let script = "echo to-stdout; echo to-stderr >&2; trap 'exit 0' TERM; sleep 1000 & wait";
    let task = scene.service("run-logs", 1, &[], &["sh", "-c", script]).remove(0);
    let node = cluster.node(task.node);
    for args in [vec!["logs", &task.container], vec!["service", "logs", "--raw", "run-logs"]] {
        let node = if args[0] == "logs" { node } else { cluster.node(0) };
        wait_for("both lines", patiently(), || {
            let outcome = node.docker(&args)?;
            anyhow::ensure!(outcome.status.success(), "{}", outcome.stderr);
            anyhow::ensure!(outcome.stdout.trim() == "to-stdout", "{:?}", outcome.stdout);
            anyhow::ensure!(outcome.stderr.trim() == "to-stderr", "{:?}", outcome.stderr);
            Ok(())
        })
        .unwrap();
    }
    let inspect = ["inspect", "--format", "{{.LogPath}}", &task.container];
    let path = node.docker(&inspect).unwrap().ok().unwrap();
    let file = fs::read_to_string(&path).unwrap();
    let line: serde_json::Value = serde_json::from_str(file.lines().next().unwrap()).unwrap();
    assert!(line["log"].as_str().unwrap().starts_with("to-std"), "{line}");
    assert!(line["stream"].is_string() && line["time"].is_string(), "{line}");
}

#[test]
fn exec_gives_output_and_exit_status_and_takes_input() {
    let cluster = cluster();
    let mut scene = Scene::on(&cluster);
    let task = scene.service("run-exec", 1, &[], &[]).remove(0);
    let outcome = cluster.exec(&task, "echo out; echo err >&2; exit 7").unwrap();
    assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str()), ("out\n", "err\n"));
    assert_eq!(outcome.status.code(), Some(7));
    let mut cat = cluster.node(task.node).docker_command();
    cat.args(["exec", "-i", &task.container, "cat"]);
    cat.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    let mut child = cat.spawn().unwrap();
    use std::io::Write as _;
    child.stdin.take().unwrap().write_all(b"through and back").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "through and back");
}

#[test]
fn a_container_is_apart_from_its_host() {
    let cluster = cluster();
    let mut scene = Scene::on(&cluster);
    let task = scene.service("run-apart", 1, &[], &[]).remove(0);
    let script = "hostname; ls /; cat /proc/1/cmdline; grep Seccomp: /proc/self/status";
    let said = cluster.exec(&task, script).unwrap().ok().unwrap();
    assert!(said.starts_with(&task.container[..12]), "{said}");
    assert!(said.contains("www") && said.contains("/bin/sh"), "{said}");
    assert!(said.trim_end().ends_with('2'), "no seccomp filter: {said}");
    let net = |pid| fs::read_link(format!("/proc/{pid}/ns/net")).unwrap();
    assert_ne!(net(task.pid), net(cluster.node(task.node).holder()));
}
