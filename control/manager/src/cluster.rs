//! Making a cluster: its objects, with Docker's defaults.
use crate::{authority, clock, control::root, error::invalid, manager::ManagerConfig};
use ipnetwork::{Ipv4Network, Ipv6Network};
use shoal_cores::{Needed, RootRefusal, allocate_subnet};
use shoal_identity::{
    Identity, JoinToken, NODE_VALIDITY, NodeCertificate, NodeKey, RootCa, RootCertificate, id,
};
use shoal_model::{
    Availability, Change, Cluster, ControlError, ErrorKind, JoinTokens, Meta, Network, Node,
    NodeOverlay, NodeState, NodeStatus, Object, Role, State, docker,
};
use shoal_store::UnlockKey;
use std::{collections::BTreeMap, net::Ipv6Addr, time::Duration};
use tokio::time::timeout;

/// UDP port of the overlay when none is asked for: WireGuard's.
const DATA_PATH_PORT: u16 = 51_820;

/// Prefix length of a network's subnet when none is asked for (Docker's).
const SUBNET_SIZE: u8 = 24;

/// Prefix lengths a network's subnet may have.
const SUBNET_SIZES: std::ops::RangeInclusive<u8> = 16..=29;

/// Pool of subnets when none is asked for (Docker's).
const ADDRESS_POOL: &str = "10.0.0.0/8";

/// What a cluster is made from.
#[derive(Clone, Debug, Default)]
pub struct InitRequest {
    /// Docker's request. Addresses to listen on and to advertise are in [`ManagerConfig`], resolved.
    pub request: docker::SwarmInitRequest,
    /// Whether the first node takes tasks.
    pub availability: Availability,
}

/// A cluster before it is in a store.
pub(crate) struct NewCluster {
    pub(crate) certificate: NodeCertificate,
    pub(crate) changes: Vec<Change>,
}

/// What a cluster begins with: its root, and the certificate of the first manager.
pub(crate) struct Founding {
    root: RootCertificate,
    /// Empty when an external CA has it.
    root_key: String,
    certificate: NodeCertificate,
}

impl Founding {
    /// With this root, whose key the cluster keeps.
    fn by(root: &RootCa, spec: &docker::SwarmSpec) -> Result<Founding, crate::ManagerError> {
        let (now, key) = (clock::now(), NodeKey::create()?);
        let Identity { node_id, role, cluster_id } = founder();
        let lifetime = node_validity(spec);
        let csr = key.csr_pem()?;
        let pem = root.sign_node(&csr, &node_id, role, &cluster_id, now, lifetime)?;
        let certificate = NodeCertificate::new(key, &pem, root.certificate().clone())?;
        let root_key = root.key_pem().to_string();
        Ok(Founding { root: root.certificate().clone(), root_key, certificate })
    }

    /// With the root that the specification gives, or that the external CA has which it names; else with
    /// one of its own. The same is asked of a root as when the cluster is to rotate to it.
    pub(crate) async fn of(spec: &docker::SwarmSpec) -> Result<Founding, crate::ManagerError> {
        root::check_protocols(spec)?;
        check_expiry(spec)?;
        let externals = authority::externals(spec);
        let (certificate, key) = root::asked(spec);
        let given = match (certificate, externals.first()) {
            (Some(pem), _) => root::given(pem, key)?,
            (None, _) if key.is_some() => return Err(invalid(RootRefusal::KeyAlone).into()),
            (None, None) => return Founding::by(&RootCa::create(clock::now())?, spec),
            (None, Some(first)) => {
                let pem = first.ca_cert.as_deref().filter(|pem| !pem.is_empty()).ok_or_else(|| {
                    refused(
                        "an external CA of a new swarm needs its root certificate, which becomes the \
                         swarm's: add cacert=FILE to --external-ca",
                    )
                })?;
                root::given(pem, None)?
            }
        };
        let urls = authority::urls(externals, &given.root, &given.root)?;
        match &given.ca {
            // As later: an external CA that is named is asked, also if the key is at hand.
            Some(ca) if urls.is_empty() => return Founding::by(ca, spec),
            None if urls.is_empty() => return Err(root::unreachable(Needed::Desired, &[]).into()),
            _ => {}
        }
        let key = NodeKey::create()?;
        let csr = key.csr_pem()?;
        // There is no certificate yet to show.
        let (founder, trusted) = (founder(), [given.root.clone()]);
        let asked = authority::ask(&urls, &given.root, &trusted, &csr, &founder, None);
        let pem = timeout(authority::SIGN_WAIT, asked).await.unwrap_or_else(|_| {
            let text = format!("no external CA has signed within {:?}", authority::SIGN_WAIT);
            Err(ControlError::new(ErrorKind::Unavailable, text))
        })?;
        let certificate = NodeCertificate::new(key, &pem, given.root.clone())?;
        Ok(Founding { root_key: given.key(), root: given.root, certificate })
    }
}

