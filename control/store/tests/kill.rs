//! A writer is killed at random moments: what it had acknowledged is there, and nothing in halves.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use shoal_model::{
    Availability, Change, Meta, Node, NodeOverlay, NodeState, NodeStatus, Object, Role,
};
use shoal_store::{Alone, Store, StoreConfig};
use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
};

const DIR: &str = "SHOAL_TEST_STORE_DIR";

/// Snapshots and purges often, so that the killing meets them too.
fn config(dir: &Path) -> StoreConfig {
    StoreConfig { snapshot_interval: 30, snapshot_keep: 5, ..StoreConfig::new(dir, "manager1") }
}

fn put(id: String) -> Change {
    Change::Put(Object::Node(Box::new(Node {
        id,
        meta: Meta::default(),
        name: String::new(),
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

/// The child: writes pairs from four tasks and prints the name of each pair once acknowledged.
#[tokio::test]
#[ignore = "the test below runs it as a child and kills it"]
async fn writer() {
    let dir = std::env::var(DIR).expect("only as a child");
    let store = match Store::open(config(dir.as_ref()), Arc::new(Alone)).await {
        Err(shoal_store::StoreError::Missing { .. }) => {
            Store::bootstrap(config(dir.as_ref()), "127.0.0.1:2377", Arc::new(Alone)).await.unwrap()
        }
        opened => opened.unwrap(),
    };
    let from = store.read(|state| state.version);
    let tasks: Vec<_> = (0..4)
        .map(|task| {
            let store = store.clone();
            tokio::spawn(async move {
                for i in 0.. {
                    let name = format!("{from}-{task}-{i}");
                    let pair = vec![put(format!("{name}-x")), put(format!("{name}-y"))];
                    store.propose(pair).await.unwrap();
                    // One write, so that the line is whole or not there.
                    std::io::stdout().write_all(format!("acked {name}\n").as_bytes()).unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
}

#[test]
fn a_killed_writer_loses_nothing_it_had_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut acked = Vec::new();
    for round in 0..5 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "writer", "--ignored", "--nocapture"])
            .env(DIR, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut fresh = 0;
        for line in lines {
            if let Some(name) = line.unwrap().strip_prefix("acked ") {
                acked.push(name.to_owned());
                fresh += 1;
            }
            if fresh == 100 + 37 * round {
                child.kill().unwrap(); // SIGKILL; the rest of the pipe is still read
            }
        }
        assert!(fresh >= 100 + 37 * round, "the writer ended by itself after {fresh}");
        child.wait().unwrap();
        runtime.block_on(async {
            let store = Store::open(config(dir.path()), Arc::new(Alone)).await.unwrap();
            store.read(|state| {
                for name in &acked {
                    let pair = ["x", "y"].map(|half| format!("{name}-{half}"));
                    assert!(pair.iter().all(|id| state.nodes.contains_key(id)), "{name} is lost");
                }
                for id in state.nodes.keys() {
                    let (name, _) = id.rsplit_once('-').unwrap();
                    let pair = ["x", "y"].map(|half| format!("{name}-{half}"));
                    assert!(pair.iter().all(|id| state.nodes.contains_key(id)), "half of {name}");
                }
            });
            store.shutdown().await;
        });
    }
}
