//! A cluster from its making to its restart, over real gRPC on the loopback interface.

use crate::support::*;
use shoal_manager::Manager;
use shoal_model::{NodeState, TaskState};
use shoal_rpc::LeaveRequest;
use std::{collections::BTreeSet, time::Duration};
use tokio::time::{sleep, timeout};

/// The manager, its own node's agent and two more.
async fn three_nodes(dir: &std::path::Path) -> (Manager, Vec<Agent>) {
    let manager = init(dir).await;
    let addr = manager.listening();
    let mut agents = vec![Agent::start(addr, manager.certificate().clone()).await];
    for _ in 0..2 {
        let node = join(addr, &worker_token(&manager)).await.expect("the token is good");
        agents.push(Agent::start(addr, node).await);
    }
    until(&manager, "three ready nodes", |s| {
        s.nodes.values().filter(|n| n.status.state == NodeState::Ready).count() == 3
    })
    .await;
    (manager, agents)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_is_deployed_scaled_healed_and_removed() {
    let dir = tempfile::tempdir().unwrap();
    let (manager, agents) = three_nodes(dir.path()).await;
    let network = manager.create_network(overlay("app")).await.unwrap();
    let web = manager.create_service(service("web", 3, &["app"])).await.unwrap();
    until(&manager, "three running", |s| running(s, &web).len() == 3).await;
    let tasks = manager.store().read(|s| running(s, &web));
    assert_eq!(tasks.iter().map(|t| &t.node_id).collect::<BTreeSet<_>>().len(), 3, "one a node");

    // Each node is told of its own task, and of all three with their addresses.
    for agent in &agents {
        let mut assignment = agent.assignment.clone();
        let complete = assignment.wait_for(|a| {
            a.table.services.iter().any(|s| s.tasks.iter().filter(|t| t.serving).count() == 3)
        });
        let table = timeout(Duration::from_secs(10), complete).await.unwrap().unwrap().clone();
        assert_eq!(table.tasks.len(), 1);
        assert_eq!(table.tasks[0].service_name, "web");
        assert_eq!(table.tasks[0].networks[0].id, network);
        assert_eq!(table.table.peers.len(), 2);
        assert_eq!(table.table.peers[0].allowed_ips.len(), 2);
        let web = &table.table.services[0];
        assert_eq!(web.vips.len(), 1);
        let addresses: BTreeSet<_> = web.tasks.iter().map(|t| t.networks[0].v4).collect();
        assert_eq!(addresses.len(), 3);
        assert!(!addresses.contains(&web.vips[0].v4));
    }

    // Scaling does not touch what runs.
    let scale = |replicas| {
        let (version, mut spec) = manager
            .store()
            .read(|s| (s.services[&web].meta.version, s.services[&web].spec.clone()));
        spec.mode = service("", replicas, &[]).mode;
        manager.update_service(&web, version, spec, false)
    };
    scale(5).await.unwrap();
    until(&manager, "five running", |s| running(s, &web).len() == 5).await;
    let ids =
        |tasks: &[shoal_model::Task]| tasks.iter().map(|t| t.id.clone()).collect::<BTreeSet<_>>();
    assert!(ids(&tasks).is_subset(&ids(&manager.store().read(|s| running(s, &web)))));

    // A task dies; another takes its slot after the delay.
    let dead = tasks[0].clone();
    let agent = agents.iter().find(|a| Some(a.id()) == dead.node_id).unwrap();
    agent.say.send(report(&dead.id, TaskState::Failed, "killed")).await.unwrap();
    until(&manager, "the death is seen", |s| s.tasks[&dead.id].status.state == TaskState::Failed)
        .await;
    let begun = std::time::Instant::now();
    until(&manager, "a replacement runs", |s| {
        running(s, &web).iter().any(|t| t.slot == dead.slot && t.id != dead.id)
    })
    .await;
    assert!(begun.elapsed() > Duration::from_millis(100), "not before the delay");

    scale(2).await.unwrap();
    until(&manager, "two left", |s| {
        s.tasks.values().filter(|t| !t.status.state.is_terminal()).count() == 2
    })
    .await;
    manager.remove_service(&web).await.unwrap();
    until(&manager, "no task left", |s| s.tasks.is_empty()).await;
    manager.remove_network(&network).await.unwrap();
    manager.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_node_is_down_its_tasks_move_and_a_removed_one_is_told_so() {
    let dir = tempfile::tempdir().unwrap();
    let (manager, mut agents) = three_nodes(dir.path()).await;
    let web = manager.create_service(service("web", 3, &[])).await.unwrap();
    until(&manager, "three running", |s| running(s, &web).len() == 3).await;
    let silent = agents.pop().unwrap();
    let (id, certificate) = (silent.id(), silent.node.clone());
    drop(silent);
    until(&manager, "down", |s| s.nodes[&id].status.state == NodeState::Down).await;
    assert_eq!(manager.store().read(|s| s.nodes[&id].status.message.clone()), "heartbeat failure");
    until(&manager, "moved", |s| {
        let elsewhere = running(s, &web).into_iter().filter(|t| t.node_id.as_ref() != Some(&id));
        elsewhere.count() == 3
    })
    .await;

    // It comes back, and stops what is no longer wanted of it.
    let back = Agent::start(manager.listening(), certificate.clone()).await;
    until(&manager, "ready again", |s| s.nodes[&id].status.state == NodeState::Ready).await;
    until(&manager, "its old task stopped", |s| {
        s.tasks_of_node(&id).all(|t| t.status.state == TaskState::Shutdown)
    })
    .await;

    // It leaves, and is removed.
    dispatcher(manager.listening(), &back.node).await.leave(LeaveRequest {}).await.unwrap();
    until(&manager, "left", |s| s.nodes[&id].status.message == "the node left the swarm").await;
    manager.remove_node(&id, false).await.unwrap();
    let mut client = dispatcher(manager.listening(), &certificate).await;
    let refused = client.session(tokio_stream::empty()).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::NotFound);
    assert!(refused.message().contains("is not in this swarm any more"), "{refused}");

    // One that is removed while it is connected learns it at once.
    let other = &agents[1];
    let refused = manager.remove_node(&other.id(), false).await.unwrap_err();
    assert!(refused.message.ends_with("is not down and can't be removed"), "{refused}");
    manager.remove_node(&other.id(), true).await.unwrap();
    let mut ended = other.ended.clone();
    let status = timeout(Duration::from_secs(5), ended.wait_for(Option::is_some)).await;
    assert_eq!(status.unwrap().unwrap().as_ref().unwrap().code(), tonic::Code::NotFound);
    manager.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_manager_keeps_everything_and_the_agents_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let (manager, agents) = three_nodes(dir.path()).await;
    manager.create_network(overlay("app")).await.unwrap();
    let web = manager.create_service(service("web", 3, &["app"])).await.unwrap();
    until(&manager, "three running", |s| running(s, &web).len() == 3).await;
    sleep(Duration::from_millis(200)).await; // the last changes are made
    let before = manager.store().read(|s| s.clone());
    let (addr, own) = (manager.listening(), manager.certificate().clone());
    manager.shutdown().await;
    for agent in &agents {
        let mut ended = agent.ended.clone();
        timeout(Duration::from_secs(5), ended.wait_for(Option::is_some)).await.unwrap().unwrap();
    }

    let manager = Manager::restart(config(dir.path(), addr), own).await.unwrap();
    let after = manager.store().read(|s| s.clone());
    assert_eq!(before.tasks, after.tasks);
    assert_eq!(before.services, after.services);
    assert_eq!(before.networks, after.networks);
    assert!(after.nodes.values().all(|n| n.status.state == NodeState::Unknown));
    let mut returned = Vec::new();
    for agent in agents.iter().take(2) {
        returned.push(Agent::start(addr, agent.node.clone()).await);
    }
    until(&manager, "two ready", |s| {
        s.nodes.values().filter(|n| n.status.state == NodeState::Ready).count() == 2
    })
    .await;
    assert_eq!(manager.store().read(|s| running(s, &web).len()), 3, "nothing is restarted");
    // The third does not come back: down only after the grace period.
    let lost = agents[2].id();
    assert_eq!(manager.store().read(|s| s.nodes[&lost].status.state), NodeState::Unknown);
    until(&manager, "the third is down", |s| s.nodes[&lost].status.state == NodeState::Down).await;
    until(&manager, "its task is elsewhere", |s| {
        running(s, &web).iter().filter(|t| t.node_id.as_ref() != Some(&lost)).count() == 3
    })
    .await;
    manager.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_newest_session_of_a_node_wins_and_what_it_applied_is_known() {
    let dir = tempfile::tempdir().unwrap();
    let manager = init(dir.path()).await;
    let own = manager.certificate().clone();
    let first = Agent::start(manager.listening(), own.clone()).await;
    until(&manager, "ready", |s| s.nodes.values().all(|n| n.status.state == NodeState::Ready))
        .await;
    let mut answered = first.answered.clone();
    let beats = timeout(Duration::from_secs(5), answered.wait_for(|answers| *answers >= 3)).await;
    beats.expect("beats are answered").unwrap();
    let second = Agent::start(manager.listening(), own).await;
    let mut ended = first.ended.clone();
    let status = timeout(Duration::from_secs(5), ended.wait_for(Option::is_some)).await;
    assert_eq!(status.unwrap().unwrap().as_ref().unwrap().code(), tonic::Code::Aborted);
    let web = manager.create_service(service("web", 1, &[])).await.unwrap();
    until(&manager, "running", |s| running(s, &web).len() == 1).await;
    let newest = |a: &Agent| a.assignment.borrow().generation;
    let wait = async {
        while newest(&second) == 0 || manager.applied().get(&second.id()) != Some(&newest(&second))
        {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(10), wait).await.unwrap();
    manager.shutdown().await;
}
