//! A manager whose disk is full. A cluster of its own.

use anyhow::ensure;
use serde_json::json;
use shoal_tests::{Cluster, WEB_IMAGE, patiently, wait_for};

/// Of one service; the disk holds a few hundred.
const LABEL_BYTES: usize = 60_000;
/// More than fit.
const MOST_WRITES: usize = 1_000;

#[test]
fn a_manager_with_a_full_disk_says_so_and_has_all_that_was_acknowledged_when_there_is_room() {
    let cluster = Cluster::builder().nodes(1).without_daemons().start().unwrap();
    let node = cluster.node(0);
    let folder = node.data_root().join("swarm").display().to_string();
    let run = |command: &[&str]| node.run(command).unwrap().ok().unwrap();
    run(&["mkdir", "-p", &folder]);
    run(&["mount", "-t", "tmpfs", "-o", "size=16m", "disk", &folder]);
    node.start_daemon().unwrap();
    let addr = node.addr().to_string();
    node.docker(&["swarm", "init", "--advertise-addr", &addr]).unwrap().ok().unwrap();

    let mut acknowledged = Vec::new();
    let refused = (0..MOST_WRITES).find_map(|number| {
        let name = format!("service-{number}");
        let spec = json!({
            "Name": name,
            "Labels": { "filler": "x".repeat(LABEL_BYTES) },
            "TaskTemplate": { "ContainerSpec": { "Image": WEB_IMAGE } },
            "Mode": { "Replicated": { "Replicas": 0 } },
        });
        let answer = node.api("POST", "/services/create", &spec.to_string()).unwrap();
        if answer.status == 201 {
            acknowledged.push(name);
            return None;
        }
        Some(answer)
    });
    let refused = refused.expect("the disk is full before that");
    assert!(refused.status >= 500, "{refused:?}");
    assert!(!acknowledged.is_empty());
    let info = ["info", "--format", "{{.Swarm.LocalNodeState}}: {{.Swarm.Error}}"];
    let said = wait_for("the manager to say why", patiently(), || {
        let said = node.docker(&info)?.ok()?;
        ensure!(said.starts_with("error: "), "{said}");
        Ok(said)
    });
    let said = said.unwrap();
    assert!(said.contains("the manager's store has failed"), "{said}");
    assert!(said.contains("No space left on device"), "{said}");
    assert!(said.contains("restart the daemon"), "{said}");

    run(&["mount", "-o", "remount,size=64m", &folder]);
    node.restart_daemon().unwrap();
    wait_for("it to manage again", patiently(), || node.docker(&["node", "ls"])?.ok()).unwrap();
    let listing = node.docker(&["service", "ls", "--format", "{{.Name}}"]).unwrap().ok().unwrap();
    let there: Vec<&str> = listing.lines().collect();
    let lost: Vec<_> = acknowledged.iter().filter(|name| !there.contains(&name.as_str())).collect();
    assert!(lost.is_empty(), "{lost:?} of {}", acknowledged.len());
    assert!(there.len() <= acknowledged.len() + 1, "more than was asked for");
    assert!(cluster.remove().0.is_empty());
}
