//! What a manager does while it leads: the shell of `control/manager`, modelled, around the real cores.
//!
//! Every change goes through the log. What waits for a proposal is a [`Waiter`], told when the entry is
//! applied here, or when the lead is lost.
mod control;
mod dispatcher;
mod reconciler;
mod watchdog;

pub(crate) use control::{Ask, Refusal, Reply};

use crate::{
    event::Event,
    identity::{Rotation, Tls},
    log::{Author, Entry, Payload, Txn},
    time::MS,
    world::World,
};
use reconciler::Reconciler;
use shoal_cores::{Report, Tables};
use shoal_model::{
    ApplyError, Change, NodeState, Object, Timestamp,
    bugs::{self, Bug},
};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    rc::Rc,
};

/// Proposals in one entry (`control/store`).
const MAX_BATCH: usize = 128;
/// Attempts at a change whose object others change, too (`control/manager`).
pub(crate) const ATTEMPTS: u32 = 20;

/// A manager that leads.
pub(crate) struct Lead {
    pub(crate) id: u64,
    /// Whether it serves: it has told the nodes apart from those it knew.
    ready: bool,
    since: u64,
    waiting: VecDeque<Proposal>,
    flight: Option<(u64, Vec<Waiter>)>,
    reconciler: Reconciler,
    /// Connection of each node's session.
    pub(crate) sessions: BTreeMap<String, u64>,
    telling: bool,
    /// What every node is told.
    tables: Tables,
    /// When nodes without a session that works were last heard of.
    beats: BTreeMap<String, Timestamp>,
    /// Nodes being marked down.
    falling: BTreeSet<String>,
    reports: Vec<Report>,
    gathering: bool,
    pub(crate) rotation: Rotation,
}

struct Proposal {
    txn: Txn,
    waiter: Waiter,
}

/// Who waits for a proposal.
pub(crate) enum Waiter {
    Nobody,
    Reconciler,
    /// A new leader's first change.
    Forgetting,
    Reports(Rc<Vec<Report>>, u32),
    Registration {
        conn: u64,
        attempt: u32,
    },
    /// A node's certificate.
    Certified {
        conn: u64,
        tls: Box<Tls>,
        attempt: u32,
    },
    /// The end of a rotation of the root.
    Rotation {
        attempt: u32,
    },
    Down {
        node: String,
        why: &'static str,
        attempt: u32,
    },
    Client {
        client: usize,
        request: u64,
    },
}

/// What became of a proposal: the version it made.
type Answered = Result<u64, ApplyError>;

impl World {
    /// Puts changes into the queue of proposals.
    pub(crate) fn propose(
        &mut self,
        m: usize,
        author: Author,
        changes: Vec<Change>,
        waiter: Waiter,
    ) {
        let txn = Txn {
            id: self.next_serial(),
            now: self.wall(m),
            author,
            read: self.peers[m].state.version,
            changes,
        };
        if let Waiter::Client { client, request } = waiter
            && bugs::active(Bug::AckBeforeCommit)
        {
            let version = txn.read + 1;
            self.reply(m, client, request, Reply::Done { version, txn: txn.id });
        }
        let Some(lead) = &mut self.leads[m] else { return };
        lead.waiting.push_back(Proposal { txn, waiter });
        self.next_entry(m);
    }

    /// One entry is under way at a time; what waits meanwhile goes into the next.
    fn next_entry(&mut self, m: usize) {
        let Some(lead) = &mut self.leads[m] else { return };
        if lead.flight.is_some() || lead.waiting.is_empty() {
            return;
        }
        let count = lead.waiting.len().min(MAX_BATCH);
        let (batch, waiters): (Vec<Txn>, Vec<Waiter>) =
            lead.waiting.drain(..count).map(|p| (p.txn, p.waiter)).unzip();
        let index = self.append(m, Payload::Batch(batch));
        if let Some(lead) = &mut self.leads[m] {
            lead.flight = Some((index, waiters));
        }
    }

    /// An entry was applied at a manager.
    pub(crate) fn entry_applied(
        &mut self,
        m: usize,
        entry: &Rc<Entry>,
        results: Vec<Result<u64, ApplyError>>,
    ) {
        let peer = &self.peers[m];
        if matches!(entry.payload, Payload::Blank)
            && peer.is_leader()
            && entry.term == peer.term
            && self.leads[m].is_none()
        {
            return self.begin_lead(m);
        }
        let Some(lead) = &mut self.leads[m] else { return };
        if lead.flight.as_ref().is_some_and(|(index, _)| *index == entry.index)
            && let Some((_, waiters)) = lead.flight.take()
        {
            let Payload::Batch(batch) = &entry.payload else { return };
            self.next_entry(m);
            for ((waiter, result), txn) in waiters.into_iter().zip(results).zip(batch) {
                self.answer(m, waiter, result, txn.id);
            }
        }
        self.state_changed(m);
    }

