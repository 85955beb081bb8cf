//! Every command of the docker client that is promised works, and `shoal` says the same.

use crate::fixture::{MEMBERS, Scene, cluster};
use anyhow::ensure;
use serde_json::Value;
use shoal_tests::{WEB_IMAGE, wait_for};
use std::time::Duration;

#[test]
fn version_and_info_name_the_server() {
    let cluster = cluster();
    let scene = Scene::on(&cluster);
    let version = scene.docker(&["version", "--format", "{{.Server.APIVersion}}"]);
    assert_eq!(version, "1.50");
    let info = scene.docker(&["info", "--format", "{{.Swarm.LocalNodeState}} {{.Swarm.Nodes}}"]);
    assert!(info.starts_with("active "), "{info}");
    let worker = cluster.node(1).docker(&["info", "--format", "{{.Swarm.ControlAvailable}}"]);
    assert_eq!(worker.unwrap().ok().unwrap(), "false");
}

#[test]
fn a_services_life_by_the_docker_client() {
    let cluster = cluster();
    let mut scene = Scene::on(&cluster);
    scene.network("api-app", &["--label", "tier=front"]);
    let listing = scene.docker(&["network", "ls", "--format", "{{.Name}} {{.Driver}} {{.Scope}}"]);
    assert!(listing.lines().any(|line| line == "api-app overlay swarm"), "{listing}");
    let label = scene.docker(&["network", "inspect", "-f", "{{.Labels.tier}}", "api-app"]);
    assert_eq!(label, "front");
    let task = scene.service("api-web", 2, &["--network", "api-app"], &[]).remove(0);
    let listing = scene.docker(&[
        "service",
        "ls",
        "--format",
        "{{.Name}} {{.Mode}} {{.Replicas}} {{.Image}}",
    ]);
    let expected = format!("api-web replicated 2/2 {WEB_IMAGE}");
    assert!(listing.lines().any(|line| line == expected), "{listing}");
    let format = "{{.Name}} {{.Node}} {{.DesiredState}}";
    let tasks = scene.docker(&["service", "ps", "--format", format, "api-web"]);
    assert_eq!(tasks.lines().filter(|line| line.ends_with("Running")).count(), 2, "{tasks}");
    let spec = scene.docker(&["service", "inspect", "api-web"]);
    let spec: Value = serde_json::from_str(&spec).unwrap();
    assert_eq!(spec[0]["Spec"]["Mode"]["Replicated"]["Replicas"], 2);
    let pretty = scene.docker(&["service", "inspect", "--pretty", "api-web"]);
    assert!(pretty.contains("api-web") && pretty.contains("Replicas"), "{pretty}");
    let node = cluster.node(task.node);
    let names = node.docker(&["ps", "--format", "{{.Names}}"]).unwrap().ok().unwrap();
    assert!(names.lines().any(|name| name.ends_with(&task.id)), "{names}");
    // Waits until it has converged, as the client does unless it is told not to.
    let said = scene.docker(&["service", "scale", "api-web=3"]);
    assert!(said.contains("converged"), "{said}");
}

#[test]
fn shoal_prints_the_same_tables_as_the_docker_client() {
    let cluster = cluster();
    let mut scene = Scene::on(&cluster);
    scene.service("api-same", 2, &["-p", "8110:80"], &[]);
    for command in [
        vec!["node", "ls"],
        vec!["service", "ls"],
        vec!["service", "ps", "api-same"],
        vec!["network", "ls"],
        vec!["images"],
        vec!["ps"],
    ] {
        // Columns may be a space wider; words and their order may not differ.
        let words = |text: &str| -> Vec<Vec<String>> {
            let line = |l: &str| l.split_whitespace().map(str::to_owned).collect();
            text.lines().map(line).collect()
        };
        // "2 seconds ago" may become 3 between the two.
        wait_for("the same words", Duration::from_secs(5), || {
            let shoal = words(&cluster.node(0).shoal(&command)?.ok()?);
            let docker = words(&scene.docker(&command));
            ensure!(shoal == docker, "{command:?}: {shoal:?} but docker {docker:?}");
            Ok(())
        })
        .unwrap();
    }
}

#[test]
fn a_worker_sends_the_user_to_a_manager() {
    let cluster = cluster();
    let said = cluster.node(MEMBERS - 1).docker(&["service", "ls"]).unwrap().message().unwrap();
    assert!(
        said.contains("This node is not a swarm manager. Worker nodes can't be used"),
        "{said}"
    );
}
