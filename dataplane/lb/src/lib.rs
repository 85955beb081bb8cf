//! Load balancer: from what the node should know to what the BPF maps hold.
//!
//! Three steps, the first two pure: [`contents`] turns the desired state ([`LbTable`]) into map
//! contents and checks every bound; [`plan`] turns the difference to what is there into an ordered
//! list of changes; [`Lb`] carries them out, attaches the programs, and reads the counters.
//!
//! Maps and links are pinned below the BPF file system, so that traffic goes on while the daemon is
//! down, and a restarted one finds them again: it reads the maps once, replaces the programs
//! atomically, and from then on changes only what differs.
mod attach;
mod bpffs;
mod contents;
mod counters;
mod error;
mod filter;
mod host;
mod kernel;
mod lb;
mod maglev;
mod maps;
mod plan;
mod table;

pub use contents::{Contents, contents};
pub use counters::Counters;
pub use error::{LbError, TableError};
pub use host::{Hook, HostProbe, Problem, cgroup_root, check_host, probe_host, problems};
pub use lb::{Lb, LbConfig};
pub use maglev::maglev;
pub use plan::{Change, plan};
pub use table::{
    BackendEntry, Caller, EndpointEntry, IngressTaskEntry, LbTable, Local, NodeSettings, PortEntry,
    Protocol, VipEntry,
};

pub use shoal_maps::{BackendStats, Traffic, id};
