//! The node's agent: keeps a session with the manager, runs the tasks it is assigned, plugs their
//! networks, and reports what became of them.

mod agent;
mod container;
mod dispatch;
mod files;
mod handshakes;
mod inbox;
mod join;
mod logs;
mod managers;
mod node;
mod plane;
mod reports;
mod runner;
mod session;
mod silence;
mod supervisor;
mod tables;

pub use agent::{Agent, AgentConfig};
pub use inbox::{Inbox, News};
pub use join::{Joined, join, renew};
pub use reports::Reports;
pub use session::{Body, Session, SessionConfig, SessionState, WantedTls};
