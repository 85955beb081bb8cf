//! What all hosts and whoever drives them have in common. One thread, so nothing is locked.

use crate::{disk::Disk, history::History, wire::Order};
use rand::{Rng as _, SeedableRng as _, rngs::SmallRng};
use redb::{StorageBackend, backends::FileBackend};
use shoal_store::{
    Store,
    bugs::Bug,
    outside::{Content, World},
};
use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    path::Path,
    sync::Arc,
    time::Duration,
};
use tokio::runtime::{Handle, Id};

/// When the simulation begins, since 1970. Any.
const EPOCH: Duration = Duration::from_secs(1_700_000_000);

pub(crate) struct Shared {
    pub(crate) bug: Option<Bug>,
    pub(crate) disks: Vec<Arc<Disk>>,
    /// Log entries between two snapshots, and kept behind one.
    pub(crate) snapshots: (u64, u64),
    pub(crate) history: RefCell<History>,
    /// Of the managers that run.
    pub(crate) stores: RefCell<BTreeMap<usize, Store>>,
    /// Managers whose store has ended by itself, and why.
    pub(crate) failed: RefCell<BTreeMap<usize, String>>,
    /// Managers that were let go for certain.
    pub(crate) removed: RefCell<BTreeSet<usize>>,
    /// What is to be changed of the cluster.
    pub(crate) orders: RefCell<VecDeque<Order>>,
    /// An order is being carried out.
    pub(crate) busy: Cell<bool>,
    /// The cluster has been made.
    pub(crate) founded: Cell<bool>,
    /// Clients shall finish what they are at.
    pub(crate) stop: Cell<bool>,
    /// Clients that have.
    pub(crate) finished: Cell<usize>,
    /// Rounds each client has finished.
    pub(crate) rounds: RefCell<BTreeMap<String, u64>>,
    chance: RefCell<SmallRng>,
    /// Whose runtime it is.
    runtimes: RefCell<HashMap<Id, usize>>,
}

impl Shared {
    pub(crate) fn new(
        seed: u64,
        bug: Option<Bug>,
        disks: Vec<Arc<Disk>>,
        snapshots: (u64, u64),
    ) -> Shared {
        Shared {
            bug,
            disks,
            snapshots,
            history: RefCell::default(),
            stores: RefCell::default(),
            failed: RefCell::default(),
            removed: RefCell::default(),
            orders: RefCell::default(),
            busy: Cell::new(false),
            founded: Cell::new(false),
            stop: Cell::new(false),
            finished: Cell::new(0),
            rounds: RefCell::default(),
            chance: RefCell::new(SmallRng::seed_from_u64(seed)),
            runtimes: RefCell::default(),
        }
    }

    /// A manager's process runs in this runtime.
    pub(crate) fn runs_here(&self, manager: usize) {
        self.runtimes.borrow_mut().insert(Handle::current().id(), manager);
        self.history.borrow_mut().started(manager);
        self.failed.borrow_mut().remove(&manager);
    }

    /// A number below another.
    pub(crate) fn below(&self, end: u64) -> u64 {
        self.chance.borrow_mut().random_range(0..end)
    }

    pub(crate) fn note(&self, what: impl Into<String>) {
        self.history.borrow_mut().note(what.into());
    }

    pub(crate) fn violate(&self, what: String) {
        self.history.borrow_mut().violate(what);
    }

    fn of_database(&self, path: &Path) -> usize {
        let found = self.disks.iter().position(|disk| path.starts_with(disk.dir()));
        found.expect("a store is in a disk's folder")
    }
}

impl World for Shared {
    fn now(&self) -> Duration {
        EPOCH + turmoil::sim_elapsed().unwrap_or_default()
    }

    fn random(&self) -> f64 {
        self.chance.borrow_mut().random()
    }

    fn disk_takes(&self) -> Duration {
        match self.runtimes.borrow().get(&Handle::current().id()) {
            Some(manager) => self.disks[*manager].takes(&mut self.chance.borrow_mut()),
            None => Duration::ZERO,
        }
    }

    fn file(&self, dir: &Path, file: FileBackend) -> Box<dyn StorageBackend> {
        self.disks[self.of_database(dir)].file(file)
    }

    fn applying(&self, path: &Path, index: u64, content: Content) {
        self.history.borrow_mut().applying(self.of_database(path), index, content);
    }

    fn installed(&self, path: &Path, index: u64) {
        self.history.borrow_mut().installed(self.of_database(path), index);
    }

    fn has(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }
}

pub(crate) fn manager_name(number: usize) -> String {
    format!("m{number}")
}

pub(crate) fn client_name(number: usize) -> String {
    format!("c{number}")
}
