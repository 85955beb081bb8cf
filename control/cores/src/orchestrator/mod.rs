//! What the services of the cluster want of its tasks.
//!
//! One core a service: its mode's ([`replicated`], [`global`], [`jobs`]), which groups the service's
//! tasks into places, has each place tended ([`tend`], [`restart`]), lets the updater replace what is
//! outdated ([`updater`]) and the reaper forget what is old ([`reaper`]). One core a node: what is
//! lost with it ([`loss`]) and what it may not keep ([`enforcer`]). All write into one [`Plan`], which
//! changes each object at most once a call; what follows from a change comes in the next call.
mod agenda;
mod enforcer;
mod global;
mod jobs;
mod loss;
mod plan;
mod reaper;
mod rebalance;
mod replicated;
mod restart;
mod revision;
mod slots;
mod tend;
mod updater;

pub use rebalance::{REBALANCE_LABEL, take_rebalance_once};
pub use revision::{Revision, revise, roll_back};

use agenda::{Agenda, Subject};
use plan::Plan;
use shoal_model::{
    Change, Mode, State, Timestamp,
    bugs::{self, Bug},
};

/// Changes of one call; the rest follow in the next.
const MOST_CHANGES: usize = 2_000;

/// What all nodes and services want, looking at all there is.
pub fn orchestrate(
    state: &State,
    now: Timestamp,
    new_id: &mut dyn FnMut() -> String,
) -> Vec<Change> {
    Orchestrator::default().orchestrate(state, now, new_id)
}

/// The next time after `now` at which [`orchestrate`] may want something without any change.
pub fn next_due(state: &State, now: Timestamp) -> Option<Timestamp> {
    let mut orchestrator = Orchestrator::default();
    orchestrator.orchestrate(state, now, &mut String::new);
    orchestrator.agenda.next_due()
}

/// The orchestrator with a memory: it looks at services and nodes that something changed for since the
/// last call, or for whom a time has come. A call costs what changed, not what there is.
#[derive(Debug)]
pub struct Orchestrator {
    agenda: Agenda,
    /// Tasks of one call, where all there is is to be looked at.
    most: usize,
}

/// One that begins with all there is in its first call.
impl Default for Orchestrator {
    fn default() -> Orchestrator {
        Orchestrator::in_steps(usize::MAX)
    }
}

impl Orchestrator {
    /// One that begins with about so many tasks in each call until it [is complete](Orchestrator::is_complete): a
    /// million take seconds, in which a state that is being read could not be changed.
    pub fn in_steps(most: usize) -> Orchestrator {
        Orchestrator { agenda: Agenda::default(), most }
    }

    /// Whether it has looked at all there is, so that no changes mean that none are wanted.
    pub fn is_complete(&self) -> bool {
        self.agenda.is_complete()
    }

    /// As [`orchestrate`]. Whoever wants something is looked at again in the next call, as it may be
    /// refused.
    pub fn orchestrate(
        &mut self,
        state: &State,
        now: Timestamp,
        new_id: &mut dyn FnMut() -> String,
    ) -> Vec<Change> {
        self.agenda.follow(state);
        self.agenda.wake(now);
        let mut plan = Plan::new(state, now, new_id);
        let mut nodes = self.agenda.take_nodes(state, self.most);
        for task in self.agenda.take_placed() {
            nodes.extend(enforcer::endangered(&mut plan, &task).map(str::to_owned));
        }
        for node in nodes {
            self.look(&mut plan, Subject::Node(node), |plan, subject| of_node(plan, subject.id()));
        }
        for service in self.agenda.take_services(state, self.most) {
            if plan.is_full() || !plan.is_settled(&service) {
                self.agenda.put(Subject::Service(service));
            } else {
                let subject = Subject::Service(service);
                self.look(&mut plan, subject, |plan, subject| one(plan, subject.id()));
            }
        }
        if self.agenda.take_moves() {
            let wanted = self.agenda.rebalanced();
            self.look(&mut plan, Subject::Moves, |plan, _| rebalance::rebalance(plan, &wanted));
        }
        plan.into_changes()
    }

    /// When [`Orchestrator::orchestrate`] is to be called again if nothing changes before: at once when
    /// something is left.
    pub fn next_due(&self, now: Timestamp) -> Option<Timestamp> {
        if self.agenda.is_empty() { self.agenda.next_due() } else { Some(now) }
    }

    fn look<'a>(
        &mut self,
        plan: &mut Plan<'a>,
        subject: Subject,
        look: impl FnOnce(&mut Plan<'a>, &Subject),
    ) {
        let before = plan.changes();
        plan.forget_due();
        look(plan, &subject);
        self.agenda.set_due(&subject, plan.next_due());
        if plan.changes() > before && !bugs::active(Bug::ForgetRefused) {
            self.agenda.put(subject);
        }
    }
}

fn of_node(plan: &mut Plan<'_>, node: &str) {
    loss::look(plan, node);
    enforcer::look(plan, node);
}

fn one(plan: &mut Plan<'_>, service: &str) {
    let state = plan.state;
    let Some(service) = state.services.get(service) else {
        state.tasks_of_service(service).for_each(|task| plan.remove(task));
        return;
    };
    match service.mode() {
        Mode::Replicated { replicas } => replicated::reconcile(plan, service, replicas),
        Mode::Global => global::reconcile(plan, service),
        Mode::ReplicatedJob { concurrent, total } => {
            jobs::replicated(plan, service, concurrent, total);
        }
        Mode::GlobalJob => jobs::global(plan, service),
    }
}
