//! The loop around the cores, as `control/manager/src/reconciler.rs` runs it.
use super::{Waiter, World};
use crate::{
    event::Event,
    log::Author,
    stats::Count,
    time::{MS, Ns, SEC},
};
use shoal_cores::{Allocator, Orchestrator, Scheduler};
use shoal_model::{Change, MadeBy, Object};

const DEBOUNCE: Ns = 20 * MS;
const LONGEST_SLEEP: Ns = 5 * SEC;
const BATCH: usize = 200;
const ROUNDS: u32 = 50;
/// The five seconds are there in case the clock is set. While nothing happens they are doubled up to
/// this, so that days without an event cost little.
const LONGEST_REST: Ns = 600 * SEC;

/// Where it is, and what the cores remember of the term.
pub(super) struct Reconciler {
    orchestrator: Orchestrator,
    allocator: Allocator,
    scheduler: Scheduler,
    stage: Stage,
    /// Version it has looked at.
    seen: u64,
    /// Number of the last wake-up; earlier ones are void.
    wake: u64,
    rest: Ns,
}

enum Stage {
    Off,
    Settling(Round),
    Pausing,
    Sleeping,
}

/// One round over the cores.
#[derive(Clone, Default)]
struct Round {
    number: u32,
    core: usize,
    quiet: bool,
    /// Batches still to be proposed, the next one last.
    batches: Vec<Vec<Change>>,
}

impl Reconciler {
    /// One that looks at so many tasks at a time while it looks at all.
    pub(super) fn in_steps(most: usize) -> Reconciler {
        Reconciler {
            orchestrator: Orchestrator::in_steps(most),
            allocator: Allocator::default(),
            scheduler: Scheduler::default(),
            stage: Stage::Off,
            seen: 0,
            wake: 0,
            rest: 0,
        }
    }
}

impl World {
    pub(super) fn settle_anew(&mut self, m: usize) {
        let seen = self.peers[m].state.version;
        let Some(lead) = &mut self.leads[m] else { return };
        lead.reconciler.seen = seen;
        self.settle(m, Round { quiet: true, ..Round::default() });
    }

    /// Calls the cores until one wants something, or none does.
    fn settle(&mut self, m: usize, mut round: Round) {
        loop {
            if let Some(batch) = round.batches.pop() {
                let author = [Author::Orchestrator, Author::Allocator, Author::Scheduler];
                let author = author[round.core].clone();
                if let Some(lead) = &mut self.leads[m] {
                    lead.reconciler.stage = Stage::Settling(round);
                }
                return self.propose(m, author, batch, Waiter::Reconciler);
            }
            if round.core == 3 {
                let complete =
                    self.leads[m].as_ref().is_some_and(|l| l.reconciler.orchestrator.is_complete());
                round.quiet &= complete;
                if round.quiet || round.number + 1 == ROUNDS {
                    break;
                }
                round = Round { number: round.number + 1, quiet: true, ..Round::default() };
            }
            let now = self.wall(m);
            let mut dice = self.dice.fork();
            let mut new_id = || format!("{:016x}", dice.next());
            let state = &self.peers[m].state;
            let Some(lead) = &mut self.leads[m] else { return };
            let cores = &mut lead.reconciler;
            let changes = match round.core {
                0 => cores.orchestrator.orchestrate(state, now, &mut new_id),
                1 => cores.allocator.allocate(state, now),
                _ => cores.scheduler.schedule(state, now),
            };
            let moved = |c: &&Change| {
                matches!(c, Change::Put(Object::Task(t))
                    if t.made_by == MadeBy::Rebalance && t.meta.version == 0)
            };
            let moved = changes.iter().filter(moved).count();
            self.stats.add_many(Count::TasksMoved, moved as u64);
            if changes.is_empty() {
                round.core += 1;
            } else {
                round.quiet = false;
                round.batches = changes.chunks(BATCH).rev().map(<[Change]>::to_vec).collect();
            }
        }
        if round.quiet {
            let now = self.wall(m);
            self.checks.at_rest(&self.peers[m].state, now);
        }
        let Some(lead) = &mut self.leads[m] else { return };
        lead.reconciler.stage = Stage::Pausing;
        lead.reconciler.rest = LONGEST_SLEEP;
        self.wake_after(m, DEBOUNCE);
    }

    /// A batch was applied, or refused because something changed meanwhile: that ends the core's turn.
    pub(super) fn reconciler_answered(&mut self, m: usize, good: bool) {
        let Some(lead) = &mut self.leads[m] else { return };
        let Stage::Settling(round) = &mut lead.reconciler.stage else { return };
        let mut round = std::mem::take(round);
        if !good {
            round.batches.clear();
        }
        if round.batches.is_empty() {
            round.core += 1;
        }
        self.settle(m, round);
    }

    fn wake_after(&mut self, m: usize, delay: Ns) {
        let Some(lead) = &mut self.leads[m] else { return };
        lead.reconciler.wake += 1;
        let event = Event::Reconcile { m, lead: lead.id, wake: lead.reconciler.wake };
        self.after(delay, event);
    }

    pub(crate) fn reconcile(&mut self, m: usize, lead: u64, wake: u64) {
        let version = self.peers[m].state.version;
        let Some(lead) = self.lead(m, lead).filter(|l| l.reconciler.wake == wake) else { return };
        match lead.reconciler.stage {
            Stage::Pausing if version == lead.reconciler.seen => self.sleep(m),
            Stage::Pausing => self.settle_anew(m),
            Stage::Sleeping => {
                let rest = (lead.reconciler.rest * 2).min(LONGEST_REST);
                self.settle_anew(m);
                // Still at rest: look less often.
                if let Some(lead) = &mut self.leads[m]
                    && matches!(lead.reconciler.stage, Stage::Pausing)
                {
                    lead.reconciler.rest = rest;
                }
            }
            Stage::Off | Stage::Settling(_) => {}
        }
    }

    fn sleep(&mut self, m: usize) {
        let now = self.wall(m);
        let Some(lead) = &mut self.leads[m] else { return };
        let due = lead.reconciler.orchestrator.next_due(now);
        lead.reconciler.stage = Stage::Sleeping;
        let rest = lead.reconciler.rest;
        let sleep = due.map_or(rest, |due| crate::time::ns(due.since(now)).min(rest));
        self.wake_after(m, sleep);
    }

    pub(super) fn reconciler_sees_change(&mut self, m: usize) {
        let version = self.peers[m].state.version;
        let Some(lead) = &mut self.leads[m] else { return };
        if matches!(lead.reconciler.stage, Stage::Sleeping) && version != lead.reconciler.seen {
            self.settle_anew(m);
        }
    }

    /// The host's clock was set: what is due may be due now.
    pub(crate) fn reconciler_sees_clock(&mut self, m: usize) {
        let Some(lead) = self.leads.get_mut(m).and_then(Option::as_mut) else { return };
        if matches!(lead.reconciler.stage, Stage::Sleeping) {
            lead.reconciler.rest = LONGEST_SLEEP;
            self.wake_after(m, LONGEST_SLEEP);
        }
    }
}
