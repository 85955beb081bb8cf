//! The true state, and everything that is held against it.

use super::{
    Invariant, Rest, Step, TaskFacts, Verdict, Violation,
    acknowledged::Acknowledged,
    addresses,
    agreement::{self, Agreement},
    backends::{self, Backends},
    capacity,
    certificates::{self, Removed, Workers},
    enforced, failures, generic, global, held, history, host_ports, jobs, liveness, needed,
    overlooked, ports, present, rebalance, replacement, restarts,
    secrets::Secrets,
    slots,
    step::words,
    tables, transitions, updates, versions,
};
use crate::{
    config::Config,
    log::{Entry, Payload, Peer, Txn},
    manager::Ask,
    time::Ns,
};
use shoal_model::{
    ApplyError, Change, DependencyKind, NodeAssignment, Object, ObjectKind, State, Task, TaskState,
    Timestamp,
};
use std::{collections::BTreeMap, iter, rc::Rc, sync::Arc};

pub(crate) struct Checks {
    violation: Option<Violation>,
    agreement: Agreement,
    acknowledged: Acknowledged,
    backends: Backends,
    pub(super) removed: Removed,
    pub(super) workers: Workers,
    secrets: Secrets,
    of_state: Vec<Box<dyn Invariant>>,
    facts: BTreeMap<String, TaskFacts>,
    made: u64,
    rested_at: Option<u64>,
    /// Whether every transaction is written to the output.
    talks: bool,
}

impl Checks {
    pub(crate) fn new(config: &Config, talks: bool) -> Checks {
        let of_state: Vec<Box<dyn Invariant>> = vec![
            Box::new(versions::Versions),
            Box::new(overlooked::Overlooked),
            Box::new(transitions::Transitions),
            Box::new(addresses::Addresses::default()),
            Box::new(ports::Ports),
            Box::new(capacity::Capacity),
            Box::new(enforced::Enforced),
            Box::new(certificates::Roots),
            Box::new(host_ports::HostPorts),
            Box::new(generic::Generic),
            Box::new(slots::Slots),
            Box::new(global::Global),
            Box::new(jobs::Jobs::default()),
            Box::new(rebalance::Rebalance),
            Box::new(replacement::Replacement),
            Box::new(updates::Updates::default()),
            Box::new(failures::Failures::default()),
            Box::new(restarts::Restarts { skew: config.skew }),
            Box::new(history::History),
        ];
        Checks {
            violation: None,
            agreement: Agreement::default(),
            acknowledged: Acknowledged::default(),
            backends: Backends::default(),
            removed: Removed::default(),
            workers: Workers::default(),
            secrets: Secrets::default(),
            of_state,
            facts: BTreeMap::new(),
            made: 0,
            rested_at: None,
            talks,
        }
    }

    /// The first violation.
    pub(crate) fn violation(&self) -> Option<Violation> {
        self.violation.clone()
    }

    pub(crate) fn fail(&mut self, violation: Violation) {
        self.violation.get_or_insert(violation);
    }

    pub(super) fn judge(&mut self, invariant: &'static str, verdict: Verdict) {
        if let Err(text) = verdict {
            self.fail(Violation { invariant, text });
        }
    }

    /// The true state.
    pub(crate) fn state(&self) -> &State {
        &self.agreement.state
    }

    pub(crate) fn elected(&mut self, m: usize, term: u64) {
        let verdict = self.agreement.elected(m, term);
        self.judge("agreement", verdict);
    }

    pub(crate) fn truncated(&mut self, m: usize, from: u64, applied: u64) {
        let verdict = agreement::truncated(m, from, applied);
        self.judge("agreement", verdict);
    }

    /// A manager has applied an entry.
    pub(crate) fn applied(
        &mut self,
        m: usize,
        entry: &Rc<Entry>,
        state: &State,
        results: &[Result<u64, ApplyError>],
        now: Ns,
    ) {
        if self.violation.is_some() {
            return;
        }
        if self.agreement.is_next(entry.index) {
            self.first_applied(entry, now);
        }
        let verdict = self.agreement.holds(m, entry, state, results);
        self.judge("agreement", verdict);
    }

