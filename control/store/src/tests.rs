use crate::{
    Alone, MAX_PROPOSAL_BYTES, Store, StoreConfig, StoreError,
    disk::Disk,
    types::{Batch, LogId, Transaction},
};
use shoal_model::{
    ApplyError, Availability, Change, Meta, Node, NodeOverlay, NodeState, NodeStatus, Object,
    ObjectKind, Role, Timestamp,
};
use std::{
    collections::BTreeMap, fs, os::unix::fs::PermissionsExt, path::Path, sync::Arc, time::Duration,
};
use tempfile::TempDir;

const ME: &str = "manager1";

fn node(id: &str, version: u64, name: &str) -> Node {
    Node {
        id: id.into(),
        meta: Meta { version, ..Meta::default() },
        name: name.into(),
        labels: BTreeMap::new(),
        role: Role::Worker,
        availability: Availability::Active,
        description: None,
        status: NodeStatus { state: NodeState::Ready, message: String::new(), addr: String::new() },
        manager_addr: None,
        overlay: NodeOverlay { public_key: None, endpoint: None, address: None },
        down_since: None,
        tls: None,
    }
}

pub(crate) fn put(id: &str, version: u64, name: &str) -> Change {
    Change::Put(Object::Node(Box::new(node(id, version, name))))
}

fn config(dir: &Path) -> StoreConfig {
    StoreConfig::new(dir.join("raft"), ME)
}

async fn new_store() -> (TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = bootstrap(config(dir.path())).await.unwrap();
    (dir, store)
}

async fn bootstrap(config: StoreConfig) -> Result<Store, StoreError> {
    Store::bootstrap(config, "127.0.0.1:2377", Arc::new(Alone)).await
}

async fn open(config: StoreConfig) -> Result<Store, StoreError> {
    Store::open(config, Arc::new(Alone)).await
}

/// What must be the same after a restart.
fn content(store: &Store) -> shoal_model::State {
    store.read(Clone::clone)
}

#[tokio::test]
async fn proposals_are_applied_in_order_and_numbered() {
    let (_dir, store) = new_store().await;
    assert!(store.is_leader());
    let mut versions = store.watch();
    assert_eq!(*versions.borrow_and_update(), 0);
    assert_eq!(store.propose(vec![put("a", 0, "1"), put("b", 0, "")]).await.unwrap(), 1);
    versions.changed().await.unwrap();
    assert_eq!(*versions.borrow_and_update(), 1);
    let changed = Node { name: "2".into(), ..store.read(|state| state.nodes["a"].clone()) };
    let change = Change::Put(Object::Node(Box::new(changed)));
    assert_eq!(store.propose(vec![change]).await.unwrap(), 2);
    assert_eq!(store.propose(vec![]).await.unwrap(), 2, "nothing proposed, nothing changed");
    let delete = Change::Delete(ObjectKind::Node, "b".into());
    assert_eq!(store.propose(vec![delete]).await.unwrap(), 3);
    store.read(|state| {
        assert_eq!(state.version, 3);
        assert_eq!(state.nodes.keys().collect::<Vec<_>>(), ["a"]);
        let a = &state.nodes["a"];
        assert_eq!((a.meta.version, a.name.as_str()), (2, "2"));
        assert!(a.meta.created > Timestamp(1_700_000_000_000_000_000), "the real time");
        assert!(a.meta.updated > a.meta.created);
    });
    assert_eq!(*versions.borrow_and_update(), 3);
}

#[tokio::test]
async fn a_stale_version_is_refused_and_nothing_of_the_proposal_applied() {
    let (_dir, store) = new_store().await;
    store.propose(vec![put("a", 0, "1")]).await.unwrap();
    let before = content(&store);
    for stale in [0, 2] {
        let error = store.propose(vec![put("new", 0, ""), put("a", stale, "2")]).await.unwrap_err();
        let expected = ApplyError::OutOfSequence { kind: ObjectKind::Node, id: "a".into() };
        assert!(matches!(&error, StoreError::Refused(e) if *e == expected), "{error}");
        assert_eq!(error.to_string(), "update out of sequence");
        assert_eq!(content(&store), before);
    }
    assert_eq!(*store.watch().borrow(), 1);
}

