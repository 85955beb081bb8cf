//! The `shoal net` process: it holds the WireGuard engine and answers DNS, apart from the daemon, so
//! that traffic and names go on while the daemon restarts.
//!
//! The daemon starts it and tells it a whole [`NetTable`] at a time over a unix socket
//! ([`NetClient`]); it keeps the last one on disk and works from it when it is started again itself.

mod client;
mod process;
mod protocol;
mod resolvers;

pub use client::{NetClient, NetClientError};
pub use process::{NetArguments, NetError, run};
pub use protocol::{NetEndpoint, NetPeer, NetStatus, NetTable, PeerReport};
