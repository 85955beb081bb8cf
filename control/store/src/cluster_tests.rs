//! Several stores in one process, over a network in memory that can be cut, slowed and made to lose.

use crate::{
    Leadership, Member, RaftCall, Store, StoreConfig, StoreError, Transport, TransportError,
    tests::put,
};
use async_trait::async_trait;
use std::{
    collections::{BTreeMap, BTreeSet},
    future::pending,
    path::PathBuf,
    sync::{Arc, Mutex, Weak},
    time::Duration,
};
use tempfile::TempDir;
use tokio::time::{Instant, sleep, timeout};

/// Far more than anything here takes on a machine that does nothing else.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// The network: stores by address, and what happens between them.
#[derive(Default)]
pub(crate) struct Net {
    pub(crate) stores: Mutex<BTreeMap<String, Store>>,
    /// Directed: (from, to) that lose everything.
    cut: Mutex<BTreeSet<(String, String)>>,
    delay: Mutex<Duration>,
    /// Calls that have reached a store, by kind.
    carried: Mutex<BTreeMap<RaftCall, u64>>,
}

impl Net {
    pub(crate) fn cut_off(&self, node: &str, others: &[&str]) {
        let mut cut = self.cut.lock().unwrap();
        for other in others {
            cut.insert((node.into(), (*other).into()));
            cut.insert(((*other).into(), node.into()));
        }
    }

    pub(crate) fn heal(&self) {
        self.cut.lock().unwrap().clear();
    }

    fn carried(&self, call: RaftCall) -> u64 {
        self.carried.lock().unwrap().get(&call).copied().unwrap_or(0)
    }
}

/// One manager's end of it.
struct End {
    own: String,
    net: Weak<Net>,
}

#[async_trait]
impl Transport for End {
    async fn call(
        &self,
        node_id: &str,
        addr: &str,
        call: RaftCall,
        request: Vec<u8>,
    ) -> Result<Vec<u8>, TransportError> {
        let unreachable = |why: &str| TransportError::Unreachable(why.to_owned().into());
        let net = self.net.upgrade().ok_or_else(|| unreachable("the test is over"))?;
        let lost = |from: &str, to: &str| {
            net.cut.lock().unwrap().contains(&(from.to_owned(), to.to_owned()))
        };
        if lost(&self.own, node_id) {
            return pending().await; // as a network does that drops packets
        }
        let delay = *net.delay.lock().unwrap();
        sleep(delay).await;
        let store = net.stores.lock().unwrap().get(addr).cloned();
        let store = store.ok_or_else(|| unreachable("connection refused"))?;
        assert_eq!(store.node_id(), node_id, "an address has one store");
        *net.carried.lock().unwrap().entry(call).or_default() += 1;
        let answer = store.handle(&self.own, call, &request).await;
        drop(store);
        sleep(delay).await;
        if lost(node_id, &self.own) {
            return pending().await;
        }
        answer.map_err(|error| TransportError::Refused(error.to_string()))
    }
}

/// A cluster of managers `a`, `b`, `c`, …
pub(crate) struct Cluster {
    dir: TempDir,
    pub(crate) net: Arc<Net>,
    config: fn(StoreConfig) -> StoreConfig,
}

impl Cluster {
    pub(crate) async fn of(names: &[&str]) -> Cluster {
        Cluster::with(names, |config| config).await
    }

    async fn with(names: &[&str], config: fn(StoreConfig) -> StoreConfig) -> Cluster {
        let cluster = Cluster { dir: tempfile::tempdir().unwrap(), net: Arc::default(), config };
        let first = names[0];
        let store =
            Store::bootstrap(cluster.store_config(first), &addr(first), cluster.end(first)).await;
        cluster.net.stores.lock().unwrap().insert(addr(first), store.unwrap());
        for name in &names[1..] {
            cluster.join(name).await;
            cluster.leader().await.add_member(name, &addr(name)).await.unwrap();
        }
        cluster
    }

    pub(crate) fn store_config(&self, name: &str) -> StoreConfig {
        (self.config)(StoreConfig::new(self.folder(name), name))
    }

