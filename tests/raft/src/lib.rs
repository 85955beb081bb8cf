//! Several real stores (`control/store`: openraft, redb, tail) in one process, on the simulated network and
//! time of turmoil. One number decides how many there are, what goes wrong and when; clients on other hosts
//! write and read meanwhile.
//!
//! The store's source is built once more for this (`store/`), with chance, time of day and disks
//! given from here, and with bugs that can be switched on. See `design/store.md`.
//!
//! No tasks of its own; each simulation is one thread of one process.

mod client;
mod disk;
mod entropy;
mod faults;
mod history;
mod manager;
mod many;
mod plan;
mod run;
mod shared;
mod wire;

pub use history::Figures;
pub use many::{alone, run_many, run_until_found, simulate_here};
pub use run::Outcome;
pub use shoal_store::bugs::Bug;
