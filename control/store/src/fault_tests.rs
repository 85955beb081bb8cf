//! Disks that fail, lose, fill up or lie, and what the store makes of it.

use crate::{
    Alone, KeyError, Keys, Store, StoreConfig, StoreError, UnlockKey, disk::Disk, tests::put,
};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use redb::{StorageBackend, backends::FileBackend};
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_remount, unmount};
use std::{
    collections::BTreeSet,
    fs, io,
    ops::Bound,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

const LONG: Duration = Duration::from_secs(60);
const ALL: (Bound<u64>, Bound<u64>) = (Bound::Unbounded, Bound::Unbounded);

fn config(dir: &Path) -> StoreConfig {
    StoreConfig::new(dir.join("raft"), "manager1")
}

async fn bootstrap(config: StoreConfig) -> Store {
    Store::bootstrap(config, "127.0.0.1:2377", Arc::new(Alone)).await.unwrap()
}

async fn open(config: StoreConfig) -> Result<Store, StoreError> {
    Store::open(config, Arc::new(Alone)).await
}

/// Opens a store with something between its database and the file.
async fn open_with<B: StorageBackend>(
    config: &StoreConfig,
    wrap: impl Fn(FileBackend) -> B,
) -> Store {
    let disk = Disk::open_with(&config.dir, &config.keys, false, wrap).unwrap();
    let store = Store::run(config.clone(), Arc::new(Alone), disk).await.unwrap();
    store.opened(config.dir.clone()).await.unwrap()
}

fn ids(store: &Store) -> BTreeSet<String> {
    store.read(|state| state.nodes.keys().cloned().collect())
}

/// The error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {}", chain(cause)),
        None => error.to_string(),
    }
}

/// Where, and what.
type Write = (u64, Vec<u8>);

/// What a disk does instead of working.
#[derive(Default, Debug)]
pub(crate) struct Plan {
    pub(crate) no_sync: AtomicBool,
    no_write: AtomicBool,
    /// Flushing takes as long as this is so.
    pub(crate) hold: AtomicBool,
    /// Of each file what was written since its last flush, and the content as of that flush.
    since_sync: Mutex<Vec<(Vec<u8>, Vec<Write>)>>,
}

/// The files with something between them and the store, in the order they are opened.
pub(crate) const FILES: [&str; 2] = ["raft.redb", "raft.tail"];

impl Plan {
    /// What could be on the disk if the power went now: each write since the last flush not at all,
    /// wholly, or up to some sector.
    fn after_power_cut(&self, random: &mut StdRng) -> Vec<Vec<u8>> {
        let since = self.since_sync.lock().unwrap().clone();
        let torn = since.into_iter().map(|(mut image, writes)| {
            for (offset, data) in writes {
                let sectors = data.len().div_ceil(512);
                let kept = match random.random_range(0..3) {
                    0 => 0,
                    1 => data.len(),
                    _ => (random.random_range(0..=sectors) * 512).min(data.len()),
                };
                write_at(&mut image, offset, &data[..kept]);
            }
            image
        });
        torn.collect()
    }

    /// What is on the disk for certain.
    pub(crate) fn flushed(&self) -> Vec<Vec<u8>> {
        self.since_sync.lock().unwrap().iter().map(|(image, _)| image.clone()).collect()
    }
}

fn write_at(image: &mut Vec<u8>, offset: u64, data: &[u8]) {
    let (from, to) = (offset as usize, offset as usize + data.len());
    if image.len() < to {
        image.resize(to, 0);
    }
    image[from..to].copy_from_slice(data);
}

#[derive(Debug)]
pub(crate) struct Faulty {
    file: FileBackend,
    plan: Arc<Plan>,
    /// Its place in what is recorded.
    recorded: Option<usize>,
}

impl Faulty {
    pub(crate) fn recording(file: FileBackend, plan: Arc<Plan>) -> Faulty {
        let mut image = vec![0; file.len().unwrap() as usize];
        file.read(0, &mut image).unwrap();
        let recorded = {
            let mut files = plan.since_sync.lock().unwrap();
            files.push((image, Vec::new()));
            Some(files.len() - 1)
        };
        Faulty { file, plan, recorded }
    }

