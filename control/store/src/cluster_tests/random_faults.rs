//! Seeded random faults under load.

use super::{Cluster, LONG};
use crate::{Store, StoreConfig, tests::put};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::time::{sleep, timeout};

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
