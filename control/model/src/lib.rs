//! Cluster objects, the in-memory state they form, its changes, and what a node is told.
//!
//! Pure data: no clock, no I/O, no threads. Specifications that users give are kept in the types of
//! Docker's Engine API ([`docker`]), so that `inspect` returns what was asked for; everything the
//! cluster derives has its own types here.

mod assignment;
pub mod bugs;
mod claims;
mod control;
mod dependency;
mod failures;
mod generic;
mod herd;
mod index;
mod journal;
mod key;
mod load;
mod objects;
mod progress;
mod rows;
mod shared;
mod state;
mod task;
mod templates;
mod time;

pub use assignment::{
    AssignedTask, NodeAssignment, NodeTable, TableNetwork, TablePeer, TableService, TableTask,
};
pub use claims::{Holders, PortKey, PortWish, port_wishes, protocol_number};
pub use control::{ControlError, ErrorKind, LogLine, LogOptions, Rotations};
pub use dependency::{
    Content, Dependency, DependencyKind, DependencySpec, MAX_CONFIG_SIZE, MAX_SECRET_SIZE, Payload,
    Reference, container_references, file_references, needs, references,
};
pub use failures::{FAILURE_WINDOW, Failures, MOST_FAILURES};
pub use generic::GenericResource;
pub use herd::{longest_pause, patience, return_spread};
pub use index::Waiting;
pub use key::IdKey;
pub use load::Load;
pub use objects::{
    Availability, Cluster, EndpointState, JoinTokens, Meta, NetAddresses, Network, Node,
    NodeDescription, NodeOverlay, NodeState, NodeStatus, NodeTls, Plugin, PluginKind, Role,
    RootRotation, Service,
};
pub use progress::{JobStatus, Mode, ServiceTally, UpdateState, UpdateStatus};
pub use rows::{
    ALL_NODES, Difference, MemberRow, PeerRow, Row, RowKey, Rows, ServiceRow, UnreadableRow,
    WrongBase, row_digest,
};
pub use shared::{Services, Shared, Tasks};
pub use state::{ApplyError, Change, Frozen, MOST_NAMED, Object, ObjectKind, State};
pub use task::{
    ContainerStatus, HostPort, MadeBy, PublishedPort, Task, TaskState, TaskStatus, TaskTimes,
};
pub use time::Timestamp;

/// The Engine API's own types, for specifications and answers.
pub use bollard_stubs::models as docker;