    fn record(&self, what: impl FnOnce(&mut Vec<u8>, &mut Vec<Write>)) {
        if let Some(at) = self.recorded {
            let (image, writes) = &mut self.plan.since_sync.lock().unwrap()[at];
            what(image, writes);
        }
    }
}

impl StorageBackend for Faulty {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)?;
        self.record(|image, writes| {
            image.resize(len as usize, 0);
            writes.retain(|(offset, data)| offset + data.len() as u64 <= len);
        });
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let start = std::time::Instant::now();
        while self.plan.hold.load(Ordering::SeqCst) && start.elapsed() < LONG {
            std::thread::sleep(Duration::from_millis(1));
        }
        if self.plan.no_sync.load(Ordering::SeqCst) {
            return Err(io::Error::from_raw_os_error(5)); // EIO
        }
        self.record(|image, writes| {
            for (offset, data) in writes.drain(..) {
                write_at(image, offset, &data);
            }
        });
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        if self.plan.no_write.load(Ordering::SeqCst) {
            return Err(io::Error::from_raw_os_error(28)); // ENOSPC
        }
        self.record(|_, writes| writes.push((offset, data.to_vec())));
        self.file.write(offset, data)
    }
}

#[tokio::test]
async fn a_disk_that_cannot_be_flushed_or_written_stops_the_store_and_loses_nothing() {
    for (flush, text) in [(true, "os error 5"), (false, "os error 28")] {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path());
        bootstrap(config.clone()).await.shutdown().await;
        let plan = Arc::new(Plan::default());
        let store =
            open_with(&config, |file| Faulty { file, plan: plan.clone(), recorded: None }).await;
        for i in 0..20 {
            store.propose(vec![put(&format!("n{i}"), 0, "")]).await.unwrap();
        }
        let acknowledged = ids(&store);
        let mut failed = store.failed();
        assert_eq!(*failed.borrow(), None);
        let fault = if flush { &plan.no_sync } else { &plan.no_write };
        fault.store(true, Ordering::SeqCst);
        store.propose(vec![put("never", 0, "")]).await.unwrap_err();
        let reason = tokio::time::timeout(LONG, failed.wait_for(Option::is_some)).await;
        let reason = reason.expect("it is said").unwrap().clone().unwrap();
        assert!(reason.contains(text), "{reason}");
        // The disk works again, but what it has kept is not known: not before it is opened anew.
        fault.store(false, Ordering::SeqCst);
        let error = store.propose(vec![put("later", 0, "")]).await.unwrap_err();
        assert!(matches!(error, StoreError::Stopped(_)), "{error}");
        assert!(!store.is_leader());
        assert_eq!(ids(&store), acknowledged, "reading goes on");
        store.shutdown().await;
        let store = open(config).await.unwrap();
        assert!(ids(&store).is_superset(&acknowledged));
        store.propose(vec![put("later", 0, "")]).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_power_cut_with_torn_writes_loses_nothing_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    // The log alone: a snapshot is a file of its own.
    let config = StoreConfig { snapshot_interval: u64::MAX, ..config(dir.path()) };
    bootstrap(config.clone()).await.shutdown().await;
    let plan = Arc::new(Plan::default());
    let store = open_with(&config, |file| Faulty::recording(file, plan.clone())).await;
    let acknowledged = Arc::new(Mutex::new(BTreeSet::new()));
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let (store, acknowledged) = (store.clone(), acknowledged.clone());
            tokio::spawn(async move {
                for i in 0.. {
                    let id = format!("{writer}-{i}");
                    if store.propose(vec![put(&id, 0, &"x".repeat(700))]).await.is_err() {
                        return;
                    }
                    acknowledged.lock().unwrap().insert(id);
                }
            })
        })
        .collect();
    let mut random = StdRng::seed_from_u64(1);
    for round in 0..30 {
        tokio::time::sleep(Duration::from_millis(random.random_range(1..30))).await;
        let must_be_there = acknowledged.lock().unwrap().clone();
        let images = plan.after_power_cut(&mut random);
        let copy = tempfile::tempdir().unwrap();
        let to = StoreConfig { dir: copy.path().join("raft"), ..config.clone() };
        let to = StoreConfig { keys: Keys::new(to.dir.join("data.key")), ..to };
        fs::create_dir(&to.dir).unwrap();
        for (file, image) in FILES.into_iter().zip(images) {
            fs::write(to.dir.join(file), image).unwrap();
        }
        fs::copy(config.dir.join("data.key"), to.dir.join("data.key")).unwrap();
        let found = open(to).await.unwrap_or_else(|e| panic!("round {round}: {}", chain(&e)));
        let there = ids(&found);
        let lost: Vec<_> = must_be_there.difference(&there).collect();
        assert!(lost.is_empty(), "round {round}: {lost:?} are lost");
        found.shutdown().await;
    }
    assert!(acknowledged.lock().unwrap().len() > 50, "there was something to lose");
    store.shutdown().await;
    for writer in writers {
        writer.await.unwrap();
    }
}