/// The first manager of a new cluster.
fn founder() -> Identity {
    Identity { node_id: id::new(), role: Role::Manager, cluster_id: id::new() }
}

/// [`create_with`] with a root of the cluster's own.
#[cfg(test)]
pub(crate) fn create(
    config: &ManagerConfig,
    request: InitRequest,
) -> Result<NewCluster, crate::ManagerError> {
    let spec = request.request.spec.clone().unwrap_or_default();
    let founding = Founding::by(&RootCa::create(clock::now())?, &spec)?;
    create_with(config, request, founding)
}

/// Makes tokens and the first objects.
pub(crate) fn create_with(
    config: &ManagerConfig,
    request: InitRequest,
    founding: Founding,
) -> Result<NewCluster, crate::ManagerError> {
    let Founding { root, root_key, certificate } = founding;
    let InitRequest { request, availability } = request;
    let (address_pools, subnet_size) = pools(&request)?;
    let data_path_port = data_path_port(request.data_path_port)?;
    let mut spec = filled(request.spec.unwrap_or_default());
    root::forget(&mut spec);
    let Identity { node_id, cluster_id, .. } = certificate.identity().clone();
    let unlock_key = locks(&spec).then(|| UnlockKey::random().reveal().to_string());
    let cluster = Cluster {
        id: cluster_id,
        meta: Meta::default(),
        spec,
        root_certificate: root.pem().to_owned(),
        root_key,
        join_tokens: JoinTokens {
            worker: JoinToken::new(root.digest()).render().to_string(),
            manager: JoinToken::new(root.digest()).render().to_string(),
        },
        address_pools,
        subnet_size,
        ipv6_pool: unique_local_pool(),
        data_path_port,
        removed_nodes: BTreeMap::new(),
        unlock_key,
        root_rotation: None,
    };
    let ingress = ingress(&cluster)?;
    let node = Node {
        id: node_id,
        meta: Meta::default(),
        name: String::new(),
        labels: BTreeMap::new(),
        role: Role::Manager,
        availability,
        description: None,
        status: NodeStatus {
            state: NodeState::Unknown,
            message: String::new(),
            addr: config.advertise.ip().to_string(),
        },
        manager_addr: Some(config.advertise.to_string()),
        overlay: NodeOverlay { public_key: None, endpoint: None, address: None },
        down_since: None,
        tls: None,
    };
    let objects = [
        Object::Cluster(Box::new(cluster)),
        Object::Network(Box::new(ingress)),
        Object::Node(Box::new(node)),
    ];
    Ok(NewCluster { certificate, changes: objects.into_iter().map(Change::Put).collect() })
}

fn refused(text: impl std::fmt::Display) -> ControlError {
    ControlError::new(ErrorKind::InvalidArgument, text.to_string())
}

fn pools(request: &docker::SwarmInitRequest) -> Result<(Vec<Ipv4Network>, u8), ControlError> {
    let size = match request.subnet_size {
        None | Some(0) => SUBNET_SIZE,
        Some(size) => {
            u8::try_from(size).ok().filter(|size| SUBNET_SIZES.contains(size)).ok_or_else(|| {
                refused(format!("subnet size is out of range: {size}; choose 16 to 29"))
            })?
        }
    };
    let default = vec![ADDRESS_POOL.to_owned()];
    let texts = request.default_addr_pool.clone().filter(|p| !p.is_empty()).unwrap_or(default);
    let mut pools: Vec<Ipv4Network> = Vec::new();
    for text in texts {
        let pool: Ipv4Network = text.parse().map_err(|_| {
            refused(format!("invalid CIDR address: {text}; write it like 10.0.0.0/8"))
        })?;
        let pool = Ipv4Network::new(pool.network(), pool.prefix()).unwrap_or(pool);
        if pool.prefix() > size || pool.prefix() < 8 {
            return Err(refused(format!(
                "address pool {text} must have a prefix of 8 to {size}, the subnet size"
            )));
        }
        if let Some(other) = pools.iter().find(|other| other.overlaps(pool)) {
            return Err(refused(format!("address pools {other} and {pool} overlap")));
        }
        pools.push(pool);
    }
    Ok((pools, size))
}

fn data_path_port(asked: Option<u32>) -> Result<u16, ControlError> {
    match asked {
        None | Some(0) => Ok(DATA_PATH_PORT),
        Some(port) => u16::try_from(port).ok().filter(|port| *port >= 1_024).ok_or_else(|| {
            refused(format!("data path port {port} is out of range: choose 1024 to 65535"))
        }),
    }
}

/// A random /48 of the unique local addresses (RFC 4193, 3.2).
fn unique_local_pool() -> Ipv6Network {
    let global_id: [u8; 5] = rand::random();
    let mut bytes = [0; 16];
    bytes[0] = 0xfd;
    bytes[1..6].copy_from_slice(&global_id);
    Ipv6Network::new(Ipv6Addr::from(bytes), 48).expect("48 is a prefix length of IPv6")
}

