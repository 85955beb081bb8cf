//! A cluster on one machine, for tests, the demo and benchmarks.
//!
//! Every node and every outside client has its own network, mount and UTS namespaces; veths join
//! them to a namespace that holds nothing but a bridge and routes. The host's own network is never
//! touched. [`Cluster`] is the entry; [`Guardian`] is what makes sure that nothing stays behind,
//! whatever happens to the process that made the cluster.
//!
//! It all needs root, and the programs of Debian's `util-linux` and `iproute2`.

mod address;
mod agents;
mod capture;
mod cleanup;
mod clock;
mod cluster;
mod delay;
mod guardian;
mod host;
mod http;
mod image;
mod node;
mod outcome;
mod program;
mod service;
mod wire;

pub use address::{Segment, address};
pub use agents::{Agents, Progress, keep_to_managers_processors};
pub use capture::{Capture, Recording};
pub use cleanup::{Leftovers, Manifest, kill_all, processes_of};
pub use clock::Clock;
pub use cluster::{Builder, Cluster};
pub use delay::Delay;
pub use guardian::Guardian;
pub use host::{Host, in_network_of};
pub use http::Response;
pub use image::{Page, WEB_IMAGE, web_image};
pub use node::Node;
pub use outcome::{Outcome, metric_series, metric_sum, patiently, wait_for};
pub use program::{busybox, skip};
pub use service::{RunningTask, nslookup};
