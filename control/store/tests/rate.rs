//! Write transactions a second: 64 clients, three managers in this process, each with files of its own
//! on this disk, flushed. Run by hand; the figures are in `design/benchmarks.md`.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use async_trait::async_trait;
use shoal_model::{
    Availability, Change, Meta, Node, NodeOverlay, NodeState, NodeStatus, Object, Role,
};
use shoal_store::{RaftCall, Store, StoreConfig, Transport, TransportError};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

const CLIENTS: usize = 64;
const PERIOD: Duration = Duration::from_secs(10);
const MANAGERS: [&str; 3] = ["a", "b", "c"];

#[derive(Default)]
struct Net(Mutex<BTreeMap<String, Store>>);

struct End(&'static str, Arc<Net>);

#[async_trait]
impl Transport for End {
    async fn call(
        &self,
        node_id: &str,
        _addr: &str,
        call: RaftCall,
        request: Vec<u8>,
    ) -> Result<Vec<u8>, TransportError> {
        let store = self.1.0.lock().unwrap().get(node_id).cloned();
        let store = store.ok_or_else(|| TransportError::Unreachable("not yet".into()))?;
        let answer = store.handle(self.0, call, &request).await;
        answer.map_err(|error| TransportError::Refused(error.to_string()))
    }
}

fn put(id: String) -> Change {
    Change::Put(Object::Node(Box::new(Node {
        id,
        meta: Meta::default(),
        // Together with the names of the fields about etcd's usual 256 bytes of value.
        name: "x".repeat(64),
        labels: BTreeMap::new(),
        role: Role::Worker,
        availability: Availability::Active,
        description: None,
        status: NodeStatus {
            state: NodeState::Unknown,
            message: String::new(),
            addr: String::new(),
        },
        manager_addr: None,
        overlay: NodeOverlay { public_key: None, endpoint: None, address: None },
        down_since: None,
        tls: None,
    })))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn write_rate() {
    for managers in [1, 3] {
        let dir = tempfile::tempdir_in(".").unwrap();
        let net = Arc::new(Net::default());
        let end = |name| Arc::new(End(name, net.clone()));
        let config = |name: &str| StoreConfig::new(dir.path().join(name), name);
        let leader = Store::bootstrap(config("a"), "a:1", end("a")).await.unwrap();
        net.0.lock().unwrap().insert("a".into(), leader.clone());
        for name in &MANAGERS[1..managers] {
            let store = Store::join(config(name), end(name)).await.unwrap();
            net.0.lock().unwrap().insert((*name).into(), store);
            leader.add_member(name, "x:1").await.unwrap();
        }
        let until = Instant::now() + PERIOD;
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                let leader = leader.clone();
                tokio::spawn(async move {
                    let mut taken = Vec::new();
                    while Instant::now() < until {
                        let at = Instant::now();
                        leader
                            .propose(vec![put(format!("{client}-{}", taken.len()))])
                            .await
                            .unwrap();
                        taken.push(at.elapsed());
                    }
                    taken
                })
            })
            .collect();
        let mut taken = Vec::new();
        for client in clients {
            taken.extend(client.await.unwrap());
        }
        taken.sort();
        let rate = taken.len() as f64 / PERIOD.as_secs_f64();
        let (median, slow) = (taken[taken.len() / 2], taken[taken.len() * 99 / 100]);
        println!("{managers} managers: {rate:.0}/s, median {median:?}, 99 % {slow:?}");
        let stores: Vec<Store> =
            std::mem::take(&mut *net.0.lock().unwrap()).into_values().collect();
        drop(leader);
        for store in stores {
            store.shutdown().await;
        }
    }
}