#[tokio::test]
async fn a_restart_finds_everything() {
    let (dir, store) = new_store().await;
    for i in 0..20 {
        store.propose(vec![put(&format!("n{i}"), 0, "x")]).await.unwrap();
    }
    store.propose(vec![put("n0", 99, "refused")]).await.unwrap_err();
    let mut before = content(&store);
    store.shutdown().await;
    // Twice, with a change in between.
    for round in 1..3 {
        let store = open(config(dir.path())).await.unwrap();
        assert_eq!(content(&store), before);
        assert_eq!(*store.watch().borrow(), before.version);
        store.propose(vec![put(&format!("round{round}"), 0, "")]).await.unwrap();
        before = content(&store);
        store.shutdown().await;
    }
    assert_eq!(before.nodes.len(), 22);
}

#[tokio::test]
async fn a_restart_from_snapshot_and_purged_log_finds_everything() {
    let dir = tempfile::tempdir().unwrap();
    let config = StoreConfig { snapshot_interval: 20, snapshot_keep: 5, ..config(dir.path()) };
    let store = bootstrap(config.clone()).await.unwrap();
    for i in 0..90 {
        store.propose(vec![put(&format!("n{i}"), 0, "x")]).await.unwrap();
    }
    let later = |id: Option<LogId>, than| id.is_some_and(|id| id.index > than);
    store
        .raft()
        .wait(Some(Duration::from_secs(10)))
        .metrics(|m| later(m.snapshot, 59) && later(m.purged, 41), "purged")
        .await
        .unwrap();
    let before = content(&store);
    store.shutdown().await;
    let disk = Disk::open(&config.dir, &config.keys, false).unwrap();
    let kept =
        disk.entries((std::ops::Bound::Unbounded, std::ops::Bound::Unbounded), usize::MAX).unwrap();
    assert!(kept.len() < 60 && kept[0].log_id.index > 42, "the log really is shorter");
    drop(disk);
    let store = open(config).await.unwrap();
    assert_eq!(content(&store), before);
    assert_eq!(store.propose(vec![put("n0", 1, "y")]).await.unwrap(), 91);
    store.shutdown().await;
}

