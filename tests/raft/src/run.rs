//! One simulation from its beginning to its end: a cluster is made, faults, calm, judgement.

mod hosts;

use crate::{
    client,
    disk::Disk,
    entropy,
    faults::{End, mends},
    history::Figures,
    manager,
    plan::Plan,
    shared::{Shared, client_name, manager_name},
    wire::Order,
};
use rand::{Rng as _, SeedableRng as _, rngs::SmallRng};
use serde::{Deserialize, Serialize};
use shoal_store::{bugs::Bug, outside};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    rc::Rc,
    time::Duration,
};
use turmoil::Sim;

/// What one look at the simulation is apart from the next.
const TICK: Duration = Duration::from_millis(1);

/// Connections that wait to be accepted, and segments to be read: turmoil gives up the simulation when there
/// are more, and all that was held arrives at once.
const BACKLOG: usize = 4096;

/// How long making the cluster may take.
const BEGIN: Duration = Duration::from_secs(30);

/// How long it may take after the last fault until every client has written again, and again until all
/// managers are the same. An election takes a second, a client looks for the leader for as long as its
/// patience a few times, and a connection that lost something is noticed after ten.
const LIVE: Duration = Duration::from_secs(30);

/// Rounds of writes after the last fault.
const ROUNDS: u64 = 4;

/// Longer than anything here.
const EVER: Duration = Duration::from_secs(3600);

/// What a run has come to.
#[derive(Clone, Serialize, Deserialize, Debug)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// The first rule that was broken.
    pub violation: Option<String>,
    /// The end of the story.
    pub story: Vec<String>,
    /// Of everything that has happened.
    pub fingerprint: u64,
    /// How much has happened.
    pub figures: Figures,
}

/// Runs one seed, with a bug if one is given.
pub(crate) fn run(seed: u64, bug: Option<Bug>, aloud: bool) -> Outcome {
    entropy::fix();
    let dir = tempfile::Builder::new().prefix("shoal-raft-").tempdir_in(folder());
    let dir = dir.expect("a folder can be made for the managers' disks");
    let mut random = SmallRng::seed_from_u64(seed);
    let plan = Plan::new(&mut random);
    let disks = (0..plan.hosts).map(|n| Disk::new(dir.path().join(manager_name(n)))).collect();
    let shared = Rc::new(Shared::new(random.random(), bug, disks, plan.snapshots));
    shared.history.borrow_mut().aloud = aloud;
    shared.history.borrow_mut().folder = dir.path().display().to_string();
    outside::enter(Some(shared.clone()));
    let run = Run::new(shared.clone(), plan, random);
    run.run_to_its_end();
    outside::enter(None);
    let history = shared.history.borrow();
    Outcome {
        seed,
        violation: history.violation().cloned(),
        story: history.story().to_vec(),
        fingerprint: history.fingerprint(),
        figures: Figures { time: history.now, ..history.figures },
    }
}

/// In memory where there is such a folder: the disks are simulated, flushing real ones only costs time.
fn folder() -> PathBuf {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() }
}

pub(crate) struct Run<'a> {
    pub(crate) sim: Sim<'a>,
    pub(crate) shared: Rc<Shared>,
    pub(crate) plan: Plan,
    pub(crate) random: SmallRng,
    /// Of all hosts; managers first.
    pub(crate) names: Vec<String>,
    /// Links that a fault has.
    pub(crate) links: BTreeSet<(usize, usize)>,
    /// Managers, as far as orders have been given.
    pub(crate) members: BTreeSet<usize>,
    /// Managers that were let go and whose disks were wiped, which have not begun again.
    pub(crate) gone: BTreeSet<usize>,
    down: BTreeSet<usize>,
    /// What ends when.
    due: BTreeMap<(Duration, u64), End>,
    ordinal: u64,
    now: Duration,
}

