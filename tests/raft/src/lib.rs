//! Several real stores (`control/store`: openraft, redb, tail) in one process, on the simulated network and
//! time of turmoil. One number decides how many there are, what goes wrong and when; clients on other hosts
//! write and read meanwhile.
//!
//! The store's source is built once more for this (`store/`), with chance, time of day and disks
//! given from here, and with bugs that can be switched on. See `design/store.md`.
//!
//! No tasks of its own; each run is one thread's.

mod client;
mod disk;
mod faults;
mod history;
mod manager;
mod many;
mod plan;
mod run;
mod shared;
mod wire;

pub use history::Figures;
pub use many::{run_many, run_until_found};
pub use run::{Outcome, run};
pub use shoal_store::bugs::Bug;
