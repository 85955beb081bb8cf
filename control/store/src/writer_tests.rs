//! A leader says that entries are in its log before they are on its disk: what if they never get there.

use crate::{
    Store,
    cluster_tests::{Cluster, LONG, addr},
    disk::Disk,
    fault_tests::{FILES, Faulty, Plan},
    leadership::SILENCE,
    tests::put,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

const NAMES: [&str; 3] = ["a", "b", "c"];

/// Long enough for the others to be told what is committed, were it so.
const A_WHILE: Duration = Duration::from_millis(500);

/// Three managers on disks that do as they are told.
struct Disks {
    cluster: Cluster,
    plans: BTreeMap<&'static str, Arc<Plan>>,
}

impl Disks {
    async fn new() -> Disks {
        let cluster = Cluster::of(&NAMES).await;
        let mut plans = BTreeMap::new();
        for name in NAMES {
            cluster.stop(name).await;
        }
        for name in NAMES {
            let plan = Arc::new(Plan::default());
            let config = cluster.store_config(name);
            let wrap = |file| Faulty::recording(file, plan.clone());
            let disk = Disk::open_with(&config.dir, &config.keys, false, wrap).unwrap();
            let store = Store::run(config.clone(), cluster.end(name), disk).await.unwrap();
            let store = store.opened(config.dir).await.unwrap();
            cluster.net.stores.lock().unwrap().insert(addr(name), store);
            plans.insert(name, plan);
        }
        Disks { cluster, plans }
    }

    /// Proposes at the leader while its disk hangs, and waits until another has the entry.
    async fn propose_held(&self, leader: &Store, id: &str) -> JoinHandle<bool> {
        let others: Vec<Store> = NAMES
            .into_iter()
            .filter(|name| *name != leader.node_id())
            .map(|name| self.cluster.store(name))
            .collect();
        let last = |store: &Store| store.raft().data_metrics().borrow().last_log;
        let before: Vec<_> = others.iter().map(last).collect();
        self.plan(leader).hold.store(true, Ordering::SeqCst);
        let (proposer, change) = (leader.clone(), put(id, 0, ""));
        let proposed = tokio::spawn(async move { proposer.propose(vec![change]).await.is_ok() });
        let sent = async {
            while others.iter().zip(&before).any(|(store, before)| last(store) == *before) {
                sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(LONG, sent).await.expect("the others do not wait for the leader's disk");
        proposed
    }

    fn plan(&self, store: &Store) -> &Plan {
        &self.plans[store.node_id().as_str()]
    }

    fn have(&self, id: &str) -> BTreeSet<String> {
        let running = self.cluster.running();
        let with = running.iter().filter(|s| s.read(|state| state.nodes.contains_key(id)));
        with.map(Store::node_id).collect()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_acknowledged_or_told_before_the_leader_s_disk_has_it() {
    let disks = Disks::new().await;
    disks.cluster.write("before").await;
    disks.cluster.settled(1).await;
    for attempt in 0..5 {
        let (leader, id) = (disks.cluster.leader().await, format!("held{attempt}"));
        let proposed = disks.propose_held(&leader, &id).await;
        sleep(A_WHILE).await;
        let (finished, have) = (proposed.is_finished(), disks.have(&id));
        let leads = leader.is_leader();
        disks.plan(&leader).hold.store(false, Ordering::SeqCst);
        let acknowledged = timeout(LONG, proposed).await.unwrap().unwrap();
        // A machine that is busy enough may have elected another.
        if leads && leader.is_leader() {
            assert!(!finished, "it is not on the leader's disk");
            assert_eq!(have, BTreeSet::new());
            assert!(acknowledged, "it is acknowledged then");
            disks.cluster.settled(attempt + 2).await;
            return;
        }
        disks.cluster.write(&id).await;
    }
    panic!("a disk that is slow costs the lead each time");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_disk_hangs_loses_the_lead() {
    let disks = Disks::new().await;
    disks.cluster.write("before").await;
    let leader = disks.cluster.leader().await;
    let proposed = disks.propose_held(&leader, "held").await;
    let others = || disks.cluster.running().into_iter().filter(|s| s.node_id() != leader.node_id());
    let followed = async {
        while !others().any(|store| store.is_leader()) {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(LONG, followed).await.expect("another leads");
    disks.plan(&leader).hold.store(false, Ordering::SeqCst);
    drop(timeout(LONG, proposed).await.unwrap());
    disks.cluster.write("after").await;
    // The others had it; whoever leads has kept it.
    disks.cluster.settled(3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_keeps_the_lead_while_the_disks_of_the_others_are_slow_but_not_when_they_hang() {
    let disks = Disks::new().await;
    disks.cluster.write("before").await;
    let leader = disks.cluster.leader().await;
    let (term, ours) = (leader.leadership().borrow().term, leader.leadership());
    let hold = |hold| {
        for name in NAMES.into_iter().filter(|name| *name != leader.node_id()) {
            disks.plans[name].hold.store(hold, Ordering::SeqCst);
        }
    };
    let leads = || ours.borrow().ours && ours.borrow().term == term;
    hold(true);
    let (proposer, change) = (leader.clone(), put("slow", 0, ""));
    let proposed = tokio::spawn(async move { proposer.propose(vec![change]).await.is_ok() });
    // Twice as long as a leader may be without an answer.
    let held = Instant::now();
    while held.elapsed() < 2 * SILENCE {
        assert!(leads(), "lost after {:?}", held.elapsed());
        sleep(Duration::from_millis(10)).await;
    }
    assert!(!proposed.is_finished(), "one disk of three is not enough");
    hold(false);
    assert!(timeout(LONG, proposed).await.unwrap().unwrap(), "acknowledged once they have it");
    assert!(leads());
    disks.cluster.settled(2).await;

    hold(true);
    let (proposer, change) = (leader.clone(), put("hung", 0, ""));
    let proposed = tokio::spawn(async move { proposer.propose(vec![change]).await.is_ok() });
    let lost = async {
        while leads() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(LONG, lost).await.expect("nobody leads without a majority that can write");
    hold(false);
    drop(timeout(LONG, proposed).await.unwrap());
    disks.cluster.write("after").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_lost_what_it_sent_comes_back_and_all_have_the_same() {
    for round in 0..2 {
        let disks = Disks::new().await;
        disks.cluster.write("before").await;
        disks.cluster.settled(1).await;
        let leader = disks.cluster.leader().await;
        let proposed = disks.propose_held(&leader, "lost").await;
        // The power goes: what was flushed is there, the rest is not.
        let name = leader.node_id();
        let plan = disks.plan(&leader);
        let images = plan.flushed();
        plan.no_sync.store(true, Ordering::SeqCst);
        plan.hold.store(false, Ordering::SeqCst);
        drop(leader);
        // Nobody can be elected before it is back.
        for name in NAMES {
            disks.cluster.net.cut_off(name, &NAMES);
        }
        disks.cluster.stop(&name).await;
        assert!(!proposed.await.unwrap(), "round {round}: it was not acknowledged");
        for (file, image) in FILES.into_iter().zip(images) {
            fs::write(disks.cluster.store_config(&name).dir.join(file), image).unwrap();
        }
        let again = disks.cluster.start(&name).await;
        // Where the lost entry was, if it led on.
        let first = tokio::spawn(async move { again.propose(vec![put("first", 0, "x")]).await });
        sleep(A_WHILE).await;
        disks.cluster.net.heal();
        drop(first.await.unwrap());
        for id in ["first", "second", "third"] {
            disks.cluster.write(id).await;
        }
        let nodes = disks.cluster.leader().await.read(|state| state.nodes.len());
        let state = disks.cluster.settled(nodes).await;
        for id in ["before", "first", "second", "third"] {
            assert!(state.nodes.contains_key(id), "round {round}: {id} is lost");
        }
    }
}
