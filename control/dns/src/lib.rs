//! Cluster DNS: who is called what on which network ([`NameTable`], pure), and the server that
//! answers containers at 127.0.0.11 in their own network namespaces ([`NameServer`]).

mod forward;
mod server;
mod table;

pub use forward::{Forwarder, MAX_CONCURRENT};
pub use server::{NAME_SERVER, NameServer, NameServerError, Names, Served};
pub use table::{Answer, NameTable, TASK_TTL, VIP_TTL};
