//! What always holds, one file each, and the records they are checked against.
//!
//! [`Checks`] keeps the cluster's true state: the entries in the order the first manager applied them.
//! Every entry is held against it on every manager; what a transaction did is shown to each
//! [`Invariant`] once.
mod acknowledged;
mod addresses;
mod agreement;
mod backends;
mod capacity;
mod certificates;
mod convergence;
mod enforced;
mod failures;
mod generic;
mod global;
mod held;
mod history;
mod host_ports;
mod jobs;
mod liveness;
mod needed;
mod overlooked;
mod ports;
mod rebalance;
mod replacement;
mod restarts;
mod secrets;
mod slots;
mod tables;
mod transitions;
mod updates;
mod versions;

use crate::{
    config::Config,
    log::{Entry, Payload, Peer, Txn},
    manager::Ask,
    time::Ns,
};
use acknowledged::Acknowledged;
use agreement::Agreement;
use backends::Backends;
use certificates::{Removed, Workers};
use secrets::Secrets;
use shoal_model::{
    ApplyError, Change, DependencyKind, NodeAssignment, Object, ObjectKind, Service, State, Task,
    TaskState, Timestamp, UpdateStatus, docker,
};
use std::{collections::BTreeMap, iter, rc::Rc, sync::Arc};

/// Something that must never be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// The invariant it breaks, by its file's name.
    pub invariant: &'static str,
    /// What is wrong, with the objects' names.
    pub text: String,
}

pub(crate) type Verdict = Result<(), String>;

/// What a transaction did to the state.
pub(crate) struct Step<'a> {
    pub(crate) txn: &'a Txn,
    /// Objects as they were, in the order of the changes.
    pub(crate) old: &'a [Option<Object>],
    /// The state with the transaction.
    pub(crate) state: &'a State,
    /// Facts about tasks that the state does not tell.
    pub(crate) tasks: &'a BTreeMap<String, TaskFacts>,
}

/// What is remembered of a task beside the state.
pub(crate) struct TaskFacts {
    /// Order in which tasks were made, whatever the clocks said.
    pub(crate) order: u64,
    /// Clock of the leader when its end became known, if it ended while it was wanted.
    pub(crate) ended: Option<Timestamp>,
}

impl Step<'_> {
    /// Tasks put by this transaction: as they were and as they are.
    pub(crate) fn tasks_put(&self) -> impl Iterator<Item = (Option<&Task>, &Task)> + '_ {
        self.txn.changes.iter().zip(self.old).filter_map(|(change, old)| {
            let Change::Put(Object::Task(task)) = change else { return None };
            let old = match old {
                Some(Object::Task(old)) => Some(&**old),
                _ => None,
            };
            Some((old, self.state.tasks.get(&task.id)?))
        })
    }

    /// Tasks of a place but one, in the order they were made.
    pub(crate) fn others_of_slot(&self, task: &Task) -> Vec<&Task> {
        let mut others: Vec<&Task> = self
            .state
            .tasks_of_service(&task.service_id)
            .filter(|t| t.slot == task.slot && place(t) == place(task) && t.id != task.id)
            .collect();
        others.sort_by_key(|t| self.tasks.get(&t.id).map(|f| f.order));
        others
    }
}

/// An invariant of the state.
pub(crate) trait Invariant {
    fn name(&self) -> &'static str;

    /// A transaction was applied.
    fn applied(&mut self, step: &Step<'_>) -> Verdict;

    /// The leader's cores want nothing of this state.
    fn at_rest(&mut self, _: &Rest<'_>) -> Verdict {
        Ok(())
    }
}

/// A state the leader's cores want nothing of.
pub(crate) struct Rest<'a> {
    pub(crate) state: &'a State,
    pub(crate) tasks: &'a BTreeMap<String, TaskFacts>,
    /// The leader's clock.
    pub(crate) now: Timestamp,
}

pub(crate) struct Checks {
    violation: Option<Violation>,
    agreement: Agreement,
    acknowledged: Acknowledged,
    backends: Backends,
    removed: Removed,
    workers: Workers,
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

