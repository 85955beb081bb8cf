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
mod checks;
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
mod standing;
mod step;
mod tables;
mod transitions;
mod updates;
mod versions;

pub(crate) use checks::Checks;
pub(crate) use step::{Step, TaskFacts};

use shoal_model::{State, Timestamp};
use standing::{may_be_current, may_be_lost, place, places, starts_first};
use std::collections::BTreeMap;
use step::present;

/// Something that must never be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// The invariant it breaks, by its file's name.
    pub invariant: &'static str,
    /// What is wrong, with the objects' names.
    pub text: String,
}

pub(crate) type Verdict = Result<(), String>;

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