    fn answer(&mut self, m: usize, waiter: Waiter, answered: Answered, txn: u64) {
        match waiter {
            Waiter::Nobody => {}
            Waiter::Forgetting => match answered {
                Ok(_) => self.serve(m),
                Err(_) => self.forget_nodes(m),
            },
            Waiter::Reconciler => self.reconciler_answered(m, answered.is_ok()),
            Waiter::Reports(reports, attempt) => {
                self.reports_written(m, reports, attempt, answered)
            }
            Waiter::Registration { conn, attempt } => self.registered(m, conn, attempt, answered),
            Waiter::Certified { conn, tls, attempt } => {
                self.certificate_noted(m, conn, tls, attempt, answered);
            }
            Waiter::Rotation { attempt } => self.rotation_answered(m, attempt, answered.is_ok()),
            Waiter::Down { node, why, attempt } => {
                if let Some(lead) = &mut self.leads[m] {
                    lead.falling.remove(&node);
                }
                if answered.is_err() && attempt < ATTEMPTS {
                    self.mark_down(m, &node, why, attempt + 1);
                }
            }
            Waiter::Client { client, request } => {
                let reply = match answered {
                    Ok(version) => Reply::Done { version, txn },
                    Err(error) => Reply::Refused(Refusal::of(error)),
                };
                let early =
                    matches!(reply, Reply::Done { .. }) && bugs::active(Bug::AckBeforeCommit);
                if !early {
                    self.reply(m, client, request, reply);
                }
            }
        }
    }

    /// This manager was elected and has applied all that went before.
    fn begin_lead(&mut self, m: usize) {
        let id = self.next_serial();
        self.leads[m] = Some(Lead {
            id,
            ready: false,
            since: self.now,
            waiting: VecDeque::new(),
            flight: None,
            reconciler: Reconciler::in_steps(self.config.reading),
            sessions: BTreeMap::new(),
            telling: false,
            tables: Tables::default(),
            beats: BTreeMap::new(),
            falling: BTreeSet::new(),
            reports: Vec::new(),
            gathering: false,
            rotation: Rotation::default(),
        });
        if self.peers[m].state.cluster.is_none() {
            let changes = self.found();
            self.propose(m, Author::Founder, changes, Waiter::Nobody);
        }
        self.forget_nodes(m);
    }

    /// If nobody led before, nodes may have come and gone: every one counts as unknown until it says
    /// hello.
    fn forget_nodes(&mut self, m: usize) {
        let first = self.peers[m].first;
        let unknown = |n: &&shoal_model::Node| {
            first && !matches!(n.status.state, NodeState::Down | NodeState::Unknown)
        };
        let forget = |n: &shoal_model::Node| {
            let mut node = n.clone();
            node.status.state = NodeState::Unknown;
            node.status.message = "the manager was restarted".to_owned();
            Change::Put(Object::Node(Box::new(node)))
        };
        let changes: Vec<Change> =
            self.peers[m].state.nodes.values().filter(unknown).map(forget).collect();
        if changes.is_empty() && self.peers[m].state.cluster.is_some() {
            self.serve(m);
        } else {
            self.propose(m, Author::Manager, changes, Waiter::Forgetting);
        }
    }

    fn serve(&mut self, m: usize) {
        let Some(lead) = &mut self.leads[m] else { return };
        lead.ready = true;
        self.peers[m].first = false;
        self.expect_nodes(m);
        self.settle_anew(m);
        self.rotation_may_go_on(m);
    }

    /// Whether this manager takes sessions and requests.
    pub(crate) fn serves(&self, m: usize) -> bool {
        self.hosts[m].up && self.leads[m].as_ref().is_some_and(|l| l.ready)
    }

    /// Since when this manager leads and serves without a pause.
    pub(crate) fn serves_since(&self, m: usize) -> Option<u64> {
        self.leads[m].as_ref().filter(|l| l.ready).map(|l| l.since)
    }

    /// The lead is lost, or the process gone: sessions end, and nobody knows what becomes of the
    /// proposals under way.
    pub(crate) fn end_lead(&mut self, m: usize) {
        let Some(lead) = self.leads[m].take() else { return };
        let flight = lead.flight.into_iter().flat_map(|(_, waiters)| waiters);
        for waiter in flight.chain(lead.waiting.into_iter().map(|p| p.waiter)) {
            if let Waiter::Client { client, request } = waiter {
                self.reply(m, client, request, Reply::Unknown);
            }
        }
        for conn in lead.sessions.into_values() {
            self.close_manager_side(conn);
        }
    }

    fn state_changed(&mut self, m: usize) {
        self.reconciler_sees_change(m);
        self.tell_soon(m);
        self.rotation_may_go_on(m);
    }

    fn lead(&mut self, m: usize, id: u64) -> Option<&mut Lead> {
        self.leads[m].as_mut().filter(|l| l.id == id)
    }

    /// Changes that come together are answered together.
    pub(super) fn tell_soon(&mut self, m: usize) {
        let Some(lead) = &mut self.leads[m] else { return };
        if !std::mem::replace(&mut lead.telling, true) {
            let event = Event::Tell { m, lead: lead.id };
            self.after(20 * MS, event);
        }
    }
}
