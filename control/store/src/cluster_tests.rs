//! Several stores in one process, over a network in memory that can be cut, slowed and made to lose.

mod elections;
mod fixture;
mod membership;
mod random_faults;
mod replication;

pub(crate) use fixture::{Cluster, LONG, addr};