/// A file system of a few megabytes.
struct Small(PathBuf);

impl Small {
    fn mount(at: &Path) -> Small {
        mount("tmpfs", at, "tmpfs", MountFlags::empty(), c"size=8m")
            .expect("tests of full disks run as root");
        Small(at.to_owned())
    }

    fn grow(&self) {
        mount_remount(&self.0, MountFlags::empty(), "size=64m").unwrap();
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = unmount(&self.0, UnmountFlags::DETACH);
    }
}

#[tokio::test]
async fn a_full_disk_stops_the_store_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let small = Small::mount(dir.path());
    let config = config(dir.path());
    let store = bootstrap(config.clone()).await;
    let mut failed = store.failed();
    let mut acknowledged = BTreeSet::new();
    for i in 0..1000 {
        let id = format!("n{i}");
        // Not compressible, and several pages.
        let name: String = (0..20_000).map(|_| rand::random_range('a'..='z')).collect();
        match store.propose(vec![put(&id, 0, &name)]).await {
            Ok(_) => acknowledged.insert(id),
            Err(_) => break,
        };
    }
    assert!((10..1000).contains(&acknowledged.len()), "{}", acknowledged.len());
    let reason = tokio::time::timeout(LONG, failed.wait_for(Option::is_some)).await;
    let reason = reason.expect("it is said").unwrap().clone().unwrap();
    assert!(reason.contains("No space left on device"), "{reason}");
    store.shutdown().await;
    // Still full: said again, or opened; never without what was acknowledged.
    if let Ok(store) = open(config.clone()).await {
        assert!(ids(&store).is_superset(&acknowledged));
        store.shutdown().await;
    }
    small.grow();
    let store = open(config).await.unwrap();
    assert!(ids(&store).is_superset(&acknowledged));
    store.propose(vec![put("later", 0, "")]).await.unwrap();
    store.shutdown().await;
}

fn copy_store(from: &StoreConfig, to: &Path) -> StoreConfig {
    let to = config(to);
    fs::create_dir(&to.dir).unwrap();
    for file in fs::read_dir(&from.dir).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), to.dir.join(file.file_name())).unwrap();
    }
    to
}

/// A store of 30 nodes, the first 20 of them in a snapshot.
async fn with_snapshot(dir: &Path) -> StoreConfig {
    let config = StoreConfig { snapshot_interval: 20, snapshot_keep: 2, ..config(dir) };
    let store = bootstrap(config.clone()).await;
    for i in 0..30 {
        store.propose(vec![put(&format!("n{i}"), 0, &"content".repeat(20))]).await.unwrap();
    }
    let purged = store.raft().wait(Some(LONG)).metrics(|m| m.purged.is_some(), "purged").await;
    purged.unwrap();
    store.shutdown().await;
    config
}