impl<'a> Run<'a> {
    fn new(shared: Rc<Shared>, plan: Plan, mut random: SmallRng) -> Run<'a> {
        let mut sim = turmoil::Builder::new()
            .rng_seed(random.random())
            .tick_duration(TICK)
            .simulation_duration(EVER)
            .min_message_latency(plan.latency.0)
            .max_message_latency(plan.latency.1)
            .repair_rate(mends())
            .tcp_capacity(BACKLOG)
            .enable_random_order()
            .build();
        let mut names = Vec::new();
        for number in 0..plan.hosts {
            shared.disks[number].set_speed(plan.disk.0, plan.disk.1);
            names.push(manager_name(number));
            let host = shared.clone();
            sim.host(manager_name(number), move || manager::run(host.clone(), number));
        }
        for number in 0..plan.clients {
            names.push(client_name(number));
            let host = shared.clone();
            sim.host(client_name(number), move || client::run(host.clone(), number));
        }
        names.push("admin".to_owned());
        let host = shared.clone();
        sim.host("admin", move || client::administrate(host.clone()));
        let orders = (1..plan.managers).map(|number| Order::Add(manager_name(number)));
        shared.orders.borrow_mut().extend(orders);
        let members = (0..plan.managers).collect();
        Run {
            sim,
            shared,
            plan,
            random,
            names,
            links: BTreeSet::new(),
            members,
            gone: BTreeSet::new(),
            down: BTreeSet::new(),
            due: BTreeMap::new(),
            ordinal: 0,
            now: Duration::ZERO,
        }
    }

    fn run_to_its_end(mut self) {
        let formed = |run: &Run<'_>| {
            !run.shared.busy.get()
                && run.shared.orders.borrow().is_empty()
                && run.leader().is_some()
        };
        // The administrator takes up the first order a little later.
        self.pass(Duration::from_millis(50));
        if !self.until(BEGIN, "the managers form a cluster", formed) {
            return;
        }
        for _ in 0..self.plan.faults {
            let pause = self.random.random_range(0..=self.plan.pause.as_millis() as u64);
            if !self.pass(Duration::from_millis(pause)) {
                return;
            }
            self.fault();
        }
        if !self.pass(self.plan.lasts) {
            return;
        }
        self.calm();
        let began = self.shared.rounds.borrow().clone();
        let clients = self.plan.clients;
        let written = |run: &Run<'_>| {
            let rounds = run.shared.rounds.borrow();
            let again = |(client, now): (&String, &u64)| {
                *now >= began.get(client).copied().unwrap_or(0) + ROUNDS
            };
            rounds.len() == clients && rounds.iter().all(again)
        };
        if !self.until(LIVE, "every client writes again", written) {
            return;
        }
        self.shared.stop.set(true);
        let finished = |run: &Run<'_>| run.shared.finished.get() == clients;
        if !self.until(LIVE, "every client's last write is acknowledged", finished) {
            return;
        }
        if !self.until(LIVE, "all managers have the same", |run| run.same().is_some()) {
            return;
        }
        if let Some(state) = self.same() {
            self.shared.history.borrow_mut().judge(&state);
        }
    }

    /// Lets time pass. False: a rule was broken.
    fn pass(&mut self, time: Duration) -> bool {
        let end = self.now + time;
        while self.now < end {
            if !self.step() {
                return false;
            }
        }
        true
    }

    /// Lets time pass until something is so. False: a rule was broken, perhaps that it must be so in time.
    fn until(&mut self, limit: Duration, what: &str, so: impl Fn(&Run<'_>) -> bool) -> bool {
        let end = self.now + limit;
        while !so(self) {
            if !self.step() {
                return false;
            }
            if self.now >= end {
                self.describe();
                self.shared.violate(format!("within {} s: {what}", limit.as_secs()));
                return false;
            }
        }
        true
    }

    /// Where each manager stands.
    fn describe(&self) {
        for (number, store) in self.shared.stores.borrow().iter() {
            let version = store.read(|state| state.version);
            let (leads, members) = (store.leadership().borrow().clone(), store.members());
            let members: Vec<_> = members.iter().map(|m| (&m.node_id, m.voter)).collect();
            self.shared.note(format!("m{number}: version {version}, {leads:?}, {members:?}"));
        }
    }

    fn step(&mut self) -> bool {
        while let Some(first) = self.due.first_entry().filter(|first| first.key().0 <= self.now) {
            let end = first.remove();
            self.end(end);
        }
        if let Err(error) = self.sim.step() {
            self.shared.violate(format!("a host has ended: {error}"));
        }
        self.now += TICK;
        self.shared.history.borrow_mut().now = self.now;
        self.look();
        self.shared.history.borrow().violation().is_none()
    }
}
