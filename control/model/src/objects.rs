//! Cluster, nodes, networks and services.
use crate::{
    docker,
    generic::GenericResource,
    progress::{JobStatus, UpdateStatus},
    task::PublishedPort,
    time::Timestamp,
};
use ipnetwork::{Ipv4Network, Ipv6Network};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fmt,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
};

/// Version and times of an object. The version is the number of the transaction that changed it last; a change
/// carries the version it was made from, 0 for a new object.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Meta {
    /// Version.
    pub version: u64,
    /// When it was made.
    pub created: Timestamp,
    /// When it was last changed.
    pub updated: Timestamp,
}

/// The cluster itself; there is one.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Cluster {
    /// Id, 25 characters; the organisation in node certificates.
    pub id: String,
    /// Version and times.
    pub meta: Meta,
    /// Settings as given, defaults filled.
    pub spec: docker::SwarmSpec,
    /// Root certificate, PEM.
    pub root_certificate: String,
    /// Root key, PEM (PKCS #8); empty when an external CA has it. Never leaves the managers.
    pub root_key: String,
    /// Tokens nodes join with.
    pub join_tokens: JoinTokens,
    /// Pools subnets of networks are taken from.
    pub address_pools: Vec<Ipv4Network>,
    /// Prefix length of a network's IPv4 subnet.
    pub subnet_size: u8,
    /// IPv6 pool (unique local, /48), one /64 a network.
    pub ipv6_pool: Ipv6Network,
    /// UDP port of the overlay.
    pub data_path_port: u16,
    /// Nodes that were removed, until their certificates have ended: they are refused even by managers
    /// that are behind.
    #[serde(default)]
    pub removed_nodes: BTreeMap<String, Timestamp>,
    /// Key that unlocks managers after a restart, `SWMKEY-1-…`; `None` while they lock nothing.
    #[serde(default)]
    pub unlock_key: Option<String>,
    /// The root that is to take the present one's place, while nodes get certificates of it.
    #[serde(default)]
    pub root_rotation: Option<RootRotation>,
}

/// A root on its way in.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootRotation {
    /// Its certificate, PEM.
    pub certificate: String,
    /// Digest of the certificate, as nodes' are told by it ([`NodeTls::root`]).
    pub digest: String,
    /// Its key, PEM (PKCS #8); empty when an external CA has it. Never leaves the managers.
    pub key: String,
    /// Its certificate as the present root has signed it, PEM: what new certificates come with, so that
    /// those believe them who do not know the new root yet.
    pub cross_signed: String,
}

/// Shows no key.
impl fmt::Debug for RootRotation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RootRotation").field("digest", &self.digest).finish_non_exhaustive()
    }
}

/// The root key and the tokens are secrets: neither is ever shown.
impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster")
            .field("id", &self.id)
            .field("meta", &self.meta)
            .finish_non_exhaustive()
    }
}

/// Join tokens, `SWMTKN-1-…`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinTokens {
    /// For workers.
    pub worker: String,
    /// For managers.
    pub manager: String,
}

/// Role of a node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Runs tasks only.
    Worker,
    /// Holds the store too.
    Manager,
}

/// Whether a node takes tasks.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Availability {
    /// Takes tasks.
    #[default]
    Active,
    /// Keeps its tasks, takes no new ones.
    Pause,
    /// Its tasks are moved elsewhere.
    Drain,
}

/// Whether a node is heard of.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeState {
    /// Never heard of since it joined or since the manager started.
    Unknown,
    /// Missed its heartbeats, or left.
    Down,
    /// Beats.
    Ready,
    /// Said good-bye for a moment (restart).
    Disconnected,
}

/// State of a node with its reason.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NodeStatus {
    /// State.
    pub state: NodeState,
    /// Why.
    pub message: String,
    /// Address the node is seen at.
    pub addr: String,
}

/// What a node says of itself.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct NodeDescription {
    /// Host name.
    pub hostname: String,
    /// `linux`.
    pub os: String,
    /// Machine, in the words of uname (`x86_64`).
    pub architecture: String,
    /// Processor time, 10⁻⁹ cores.
    pub nano_cpus: i64,
    /// Memory, bytes.
    pub memory_bytes: i64,
    /// Version of this program on the node.
    pub engine_version: String,
    /// Labels of the daemon (`--label`).
    pub engine_labels: BTreeMap<String, String>,
    /// Drivers it has, in order. Empty: it does not tell.
    #[serde(default)]
    pub plugins: Vec<Plugin>,
    /// Generic resources of the daemon (`--node-generic-resource`), in order.
    #[serde(default)]
    pub generic_resources: Vec<GenericResource>,
}

/// A driver a node has.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Plugin {
    /// What it drives.
    pub kind: PluginKind,
    /// Name (`overlay`).
    pub name: String,
}

/// What a driver drives.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum PluginKind {
    /// Logs of containers.
    Log,
    /// Networks.
    Network,
    /// Volumes.
    Volume,
}

impl PluginKind {
    /// Docker's word.
    pub fn as_str(self) -> &'static str {
        match self {
            PluginKind::Log => "Log",
            PluginKind::Network => "Network",
            PluginKind::Volume => "Volume",
        }
    }
}

