//! Decisions of the manager, as pure functions over the cluster's state.
//!
//! Each core reads a [`shoal_model::State`] and returns the changes it wants; the manager proposes
//! them, and calls again with what came of it until nothing is wanted any more. None of them has a
//! clock, a thread or a random number: `now` and new ids come in as arguments.
//!
//! Who owns which transition of a task: [`orchestrate`] makes it (`New`) and sets its desired state;
//! [`allocate`] moves `New` → `Pending`; [`schedule`] `Pending` → `Assigned`; the node's agent all
//! later ones; [`orchestrate`] sets `Orphaned` when the node itself is gone.

mod addresses;
mod allocator;
mod assignment;
mod constraints;
mod dependencies;
mod drains;
mod filters;
mod generic;
mod herd;
mod liveness;
mod orchestrator;
mod ports;
mod reports;
mod rotation;
mod scheduler;
mod spec;
#[cfg(test)]
mod storm;
mod subnets;
mod tables;
mod tally;
pub mod template;
#[cfg(test)]
mod testing;

pub use allocator::{Allocator, allocate};
pub use assignment::assignment;
pub use constraints::{Constraint, ConstraintError};
pub use dependencies::{
    DependencyError, check_existence, check_references, dependency_object, new_dependency,
    relabelled,
};
pub use drains::Drains;
pub use herd::Registrations;
pub use liveness::{HEARTBEAT, MISSED_BEATS, heartbeat_period, silent_nodes};
pub use orchestrator::{
    Orchestrator, REBALANCE_LABEL, Revision, next_due, orchestrate, revise, roll_back,
    take_rebalance_once,
};
pub use ports::{PortError, check_ports};
pub use reports::{Report, accept};
pub use rotation::{
    CrossSigner, MOST_RENEWING, Needed, RENEWAL_PATIENCE, RenewalStep, Renewals, RootChange,
    RootPlan, RootRefusal, RootWish, all_renewed, finished, plan_root, renewal_at,
};
pub use scheduler::{Descriptor as SpreadDescriptor, MOST_PLACED, Scheduler, schedule};
pub use shoal_model::{PortWish, port_wishes};
pub use spec::{attachments, free_endpoint, host_ports, network_of, uses_vip};
pub use subnets::{SubnetError, allocate_subnet};
pub use tables::{Delta, Leaving, PACK, Subscriber, Tables, Touched, Written};
pub use tally::task_counts;