#[tokio::test]
async fn an_acknowledged_proposal_is_in_the_file_at_once() {
    let (dir, store) = new_store().await;
    for i in 0..10 {
        store.propose(vec![put(&format!("n{i}"), 0, "x")]).await.unwrap();
        // As a power cut would leave it: copied while it is open.
        let copy = tempfile::tempdir().unwrap();
        let to = config(copy.path());
        fs::create_dir(&to.dir).unwrap();
        for file in ["raft.redb", "raft.tail", "data.key"] {
            fs::copy(dir.path().join("raft").join(file), to.dir.join(file)).unwrap();
        }
        let found = open(to).await.unwrap();
        assert_eq!(content(&found), content(&store));
        found.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sixty_four_tasks_propose_at_once_and_share_flushes() {
    let (_dir, store) = new_store().await;
    let entries = |store: &Store| store.raft().metrics().borrow().last_log_index.unwrap();
    let first = entries(&store);
    let tasks: Vec<_> = (0..64)
        .map(|task| {
            let store = store.clone();
            tokio::spawn(async move {
                let mut versions = Vec::new();
                for i in 0..8 {
                    let id = format!("{task}-{i}");
                    versions.push(store.propose(vec![put(&id, 0, "")]).await.unwrap());
                    assert!(store.read(|s| s.nodes.contains_key(&id)), "seen once acknowledged");
                    // One of two is refused; its neighbours in the batch are not.
                    store.propose(vec![put(&id, 0, "again")]).await.unwrap_err();
                }
                assert!(versions.is_sorted());
                versions
            })
        })
        .collect();
    let mut versions = Vec::new();
    for task in tasks {
        versions.extend(task.await.unwrap());
    }
    versions.sort_unstable();
    assert_eq!(versions, (1..=512).collect::<Vec<u64>>(), "one number each");
    assert_eq!(store.read(|s| s.nodes.len()), 512);
    let entries = entries(&store) - first;
    assert!(entries < 512, "1024 proposals took {entries} entries");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn optimistic_writers_that_retry_lose_no_update() {
    let (_dir, store) = new_store().await;
    store.propose(vec![put("counter", 0, "0")]).await.unwrap();
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move {
                for _ in 0..10 {
                    loop {
                        let (version, count) = store.read(|state| {
                            let node = &state.nodes["counter"];
                            (node.meta.version, node.name.parse::<u32>().unwrap())
                        });
                        let next = (count + 1).to_string();
                        match store.propose(vec![put("counter", version, &next)]).await {
                            Ok(_) => break,
                            Err(StoreError::Refused(_)) => {}
                            Err(error) => panic!("{error}"),
                        }
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(store.read(|state| state.nodes["counter"].name.clone()), "80");
}

#[tokio::test]
async fn a_proposal_over_its_bound_is_refused_and_one_at_it_is_not() {
    let (_dir, store) = new_store().await;
    let with_name = |length: usize| vec![put("big", 0, &"x".repeat(length))];
    let Err(StoreError::TooLarge { bytes, max }) =
        store.propose(with_name(MAX_PROPOSAL_BYTES)).await
    else {
        panic!("not refused");
    };
    assert_eq!(max, 1_572_864);
    let overhead = bytes - MAX_PROPOSAL_BYTES;
    let over = store.propose(with_name(max - overhead + 1)).await.unwrap_err();
    assert_eq!(
        over.to_string(),
        "the change is too large: 1572865 bytes, at most 1572864 are possible"
    );
    assert_eq!(store.read(|state| state.version), 0);
    store.propose(with_name(max - overhead)).await.unwrap();
}

#[tokio::test]
async fn a_second_opener_is_refused_with_the_remedy() {
    let (dir, store) = new_store().await;
    for result in [open(config(dir.path())).await, bootstrap(config(dir.path())).await] {
        let error = result.err().expect("must be refused").to_string();
        let folder = dir.path().join("raft").display().to_string();
        assert!(error.contains(&folder) && error.contains("--data-root"), "{error}");
        assert!(error.contains("second daemon"), "{error}");
    }
    store.propose(vec![put("a", 0, "")]).await.expect("the first is not disturbed");
}

#[tokio::test]
async fn after_shutdown_nothing_is_proposed_and_the_folder_is_free() {
    let (dir, store) = new_store().await;
    store.propose(vec![put("a", 0, "")]).await.unwrap();
    let clone = store.clone();
    store.shutdown().await;
    let error = clone.propose(vec![put("b", 0, "")]).await.unwrap_err();
    assert!(matches!(error, StoreError::Stopped(_)), "{error}");
    assert!(!clone.is_leader());
    assert_eq!(clone.read(|state| state.nodes.len()), 1);
    let again = open(config(dir.path())).await.expect("the folder is free at once");
    clone.shutdown().await; // a second time: harmless
    again.propose(vec![put("b", 0, "")]).await.unwrap();
}

#[tokio::test]
async fn dropping_the_last_handle_frees_the_folder_too() {
    let (dir, store) = new_store().await;
    let mut closed = store.0.disk_closed.clone();
    drop(store);
    let closing = tokio::time::timeout(Duration::from_secs(10), closed.changed());
    assert!(closing.await.expect("closes").is_err());
    open(config(dir.path())).await.unwrap();
}

async fn open_error(config: StoreConfig) -> StoreError {
    open(config).await.err().expect("must be refused")
}

#[tokio::test]
async fn wrong_folders_and_ids_are_named() {
    let empty = tempfile::tempdir().unwrap();
    let error = open_error(config(empty.path())).await;
    assert!(matches!(&error, StoreError::Missing { .. }), "{error}");
    assert!(!empty.path().join("raft").exists(), "opening makes nothing");

    let (dir, store) = new_store().await;
    store.shutdown().await;
    let error = bootstrap(config(dir.path())).await.err().expect("must be refused");
    assert!(matches!(&error, StoreError::Exists { .. }), "{error}");
    assert!(error.to_string().contains("leave the swarm first"), "{error}");

    let other = StoreConfig { node_id: "somebody".into(), ..config(dir.path()) };
    let error = open_error(other).await;
    assert!(matches!(&error, StoreError::OtherNode { .. }), "{error}");
    assert!(error.to_string().contains("belongs to manager1, not to this node (somebody)"));

    for bad in ["", "with space", &"x".repeat(26)] {
        let error = open_error(StoreConfig { node_id: bad.into(), ..config(dir.path()) }).await;
        assert!(matches!(&error, StoreError::NodeId(_)), "{error}");
    }
    // None of this has harmed it.
    open(config(dir.path())).await.unwrap().shutdown().await;

    let tail = dir.path().join("raft/raft.tail");
    fs::rename(&tail, dir.path().join("elsewhere")).unwrap();
    let error = open_error(config(dir.path())).await;
    assert!(error.to_string().contains(&tail.display().to_string()), "{error}");
    fs::rename(dir.path().join("elsewhere"), &tail).unwrap();

    let file = dir.path().join("raft/raft.redb");
    for content in [vec![0; 8192], b"not a database".to_vec()] {
        fs::write(&file, content).unwrap();
        let error = open_error(config(dir.path())).await;
        assert!(matches!(&error, StoreError::Damaged { .. }), "{error:?}");
        assert!(error.to_string().contains(&file.display().to_string()), "{error}");
    }
}

#[tokio::test]
async fn an_interrupted_bootstrap_can_be_repeated() {
    let dir = tempfile::tempdir().unwrap();
    let own = config(dir.path());
    drop(Disk::open(&own.dir, &own.keys, true).unwrap());
    let error = open_error(config(dir.path())).await;
    assert!(matches!(&error, StoreError::Missing { .. }), "{error}");
    let store = bootstrap(config(dir.path())).await.unwrap();
    store.propose(vec![put("a", 0, "")]).await.unwrap();
}

#[tokio::test]
async fn only_the_owner_may_look_into_the_files() {
    let (dir, _store) = new_store().await;
    let mode =
        |path: &str| fs::metadata(dir.path().join(path)).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode("raft"), 0o700);
    assert_eq!(mode("raft/raft.redb"), 0o600);
    assert_eq!(mode("raft/raft.tail"), 0o600);
    assert_eq!(mode("raft/data.key"), 0o600);
}

#[test]
fn a_node_id_reads_back_and_others_are_refused() {
    for good in ["", "a", "manager1", "0123456789abcdefghijklmno"] {
        let id = crate::types::ManagerId::try_from(good.to_owned()).unwrap();
        let json = serde_json::to_string(&id).unwrap();
        assert_eq!(json, format!("{good:?}"));
        assert_eq!(serde_json::from_str::<crate::types::ManagerId>(&json).unwrap(), id);
    }
    for bad in ["é", "a b", "0123456789abcdefghijklmnop", "\0"] {
        assert!(crate::types::ManagerId::try_from(bad.to_owned()).is_err(), "{bad:?}");
    }
}

#[test]
fn debug_of_log_entries_shows_no_content() {
    let changes = vec![put("id", 0, "SECRET")];
    let batch = Batch::new(&[Transaction { now: Timestamp(0), changes }.encode().unwrap()]);
    let entry = openraft::Entry::<crate::types::Types> {
        log_id: Default::default(),
        payload: openraft::EntryPayload::Normal(batch),
    };
    assert!(!format!("{entry:?} {entry}").contains("SECRET"));
}
