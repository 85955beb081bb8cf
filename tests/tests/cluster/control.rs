//! The control plane: nodes, tokens, tasks that are made, replaced, scaled and removed.

use crate::fixture::{MEMBERS, SPARE, Scene, cluster};
use anyhow::ensure;
use rustix::process::{Pid, Signal, kill_process};
use shoal_tests::{patiently, wait_for};
use std::collections::BTreeSet;

#[test]
fn all_members_are_ready_and_the_first_leads() {
    let cluster = cluster();
    let scene = Scene::on(&cluster);
    let format = "{{.Hostname}} {{.Status}} {{.Availability}} {{.ManagerStatus}}";
    let listing = scene.docker(&["node", "ls", "--format", format]);
    let lines: BTreeSet<&str> = listing.lines().map(str::trim_end).collect();
    let expected =
        BTreeSet::from(["node1 Ready Active Leader", "node2 Ready Active", "node3 Ready Active"]);
    assert_eq!(lines, expected);
}

#[test]
fn tokens_have_dockers_form_and_differ_by_role() {
    let cluster = cluster();
    let scene = Scene::on(&cluster);
    let [worker, manager] =
        ["worker", "manager"].map(|role| scene.docker(&["swarm", "join-token", "-q", role]));
    for token in [&worker, &manager] {
        let parts: Vec<&str> = token.split('-').collect();
        assert_eq!((parts.len(), parts[0], parts[1]), (4, "SWMTKN", "1"), "{token}");
        assert_eq!((parts[2].len(), parts[3].len()), (50, 25), "{token}");
    }
    assert_eq!(worker.split('-').nth(2), manager.split('-').nth(2));
    assert_ne!(worker, manager);
}

#[test]
fn replicas_are_spread_over_the_nodes() {
    let cluster = cluster();
    let mut scene = Scene::on(&cluster);
    let tasks = scene.service("ctl-spread", 6, &[], &[]);
    let on = |node| tasks.iter().filter(|task| task.node == node).count();
    assert_eq!([on(0), on(1), on(2)], [2, 2, 2]);
}

#[test]
fn a_dead_task_is_replaced_on_a_slot_of_its_own() {
    let cluster = cluster();
    let mut scene = Scene::on(&cluster);
    let tasks = scene.service("ctl-dead", 2, &["--restart-delay", "0s"], &[]);
    let pid = Pid::from_raw(tasks[0].pid.try_into().unwrap()).unwrap();
    kill_process(pid, Signal::KILL).unwrap();
    wait_for("a replacement", patiently(), || {
        let now = cluster.running_tasks("ctl-dead")?;
        ensure!(now.len() == 2 && now.iter().all(|task| task.id != tasks[0].id), "{now:?}");
        Ok(())
    })
    .unwrap();
    let format = "{{.Name}} {{.DesiredState}} {{.CurrentState}} {{.Error}}";
    let history = scene.docker(&["service", "ps", "--format", format, "ctl-dead"]);
    assert!(history.lines().any(|l| l.contains("Failed") && l.contains("137")), "{history}");
}

#[test]
fn scale_and_rm_do_what_they_say() {
    let cluster = cluster();
    let mut scene = Scene::on(&cluster);
    let before = scene.service("ctl-scale", 1, &[], &[]);
    scene.docker(&["service", "scale", "-d", "ctl-scale=4"]);
    let more = cluster.wait_for_tasks("ctl-scale", 4, patiently()).unwrap();
    assert!(more.iter().any(|task| task.id == before[0].id), "scaling up replaced a task");
    scene.docker(&["service", "scale", "-d", "ctl-scale=1"]);
    cluster.wait_for_tasks("ctl-scale", 1, patiently()).unwrap();
    scene.docker(&["service", "rm", "ctl-scale"]);
    wait_for("the containers to be gone", patiently(), || {
        for node in &cluster.nodes()[..MEMBERS] {
            let left = node.docker(&["ps", "-a", "--format", "{{.Names}}"])?.ok()?;
            ensure!(!left.contains("ctl-scale"), "{}: {left}", node.name());
        }
        Ok(())
    })
    .unwrap();
}

#[test]
fn a_node_joins_by_a_managers_address_and_leaves_again() {
    let cluster = cluster();
    let scene = Scene::on(&cluster);
    let spare = cluster.node(SPARE);
    let token = scene.docker(&["swarm", "join-token", "-q", "worker"]);
    let manager = format!("{}:2377", cluster.node(0).addr());
    let said = spare.docker(&["swarm", "join", "--token", &token, &manager]).unwrap().ok().unwrap();
    assert_eq!(said, "This node joined a swarm as a worker.");
    let state = |name: &str| {
        let format = "{{.Hostname}} {{.Status}}";
        let listing = scene.docker(&["node", "ls", "--format", format]);
        let line = listing.lines().find_map(|l| l.strip_prefix(name).map(str::trim));
        line.unwrap_or("absent").to_owned()
    };
    wait_for("it to be ready", patiently(), || {
        ensure!(state("node4") == "Ready", "{}", state("node4"));
        Ok(())
    })
    .unwrap();
    spare.docker(&["swarm", "leave"]).unwrap().ok().unwrap();
    wait_for("it to be down", patiently(), || {
        ensure!(state("node4") == "Down", "{}", state("node4"));
        Ok(())
    })
    .unwrap();
}
