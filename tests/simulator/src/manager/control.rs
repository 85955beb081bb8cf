//! The control API: what a request makes of the state, as `control/manager/src/control` decides it.
use super::{Waiter, World};
use crate::{
    event::Event,
    identity::{FIRST_ROOT, rotated},
    log::Author,
    stats::Count,
};
use shoal_cores::{
    REBALANCE_LABEL, Revision, allocate_subnet, attachments, check_ports, network_of, revise,
    roll_back, take_rebalance_once,
};
use shoal_model::{
    ApplyError, Availability, Change, Cluster, JoinTokens, Meta, Network, Node, NodeOverlay,
    NodeState, NodeStatus, NodeTls, Object, ObjectKind, Role, Service, State, TaskState, Timestamp,
    docker,
};
use std::collections::BTreeMap;

/// A request.
#[derive(Clone, Debug)]
pub(crate) enum Ask {
    CreateService(Box<docker::ServiceSpec>),
    UpdateService {
        id: String,
        version: u64,
        spec: Box<docker::ServiceSpec>,
    },
    RollBackService {
        id: String,
        version: u64,
    },
    RemoveService {
        id: String,
    },
    CreateNetwork {
        name: String,
        ipv6: bool,
        subnet: Option<String>,
    },
    RemoveNetwork {
        id: String,
    },
    UpdateNode {
        id: String,
        version: u64,
        availability: Availability,
        zone: &'static str,
    },
    /// `force`: also one that is not down.
    RemoveNode {
        id: String,
        force: bool,
    },
    /// A new root; `back`: the present one, which gives a rotation up.
    RotateRoot {
        version: u64,
        back: bool,
    },
    /// Whether all services are spread anew.
    Rebalance {
        version: u64,
        everywhere: bool,
    },
}

/// What a client is told.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    /// Done, in this transaction, which made this version.
    Done {
        version: u64,
        txn: u64,
    },
    Refused(Refusal),
    /// Not a leader: nothing was done.
    Elsewhere,
    /// Perhaps it was done.
    Unknown,
}

impl Reply {
    pub(crate) fn digest(&self) -> u64 {
        match self {
            Reply::Done { version, .. } => version << 2,
            Reply::Refused(_) => 1,
            Reply::Elsewhere => 2,
            Reply::Unknown => 3,
        }
    }
}

/// Why a request is not done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Refusal {
    /// The object was changed since it was read.
    OutOfSequence,
    /// Wrong, or not now.
    Other,
}

impl Refusal {
    pub(super) fn of(error: ApplyError) -> Refusal {
        match error {
            // Another was quicker: worth another look.
            ApplyError::OutOfSequence { .. } | ApplyError::SubnetTaken { .. } => {
                Refusal::OutOfSequence
            }
            ApplyError::NameTaken { .. }
            | ApplyError::InUse { .. }
            | ApplyError::Missing { .. } => Refusal::Other,
        }
    }
}

impl World {
    /// A request arrives.
    pub(crate) fn hear_request(&mut self, client: usize, request: u64, m: usize) {
        if !self.serves(m) {
            // A host without power says nothing.
            if self.hosts[m].up {
                self.reply(m, client, request, Reply::Elsewhere);
            }
            return;
        }
        let Some(ask) = self.clients[client].request(request) else { return };
        self.stats.add(Count::Requests);
        let id = format!("{:016x}", self.dice.next());
        let now = self.wall(m);
        match change(&self.peers[m].state, ask, id, now) {
            Ok(change) => {
                let mut changes = vec![change];
                if let Change::Delete(ObjectKind::Node, id) = &changes[0] {
                    changes.extend(self.certificate_counts_no_more(m, id.clone()));
                }
                let waiter = Waiter::Client { client, request };
                self.propose(m, Author::Client(client), changes, waiter);
            }
            Err(refusal) => self.reply(m, client, request, Reply::Refused(refusal)),
        }
    }

    /// Notes in the cluster's object that a node was removed.
    fn certificate_counts_no_more(&self, m: usize, id: String) -> Option<Change> {
        let lifetime = self.config.certificates.as_ref()?.lifetime;
        let mut cluster = self.peers[m].state.cluster.clone()?;
        let now = self.wall(m);
        cluster.removed_nodes.retain(|_, ends| *ends > now);
        cluster.removed_nodes.insert(id, Timestamp(now.0 + lifetime));
        Some(Change::Put(Object::Cluster(Box::new(cluster))))
    }

    pub(super) fn reply(&mut self, m: usize, client: usize, request: u64, reply: Reply) {
        let place = self.config.hosts + client;
        if self.hosts[m].power && self.net.clear(m, place) {
            let delay = self.net.delay(m, place);
            self.after(delay, Event::Answer { client, request, reply });
        }
    }

