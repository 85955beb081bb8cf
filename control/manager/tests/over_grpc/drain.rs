//! What nodes are told while tasks come and go, and when a task may stop.

use crate::support::*;
use shoal_manager::Manager;
use shoal_model::{NodeState, TaskState};
use shoal_rpc::{Resync, agent_message::Kind as ToManager};
use std::time::Duration;
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

const PATIENCE: Duration = Duration::from_secs(10);

/// The manager's own node and one more, which applies nothing while `applies` is false. Neither
/// stops a task before it is released.
async fn two_nodes(
    dir: &std::path::Path,
    applies: watch::Receiver<bool>,
) -> (Manager, Agent, Agent) {
    let manager = init(dir).await;
    let addr = manager.listening();
    let first = Manners { hasty: false, ..Manners::default() };
    let first = Agent::with(addr, manager.certificate().clone(), first).await;
    let node = join(addr, &worker_token(&manager)).await.expect("the token is good");
    let second = Agent::with(addr, node, Manners { applies, hasty: false }).await;
    until(&manager, "two ready nodes", |s| {
        s.nodes.values().filter(|n| n.status.state == NodeState::Ready).count() == 2
    })
    .await;
    (manager, first, second)
}

async fn scale(manager: &Manager, id: &str, replicas: i64) {
    let (version, mut spec) =
        manager.store().read(|s| (s.services[id].meta.version, s.services[id].spec.clone()));
    spec.mode = service("", replicas, &[]).mode;
    manager.update_service(id, version, spec, false).await.unwrap();
}

/// Scales a service from two to one; gives the task that is to stop.
async fn stop_one(manager: &Manager, id: &str) -> String {
    scale(manager, id, 1).await;
    let stopping = |s: &shoal_model::State| {
        let stopping = s.tasks.values().find(|t| t.desired > TaskState::Running);
        stopping.map(|t| t.id.clone())
    };
    until(manager, "one is to stop", |s| stopping(s).is_some()).await;
    manager.store().read(stopping).unwrap()
}

async fn released(agents: [&Agent; 2], task: &str) {
    let wait = async {
        while !agents.iter().any(|a| a.released.borrow().contains(task)) {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, wait).await.expect("the task is never released");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_is_released_only_when_the_other_node_has_taken_it_out() {
    let dir = tempfile::tempdir().unwrap();
    let (allow, applies) = watch::channel(true);
    let (manager, first, second) = two_nodes(dir.path(), applies).await;
    manager.create_network(overlay("app")).await.unwrap();
    let web = manager.create_service(service("web", 2, &["app"])).await.unwrap();
    until(&manager, "two running", |s| running(s, &web).len() == 2).await;
    sleep(Duration::from_millis(300)).await; // what they serve is applied everywhere
    allow.send_replace(false);
    let task = stop_one(&manager, &web).await;
    // Long enough for the release of a task nobody has to be waited for.
    sleep(Duration::from_millis(700)).await;
    for agent in [&first, &second] {
        assert!(!agent.released.borrow().contains(&task), "the second node still balances to it");
    }
    allow.send_replace(true);
    released([&first, &second], &task).await;
    let own = manager.store().read(|s| s.tasks[&task].node_id.clone()).unwrap();
    let agent = [&first, &second].into_iter().find(|a| a.id() == own).unwrap();
    assert!(agent.released.borrow().contains(&task), "its own node is told");
    manager.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_goes_down_holds_no_release_up() {
    let dir = tempfile::tempdir().unwrap();
    let (allow, applies) = watch::channel(true);
    let (manager, first, second) = two_nodes(dir.path(), applies).await;
    manager.create_network(overlay("app")).await.unwrap();
    let web = manager.create_service(service("web", 2, &["app"])).await.unwrap();
    until(&manager, "two running", |s| running(s, &web).len() == 2).await;
    allow.send_replace(false);
    let id = second.id();
    let before = first.released.borrow().len();
    drop(second); // its beats stop: down after three are missed
    let task = manager
        .store()
        .read(|s| running(s, &web).into_iter().find(|t| t.node_id != Some(id.clone())).unwrap().id);
    // Every task is replaced, also the one on the first node.
    let (version, mut spec) =
        manager.store().read(|s| (s.services[&web].meta.version, s.services[&web].spec.clone()));
    spec.task_template.as_mut().unwrap().force_update = Some(1);
    spec.mode = service("", 1, &[]).mode;
    manager.update_service(&web, version, spec, false).await.unwrap();
    until(&manager, "the node is down", |s| s.nodes[&id].status.state == NodeState::Down).await;
    let mut news = first.released.clone();
    let told = news.wait_for(|all| all.len() > before && all.contains(&task));
    timeout(PATIENCE, told).await.expect("never released").unwrap();
    manager.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_come_as_differences_and_the_whole_on_request() {
    let dir = tempfile::tempdir().unwrap();
    let (_allow, applies) = watch::channel(true);
    let (manager, first, _second) = two_nodes(dir.path(), applies).await;
    manager.create_network(overlay("app")).await.unwrap();
    let web = manager.create_service(service("web", 4, &["app"])).await.unwrap();
    until(&manager, "four running", |s| running(s, &web).len() == 4).await;
    let mut assignment = first.assignment.clone();
    let all = assignment.wait_for(|a| {
        a.table.services.iter().any(|s| s.tasks.iter().filter(|t| t.serving).count() == 4)
    });
    let told = timeout(PATIENCE, all).await.unwrap().unwrap().clone();
    let (whole, parts) = *first.came.borrow();
    assert_eq!(whole, 1, "the first");
    assert!(parts >= 2, "{parts} differences");
    let resync = message(ToManager::Resync(Resync {}));
    first.say.send(resync).await.unwrap();
    let mut came = first.came.clone();
    timeout(PATIENCE, came.wait_for(|(whole, _)| *whole == 2)).await.unwrap().unwrap();
    assert_eq!(first.assignment.borrow().table, told.table);
    manager.shutdown().await;
}
