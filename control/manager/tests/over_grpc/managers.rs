//! Several managers: one state, one leader, and what happens when it goes.
#![expect(clippy::unwrap_used, reason = "where a test cannot be set up it fails")]

use crate::support::*;
use shoal_identity::{NodeCertificate, client_config, connect, lane_config};
use shoal_manager::{InitRequest, Manager, ManagerConfig};
use shoal_model::{ErrorKind, NodeState, Role, Rotations, docker};
use shoal_rpc::{
    Bearings, ManagersListRequest, RaftAppend, RaftRequest, managers_client::ManagersClient,
    raft_appended::Answer, raft_client::RaftClient,
};
use std::{
    net::{SocketAddr, TcpListener},
    path::Path,
    time::{Duration, Instant},
};
use tempfile::TempDir;
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

/// Listens and is reached at a port of its own.
fn reachable(dir: &Path) -> ManagerConfig {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    at(dir, free)
}

fn at(dir: &Path, addr: SocketAddr) -> ManagerConfig {
    let state_dir = dir.to_owned();
    ManagerConfig { state_dir, listen: addr, advertise: addr, unlock_key: None }
}

fn manager_token(manager: &Manager) -> String {
    manager.store().read(|s| s.cluster.as_ref().unwrap().join_tokens.manager.clone())
}

/// Managers with their folders, the first of which made the cluster.
struct Managers {
    dirs: Vec<TempDir>,
    all: Vec<Manager>,
}

impl Managers {
    async fn start(count: usize) -> Managers {
        let dirs: Vec<TempDir> = (0..count).map(|_| tempfile::tempdir().unwrap()).collect();
        let first = Manager::init(reachable(dirs[0].path()), InitRequest::default()).await.unwrap();
        let mut all = vec![first];
        for dir in &dirs[1..] {
            let addr = all[0].listening();
            let certificate = join(addr, &manager_token(&all[0])).await.unwrap();
            assert_eq!(certificate.identity().role, Role::Manager);
            // By way of the one that joined last: any manager lets others in.
            let known = [all[all.len() - 1].listening()];
            all.push(Manager::join(reachable(dir.path()), certificate, &known).await.unwrap());
        }
        Managers { dirs, all }
    }

    /// Takes the leader out of the list.
    async fn take_leader(&mut self) -> Manager {
        let index = wait(Duration::from_secs(10), || {
            let leader = self.all[0].leader()?;
            self.all.iter().position(|m| m.node_id() == leader)
        });
        let index = index.await;
        self.dirs.swap(0, index);
        self.all.swap_remove(index)
    }

    async fn end(self) {
        for manager in self.all {
            manager.shutdown().await;
        }
    }
}