/// A node's place in the overlay.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NodeOverlay {
    /// WireGuard public key, base64, made on the node. `None` until it has told.
    pub public_key: Option<String>,
    /// Where its WireGuard listens. `None` until it has told.
    pub endpoint: Option<SocketAddr>,
    /// Its own address in the ingress network. `None` until allocated.
    pub address: Option<Ipv4Addr>,
}

/// A host in the cluster.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Node {
    /// Id, 25 characters; common name of its certificate.
    pub id: String,
    /// Version and times.
    pub meta: Meta,
    /// Name given by the user, usually empty.
    pub name: String,
    /// Labels given by the user.
    pub labels: BTreeMap<String, String>,
    /// Role.
    pub role: Role,
    /// Availability.
    pub availability: Availability,
    /// What it says of itself, once it has.
    pub description: Option<NodeDescription>,
    /// Whether it is heard of.
    pub status: NodeStatus,
    /// For managers: address of its control API, `host:port`.
    pub manager_addr: Option<String>,
    /// Its place in the overlay.
    pub overlay: NodeOverlay,
    /// Since when it is down, on the managers' clock; kept by [`crate::State::apply`].
    #[serde(default)]
    pub down_since: Option<Timestamp>,
    /// Its certificate, as it was last seen. `None` until it has told.
    #[serde(default)]
    pub tls: Option<NodeTls>,
}

/// What a node's connections rest on.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct NodeTls {
    /// Digest of the root that has signed its certificate; `None` when it is none the cluster knows.
    pub root: Option<String>,
    /// Digests of the roots it trusts.
    pub trust: Vec<String>,
}

/// An overlay network.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Network {
    /// Id, 25 characters.
    pub id: String,
    /// Version and times.
    pub meta: Meta,
    /// As asked for.
    pub spec: docker::NetworkCreateRequest,
    /// Whether it is the routing mesh's network.
    pub ingress: bool,
    /// Its IPv4 subnet. The first host address is the gateway's.
    pub subnet: Ipv4Network,
    /// Its IPv6 subnet, if it has one. The first host address is the gateway's.
    pub subnet6: Option<Ipv6Network>,
}

/// Addresses of one thing (VIP of a service, task) on one network.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NetAddresses {
    /// Network id.
    pub network_id: String,
    /// IPv4 address.
    pub v4: Ipv4Addr,
    /// IPv6 address where the network has IPv6.
    pub v6: Option<Ipv6Addr>,
    /// Further names on this network.
    pub aliases: Vec<String>,
}

/// What the cluster gave a service.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct EndpointState {
    /// Virtual addresses, one entry per network (none with endpoint mode `dnsrr`).
    pub vips: Vec<NetAddresses>,
    /// Published ports (`ingress` mode).
    pub ports: Vec<PublishedPort>,
    /// Why something asked for could not be given; empty when all is allocated.
    pub err: String,
}

/// A service.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Service {
    /// Id, 25 characters.
    pub id: String,
    /// Version and times.
    pub meta: Meta,
    /// As asked for, with replicas and mode filled.
    pub spec: docker::ServiceSpec,
    /// The specification before the last update.
    pub previous_spec: Option<docker::ServiceSpec>,
    /// Raised when the task template changes: tasks of an older one are replaced.
    pub spec_version: u64,
    /// What it was given. `None` until the allocator has seen it in its present form.
    pub endpoint: Option<EndpointState>,
    /// `spec_version` of `previous_spec`: going back keeps the tasks that still have it.
    #[serde(default)]
    pub previous_spec_version: u64,
    /// Versions that differ from the present one in their placement alone: their tasks are up to
    /// date where their node still suits.
    #[serde(default)]
    pub placement_versions: Vec<u64>,
    /// Its last update, if tasks had to be replaced.
    #[serde(default)]
    pub update_status: Option<UpdateStatus>,
    /// For jobs: which iteration it is.
    #[serde(default)]
    pub job_status: Option<JobStatus>,
    /// Asked once to be spread evenly again; taken back when it is.
    #[serde(default)]
    pub rebalance: bool,
}

impl Service {
    /// A service nobody has seen yet. A job's first iteration is 0.
    pub fn new(id: String, spec: docker::ServiceSpec, now: Timestamp) -> Service {
        let mut service = Service {
            id,
            meta: Meta::default(),
            spec,
            previous_spec: None,
            spec_version: 1,
            endpoint: None,
            previous_spec_version: 0,
            placement_versions: Vec::new(),
            update_status: None,
            job_status: None,
            rebalance: false,
        };
        if service.mode().is_job() {
            service.job_status = Some(JobStatus { iteration: 0, last_execution: now });
        }
        service
    }

    /// Name; services without one are refused on creation.
    pub fn name(&self) -> &str {
        self.spec.name.as_deref().unwrap_or_default()
    }
}

impl Network {
    /// Name.
    pub fn name(&self) -> &str {
        &self.spec.name
    }

    /// Whether an address is in subnets of both.
    pub fn meets(&self, other: &Network) -> bool {
        let meet =
            |a: Ipv6Network, b: Ipv6Network| a.contains(b.network()) || b.contains(a.network());
        self.subnet.overlaps(other.subnet)
            || self.subnet6.zip(other.subnet6).is_some_and(|(a, b)| meet(a, b))
    }
}

impl Node {
    /// Host name, or what is known instead.
    pub fn hostname(&self) -> &str {
        self.description.as_ref().map_or(self.id.as_str(), |d| d.hostname.as_str())
    }
}