    /// Nobody has applied the entry before: the true state goes on.
    fn first_applied(&mut self, entry: &Rc<Entry>, now: Ns) {
        self.agreement.begin(entry);
        let Payload::Batch(batch) = &entry.payload else { return };
        for txn in batch {
            let state = &self.agreement.state;
            let due = versions::due(state, &txn.changes);
            let old: Vec<Option<Object>> = txn.changes.iter().map(|c| present(state, c)).collect();
            let done = self.agreement.apply(txn);
            if due.is_ok() != done {
                let text = format!(
                    "transaction {} of the {} should have been {due:?} and was {}",
                    txn.id,
                    txn.author.word(),
                    if done { "applied" } else { "refused" }
                );
                return self.fail(Violation { invariant: "versions", text });
            }
            if self.talks {
                println!("    {} {}: {}", txn.author.word(), done, words(txn));
            }
            self.acknowledged.happened(txn, done.then_some(self.agreement.state.version));
            if done {
                self.remember(txn);
                self.removed.note(&txn.changes, now);
                self.workers.note(&txn.changes, now);
                let (state, tasks) = (&self.agreement.state, &self.facts);
                let step = Step { txn, old: &old, state, tasks };
                let secrets: &mut dyn Invariant = &mut self.secrets;
                let of_state = self.of_state.iter_mut().map(|i| &mut **i as &mut dyn Invariant);
                for invariant in of_state.chain(iter::once(secrets)) {
                    if let Err(text) = invariant.applied(&step) {
                        let invariant = invariant.name();
                        self.violation.get_or_insert(Violation { invariant, text });
                    }
                }
            }
        }
        self.agreement.end(entry);
    }

    fn remember(&mut self, txn: &Txn) {
        for change in &txn.changes {
            match change {
                Change::Put(Object::Task(task)) => {
                    self.made += 1;
                    let fresh = TaskFacts { order: self.made, ended: None };
                    let facts = self.facts.entry(task.id.clone()).or_insert(fresh);
                    let wanted = task.desired <= TaskState::Running;
                    if task.status.state.is_terminal() && wanted && facts.ended.is_none() {
                        facts.ended = Some(txn.now);
                    }
                }
                Change::Delete(ObjectKind::Task, id) => drop(self.facts.remove(id)),
                _ => {}
            }
        }
    }

    pub(crate) fn installed(&mut self, m: usize, state: &State, index: u64) {
        let verdict = self.agreement.installed(m, state, index);
        self.judge("agreement", verdict);
    }

    /// A client was told that its request is done.
    pub(crate) fn acknowledged(&mut self, ask: &Ask, version: u64, txn: u64) {
        let verdict = self.acknowledged.told(ask, version, txn);
        self.judge("acknowledged", verdict);
    }

    /// A leader's cores want nothing.
    pub(crate) fn at_rest(&mut self, state: &State, now: Timestamp) {
        if state.version != self.agreement.state.version {
            return; // it is not the newest; then its rest means nothing
        }
        let rest = Rest { state, tasks: &self.facts, now };
        for invariant in &mut self.of_state {
            if let Err(text) = invariant.at_rest(&rest) {
                let invariant = invariant.name();
                self.violation.get_or_insert(Violation { invariant, text });
            }
        }
    }

    /// A node is sent an assignment made from a state.
    pub(crate) fn told(&mut self, state: &State, node: &str, assignment: &NodeAssignment) {
        let verdict = backends::told(state, assignment);
        self.judge("backends", verdict);
        let verdict = needed::told(state, node, assignment);
        self.judge("needed", verdict);
        let verdict = self.secrets.told(state, node, assignment);
        self.judge("secrets", verdict);
        let verdict = tables::told(state, node, assignment);
        self.judge("tables", verdict);
    }

    /// A node keeps an assignment for its next start.
    pub(crate) fn written(&mut self, host: usize, assignment: &NodeAssignment) {
        let verdict = held::written(host, assignment);
        self.judge("held", verdict);
    }

    /// A task's container starts.
    pub(crate) fn supplied(&mut self, task: &Task, files: &[Arc<shoal_model::Payload>]) {
        let verdict = self.secrets.supplied(task, files);
        self.judge("held", verdict);
    }

    /// A task is refused, as what it refers to is not told.
    pub(crate) fn refused(&mut self, task: &str, kind: DependencyKind, id: &str) {
        let verdict = held::refused(&self.agreement.state, task, kind, id);
        self.judge("held", verdict);
    }

    pub(crate) fn another_node(&mut self, host: usize) {
        self.backends.another_node(host);
    }

    pub(crate) fn in_force(&mut self, host: usize, boot: u32, generation: u64) {
        let verdict = self.backends.in_force(host, boot, generation);
        self.judge("backends", verdict);
    }

    pub(crate) fn signalled(&mut self, host: usize, task: &str, listed: bool) {
        let verdict = backends::signalled(host, task, listed);
        self.judge("backends", verdict);
    }

    pub(crate) fn must_be_down(&mut self, state: &State, node: &str) {
        let verdict = liveness::must_be_down(state, node);
        self.judge("liveness", verdict);
    }

    /// Whether the version is the one it was at the last look.
    pub(crate) fn rests_at(&mut self, version: u64) -> bool {
        self.rested_at.replace(version) == Some(version)
    }

    /// The end: managers whole against each other, acknowledgements against the state.
    pub(crate) fn finally(&mut self, peers: &[Peer]) {
        for (m, peer) in peers.iter().enumerate() {
            let verdict = self.agreement.finally(m, &peer.state);
            self.judge("agreement", verdict);
        }
        let verdict = self.acknowledged.finally(&self.agreement.state);
        self.judge("acknowledged", verdict);
    }
}
