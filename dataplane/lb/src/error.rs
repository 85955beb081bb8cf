//! What can fail, with the object it failed on.
use crate::{Problem, Protocol};
use std::{io, net::IpAddr, path::PathBuf};

/// A desired state that contradicts itself or does not fit. Nothing was changed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TableError {
    /// More of something than a map holds.
    #[error("{found} {what} do not fit a node's table of {max}: {remedy}")]
    TooMany {
        /// What there are too many of.
        what: &'static str,
        /// How many.
        found: usize,
        /// How many fit.
        max: usize,
        /// What to do.
        remedy: &'static str,
    },
    /// Two claims to one address.
    #[error("address {address} is given to both {first} and {second}")]
    AddressTwice {
        /// The address.
        address: IpAddr,
        /// One claimant.
        first: String,
        /// The other.
        second: String,
    },
    /// Two services with one port.
    #[error("port {port}/{protocol} is published by both {first} and {second}")]
    PortTwice {
        /// The port.
        port: u16,
        /// Its protocol.
        protocol: Protocol,
        /// One service.
        first: String,
        /// The other.
        second: String,
    },
    /// A port that cannot be published.
    #[error("service {service} publishes port {published} to {target}: ports are 1 to 65535")]
    PortZero {
        /// The service.
        service: String,
        /// The published port.
        published: u16,
        /// The target port.
        target: u16,
    },
    /// Two ids with one hash. Will not happen by chance.
    #[error("{first} and {second} have the same hash: recreate one of them")]
    SameHash {
        /// One object.
        first: String,
        /// The other.
        second: String,
    },
    /// Two VIPs of one service on one network.
    #[error("service {service} has two addresses of one family on network {network}")]
    VipTwice {
        /// The service.
        service: String,
        /// The network.
        network: String,
    },
    /// A backend that has no endpoint entry, or one of another network.
    #[error(
        "backend {address} (task {task}) of service {service} is no endpoint of network {network}"
    )]
    NoEndpoint {
        /// The backend's address.
        address: IpAddr,
        /// Its task.
        task: String,
        /// The service.
        service: String,
        /// The VIP's network.
        network: String,
    },
    /// A backend of the other address family.
    #[error("backend {backend} of VIP {vip} is of the other address family")]
    OtherFamily {
        /// The VIP.
        vip: IpAddr,
        /// The backend.
        backend: IpAddr,
    },
    /// An ingress task with an impossible key.
    #[error("ingress task {task} has key {key}: keys are 1 to 16777215, each once")]
    IngressKey {
        /// The task.
        task: String,
        /// The key.
        key: u32,
    },
    /// A port with a task nobody described.
    #[error(
        "port {port}/{protocol} of service {service} names ingress task {key}, which is unknown"
    )]
    NoIngressTask {
        /// The port.
        port: u16,
        /// Its protocol.
        protocol: Protocol,
        /// The service.
        service: String,
        /// The key.
        key: u32,
    },
    /// A local endpoint without a link.
    #[error("endpoint {address} is local but has no link")]
    NoLink {
        /// The endpoint.
        address: IpAddr,
    },
}

/// Failure of an operation on the kernel's side. The cause is in `source()`.
#[derive(Debug, thiserror::Error)]
pub enum LbError {
    /// The desired state was refused.
    #[error(transparent)]
    Table(#[from] TableError),
    /// The host lacks something.
    #[error("this host cannot run the load balancer: {}", list(.0))]
    Host(Vec<Problem>),
    /// A folder or mount.
    #[error("cannot {action} {path}")]
    Path {
        /// What was tried.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// The folder for control groups is not one.
    #[error(
        "{path} is not in a cgroup v2 file system: mount one (mount -t cgroup2 none DIR) and name it"
    )]
    NotCgroup {
        /// The folder.
        path: PathBuf,
    },
    /// The embedded object, or making its maps.
    #[error("cannot load the kernel-side programs")]
    Load(#[source] Box<aya::EbpfError>),
    /// A program the kernel refused.
    #[error("the kernel refused program {program}")]
    Program {
        /// Its name.
        program: &'static str,
        /// Cause, with the verifier's log.
        source: Box<aya::programs::ProgramError>,
    },
    /// A program or map that is not in the object.
    #[error("the kernel-side object has no {kind} {name}: build it again (cargo xtask build)")]
    Missing {
        /// Program or map.
        kind: &'static str,
        /// Its name.
        name: &'static str,
    },
    /// A pinned map of another shape.
    #[error(
        "map {name} has {found}, not {expected}: it was pinned by another version; with no container \
         running, remove {folder} and start again"
    )]
    Shape {
        /// The map.
        name: &'static str,
        /// Sizes found.
        found: String,
        /// Sizes expected.
        expected: String,
        /// Where it is pinned.
        folder: PathBuf,
    },
    /// Attaching a program.
    #[error("cannot attach {program} to {target}")]
    Attach {
        /// The program.
        program: &'static str,
        /// Link or control group.
        target: String,
        /// Cause.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Detaching a program.
    #[error("cannot detach {program} from {target}")]
    Detach {
        /// The program.
        program: String,
        /// The interface.
        target: String,
        /// Cause.
        source: Box<aya::programs::ProgramError>,
    },
    /// Access to a map.
    #[error("cannot {action} map {name}")]
    Map {
        /// What was tried.
        action: &'static str,
        /// The map.
        name: &'static str,
        /// Cause.
        source: aya::maps::MapError,
    },
}

fn list(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}