#[tokio::test]
async fn content_is_nowhere_in_the_clear() {
    let dir = tempfile::tempdir().unwrap();
    let config = with_snapshot(dir.path()).await;
    let mut files = 0;
    for file in fs::read_dir(&config.dir).unwrap() {
        let bytes = fs::read(file.unwrap().path()).unwrap();
        files += 1;
        for word in [b"contentcontent".as_slice(), b"\"nodes\"", b"\"n29\""] {
            assert!(!bytes.windows(word.len()).any(|part| part == word));
        }
    }
    assert_eq!(files, 4, "database, tail, snapshot, key");
}

/// Opens copies of a store with a bit flipped in a file, and returns how many stopped.
async fn flip(config: &StoreConfig, file: impl Fn(&str) -> bool, rounds: usize) -> usize {
    let store = open(config.clone()).await.unwrap();
    let good = ids(&store);
    store.shutdown().await;
    let mut random = StdRng::seed_from_u64(2);
    let mut stopped = 0;
    for round in 0..rounds {
        let copy = tempfile::tempdir().unwrap();
        let to = copy_store(config, copy.path());
        let files = fs::read_dir(&to.dir).unwrap().map(|file| file.unwrap().path());
        let path = files.into_iter().find(|path| file(path.to_str().unwrap())).unwrap();
        let mut bytes = fs::read(&path).unwrap();
        // In what is used: a database is mostly zeros.
        let used: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at] != 0).collect();
        let at = used[random.random_range(0..used.len())];
        bytes[at] ^= 1 << random.random_range(0..8);
        fs::write(&path, bytes).unwrap();
        match open(to.clone()).await {
            Ok(store) => {
                assert_eq!(ids(&store), good, "round {round}, byte {at} of {}", path.display());
                store.shutdown().await;
            }
            Err(error) => {
                stopped += 1;
                let text = chain(&error);
                assert!(
                    text.contains("restore") || text.contains("another version"),
                    "round {round}, byte {at} of {}: {text}",
                    path.display()
                );
            }
        }
    }
    stopped
}

#[tokio::test]
async fn a_flipped_bit_is_a_clear_stop_or_harmless() {
    let dir = tempfile::tempdir().unwrap();
    let config = with_snapshot(dir.path()).await;
    assert_eq!(flip(&config, |path| path.contains("snapshot-"), 25).await, 25);

    let dir = tempfile::tempdir().unwrap();
    let config = self::config(dir.path());
    let store = bootstrap(config.clone()).await;
    for i in 0..20 {
        store.propose(vec![put(&format!("n{i}"), 0, &"content".repeat(9000))]).await.unwrap();
    }
    store.shutdown().await;
    // Pages that were given back are among what is flipped.
    let stopped = flip(&config, |path| path.ends_with(".redb"), 40).await;
    assert!(stopped >= 20, "most of the file are entries; {stopped} stopped");
}

#[tokio::test]
async fn a_snapshot_cannot_be_cut_or_exchanged() {
    let dir = tempfile::tempdir().unwrap();
    let config = with_snapshot(dir.path()).await;
    let snapshot = |config: &StoreConfig| {
        let files = fs::read_dir(&config.dir).unwrap().map(|file| file.unwrap().path());
        files.into_iter().find(|f| f.to_str().unwrap().contains("snapshot-")).unwrap()
    };
    let good = fs::read(snapshot(&config)).unwrap();
    for cut in [0, 7, 8, 12, 100, good.len() - 1] {
        fs::write(snapshot(&config), &good[..cut]).unwrap();
        assert!(open(config.clone()).await.is_err(), "cut to {cut}");
    }
    // Another store's, under the same key but another name.
    let other = tempfile::tempdir().unwrap();
    let other_config = with_snapshot(other.path()).await;
    fs::copy(snapshot(&other_config), snapshot(&config)).unwrap();
    assert!(open(config.clone()).await.is_err());
    fs::write(snapshot(&config), &good).unwrap();
    open(config).await.unwrap();
}