    pub(crate) fn folder(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn end(&self, name: &str) -> Arc<dyn Transport> {
        Arc::new(End { own: name.to_owned(), net: Arc::downgrade(&self.net) })
    }

    async fn join(&self, name: &str) {
        let store = Store::join(self.store_config(name), self.end(name)).await.unwrap();
        self.net.stores.lock().unwrap().insert(addr(name), store);
    }

    pub(crate) fn store(&self, name: &str) -> Store {
        self.net.stores.lock().unwrap()[&addr(name)].clone()
    }

    pub(crate) fn running(&self) -> Vec<Store> {
        self.net.stores.lock().unwrap().values().cloned().collect()
    }

    /// Ends a manager; others find nobody there.
    pub(crate) async fn stop(&self, name: &str) {
        let store = self.net.stores.lock().unwrap().remove(&addr(name)).unwrap();
        store.shutdown().await;
    }

    pub(crate) async fn start(&self, name: &str) -> Store {
        let store = Store::open(self.store_config(name), self.end(name)).await.unwrap();
        self.net.stores.lock().unwrap().insert(addr(name), store.clone());
        store
    }

    /// The manager that leads, once one does.
    pub(crate) async fn leader(&self) -> Store {
        let leader = async {
            loop {
                if let Some(leader) = self.running().into_iter().find(Store::is_leader) {
                    return leader;
                }
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(LONG, leader).await.expect("somebody leads")
    }

    /// Proposes at whoever leads until it is acknowledged, as a client that retries.
    pub(crate) async fn write(&self, id: &str) {
        let write = async {
            loop {
                match self.leader().await.propose(vec![put(id, 0, "x")]).await {
                    Ok(_) => return,
                    // An attempt whose fate was not known had been successful.
                    Err(StoreError::Refused(_)) => return,
                    Err(_) => sleep(Duration::from_millis(5)).await,
                }
            }
        };
        timeout(LONG, write).await.expect("it is written");
    }

    /// Waits until all that run have the same state with `nodes` nodes, and returns it.
    pub(crate) async fn settled(&self, nodes: usize) -> shoal_model::State {
        let settled = async {
            loop {
                let states: Vec<_> = self.running().iter().map(|s| s.read(Clone::clone)).collect();
                if states.iter().all(|s| *s == states[0]) && states[0].nodes.len() == nodes {
                    return states[0].clone();
                }
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(LONG, settled).await.expect("all have the same")
    }
}

pub(crate) fn addr(name: &str) -> String {
    format!("{name}:2377")
}

fn names(members: &[Member]) -> Vec<(&str, bool)> {
    members.iter().map(|member| (member.node_id.as_str(), member.voter)).collect()
}

async fn lost_leader(store: &Store) -> Leadership {
    let mut leadership = store.leadership();
    let lost = leadership.wait_for(|now| now.leader.is_none());
    timeout(LONG, lost).await.expect("it is noticed").unwrap().clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_managers_have_the_same_and_only_the_leader_takes_proposals() {
    let cluster = Cluster::of(&["a", "b", "c"]).await;
    for i in 0..20 {
        cluster.write(&format!("n{i}")).await;
    }
    cluster.settled(20).await;
    let leader = cluster.leader().await;
    assert_eq!(leader.node_id(), "a");
    leader.barrier().await.unwrap();
    for follower in [cluster.store("b"), cluster.store("c")] {
        let mut seen = follower.leadership();
        timeout(LONG, seen.wait_for(|now| now.leader.is_some())).await.unwrap().unwrap();
        let error = follower.propose(vec![put("x", 0, "")]).await.unwrap_err();
        assert!(matches!(&error, StoreError::NotLeader { leader } if leader == "a"), "{error}");
        let error = follower.barrier().await.unwrap_err();
        assert!(matches!(&error, StoreError::NotLeader { leader } if leader == "a"), "{error}");
        assert_eq!(follower.leader().unwrap().addr, "a:2377");
    }
    let members = leader.members();
    assert_eq!(names(&members), [("a", true), ("b", true), ("c", true)]);
    assert!(members.iter().all(|member| member.reachable));
    assert_eq!(members.iter().filter(|member| member.leader).count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_leader_is_followed_within_a_second_and_nothing_acknowledged_is_lost() {
    let cluster = Cluster::of(&["a", "b", "c"]).await;
    let mut taken = Vec::new();
    let mut written = 0;
    for _ in 0..5 {
        for _ in 0..10 {
            cluster.write(&format!("n{written}")).await;
            written += 1;
        }
        let leader = cluster.leader().await.node_id();
        let at = Instant::now();
        cluster.stop(&leader).await;
        cluster.write(&format!("n{written}")).await;
        taken.push(at.elapsed());
        written += 1;
        cluster.start(&leader).await;
        cluster.settled(written).await;
    }
    taken.sort();
    println!("leader lost to next write acknowledged: {taken:?}");
    // The median is below 1 s on a machine of one's own; this one may be shared.
    assert!(taken[taken.len() / 2] < Duration::from_secs(3), "{taken:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_cut_off_knows_it_and_loses_only_what_it_never_acknowledged() {
    let cluster = Cluster::of(&["a", "b", "c"]).await;
    cluster.write("before").await;
    let old = cluster.store("a");
    cluster.net.cut_off("a", &["b", "c"]);
    let at = Instant::now();
    let error = timeout(LONG, old.propose(vec![put("lost", 0, "")])).await.unwrap().unwrap_err();
    assert!(matches!(&error, StoreError::NoLeader), "{error}");
    assert!(
        error.to_string().starts_with(
            "rpc error: code = Unknown desc = The swarm does not have a leader. It's possible that"
        ),
        "{error}"
    );
    assert!(at.elapsed() < Duration::from_secs(10), "promptly: {:?}", at.elapsed());
    for result in [old.propose(vec![put("lost", 0, "")]).await.map(drop), old.barrier().await] {
        assert!(matches!(result, Err(StoreError::NoLeader)));
    }
    assert!(!old.is_leader());
    assert!(old.members().iter().all(|member| member.reachable == (member.node_id == "a")));
    cluster.write("meanwhile").await;
    let new = cluster.leader().await;
    assert_ne!(new.node_id(), "a");
    let term = new.leadership().borrow().term;
    cluster.net.heal();
    let state = cluster.settled(2).await;
    assert!(!state.nodes.contains_key("lost"));
    // The old one follows, and has not made anybody else elect once more.
    let mut seen = old.leadership();
    timeout(LONG, seen.wait_for(|now| now.leader.is_some())).await.unwrap().unwrap();
    assert_eq!(cluster.leader().await.leadership().borrow().term, term);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_was_cut_off_returns_without_an_election() {
    let cluster = Cluster::of(&["a", "b", "c"]).await;
    let term = cluster.leader().await.leadership().borrow().term;
    cluster.net.cut_off("c", &["a", "b"]);
    lost_leader(&cluster.store("c")).await;
    sleep(Duration::from_secs(2)).await;
    assert!(cluster.net.carried(RaftCall::Ask) == 0, "its questions are lost");
    cluster.write("meanwhile").await;
    cluster.net.heal();
    cluster.settled(1).await;
    sleep(Duration::from_secs(1)).await;
    let now = cluster.leader().await.leadership().borrow().clone();
    assert_eq!((now.term, now.leader.as_deref()), (term, Some("a")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_majority_calls_fail_promptly_and_its_return_is_enough() {
    let cluster = Cluster::of(&["a", "b", "c"]).await;
    cluster.write("before").await;
    cluster.settled(1).await;
    cluster.stop("a").await;
    cluster.stop("b").await;
    let left = cluster.store("c");
    lost_leader(&left).await;
    let at = Instant::now();
    for result in [left.propose(vec![put("x", 0, "")]).await.map(drop), left.barrier().await] {
        assert!(matches!(result, Err(StoreError::NoLeader)), "{result:?}");
    }
    assert!(at.elapsed() < Duration::from_secs(1));
    assert!(left.leader().is_none());
    assert_eq!(left.read(|state| state.nodes.len()), 1, "reading goes on");
    cluster.start("b").await;
    cluster.write("after").await;
    cluster.start("a").await;
    cluster.settled(2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_managers_restart_and_have_everything() {
    let cluster = Cluster::of(&["a", "b", "c"]).await;
    for i in 0..10 {
        cluster.write(&format!("n{i}")).await;
    }
    cluster.settled(10).await;
    for name in ["a", "b", "c"] {
        cluster.stop(name).await;
    }
    for name in ["a", "b", "c"] {
        cluster.start(name).await;
    }
    cluster.write("n10").await;
    cluster.settled(11).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manager_that_was_away_too_long_gets_a_snapshot_while_the_others_serve() {
    let few = |config| StoreConfig { snapshot_interval: 20, snapshot_keep: 5, ..config };
    let cluster = Cluster::with(&["a", "b", "c"], few).await;
    cluster.stop("c").await;
    for i in 0..120 {
        cluster.write(&format!("n{i}")).await;
    }
    assert_eq!(cluster.net.carried(RaftCall::Snapshot), 0);
    cluster.start("c").await;
    let meanwhile = async {
        for i in 120..140 {
            cluster.write(&format!("n{i}")).await;
        }
    };
    tokio::join!(meanwhile, async {
        let caught_up = async {
            while cluster.store("c").read(|s| s.nodes.len()) < 120 {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(LONG, caught_up).await.expect("it catches up");
    });
    let state = cluster.settled(140).await;
    assert!(cluster.net.carried(RaftCall::Snapshot) > 0, "by a snapshot");
    // What was installed is on its disk.
    cluster.stop("c").await;
    cluster.start("c").await;
    assert_eq!(cluster.settled(140).await, state);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn managers_are_taken_in_moved_and_let_go() {
    let cluster = Cluster::of(&["a"]).await;
    cluster.write("first").await;
    for name in ["b", "c", "d", "e"] {
        cluster.join(name).await;
        cluster.leader().await.add_member(name, &addr(name)).await.unwrap();
    }
    cluster.settled(1).await;
    let leader = cluster.leader().await;
    assert_eq!(leader.members().len(), 5);
    leader.add_member("e", &addr("e")).await.expect("once more: nothing to do");

    // Let go while it runs: it hears nothing any more and disturbs nobody.
    leader.remove_member("e").await.unwrap();
    leader.remove_member("e").await.expect("once more: nothing to do");
    let term = leader.leadership().borrow().term;
    sleep(Duration::from_secs(2)).await;
    assert_eq!(leader.leadership().borrow().term, term);
    assert_eq!(names(&leader.members()).len(), 4);

    // Elsewhere.
    let d = cluster.net.stores.lock().unwrap().remove(&addr("d")).unwrap();
    cluster.net.stores.lock().unwrap().insert("d-new:2377".into(), d);
    leader.update_addr("d", "d-new:2377").await.unwrap();
    let error = leader.update_addr("nobody", "x:1").await.unwrap_err();
    assert!(error.to_string().contains("can't find manager nobody in raft memberlist"), "{error}");
    cluster.stop("e").await;
    cluster.write("second").await;
    cluster.settled(2).await;

    let error = Store::open(cluster.store_config("e"), cluster.end("e")).await.err();
    // It may not have received the entry that removed it; if it has, that is said.
    assert!(error.is_none_or(|e| matches!(e, StoreError::Removed { .. })));
    let follower = cluster.store("b");
    for result in [follower.add_member("x", "x:1").await, follower.remove_member("a").await] {
        assert!(matches!(result, Err(StoreError::NotLeader { .. })), "{result:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manager_that_ended_before_it_heard_of_any_members_can_still_join() {
    use crate::{types::Types, wire};
    use openraft::raft::AppendEntriesRequest;
    let cluster = Cluster::of(&["a"]).await;
    cluster.join("b").await;
    // A leader's first word, before the log.
    let vote = cluster.store("a").raft().metrics().borrow().vote;
    let (prev_log_id, entries, leader_commit) = (None, Vec::new(), None);
    let word = AppendEntriesRequest::<Types> { vote, prev_log_id, entries, leader_commit };
    let word = wire::encode(&word).unwrap();
    cluster.store("b").handle("a", RaftCall::Append, &word).await.unwrap();
    cluster.stop("b").await;
    let opened = Store::open(cluster.store_config("b"), cluster.end("b")).await;
    assert!(matches!(opened.err(), Some(StoreError::Missing { .. })), "it is no manager yet");
    cluster.join("b").await;
    cluster.store("a").add_member("b", &addr("b")).await.unwrap();
    cluster.write("both").await;
    cluster.settled(1).await;
    cluster.stop("b").await;
    let again = Store::join(cluster.store_config("b"), cluster.end("b")).await;
    assert!(matches!(again.err(), Some(StoreError::Exists { .. })), "it is one now");
}

/// Asks for a change of the managers until the leader goes by it, then waits no longer. Whether it was still
/// not answered then; nothing if it was answered without.
async fn until_members<F: Future<Output = Result<(), StoreError>> + Send + 'static>(
    store: &Store,
    count: usize,
    ask: impl FnOnce(Store) -> F,
) -> Option<bool> {
    let asking = tokio::spawn(ask(store.clone()));
    let there = async {
        loop {
            // In this order: what is answered now was so before the members are looked at.
            let answered = asking.is_finished();
            if store.members().len() == count {
                return Some(!answered);
            }
            if answered {
                return None;
            }
            sleep(Duration::from_millis(1)).await;
        }
    };
    let waits = timeout(LONG, there).await.expect("the leader goes by it, or says why not");
    asking.abort();
    waits
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manager_is_said_to_be_let_go_only_when_that_holds() {
    let cluster = Cluster::of(&["a", "b", "c"]).await;
    // One that is still being taken in goes in one step.
    let first = cluster.store("a");
    let joining = until_members(&first, 4, |s| async move { s.add_member("d", &addr("d")).await });
    assert_eq!(joining.await, Some(true), "it does not run, so it is not taken in");
    // The change is in the leader's log, and nobody waits for it to be committed. A leader that finds out that it
    // is alone before it is asked refuses; then it is the next one's turn.
    let mut turns = 0..10;
    let old = loop {
        let turn = turns.next().expect("a leader is asked in time");
        // A change of the managers that is not committed yet is in the way of the next one.
        cluster.write(&format!("before {turn}")).await;
        let old = cluster.leader().await;
        let name = old.node_id();
        let others: Vec<_> = ["a", "b", "c"].into_iter().filter(|other| *other != name).collect();
        cluster.net.cut_off(&name, &others);
        let leaving = until_members(&old, 3, |s| async move { s.remove_member("d").await });
        if let Some(waits) = leaving.await {
            assert!(waits, "nobody has confirmed it");
            break old;
        }
        cluster.net.heal();
    };
    // Asked again, it is not said to be done.
    for result in [old.remove_member("d").await, old.remove_member("d").await] {
        assert!(
            matches!(result, Err(StoreError::NoLeader | StoreError::NotLeader { .. })),
            "{result:?}"
        );
    }
    cluster.write("meanwhile").await;
    cluster.net.heal();
    let written = turns.start + 1;
    cluster.settled(written).await;
    assert_eq!(cluster.leader().await.members().len(), 4, "it has not happened");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_let_go_whom_the_majority_needs() {
    let cluster = Cluster::of(&["a"]).await;
    let only = cluster.store("a");
    let error = only.remove_member("a").await.unwrap_err();
    assert_eq!(error.to_string(), "attempting to demote the last manager of the swarm");

    let cluster = Cluster::of(&["a", "b", "c"]).await;
    let leader = cluster.store("a");
    cluster.stop("c").await;
    let unreachable = async {
        while leader.members().iter().all(|member| member.reachable) {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(LONG, unreachable).await.expect("it is noticed");
    for check in [leader.check_removal("b"), leader.remove_member("b").await] {
        let text = check.unwrap_err().to_string();
        assert!(text.contains("would result in a loss of quorum"), "{text}");
        assert!(text.contains("1 of the 2 managers"), "{text}");
    }
    assert_eq!(leader.members().len(), 3);
    // The one that is away may go: two of two are left.
    leader.remove_member("c").await.unwrap();
    cluster.write("x").await;
    leader.remove_member("b").await.expect("one of one is left");
    assert_eq!(leader.members().len(), 1);
    cluster.stop("b").await;
    cluster.write("y").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_leaves_hands_over_first() {
    for names in [["a", "b", "c"].as_slice(), &["a", "b"]] {
        let cluster = Cluster::of(names).await;
        cluster.write("x").await;
        let old = cluster.store("a");
        let at = Instant::now();
        let new = old.step_down().await.unwrap();
        println!("handed over to {new} of {names:?} in {:?}", at.elapsed());
        assert!(!old.is_leader());
        let leader = cluster.leader().await;
        assert_eq!(leader.node_id(), new);
        leader.remove_member("a").await.unwrap();
        cluster.stop("a").await;
        cluster.write("y").await;
        cluster.settled(2).await;
    }
    let alone = Cluster::of(&["a"]).await;
    let error = alone.store("a").step_down().await.unwrap_err();
    assert!(matches!(error, StoreError::NoSuccessor), "{error}");
    alone.write("it leads on").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_manager_makes_a_new_cluster_of_what_it_has() {
    let cluster = Cluster::of(&["a", "b", "c"]).await;
    for i in 0..5 {
        cluster.write(&format!("n{i}")).await;
    }
    cluster.settled(5).await;
    for name in ["a", "b", "c"] {
        cluster.stop(name).await;
    }
    let config = cluster.store_config("b");
    let store =
        Store::force_new_cluster(config.clone(), "b-new:1", cluster.end("b")).await.unwrap();
    assert!(store.is_leader());
    assert_eq!(store.read(|state| state.nodes.len()), 5);
    let members = store.members();
    assert_eq!(names(&members), [("b", true)]);
    assert_eq!(members[0].addr, "b-new:1");
    store.propose(vec![put("n5", 0, "")]).await.unwrap();
    store.shutdown().await;
    // It stays so, and others can be taken in.
    let store = Store::open(config, cluster.end("b")).await.unwrap();
    assert_eq!(names(&store.members()), [("b", true)]);
    cluster.net.stores.lock().unwrap().insert("b-new:1".into(), store.clone());
    cluster.join("d").await;
    store.add_member("d", &addr("d")).await.unwrap();
    cluster.settled(6).await;

    let none = StoreConfig::new(cluster.folder("nobody"), "nobody");
    let error = Store::force_new_cluster(none, "x:1", cluster.end("nobody")).await.err().unwrap();
    assert!(matches!(error, StoreError::Missing { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_said_in_another_s_name_or_cannot_be_read_is_refused() {
    use crate::{elector::Ask, wire};
    let cluster = Cluster::of(&["a", "b", "c"]).await;
    let store = cluster.store("b");
    let ask = |candidate: &str| {
        let candidate = candidate.to_owned().try_into().unwrap();
        wire::encode(&Ask { candidate, last_log_id: None }).unwrap()
    };
    let answer = store.handle("c", RaftCall::Ask, &ask("c")).await.unwrap();
    assert!(!wire::decode::<bool>(&answer).unwrap(), "there is a leader, and its log is longer");
    let error = store.handle("c", RaftCall::Ask, &ask("a")).await.unwrap_err();
    assert!(error.to_string().contains("it speaks in the name of a"), "{error}");
    for call in RaftCall::ALL {
        assert_eq!(RaftCall::named(call.as_str()), Some(call));
        for bytes in [vec![], vec![9, 9], vec![1], vec![1, 255, 255]] {
            let error = store.handle("a", call, &bytes).await.unwrap_err();
            assert!(matches!(error, StoreError::Call { .. }), "{call}: {error}");
        }
    }
    cluster.write("unharmed").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_network_elects_nobody() {
    let cluster = Cluster::of(&["a", "b", "c"]).await;
    let term = cluster.leader().await.leadership().borrow().term;
    *cluster.net.delay.lock().unwrap() = Duration::from_millis(60);
    for i in 0..10 {
        cluster.write(&format!("n{i}")).await;
    }
    cluster.settled(10).await;
    assert_eq!(cluster.leader().await.leadership().borrow().term, term);
}

/// Random cuts, delays and restarts while clients write, decided by the seed: afterwards all managers
/// have the same, everything acknowledged, and never more than one led in a term.
async fn random_faults(seed: u64) {
    use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
    const NAMES: [&str; 3] = ["a", "b", "c"];
    let few = |config| StoreConfig { snapshot_interval: 25, snapshot_keep: 5, ..config };
    let cluster = Arc::new(Cluster::with(&NAMES, few).await);
    let mut random = StdRng::seed_from_u64(seed);
    let acknowledged = Arc::new(Mutex::new(BTreeSet::new()));
    let leaders = Arc::new(Mutex::new(BTreeMap::<u64, String>::new()));
    let (stop, stopped) = tokio::sync::watch::channel(());
    let clients: Vec<_> = (0..3)
        .map(|client| {
            let (cluster, acknowledged) = (cluster.clone(), acknowledged.clone());
            let (leaders, stopped) = (leaders.clone(), stopped.clone());
            tokio::spawn(async move {
                for i in 0.. {
                    if stopped.has_changed().is_err() {
                        return;
                    }
                    for store in cluster.running() {
                        let now = store.leadership().borrow().clone();
                        if now.ours {
                            let mut leaders = leaders.lock().unwrap();
                            let known = leaders.entry(now.term).or_insert_with(|| store.node_id());
                            assert_eq!(*known, store.node_id(), "two lead in term {}", now.term);
                        }
                    }
                    let id = format!("{client}-{i}");
                    let leader = cluster.running().into_iter().find(Store::is_leader);
                    let Some(leader) = leader else {
                        sleep(Duration::from_millis(5)).await;
                        continue;
                    };
                    let write = leader.propose(vec![put(&id, 0, "x")]);
                    let answer = timeout(LONG, write).await.expect("no answer hangs");
                    if answer.is_ok() {
                        acknowledged.lock().unwrap().insert(id);
                    }
                }
            })
        })
        .collect();
    for _ in 0..6 {
        let name = NAMES[random.random_range(0..3)];
        let others: Vec<&str> = NAMES.into_iter().filter(|other| *other != name).collect();
        let pause = Duration::from_millis(random.random_range(100..1500));
        match random.random_range(0..4) {
            0 => {
                cluster.net.cut_off(name, &others);
                sleep(pause).await;
                cluster.net.heal();
            }
            1 => {
                // One direction only.
                cluster.net.cut.lock().unwrap().insert((name.into(), others[0].into()));
                sleep(pause).await;
                cluster.net.heal();
            }
            2 => {
                *cluster.net.delay.lock().unwrap() = pause / 10;
                sleep(pause).await;
                *cluster.net.delay.lock().unwrap() = Duration::ZERO;
            }
            _ => {
                cluster.stop(name).await;
                sleep(pause).await;
                cluster.start(name).await;
            }
        }
        sleep(Duration::from_millis(random.random_range(0..800))).await;
    }
    drop((stop, stopped));
    for client in clients {
        client.await.unwrap();
    }
    cluster.write("last").await;
    let same = async {
        loop {
            let states: Vec<_> = cluster.running().iter().map(|s| s.read(Clone::clone)).collect();
            if states.iter().all(|state| *state == states[0]) {
                return states[0].clone();
            }
            sleep(Duration::from_millis(10)).await;
        }
    };
    let state = timeout(LONG, same).await.expect("all have the same");
    let acknowledged = acknowledged.lock().unwrap();
    let lost: Vec<_> = acknowledged.iter().filter(|id| !state.nodes.contains_key(*id)).collect();
    assert!(lost.is_empty(), "seed {seed}: {lost:?} are lost of {}", acknowledged.len());
    assert!(acknowledged.len() > 20, "seed {seed}: the faults left room for writes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_faults_lose_nothing_acknowledged() {
    let seeds = match std::env::var("SHOAL_STORE_SEED") {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) => vec![1, 2, 3],
    };
    for seed in seeds {
        println!("seed {seed}: SHOAL_STORE_SEED={seed} begins the same faults again");
        random_faults(seed).await;
    }
}