    /// The objects of a new cluster: all hosts have joined.
    pub(super) fn found(&mut self) -> Vec<Change> {
        let pool = |text: &str| text.parse().expect("a constant");
        let mut spec = docker::SwarmSpec::default();
        spec.orchestration.get_or_insert_default().task_history_retention_limit =
            Some(self.config.history);
        if self.config.rebalance.as_ref().is_some_and(|r| r.everywhere) {
            set_rebalance(&mut spec, true);
        }
        let cluster = Cluster {
            id: "cluster".to_owned(),
            meta: Meta::default(),
            spec,
            root_certificate: FIRST_ROOT.to_owned(),
            root_key: "key".to_owned(),
            join_tokens: JoinTokens { worker: String::new(), manager: String::new() },
            address_pools: vec![pool("10.0.0.0/16")],
            subnet_size: self.config.subnet_size,
            ipv6_pool: "fd00:1::/48".parse().expect("a constant"),
            data_path_port: 51_820,
            removed_nodes: BTreeMap::new(),
            unlock_key: None,
            root_rotation: None,
        };
        let ingress = Network {
            id: "ingress".to_owned(),
            meta: Meta::default(),
            spec: docker::NetworkCreateRequest { name: "ingress".to_owned(), ..Default::default() },
            ingress: true,
            subnet: pool("10.255.0.0/24"),
            subnet6: None,
        };
        let mut changes = vec![
            Change::Put(Object::Cluster(Box::new(cluster))),
            Change::Put(Object::Network(Box::new(ingress))),
        ];
        for host in 0..self.config.hosts {
            let id = self.agents[host].node_id.clone();
            changes.push(Change::Put(Object::Node(Box::new(self.new_node(host, id)))));
        }
        changes
    }

    pub(crate) fn new_node(&self, host: usize, id: String) -> Node {
        let manager = host < self.config.managers;
        Node {
            id,
            meta: Meta::default(),
            name: String::new(),
            labels: BTreeMap::from([("zone".to_owned(), self.config.zones[host].to_owned())]),
            role: if manager { Role::Manager } else { Role::Worker },
            availability: Availability::Active,
            description: None,
            status: NodeStatus {
                state: NodeState::Unknown,
                message: String::new(),
                addr: String::new(),
            },
            manager_addr: None,
            overlay: NodeOverlay { public_key: None, endpoint: None, address: None },
            down_since: None,
            tls: self.tls(host).map(|tls| NodeTls {
                root: Some(tls.certificate.root.clone()),
                trust: tls.trust.clone(),
            }),
        }
    }
}

/// The change a request asks for.
fn change(state: &State, ask: &Ask, new_id: String, now: Timestamp) -> Result<Change, Refusal> {
    let object = match ask {
        Ask::CreateService(spec) => {
            Object::Service(Box::new(create_service(state, spec, new_id, now)?))
        }
        Ask::UpdateService { id, version, spec } => {
            Object::Service(Box::new(update_service(state, id, *version, Some(spec), now)?))
        }
        Ask::RollBackService { id, version } => {
            Object::Service(Box::new(update_service(state, id, *version, None, now)?))
        }
        Ask::RemoveService { id } => {
            state.services.get(id).ok_or(Refusal::Other)?;
            return Ok(Change::Delete(ObjectKind::Service, id.clone()));
        }
        Ask::CreateNetwork { name, ipv6, subnet } => Object::Network(Box::new(create_network(
            state,
            name,
            *ipv6,
            subnet.as_deref(),
            new_id,
        )?)),
        Ask::RemoveNetwork { id } => {
            let network = state.networks.get(id).ok_or(Refusal::Other)?;
            if network.ingress || is_used(state, network) {
                return Err(Refusal::Other);
            }
            return Ok(Change::Delete(ObjectKind::Network, id.clone()));
        }
        Ask::UpdateNode { id, version, availability, zone } => {
            let mut node = state.nodes.get(id).ok_or(Refusal::Other)?.clone();
            if node.meta.version != *version {
                return Err(Refusal::OutOfSequence);
            }
            node.availability = *availability;
            node.labels.insert("zone".to_owned(), (*zone).to_owned());
            Object::Node(Box::new(node))
        }
        Ask::RemoveNode { id, force } => {
            let node = state.nodes.get(id).ok_or(Refusal::Other)?;
            if node.role == Role::Manager || node.status.state != NodeState::Down && !force {
                return Err(Refusal::Other);
            }
            return Ok(Change::Delete(ObjectKind::Node, id.clone()));
        }
        Ask::RotateRoot { version, back } => {
            let cluster = state.cluster.as_ref().ok_or(Refusal::Other)?;
            if cluster.meta.version != *version {
                return Err(Refusal::OutOfSequence);
            }
            Object::Cluster(Box::new(rotated(cluster, *back, &new_id)?))
        }
        Ask::Rebalance { version, everywhere } => {
            let mut cluster = state.cluster.clone().ok_or(Refusal::Other)?;
            if cluster.meta.version != *version {
                return Err(Refusal::OutOfSequence);
            }
            set_rebalance(&mut cluster.spec, *everywhere);
            Object::Cluster(Box::new(cluster))
        }
    };
    Ok(Change::Put(object))
}

