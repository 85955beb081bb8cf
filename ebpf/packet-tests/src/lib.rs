//! Harness for the tests of the kernel-side programs.
//!
//! Three ways in, each on real kernel objects:
//! - [`Bench`]: the tables and one packet program by `BPF_PROG_TEST_RUN`: packet in, packet and
//!   verdict out;
//! - [`Node`]: the programs attached in a network namespace with two containers, an uplink and a
//!   tunnel device, to see where packets really come out; the only way for `from_overlay`, because
//!   the kernel's test run always gives a program an Ethernet header;
//! - [`Cgroup`]: real sockets in a control group with the socket programs attached.
//!
//! Everything lives in namespaces of threads, so it is gone with the test.

mod bench;
mod cgroup;
mod family;
mod frame;
mod namespace;
mod node;
mod object;
mod system;
mod tables;

pub use bench::{Bench, PASS, REDIRECT, SHOT, Verdict};
pub use cgroup::Cgroup;
pub use family::Family;
pub use frame::{ACK, FIN, Frame, Kind, RST, SYN};
pub use namespace::{Namespace, ip, isolated};
pub use node::{Node, Port};
pub use object::load;
pub use system::shut;
pub use tables::{Tables, host_mac, local_mac};