#[tokio::test]
async fn a_locked_store_opens_only_with_its_key() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let store = bootstrap(config.clone()).await;
    store.propose(vec![put("a", 0, "")]).await.unwrap();
    let key = UnlockKey::random();
    store.set_unlock_key(Some(key.clone())).await.unwrap();
    store.propose(vec![put("b", 0, "")]).await.unwrap();
    store.shutdown().await;
    assert!(config.keys.locked().unwrap());
    let with = |key: UnlockKey| StoreConfig {
        keys: config.keys.clone().with_unlock_key(key),
        ..config.clone()
    };
    let error = open(config.clone()).await.err().unwrap();
    assert!(matches!(error, StoreError::Key(KeyError::Locked)), "{error}");
    let error = open(with(UnlockKey::random())).await.err().unwrap();
    assert_eq!(error.to_string(), "swarm could not be unlocked: invalid key provided");
    let store = open(with(key)).await.unwrap();
    assert_eq!(ids(&store).len(), 2);
    store.rotate_data_key().await.unwrap();
    store.set_unlock_key(None).await.unwrap();
    store.shutdown().await;
    open(config.clone()).await.unwrap().shutdown().await;
    fs::remove_file(config.dir.join("data.key")).unwrap();
    let error = open(config).await.err().unwrap();
    assert!(matches!(error, StoreError::Key(KeyError::Missing { .. })), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_data_key_changes_under_load_and_the_old_one_opens_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let config = StoreConfig { snapshot_interval: 40, snapshot_keep: 10, ..config(dir.path()) };
    let store = bootstrap(config.clone()).await;
    for i in 0..50 {
        store.propose(vec![put(&format!("n{i}"), 0, "")]).await.unwrap();
    }
    let old_key = fs::read(config.dir.join("data.key")).unwrap();
    let writer = {
        let store = store.clone();
        tokio::spawn(async move {
            for i in 50..200 {
                store.propose(vec![put(&format!("n{i}"), 0, "")]).await.unwrap();
            }
        })
    };
    for _ in 0..3 {
        store.rotate_data_key().await.unwrap();
    }
    writer.await.unwrap();
    store.rotate_data_key().await.unwrap();
    let good = store.read(Clone::clone);
    store.shutdown().await;
    let store = open(config.clone()).await.unwrap();
    assert_eq!(store.read(Clone::clone), good);
    store.shutdown().await;
    let copy = tempfile::tempdir().unwrap();
    let to = copy_store(&config, copy.path());
    fs::write(to.dir.join("data.key"), old_key).unwrap();
    let error = open(to).await.err().expect("the old key is of no use");
    assert!(chain(&error).contains("data key 5, which is not there"), "{}", chain(&error));
}

#[tokio::test]
async fn an_interrupted_change_of_the_key_is_completed() {
    let dir = tempfile::tempdir().unwrap();
    let config = with_snapshot(dir.path()).await;
    for sealed_anew in [false, true] {
        let copy = tempfile::tempdir().unwrap();
        let to = copy_store(&config, copy.path());
        let disk = Disk::open(&to.dir, &to.keys, false).unwrap();
        disk.vault().begin_change().unwrap();
        if sealed_anew {
            disk.reseal_entries(0).unwrap();
        }
        let entries = disk.entries(ALL, usize::MAX).unwrap();
        drop(disk); // the process ends here
        let disk = Disk::open(&to.dir, &to.keys, false).unwrap();
        assert!(!disk.vault().changing());
        assert!(disk.entries(ALL, usize::MAX).unwrap() == entries);
        drop(disk);
        let keys = fs::read_to_string(to.dir.join("data.key")).unwrap();
        assert!(keys.contains(r#""number":2"#) && !keys.contains(r#""number":1"#), "{keys}");
        let store = open(to).await.unwrap();
        assert_eq!(ids(&store).len(), 30);
        store.shutdown().await;
    }
    assert!(Keys::new(config.dir.join("data.key")).load().unwrap().is_some());
}
