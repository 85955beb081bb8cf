//! The Docker Engine API (1.24 to 1.50) of one node, over HTTP/1.1 on unix and TCP sockets.
//!
//! Three layers: [`serve`] accepts connections and owns one task per connection; `routes` has one
//! file per kind of object, each handler turning a request into a call on [`Swarm`], the image store
//! or the container runtime; `convert` has the pure functions that turn the cluster's state into
//! Docker's JSON. Dropping a connection cancels its handler; a stream (logs, exec) ends with it.

mod context;
mod convert;
mod entry;
mod error;
mod events;
mod filters;
mod lookup;
#[cfg(feature = "testing")]
pub mod memory;
mod metrics;
mod params;
mod routes;
mod seam;
mod server;
mod stream;
#[cfg(feature = "testing")]
pub mod testserver;
mod times;

pub use context::{ApiContext, EngineInfo};
pub use entry::router;
pub use events::Events;
pub use metrics::metrics_router;
pub use seam::{LocalState, Swarm, SwarmInfo};
pub use server::{Listener, serve};
