//! The hosts of a run: who leads, whose process ends and begins, who was let go.

use super::Run;
use crate::faults::End;
use rand::Rng as _;
use std::time::Duration;

impl Run<'_> {
    /// Looks at who leads, whose power is gone, and who was let go.
    pub(super) fn look(&mut self) {
        for (number, store) in self.shared.stores.borrow().iter() {
            if store.is_leader() {
                let term = store.leadership().borrow().term;
                self.shared.history.borrow_mut().leads(*number, term);
            }
        }
        for host in 0..self.plan.hosts {
            let failed = self.shared.failed.borrow().contains_key(&host);
            if (failed || self.shared.disks[host].is_off()) && !self.down.contains(&host) {
                self.crash(host);
                let pause = self.plan.lasts.mul_f64(self.random.random());
                self.ends(pause, End::Start(host));
            }
        }
        let removed = std::mem::take(&mut *self.shared.removed.borrow_mut());
        for host in removed {
            self.let_go(host);
        }
    }

    /// A manager was let go: its process ends and its store goes, as a node's that is demoted. It may be
    /// wanted again.
    fn let_go(&mut self, host: usize) {
        self.crash(host);
        if let Err(error) = self.shared.disks[host].wipe() {
            self.shared.violate(format!("m{host}'s disk cannot be wiped: {error}"));
        }
        self.due.retain(|_, end| !matches!(end, End::Start(other) if *other == host));
        self.gone.insert(host);
        let pause = self.plan.lasts.mul_f64(self.random.random());
        self.ends(pause, End::Start(host));
    }

    /// Whoever leads in the newest term.
    pub(crate) fn leader(&self) -> Option<usize> {
        let stores = self.shared.stores.borrow();
        let leaders = stores.iter().filter(|(_, store)| store.is_leader());
        let newest = leaders.max_by_key(|(_, store)| store.leadership().borrow().term);
        newest.map(|(number, _)| *number)
    }

    /// Ends a manager's process, and with it the power of its disk.
    pub(crate) fn crash(&mut self, host: usize) {
        if !self.down.insert(host) {
            return;
        }
        self.shared.note(format!("m{host} ends"));
        self.shared.disks[host].power_off();
        self.shared.stores.borrow_mut().remove(&host);
        self.sim.crash(self.names[host].as_str());
    }

    /// Begins a manager's process, if it does not run.
    pub(crate) fn start(&mut self, host: usize) {
        if !self.down.remove(&host) {
            return;
        }
        self.gone.remove(&host);
        if let Err(error) = self.shared.disks[host].power_on(&mut self.random) {
            self.shared.violate(format!("m{host}'s disk cannot be restored: {error}"));
        }
        self.sim.bounce(self.names[host].as_str());
    }

    /// Something ends after a time.
    pub(crate) fn ends(&mut self, after: Duration, end: End) {
        self.ordinal += 1;
        self.due.insert((self.now + after, self.ordinal), end);
    }

    /// Everything ends that was wrong.
    pub(super) fn calm(&mut self) {
        self.shared.note("calm");
        // Some ends begin something that ends later.
        while let Some((_, end)) = self.due.pop_first() {
            self.end(end);
        }
        self.end(End::Lossless);
        for host in 0..self.plan.hosts {
            if !self.shared.disks[host].is_well() {
                self.crash(host);
            }
            self.start(host);
        }
    }

    /// The state, if all managers of the cluster have the same.
    pub(super) fn same(&self) -> Option<shoal_model::State> {
        let stores = self.shared.stores.borrow();
        let leader = &stores[&self.leader()?];
        let state = leader.read(Clone::clone);
        let same = leader.members().iter().all(|member| {
            let number = member.node_id.strip_prefix('m').and_then(|number| number.parse().ok());
            let store = number.and_then(|number: usize| stores.get(&number));
            store.is_some_and(|store| store.read(|other| *other == state))
        });
        same.then_some(state)
    }
}