async fn wait<R>(bound: Duration, mut found: impl FnMut() -> Option<R>) -> R {
    let wait = async {
        loop {
            if let Some(found) = found() {
                return found;
            }
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(bound, wait).await.expect("it never came")
}

fn role(role: docker::NodeSpecRoleEnum) -> docker::NodeSpec {
    docker::NodeSpec { role: Some(role), ..Default::default() }
}

fn version(manager: &Manager, node: &str) -> u64 {
    manager.store().read(|s| s.nodes[node].meta.version)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_manager_answers_and_reads_what_any_other_was_told() {
    let managers = Managers::start(3).await;
    let [first, second, third] = &managers.all[..] else { panic!() };
    let web = second.control().create_service(service("web", 0, &[])).await.unwrap();
    for manager in [first, third] {
        manager.control().catch_up().await.unwrap();
        assert!(manager.store().read(|s| s.services.contains_key(&web)), "at once");
    }
    // Refusals travel with their kind and words.
    let taken = third.control().create_service(service("web", 0, &[])).await.unwrap_err();
    assert_eq!(taken.kind, ErrorKind::AlreadyExists);
    assert!(taken.message.contains("service web already exists"), "{taken}");
    let gone = third.control().remove_network("none").await.unwrap_err();
    assert_eq!((gone.kind, gone.message.as_str()), (ErrorKind::NotFound, "network none not found"));
    second.control().remove_service(&web).await.unwrap();
    // A worker may join by any of them, and is told of all.
    let worker = join(third.listening(), &worker_token(first)).await.unwrap();
    let tls = client_config(worker.trust(), Some(&worker)).unwrap();
    let channel = connect(second.listening(), tls).await.unwrap();
    let list =
        ManagersClient::new(channel).list(ManagersListRequest {}).await.unwrap().into_inner();
    assert_eq!(list.leader, first.node_id());
    let mut addrs: Vec<SocketAddr> =
        list.managers.iter().map(|m| m.addr.parse().unwrap()).collect();
    let mut expected: Vec<SocketAddr> = managers.all.iter().map(Manager::listening).collect();
    addrs.sort_unstable();
    expected.sort_unstable();
    assert_eq!(addrs, expected);
    managers.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_leader_goes_another_leads_soon_and_no_node_is_down_for_it() {
    let mut managers = Managers::start(3).await;
    let leader = managers.take_leader().await;
    let worker = join(leader.listening(), &worker_token(&leader)).await.unwrap();
    let agent = Agent::start(leader.listening(), worker).await;
    let others: Vec<NodeCertificate> = managers.all.iter().map(Manager::certificate).collect();
    let mut agents = Vec::new();
    for node in &others {
        agents.push(Agent::start(leader.listening(), node.clone()).await);
    }
    let web = leader.control().create_service(service("web", 2, &[])).await.unwrap();
    until(&leader, "two running", |s| running(s, &web).len() == 2).await;

    // A follower sends agents to the leader.
    let mut client = dispatcher(managers.all[0].listening(), &agent.node).await;
    let refused = client.session(tokio_stream::empty()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    let bearings = <Bearings as prost::Message>::decode(refused.details()).unwrap();
    assert_eq!(bearings.leader, leader.node_id());

    let old = leader.node_id().to_owned();
    let begun = Instant::now();
    leader.shutdown().await;
    let ended = begun.elapsed();
    let next = managers.all[0].control().create_service(service("next", 0, &[])).await.unwrap();
    let accepted = begun.elapsed();
    eprintln!("the leader took {ended:?} to end; the next write was accepted after {accepted:?}");
    assert!(accepted < Duration::from_secs(8), "{accepted:?}");
    let leader = managers.take_leader().await;
    assert_ne!(leader.node_id(), old);
    assert!(
        leader.store().read(|s| s.services.contains_key(&next) && s.services.contains_key(&web))
    );

    // The agents come back within the time in which nobody is blamed.
    let mut back = Vec::new();
    for agent in agents.iter().chain([&agent]) {
        back.push(Agent::start(leader.listening(), agent.node.clone()).await);
    }
    sleep(Duration::from_secs(1)).await;
    let down = leader.store().read(|s| {
        let down = s.nodes.values().filter(|n| n.status.state == NodeState::Down);
        down.map(|n| n.id.clone()).collect::<Vec<_>>()
    });
    assert!(down.iter().all(|id| *id == old), "{down:?}");
    assert_eq!(leader.store().read(|s| running(s, &web).len()), 2, "nothing was restarted");
    // But the old leader's own node is missed, without the grace that others have.
    until(&leader, "the old leader is down", |s| s.nodes[&old].status.state == NodeState::Down)
        .await;
    leader.shutdown().await;
    managers.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn demotion_takes_the_vote_first_and_never_the_last_or_the_deciding_one() {
    let managers = Managers::start(3).await;
    let [first, second, third] = &managers.all[..] else { panic!() };
    let id = third.node_id().to_owned();
    let refused = first.control().remove_node(&id, true).await.unwrap_err();
    assert!(refused.message.contains("must be demoted to worker before removal"), "{refused}");
    // It has a stream of log entries open, on which it is listened to.
    let tls = lane_config(&third.certificate(), first.node_id()).unwrap();
    let channel = connect(first.listening(), tls).await.unwrap();
    let (entries, waiting) = mpsc::channel(1);
    let stream = RaftClient::new(channel).appends(ReceiverStream::new(waiting)).await.unwrap();
    let mut stream = stream.into_inner();
    entries.send(RaftAppend { body: Vec::new() }).await.unwrap();
    let answer = stream.message().await.unwrap().unwrap().answer.unwrap();
    assert!(matches!(&answer, Answer::Refused(why) if why.contains("append")), "{answer:?}");

    let demote = role(docker::NodeSpecRoleEnum::WORKER);
    second.control().update_node(&id, version(first, &id), demote.clone()).await.unwrap();
    let members = || first.store().members().iter().map(|m| m.node_id.clone()).collect::<Vec<_>>();
    wait(Duration::from_secs(10), || (!members().contains(&id)).then_some(())).await;
    until(first, "its address is gone", |s| s.nodes[&id].manager_addr.is_none()).await;

    // Its certificate still says manager, but nobody listens to it as one.
    let tls = lane_config(&third.certificate(), first.node_id()).unwrap();
    let channel = connect(first.listening(), tls).await.unwrap();
    let vote = RaftRequest { kind: "vote".to_owned(), body: Vec::new() };
    let refused = RaftClient::new(channel).call(vote).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    entries.send(RaftAppend { body: Vec::new() }).await.unwrap();
    let refused = stream.message().await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");

    // Promoted again, with the same store; then it is gone, and the second may not go too.
    let promote = role(docker::NodeSpecRoleEnum::MANAGER);
    first.control().update_node(&id, version(first, &id), promote).await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let known = [second.listening()];
    let again = Manager::join(reachable(dir.path()), third.certificate(), &known).await.unwrap();
    assert_eq!(members().len(), 3);
    again.shutdown().await;
    sleep(Duration::from_secs(3)).await;
    let second_id = second.node_id();
    let refused =
        first.control().update_node(second_id, version(first, second_id), demote.clone()).await;
    let refused = refused.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::FailedPrecondition);
    assert!(
        refused
            .message
            .contains("can't remove member from the raft: this would result in a loss of quorum"),
        "{refused}"
    );
    first.control().update_node(&id, version(first, &id), demote.clone()).await.unwrap();
    wait(Duration::from_secs(10), || (members().len() == 2).then_some(())).await;
    // A manager that leaves gives its vote back, even the leader.
    first.control().retire().await.ok();
    wait(Duration::from_secs(15), || (second.store().members().len() == 1).then_some(())).await;
    wait(Duration::from_secs(15), || (second.leader()? == second_id).then_some(())).await;
    let last = second.control().update_node(second_id, version(second, second_id), demote).await;
    let last = last.unwrap_err();
    assert!(last.message.ends_with("attempting to demote the last manager of the swarm"), "{last}");
    managers.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_quorum_nothing_is_read_or_written_until_it_is_back_or_forced() {
    let mut managers = Managers::start(3).await;
    let web = managers.all[0].control().create_service(service("web", 0, &[])).await.unwrap();
    let mut away = Vec::new();
    for _ in 0..2 {
        let manager = managers.all.pop().unwrap();
        away.push((manager.listening(), manager.certificate()));
        manager.shutdown().await;
    }
    let alone = &managers.all[0];
    let begun = Instant::now();
    for refused in [
        alone.control().create_service(service("lost", 0, &[])).await.unwrap_err(),
        alone.control().catch_up().await.unwrap_err(),
    ] {
        assert_eq!(refused.kind, ErrorKind::Unavailable);
        assert!(refused.message.contains("The swarm does not have a leader."), "{refused}");
    }
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());

    // One comes back: two of three are enough.
    let (addr, certificate) = away.pop().unwrap();
    let dir = &managers.dirs[1];
    let config = at(dir.path(), addr);
    let back = Manager::restart(config, certificate).await.unwrap();
    let next = wait_for_write(alone, "next").await;
    back.control().catch_up().await.unwrap();
    assert!(back.store().read(|s| s.services.contains_key(&web) && s.services.contains_key(&next)));

    // Both others are lost for good.
    back.shutdown().await;
    let (addr, certificate) = (alone.listening(), alone.certificate());
    managers.all.pop().unwrap().shutdown().await;
    let dir = &managers.dirs[0];
    let config = at(dir.path(), addr);
    let forced = Manager::force_new_cluster(config, certificate).await.unwrap();
    assert!(forced.store().read(|s| s.services.contains_key(&web)));
    forced.control().create_service(service("alone", 0, &[])).await.unwrap();
    let roles = forced.store().read(|s| {
        s.nodes
            .values()
            .filter(|n| n.role == Role::Manager)
            .map(|n| n.id.clone())
            .collect::<Vec<_>>()
    });
    assert_eq!(roles, [forced.node_id()]);
    forced.shutdown().await;
}

async fn wait_for_write(manager: &Manager, name: &str) -> String {
    let write = async {
        loop {
            if let Ok(id) = manager.control().create_service(service(name, 0, &[])).await {
                return id;
            }
        }
    };
    timeout(Duration::from_secs(20), write).await.expect("no write was accepted")
}

/// Changes the cluster's specification, and its unlock key where asked; gives the key that is in force then.
async fn respecify(
    manager: &Manager,
    unlock_key: bool,
    edit: impl FnOnce(&mut docker::SwarmSpec),
) -> String {
    let (version, mut spec) = manager.store().read(|s| {
        let cluster = s.cluster.as_ref().unwrap();
        (cluster.meta.version, cluster.spec.clone())
    });
    edit(&mut spec);
    let rotate = Rotations { unlock_key, ..Rotations::default() };
    manager.control().update_swarm(version, spec, rotate).await.unwrap();
    manager.control().catch_up().await.unwrap();
    manager.unlock_key().unwrap().unwrap()
}

/// Whether a manager's store has a snapshot.
fn has_snapshot(dir: &TempDir) -> bool {
    let files = std::fs::read_dir(dir.path().join("raft")).unwrap();
    files.flatten().any(|file| file.file_name().to_string_lossy().starts_with("snapshot-"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manager_that_starts_takes_no_lock_that_was_in_force_once() {
    let mut managers = Managers::start(3).await;
    let first = &managers.all[0];
    // Each manager has a snapshot with the old key, and the new one in its log alone.
    let old = respecify(first, false, |spec| {
        spec.raft.get_or_insert_default().snapshot_interval = Some(1);
        spec.encryption_config.get_or_insert_default().auto_lock_managers = Some(true);
    })
    .await;
    let mut seen = (0, Instant::now());
    wait(Duration::from_secs(60), || {
        let version = first.store().read(|s| s.version);
        if version != seen.0 {
            seen = (version, Instant::now());
        }
        let quiet = seen.1.elapsed() > Duration::from_millis(500);
        (quiet && managers.dirs.iter().all(has_snapshot)).then_some(())
    })
    .await;
    let new = respecify(first, true, |spec| {
        spec.raft.get_or_insert_default().snapshot_interval = Some(1_000_000);
    })
    .await;
    assert_ne!(old, new);
    let mut away = Vec::new();
    for manager in managers.all.drain(..) {
        away.push((manager.listening(), manager.certificate()));
        manager.shutdown().await;
    }
    let restart = |index: usize| {
        let (addr, certificate) = away[index].clone();
        Manager::restart(at(managers.dirs[index].path(), addr), certificate)
    };
    let alone = restart(1).await.unwrap();
    assert_eq!(alone.unlock_key(), Some(Some(old.clone())), "what it has in memory");
    let refused = alone.other_lock(Some(&new)).await.unwrap_err().to_string();
    assert!(refused.contains("The swarm does not have a leader."), "{refused}");
    // With another one it knows what counts.
    let other = restart(2).await.unwrap();
    wait_for_write(&alone, "next").await;
    assert_eq!(alone.other_lock(Some(&new)).await.unwrap(), None);
    assert_eq!(alone.other_lock(Some(&old)).await.unwrap(), Some(Some(new.clone())));
    assert_eq!(other.other_lock(None).await.unwrap(), Some(Some(new)));
    for manager in [alone, other] {
        manager.shutdown().await;
    }
}
