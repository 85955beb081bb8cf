//! A cluster of stores, and the network in memory between them.

use crate::{
    Member, RaftCall, Store, StoreConfig, StoreError, Transport, TransportError, tests::put,
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
use tokio::time::{sleep, timeout};

/// Far more than anything here takes on a machine that does nothing else.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// The network: stores by address, and what happens between them.
#[derive(Default)]
pub(crate) struct Net {
    pub(crate) stores: Mutex<BTreeMap<String, Store>>,
    /// Directed: (from, to) that lose everything.
    pub(super) cut: Mutex<BTreeSet<(String, String)>>,
    pub(super) delay: Mutex<Duration>,
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

    pub(super) fn carried(&self, call: RaftCall) -> u64 {
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

    pub(super) async fn with(names: &[&str], config: fn(StoreConfig) -> StoreConfig) -> Cluster {
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

    pub(super) async fn join(&self, name: &str) {
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

/// Managers by node id, and whether each is a voter.
pub(super) fn names(members: &[Member]) -> Vec<(&str, bool)> {
    members.iter().map(|member| (member.node_id.as_str(), member.voter)).collect()
}