    fn judge(&mut self, invariant: &'static str, verdict: Verdict) {
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

/// The object a change is about, as it is.
fn present(state: &State, change: &Change) -> Option<Object> {
    let (kind, id) = match change {
        Change::Put(object) => (object.kind(), object.id()),
        Change::Delete(kind, id) => (*kind, id.as_str()),
    };
    match kind {
        ObjectKind::Cluster => state.cluster.clone().map(Box::new).map(Object::Cluster),
        ObjectKind::Node => state.nodes.get(id).cloned().map(Box::new).map(Object::Node),
        ObjectKind::Network => state.networks.get(id).cloned().map(Box::new).map(Object::Network),
        ObjectKind::Service => state.services.get(id).cloned().map(Box::new).map(Object::Service),
        ObjectKind::Task => state.tasks.get(id).map(|task| Object::Task(task.clone().into())),
        ObjectKind::Secret => state.secrets.get(id).cloned().map(Object::Secret),
        ObjectKind::Config => state.configs.get(id).cloned().map(Object::Config),
    }
}

/// Whether an update of the service, or its way back, starts the new task before it stops the old one.
fn starts_first(service: &Service) -> bool {
    use docker::{
        ServiceSpecRollbackConfigOrderEnum as Back, ServiceSpecUpdateConfigOrderEnum as Forth,
    };
    match service.update_status.as_ref().is_some_and(UpdateStatus::is_rollback) {
        true => {
            let config = service.spec.rollback_config.as_ref();
            config.and_then(|c| c.order) == Some(Back::START_FIRST)
        }
        false => {
            let config = service.spec.update_config.as_ref();
            config.and_then(|c| c.order) == Some(Forth::START_FIRST)
        }
    }
}

/// Where a task belongs: the number of its slot, or its node (global services and jobs). Its name says
/// so for ever, whatever becomes of the service.
fn place(task: &Task) -> &str {
    task.name.split('.').nth(1).unwrap_or_default()
}

/// Tasks of a service by place, those told to go for good left out.
fn places<'a>(state: &'a State, service: &Service) -> BTreeMap<&'a str, Vec<&'a Task>> {
    let mut places: BTreeMap<&str, Vec<&Task>> = BTreeMap::new();
    for task in state.tasks_of_service(&service.id).filter(|t| t.desired != TaskState::Remove) {
        places.entry(place(task)).or_default().push(task);
    }
    places
}

/// Whether a task of this version may be as the service wants it.
fn may_be_current(service: &Service, task: &Task) -> bool {
    task.spec_version == service.spec_version
        || service.placement_versions.contains(&task.spec_version)
}

/// Whether nobody expects the task to go on where it is, as far as one knows who read version `read`.
fn may_be_lost(state: &State, task: &Task, read: u64) -> bool {
    let Some(node) = &task.node_id else { return false };
    state.nodes.get(node).is_none_or(|n| {
        n.meta.version > read
            || n.status.state == shoal_model::NodeState::Down
            || n.availability == shoal_model::Availability::Drain
    })
}

/// What a transaction does, for who reads the events.
fn words(txn: &Txn) -> String {
    let word = |change: &Change| match change {
        Change::Put(Object::Task(t)) => format!(
            "task {} {}.{}v{} {:?}→{:?} on {}",
            t.id.get(..6).unwrap_or(&t.id),
            t.service_id.get(..4).unwrap_or_default(),
            place(t),
            t.spec_version,
            t.status.state,
            t.desired,
            t.node_id.as_deref().unwrap_or("-")
        ),
        Change::Put(Object::Node(n)) => {
            format!("{} {:?} {:?} {:?}", n.id, n.role, n.status.state, n.availability)
        }
        Change::Put(Object::Service(s)) => format!(
            "service {} {} v{} {:?} {}",
            s.id.get(..4).unwrap_or_default(),
            s.name(),
            s.spec_version,
            s.mode(),
            s.update_status.as_ref().map_or("never updated".to_owned(), |u| format!(
                "{:?} since {}",
                u.state, u.began.0
            ))
        ),
        Change::Put(object) => format!("{} {}", object.kind().as_str(), object.id()),
        Change::Delete(kind, id) => format!("no {} {}", kind.as_str(), id.get(..6).unwrap_or(id)),
    };
    txn.changes.iter().map(word).collect::<Vec<_>>().join(", ")
}
