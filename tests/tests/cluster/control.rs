//! The control plane: nodes, tokens, tasks that are made, replaced, scaled and removed.

use crate::fixture::{MEMBERS, SPARE, Scene, cluster};
use anyhow::ensure;
use rustix::process::{Pid, Signal, kill_process};
use shoal_images::testimage::busybox_archive;
use shoal_tests::{Node, busybox, patiently, wait_for};
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

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
    scene.docker(&["node", "rm", "node4"]);
    assert_eq!(state("node4"), "absent");
}

/// Names in a folder; none if it is not there.
fn names_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// Control groups below a node's own, in all hierarchies.
fn control_groups(node: &Node) -> Vec<PathBuf> {
    let hierarchies = fs::read_dir("/sys/fs/cgroup").unwrap().flatten().map(|e| e.path());
    let roots = hierarchies.chain(["/sys/fs/cgroup".into()]).map(|h| h.join(node.cgroup()));
    let below = roots.flat_map(|root| fs::read_dir(root).into_iter().flatten().flatten());
    below.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}

#[test]
fn a_node_that_leaves_keeps_nothing_of_the_cluster() {
    let cluster = cluster();
    let mut scene = Scene::on(&cluster);
    let spare = cluster.node(SPARE);
    let token = scene.docker(&["swarm", "join-token", "-q", "worker"]);
    let manager = format!("{}:2377", cluster.node(0).addr());
    let links = || spare.run(&["ip", "-br", "link"]).unwrap().ok().unwrap();
    let (links_before, pins_before) = (links(), names_in(&spare.bpf_root()));
    spare.docker(&["swarm", "join", "--token", &token, &manager]).unwrap().ok().unwrap();
    scene.network("ctl-leave", &[]);
    let constraint = ["--constraint", "node.hostname==node4", "--network", "ctl-leave"];
    let tasks =
        scene.service("ctl-leave-web", 2, &[&constraint[..], &["-p", "8131:80"]].concat(), &[]);
    assert!(tasks.iter().all(|task| task.node == SPARE));
    assert!(links().contains("shoal0") && links().contains("shv-"), "{}", links());
    assert_ne!(names_in(&spare.bpf_root()), pins_before);
    assert!(spare.net_pid().is_ok() && !control_groups(spare).is_empty());
    let left = spare.docker(&["swarm", "leave"]).unwrap().ok();
    wait_for("all of it to be gone", patiently(), || {
        let own = spare.daemon_pid();
        let processes: Vec<u32> =
            spare.processes()?.into_iter().filter(|pid| Some(*pid) != own).collect();
        ensure!(processes.is_empty(), "processes {processes:?}, the daemon is {own:?}");
        ensure!(links() == links_before, "links: {}", links());
        let pins = names_in(&spare.bpf_root());
        ensure!(pins == pins_before, "pins: {pins:?}");
        for kind in ["netns", "endpoints", "containers"] {
            let names = names_in(&spare.exec_root().join(kind));
            ensure!(names.is_empty(), "{kind}: {names:?}");
        }
        ensure!(control_groups(spare).is_empty(), "control groups: {:?}", control_groups(spare));
        let containers = spare.docker(&["ps", "-aq"])?.ok()?;
        ensure!(containers.is_empty(), "containers: {containers}");
        Ok(())
    })
    .unwrap();
    left.unwrap();
    wait_for("the manager to see it", patiently(), || {
        cluster.node(0).docker(&["node", "rm", "node4"])?.ok()
    })
    .unwrap();
}

