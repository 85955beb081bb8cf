//! What the services of the cluster want of its tasks.
//!
//! One core a service: its mode's ([`replicated`], [`global`], [`jobs`]), which groups the service's
//! tasks into places, has each place tended ([`tend`], [`restart`]), lets the updater replace what is
//! outdated ([`updater`]) and the reaper forget what is old ([`reaper`]). One core a node: what is
//! lost with it ([`loss`]) and what it may not keep ([`enforcer`]). All write into one [`Plan`], which
//! changes each object at most once a call; what follows from a change comes in the next call.
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

use plan::Plan;
use shoal_model::{Change, Mode, State, Timestamp};

/// Changes of one call; the rest follow in the next.
const MOST_CHANGES: usize = 2_000;

/// What all nodes and services want.
pub fn orchestrate(
    state: &State,
    now: Timestamp,
    new_id: &mut dyn FnMut() -> String,
) -> Vec<Change> {
    let mut plan = Plan::new(state, now, new_id);
    all(&mut plan);
    plan.into_changes()
}

/// What one service wants, be it there or gone. For a caller that knows which ones changed.
pub fn orchestrate_service(
    state: &State,
    service: &str,
    now: Timestamp,
    new_id: &mut dyn FnMut() -> String,
) -> Vec<Change> {
    let mut plan = Plan::new(state, now, new_id);
    one(&mut plan, service);
    plan.into_changes()
}

/// What becomes of the tasks of one node, be it there or gone, apart from what their services want.
pub fn orchestrate_node(
    state: &State,
    node: &str,
    now: Timestamp,
    new_id: &mut dyn FnMut() -> String,
) -> Vec<Change> {
    let mut plan = Plan::new(state, now, new_id);
    of_node(&mut plan, node);
    plan.into_changes()
}

/// The next time after `now` at which [`orchestrate`] may want something without any change.
pub fn next_due(state: &State, now: Timestamp) -> Option<Timestamp> {
    let mut no_id = String::new;
    let mut plan = Plan::new(state, now, &mut no_id);
    all(&mut plan);
    plan.next_due()
}

fn all(plan: &mut Plan<'_>) {
    let state = plan.state;
    for node in state.nodes_with_tasks() {
        of_node(plan, node);
    }
    for service in state.services.keys().map(String::as_str).chain(gone(state)) {
        if plan.is_full() {
            return;
        }
        if plan.is_settled(service) {
            one(plan, service);
        }
    }
    rebalance::rebalance(plan);
}

/// Services that are gone and have tasks yet.
fn gone(state: &State) -> impl Iterator<Item = &str> {
    state.services_with_tasks().filter(|id| !state.services.contains_key(*id))
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