fn set_rebalance(spec: &mut docker::SwarmSpec, everywhere: bool) {
    let labels = spec.labels.get_or_insert_default();
    if everywhere {
        labels.insert(REBALANCE_LABEL.to_owned(), "true".to_owned());
    } else {
        labels.remove(REBALANCE_LABEL);
    }
}

/// The specification with the networks' ids for their names.
fn resolved(state: &State, spec: &docker::ServiceSpec) -> Result<docker::ServiceSpec, Refusal> {
    let mut spec = spec.clone();
    let template = spec.task_template.as_mut().and_then(|t| t.networks.as_mut());
    for attachment in template.into_iter().flatten() {
        let network = network_of(state, attachment).ok_or(Refusal::Other)?;
        attachment.target = Some(network.id.clone());
    }
    Ok(spec)
}

fn create_service(
    state: &State,
    spec: &docker::ServiceSpec,
    id: String,
    now: Timestamp,
) -> Result<Service, Refusal> {
    let mut spec = resolved(state, spec)?;
    let rebalance = take_rebalance_once(&mut spec);
    if state.service_named(spec.name.as_deref().unwrap_or_default()).is_some() {
        return Err(Refusal::Other);
    }
    check_ports(state, None, &spec).map_err(|_| Refusal::Other)?;
    Ok(Service { rebalance, ..Service::new(id, spec, now) })
}

/// `None` for the specification: the one before.
fn update_service(
    state: &State,
    id: &str,
    version: u64,
    spec: Option<&docker::ServiceSpec>,
    now: Timestamp,
) -> Result<Service, Refusal> {
    let present = state.services.get(id).ok_or(Refusal::Other)?;
    if present.meta.version != version {
        return Err(Refusal::OutOfSequence);
    }
    let service = match spec {
        Some(spec) => {
            let mut spec = resolved(state, spec)?;
            let rebalance = take_rebalance_once(&mut spec) || present.rebalance;
            let revision = revision(&present.spec, &spec);
            Service { rebalance, ..revise(present, spec, revision, now) }
        }
        None => roll_back(present, now).ok_or(Refusal::Other)?,
    };
    check_ports(state, Some(id), &service.spec).map_err(|_| Refusal::Other)?;
    Ok(service)
}

/// What a new specification changes for the tasks.
fn revision(old: &docker::ServiceSpec, new: &docker::ServiceSpec) -> Revision {
    let without_placement = |spec: &docker::ServiceSpec| {
        let template = spec.task_template.clone();
        template.map(|t| docker::TaskSpec { placement: None, ..t })
    };
    let same_placement = old.task_template.as_ref().map(|t| &t.placement)
        == new.task_template.as_ref().map(|t| &t.placement);
    if without_placement(old) != without_placement(new) || old.endpoint_spec != new.endpoint_spec {
        Revision::Tasks
    } else if same_placement {
        Revision::None
    } else {
        Revision::Placement
    }
}

fn create_network(
    state: &State,
    name: &str,
    ipv6: bool,
    subnet: Option<&str>,
    id: String,
) -> Result<Network, Refusal> {
    let config = docker::IpamConfig { subnet: subnet.map(str::to_owned), ..Default::default() };
    let ipam = docker::Ipam { config: Some(vec![config]), ..Default::default() };
    let spec = docker::NetworkCreateRequest {
        name: name.to_owned(),
        enable_ipv6: Some(ipv6),
        ipam: subnet.is_some().then_some(ipam),
        ..Default::default()
    };
    if state.network_named(name).is_some() {
        return Err(Refusal::Other);
    }
    let (subnet, subnet6) = allocate_subnet(state, &spec).map_err(|_| Refusal::Other)?;
    Ok(Network { id, meta: Meta::default(), spec, ingress: false, subnet, subnet6 })
}

/// Whether a service names the network, or a task that is wanted has an address there.
fn is_used(state: &State, network: &Network) -> bool {
    let here = |a: &docker::NetworkAttachmentConfig| {
        network_of(state, a).is_some_and(|n| n.id == network.id)
    };
    let wanted =
        |t: &&shoal_model::Task| t.desired <= TaskState::Running && !t.status.state.is_terminal();
    state.services.values().any(|s| attachments(&s.spec).iter().any(here))
        || state
            .tasks
            .values()
            .filter(wanted)
            .any(|t| t.networks.iter().any(|n| n.network_id == network.id))
}
