//! The manager of a cluster: the shell around the cores.
//!
//! [`Manager`] holds the replicated store and serves gRPC to the nodes and the other managers. Its
//! tasks, all ended by [`Manager::shutdown`]: the server, and one that watches who leads. While it leads
//! there are, ended with the term:
//! - the reconciler calls the cores whenever the state changed or something is due, and proposes
//!   what they want;
//! - one task for each node's session;
//! - the board follows the state, for all sessions: what each node is to be told, and which tasks no
//!   node balances to any more;
//! - the status writer gathers what agents report into proposals;
//! - the watchdog marks nodes down that are no longer heard of;
//! - the keeper takes demoted managers out of the log;
//! - the rotation has nodes renew their certificates while the root is rotated.
//!
//! The control API ([`Control`], on any manager; methods of [`Manager`], on the leader) checks what
//! users ask for and proposes it; refusals carry Docker's words.

mod appends;
mod authority;
mod board;
mod broker;
mod certificates;
mod clock;
mod cluster;
mod control;
mod dispatcher;
mod edit;
mod error;
mod forward;
mod herd;
mod keeper;
mod leading;
mod manager;
mod managers;
mod names;
mod parts;
mod peers;
mod raft;
mod reconciler;
mod rotation;
mod session;
mod standing;
mod statuses;
mod template;
mod threads;
mod turns;
mod validate;
mod watchdog;

pub use cluster::InitRequest;
pub use error::ManagerError;
pub use forward::Control;
pub use manager::{Manager, ManagerConfig};