#[test]
fn a_manager_that_is_killed_comes_back_with_its_state() {
    let cluster = cluster();
    let mut scene = Scene::on(&cluster);
    scene.network("ctl-state", &[]);
    let before = scene.service("ctl-state-web", 2, &["--network", "ctl-state"], &[]);
    let look = || {
        let said = [
            &["node", "ls", "--format", "{{.ID}} {{.Hostname}} {{.Status}}"][..],
            &["service", "ls", "--format", "{{.ID}} {{.Name}} {{.Replicas}}"],
            &["network", "ls", "--format", "{{.ID}} {{.Name}}"],
            &["swarm", "join-token", "-q", "worker"],
            &["service", "inspect", "ctl-state-web"],
        ];
        said.map(|args| scene.docker(args))
    };
    let told = look();
    cluster.node(0).kill_daemon().unwrap();
    cluster.node(0).start_daemon().unwrap();
    wait_for("the same state", patiently(), || {
        let now = look();
        ensure!(now == told, "{now:?}, before {told:?}");
        Ok(())
    })
    .unwrap();
    let mut now = cluster.wait_for_tasks("ctl-state-web", 2, patiently()).unwrap();
    let mut before = before;
    now.sort_by(|a, b| a.id.cmp(&b.id));
    before.sort_by(|a, b| a.id.cmp(&b.id));
    assert_eq!(now, before);
    scene.docker(&["service", "scale", "-d", "ctl-state-web=3"]);
    cluster.wait_for_tasks("ctl-state-web", 3, patiently()).unwrap();
}

#[test]
fn an_update_replaces_one_task_after_the_other() {
    let cluster = cluster();
    let mut scene = Scene::on(&cluster);
    let second = "shoal-web:2";
    let archive = busybox_archive(busybox().unwrap(), second, &["sleep", "1000"], &[]).unwrap();
    cluster.load_image(&archive).unwrap();
    let command = ["sh", "-c", "trap 'exit 0' TERM; sleep 1000 & wait"];
    let before = scene.service("ctl-update", 3, &["--env", "COLOUR=red"], &command);
    let ids: BTreeSet<String> = before.iter().map(|task| task.id.clone()).collect();
    let args = ["--env-add", "COLOUR=blue", "--image", second, "ctl-update"];
    scene.docker(&[&["service", "update", "-d"][..], &args].concat());
    let mut fewest = usize::MAX;
    let after = wait_for("three new tasks", patiently(), || {
        let now = cluster.running_tasks("ctl-update")?;
        fewest = fewest.min(now.len());
        ensure!(now.len() == 3 && now.iter().all(|task| !ids.contains(&task.id)), "{now:?}");
        Ok(now)
    })
    .unwrap();
    assert!(fewest >= 2, "only {fewest} ran at a time");
    for task in &after {
        assert_eq!(cluster.exec(task, "echo $COLOUR").unwrap().ok().unwrap(), "blue");
        let inspect = ["inspect", "-f", "{{.Config.Image}}", &task.container];
        assert_eq!(cluster.node(task.node).docker(&inspect).unwrap().ok().unwrap(), second);
    }
    // Waits until it has converged, as the client does unless it is told not to.
    let said = scene.docker(&["service", "update", "--env-add", "COLOUR=green", "ctl-update"]);
    assert!(said.contains("converged"), "{said}");
}

#[test]
fn tasks_of_a_node_that_is_cut_off_run_elsewhere_and_it_comes_back() {
    const CUT: usize = 2;
    let cluster = cluster();
    let mut scene = Scene::on(&cluster);
    scene.network("ctl-cut", &[]);
    let before = scene.service("ctl-cut-web", 3, &["--network", "ctl-cut"], &[]);
    assert!(before.iter().any(|task| task.node == CUT));
    let lost = before.iter().filter(|task| task.node == CUT).map(|task| task.pid);
    let lost: Vec<u32> = lost.collect();
    cluster.cut(CUT).unwrap();
    let moved = wait_for("three tasks on two nodes", patiently(), || {
        let now = cluster.running_tasks("ctl-cut-web")?;
        ensure!(now.len() == 3 && now.iter().all(|task| task.node != CUT), "{now:?}");
        Ok(())
    });
    cluster.heal(CUT).unwrap();
    wait_for("it to be ready again", patiently(), || {
        let states = ["node", "ls", "--format", "{{.Hostname}} {{.Status}}"];
        let states = cluster.node(0).docker(&states)?.ok()?;
        ensure!(states.lines().any(|line| line == "node3 Ready"), "{states}");
        Ok(())
    })
    .unwrap();
    moved.unwrap();
    wait_for("what ran there alone to end", patiently(), || {
        ensure!(lost.iter().all(|pid| !Path::new(&format!("/proc/{pid}")).exists()), "{lost:?}");
        Ok(())
    })
    .unwrap();
    cluster.wait_for_tasks("ctl-cut-web", 3, patiently()).unwrap();
}
