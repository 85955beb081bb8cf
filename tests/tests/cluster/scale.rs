//! Many nodes of which only the sessions are real, and a manager: what `bench scale` measures, small.

use anyhow::ensure;
use serde_json::json;
use shoal_tests::{Agents, Cluster, WEB_IMAGE, metric_sum, patiently, wait_for};
use std::{net::SocketAddr, thread, time::Duration};

const NODES: u64 = 50;
const SERVICES: u64 = 10;
const REPLICAS: u64 = 100;

/// How long nodes that came back are watched: a node is down after 3 s of silence.
const WATCHED: Duration = Duration::from_secs(6);

#[test]
fn fifty_nodes_run_a_thousand_tasks_and_keep_them_while_the_manager_restarts() {
    let cluster = Cluster::builder().clients(1).start().unwrap();
    let manager = cluster.node(0);
    let docker = |args: &[&str]| manager.docker(args).unwrap().ok().unwrap();
    let addr = manager.addr().to_string();
    docker(&["swarm", "init", "--advertise-addr", &addr]);
    docker(&["node", "update", "--availability", "drain", manager.name()]);
    let token = docker(&["swarm", "join-token", "-q", "worker"]);
    let port = SocketAddr::new(manager.addr(), 2377);
    let mut agents =
        Agents::start(cluster.client(0), &[port], &token, usize::try_from(NODES).unwrap()).unwrap();
    agents.wait("all nodes to join", patiently(), |p| p.sessions == NODES).unwrap();

    for index in 0..SERVICES {
        let network = format!("net{index}");
        docker(&["network", "create", "-d", "overlay", &network]);
        let spec = json!({
            "Name": format!("s{index}"),
            "TaskTemplate": {
                "ContainerSpec": { "Image": WEB_IMAGE },
                "Networks": [{ "Target": network }],
            },
            "Mode": { "Replicated": { "Replicas": REPLICAS } },
        });
        let answer = manager.api("POST", "/services/create", &spec.to_string()).unwrap();
        assert_eq!(answer.status, 201, "{}", answer.body);
    }
    let tasks = SERVICES * REPLICAS;
    // All are on all networks: each knows each other.
    let others = NODES - 1;
    agents
        .wait("all tasks to run and their nodes to be known", patiently(), |p| {
            p.running == tasks && p.strangers == 0 && p.most_peers == others
        })
        .unwrap();
    let managers_word = || {
        wait_for("the manager to know that they run", patiently(), || {
            let known =
                metric_sum(&manager.metrics()?, "shoal_manager_tasks", &[("state", "running")])?;
            ensure!(known == tasks as f64, "{known} run");
            Ok(())
        })
    };
    managers_word().unwrap();

    manager.kill_daemon().unwrap();
    agents.wait("the nodes to notice", patiently(), |p| p.sessions == 0).unwrap();
    manager.start_daemon().unwrap();
    agents.wait("all nodes to be back", patiently(), |p| p.sessions == NODES).unwrap();
    thread::sleep(WATCHED);
    let after = agents.progress();
    assert_eq!((after.begun, after.stopped, after.running), (tasks, 0, tasks), "{after:?}");
    managers_word().unwrap();

    docker(&["service", "scale", "-d", "s0=1"]);
    let fewer = tasks - REPLICAS + 1;
    let stopped = agents.wait("the others to be stopped", patiently(), |p| p.running == fewer);
    assert_eq!(stopped.unwrap().begun, tasks, "none was begun anew");
}
