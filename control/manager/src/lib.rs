//! The manager of a cluster: the shell around the cores.
//!
//! [`Manager`] holds the replicated store and serves gRPC to the nodes. Its tasks, all ended by
//! [`Manager::shutdown`]:
//! - the reconciler calls the cores whenever the state changed or something is due, and proposes
//!   what they want;
//! - the server (certificates, dispatcher), with one task for each node's session;
//! - the board follows the state, for all sessions: what each node is to be told, and which tasks no
//!   node balances to any more;
//! - the status writer gathers what agents report into proposals;
//! - the watchdog marks nodes down that are no longer heard of.
//!
//! The control API (methods of [`Manager`]) checks what users ask for and proposes it; refusals
//! carry Docker's words.

mod board;
mod broker;
mod certificates;
mod clock;
mod cluster;
mod control;
mod dispatcher;
mod edit;
mod error;
mod herd;
mod manager;
mod names;
mod parts;
mod reconciler;
mod session;
mod statuses;
mod template;
mod validate;
mod watchdog;

pub use cluster::InitRequest;
pub use error::ManagerError;
pub use manager::{Manager, ManagerConfig};
