//! A node's agent: the session and the runners of `control/agent`, mirrored.
//!
//! The agent's own code is asynchronous and holds real containers; what it does is copied here state by
//! state from `session.rs`, `agent.rs`, `runner.rs` and `reports.rs`.
mod agent;
mod conn;
mod runner;
mod runtime;

pub(crate) use agent::Agent;
pub(crate) use conn::{Conn, Down, Up};
pub(crate) use runtime::{ContainerState, Image};