fn ingress(cluster: &Cluster) -> Result<Network, ControlError> {
    let spec = docker::NetworkCreateRequest {
        name: "ingress".to_owned(),
        driver: Some("overlay".to_owned()),
        scope: Some("swarm".to_owned()),
        ingress: Some(true),
        // Published ports answer over IPv6, too.
        enable_ipv6: Some(true),
        ..Default::default()
    };
    let mut state = State::default();
    state.cluster = Some(cluster.clone());
    let (subnet, subnet6) = allocate_subnet(&state, &spec).map_err(refused)?;
    let meta = Meta::default();
    Ok(Network { id: id::new(), meta, spec, ingress: true, subnet, subnet6 })
}

/// The cluster's specification with Docker's defaults for what is not said.
fn filled(mut spec: docker::SwarmSpec) -> docker::SwarmSpec {
    let name = spec.name.get_or_insert_default();
    if name.is_empty() {
        *name = "default".to_owned();
    }
    spec.labels.get_or_insert_default();
    let orchestration = spec.orchestration.get_or_insert_default();
    orchestration.task_history_retention_limit.get_or_insert(5);
    let raft = spec.raft.get_or_insert_default();
    let positive = |value: &mut Option<u64>, default: u64| {
        *value = Some(value.filter(|v| *v > 0).unwrap_or(default));
    };
    positive(&mut raft.snapshot_interval, 10_000);
    positive(&mut raft.log_entries_for_slow_followers, 500);
    raft.keep_old_snapshots.get_or_insert(0);
    raft.election_tick = Some(raft.election_tick.filter(|t| *t > 0).unwrap_or(10));
    raft.heartbeat_tick = Some(raft.heartbeat_tick.filter(|t| *t > 0).unwrap_or(1));
    let dispatcher = spec.dispatcher.get_or_insert_default();
    let period = dispatcher.heartbeat_period.filter(|p| *p > 0);
    dispatcher.heartbeat_period = Some(period.unwrap_or(5_000_000_000));
    let ca = spec.ca_config.get_or_insert_default();
    let expiry = ca.node_cert_expiry.filter(|e| *e > 0);
    let default = i64::try_from(NODE_VALIDITY.as_nanos()).unwrap_or(i64::MAX);
    ca.node_cert_expiry = Some(expiry.unwrap_or(default));
    spec.task_defaults.get_or_insert_default();
    spec.encryption_config.get_or_insert_default().auto_lock_managers.get_or_insert(false);
    spec
}

/// The specification of an update, checked; `present` is the one to be replaced.
pub(crate) fn updated(
    present: &docker::SwarmSpec,
    asked: docker::SwarmSpec,
) -> Result<docker::SwarmSpec, ControlError> {
    if asked.name.as_deref().is_some_and(|n| !n.is_empty() && Some(n) != present.name.as_deref()) {
        return Err(invalid("the swarm's name cannot be changed"));
    }
    if asked.dispatcher.as_ref().and_then(|d| d.heartbeat_period).is_some_and(|p| p < 0) {
        return Err(invalid("heartbeat time period cannot be a negative duration"));
    }
    check_expiry(&asked)?;
    let asked = filled(asked);
    let ticks = |spec: &docker::SwarmSpec| {
        spec.raft.as_ref().map(|r| (r.election_tick, r.heartbeat_tick, r.keep_old_snapshots))
    };
    if ticks(present) != ticks(&asked) {
        return Err(invalid(
            "Raft.ElectionTick, Raft.HeartbeatTick and Raft.KeepOldSnapshots cannot be changed in this version",
        ));
    }
    Ok(asked)
}

/// Certificates must not end before nodes can renew them. Docker's text.
fn check_expiry(spec: &docker::SwarmSpec) -> Result<(), ControlError> {
    let expiry = spec.ca_config.as_ref().and_then(|c| c.node_cert_expiry).unwrap_or(0);
    let hour = 3_600_000_000_000;
    match expiry != 0 && expiry < hour {
        true => Err(invalid("minimum certificate expiry time must be: 1h0m0s")),
        false => Ok(()),
    }
}

/// Whether managers lock their keys.
pub(crate) fn locks(spec: &docker::SwarmSpec) -> bool {
    spec.encryption_config.as_ref().and_then(|e| e.auto_lock_managers) == Some(true)
}

/// How long a node's certificate is valid.
pub(crate) fn node_validity(spec: &docker::SwarmSpec) -> Duration {
    let asked = spec.ca_config.as_ref().and_then(|c| c.node_cert_expiry);
    let asked = asked.and_then(|ns| u64::try_from(ns).ok()).filter(|ns| *ns > 0);
    asked.map_or(NODE_VALIDITY, Duration::from_nanos)
}
