//! A cluster in memory behind the [`Swarm`] trait: objects are real, tasks run the moment they are
//! made, nothing leaves the process. For tests of the server and of the command line.
use crate::seam::{LocalState, Swarm, SwarmInfo};
use async_trait::async_trait;
use futures_util::{StreamExt, stream::BoxStream};
use ipnetwork::{Ipv4Network, Ipv6Network};
use shoal_model::{
    ApplyError, Availability, Change, Cluster, ContainerStatus, ControlError, EndpointState,
    ErrorKind, JoinTokens, LogLine, LogOptions, Meta, NetAddresses, Network, Node, NodeDescription,
    NodeOverlay, NodeState, NodeStatus, Object, ObjectKind, PublishedPort, Role, Rotations,
    Service, State, Task, TaskState, TaskStatus, Timestamp, docker,
};
use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, Ipv6Addr},
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Docker's text for a node in no cluster.
const NO_SWARM: &str = "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to swarm and try again.";
/// Docker's text for a worker.
const WORKER: &str = "This node is not a swarm manager. Worker nodes can't be used to view or modify cluster state. Please run this command on a manager node or promote the current node to a manager.";
/// A root certificate (its key is nowhere).
const ROOT: &str = "-----BEGIN CERTIFICATE-----\n\
MIIBfDCCASGgAwIBAgIUVyc7i3sVV0bwjb18F75oy3qZelMwCgYIKoZIzj0EAwIw\n\
EzERMA8GA1UEAwwIc3dhcm0tY2EwHhcNMjYxMTIzMjIxODQwWhcNNDYxMTE4MjIx\n\
ODQwWjATMREwDwYDVQQDDAhzd2FybS1jYTBZMBMGByqGSM49AgEGCCqGSM49AwEH\n\
A0IABBkfBIbj6IZOkBEEEWVFxsvZJCgsbby+bOR1Izvaia0Z7q4XL7Q/NLTNA8s3\n\
Mz2p9oZEWuCXl6UxOIpUv5UftMmjUzBRMB0GA1UdDgQWBBREndv/lcaEjET7qKrG\n\
Wd0gJm5ESDAfBgNVHSMEGDAWgBREndv/lcaEjET7qKrGWd0gJm5ESDAPBgNVHRMB\n\
Af8EBTADAQH/MAoGCCqGSM49BAMCA0kAMEYCIQCKC7Q3YR5CJWk69CW7ptJqIgS1\n\
HR0zww1lktIO9I0ukgIhAKT0UnesAJk+VpRp0fmehPeHk5MzzE/LRFTPFRqrtn6T\n\
-----END CERTIFICATE-----\n";

/// The cluster. Ids are counted, so that tests know them.
#[derive(Debug, Default)]
pub struct MemorySwarm(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    state: State,
    info: SwarmInfo,
    next: u64,
}

impl MemorySwarm {
    /// A node in no cluster.
    pub fn new() -> MemorySwarm {
        MemorySwarm::default()
    }

    /// A manager, host name `alpha`, with two workers, `beta` and `gamma`.
    pub fn three_nodes() -> MemorySwarm {
        let swarm = MemorySwarm::new();
        let mut inner = swarm.inner();
        inner.create(docker::SwarmSpec::default(), Availability::Active).expect("an empty state");
        for hostname in ["beta", "gamma"] {
            let id = inner.id("node");
            let node = node(&id, hostname, Role::Worker, Availability::Active);
            inner.apply(vec![Change::Put(Object::Node(node))]).expect("a new id");
        }
        drop(inner);
        swarm
    }

    /// Changes the state behind the API's back.
    pub fn edit(&self, change: impl FnOnce(&State) -> Vec<Change>) -> Result<(), ControlError> {
        let mut inner = self.inner();
        let changes = change(&inner.state);
        inner.apply(changes)
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn manager(&self) -> Result<MutexGuard<'_, Inner>, ControlError> {
        let inner = self.inner();
        match (inner.info.local_state, inner.info.control_available) {
            (LocalState::Active, true) => Ok(inner),
            (LocalState::Active, false) => Err(ControlError::new(ErrorKind::Unavailable, WORKER)),
            _ => Err(ControlError::new(ErrorKind::Unavailable, NO_SWARM)),
        }
    }
}

impl Inner {
    /// 25 characters, as the real ones: `service0…01`.
    fn id(&mut self, kind: &str) -> String {
        self.next += 1;
        format!("{kind}{:0width$}", self.next, width = 25 - kind.len())
    }

    fn apply(&mut self, changes: Vec<Change>) -> Result<(), ControlError> {
        let index = self.state.version + 1;
        self.state.apply(index, now(), changes).map_err(|e| match e {
            ApplyError::OutOfSequence { .. } => ControlError::new(
                ErrorKind::Unknown,
                format!("rpc error: code = Unknown desc = {e}"),
            ),
            ApplyError::NameTaken { .. } => ControlError::new(
                ErrorKind::AlreadyExists,
                format!("rpc error: code = AlreadyExists desc = name conflicts with an existing object: {e}"),
            ),
        })
    }

    fn create(
        &mut self,
        spec: docker::SwarmSpec,
        availability: Availability,
    ) -> Result<String, ControlError> {
        let (cluster, id) = (self.id("cluster"), self.id("node"));
        let mut spec = spec;
        spec.name = Some("default".to_owned());
        let secret = |word: &str| format!("SWMTKN-1-{:a<50}-{word:b<25}", "");
        let cluster = Cluster {
            id: cluster,
            meta: Meta::default(),
            spec,
            root_certificate: ROOT.to_owned(),
            root_key: String::new(),
            join_tokens: JoinTokens { worker: secret("worker"), manager: secret("manager") },
            address_pools: vec![ipv4(0, 0, 8)],
            subnet_size: 24,
            ipv6_pool: Ipv6Network::new(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0), 48)
                .expect("48 is a length"),
            data_path_port: 51820,
            removed_nodes: BTreeMap::new(),
            unlock_key: None,
        };
        let mut manager = node(&id, "alpha", Role::Manager, availability);
        manager.manager_addr = Some("127.0.0.1:2377".to_owned());
        let spec = docker::NetworkCreateRequest { name: "ingress".into(), ..Default::default() };
        let ingress = self.network(spec, true);
        self.apply(vec![
            Change::Put(Object::Cluster(cluster)),
            Change::Put(Object::Node(manager)),
            Change::Put(Object::Network(ingress)),
        ])?;
        self.info = SwarmInfo {
            node_id: id.clone(),
            node_addr: "127.0.0.1".to_owned(),
            local_state: LocalState::Active,
            control_available: true,
            error: String::new(),
            remote_managers: vec![(id.clone(), "127.0.0.1:2377".to_owned())],
            leader: Some(id.clone()),
        };
        Ok(id)
    }

    fn network(&mut self, spec: docker::NetworkCreateRequest, ingress: bool) -> Network {
        let third = u8::try_from(self.state.networks.len()).expect("tests have few networks");
        Network {
            id: self.id("network"),
            meta: Meta::default(),
            subnet6: (spec.enable_ipv6 == Some(true)).then(|| {
                Ipv6Network::new(Ipv6Addr::new(0xfd00, 0, 0, third.into(), 0, 0, 0, 0), 64)
                    .expect("64 is a length")
            }),
            spec,
            ingress,
            subnet: ipv4(0, third, 24),
        }
    }

    /// Next address on a network: the state's version never repeats within a test.
    fn address(&mut self, network: &Network, aliases: Vec<String>) -> NetAddresses {
        self.next += 1;
        let host = 2 + u32::try_from(self.next % 250).unwrap_or(0);
        NetAddresses {
            network_id: network.id.clone(),
            v4: network.subnet.nth(host).unwrap_or(Ipv4Addr::UNSPECIFIED),
            v6: network.subnet6.map(|s| Ipv6Addr::from(u128::from(s.network()) + u128::from(host))),
            aliases,
        }
    }

    fn networks_of(&self, spec: &docker::ServiceSpec) -> Result<Vec<Network>, ControlError> {
        let template = spec.task_template.as_ref().and_then(|t| t.networks.as_ref());
        let mut out = Vec::new();
        for wanted in template.or(spec.networks.as_ref()).into_iter().flatten() {
            let target = wanted.target.as_deref().unwrap_or_default();
            let by_id = self.state.networks.get(target);
            let found = by_id.or_else(|| self.state.network_named(target));
            out.push(found.cloned().ok_or_else(|| {
                ControlError::new(ErrorKind::NotFound, format!("network {target} not found"))
            })?);
        }
        Ok(out)
    }

    fn endpoint(&mut self, spec: &docker::ServiceSpec) -> Result<EndpointState, ControlError> {
        let mut networks = self.networks_of(spec)?;
        let wanted = spec.endpoint_spec.as_ref().and_then(|e| e.ports.as_ref());
        let ports: Vec<PublishedPort> = wanted
            .into_iter()
            .flatten()
            .map(|p| PublishedPort {
                protocol: match p.protocol {
                    Some(docker::EndpointPortConfigProtocolEnum::UDP) => 17,
                    _ => 6,
                },
                published: p.published_port.and_then(|n| u16::try_from(n).ok()).unwrap_or(30000),
                target: p.target_port.and_then(|n| u16::try_from(n).ok()).unwrap_or(0),
            })
            .collect();
        if !ports.is_empty() {
            networks.extend(self.state.ingress().cloned());
        }
        let vips = networks.iter().map(|n| self.address(n, Vec::new())).collect();
        Ok(EndpointState { vips, ports, err: String::new() })
    }

    /// Makes the tasks of a service what its specification says, at once.
    fn settle(&mut self, id: &str) -> Result<(), ControlError> {
        let Some(service) = self.state.services.get(id).cloned() else { return Ok(()) };
        let networks = self.networks_of(&service.spec)?;
        let mut changes = Vec::new();
        let mut kept = Vec::new();
        for task in self.state.tasks_of_service(id).cloned().collect::<Vec<_>>() {
            let wanted =
                task.slot <= service.replicas() && task.spec_version == service.spec_version;
            match (wanted, task.status.state.is_terminal()) {
                (true, false) => kept.push(task.slot),
                (false, false) => {
                    let mut task = task;
                    task.desired = TaskState::Shutdown;
                    task.status = status(TaskState::Shutdown, "shutdown");
                    changes.push(Change::Put(Object::Task(task)));
                }
                _ => {}
            }
        }
        let nodes: Vec<String> = self.state.nodes.keys().cloned().collect();
        for slot in (1..=service.replicas()).filter(|s| !kept.contains(s)) {
            let id = self.id("task");
            let addresses = networks.iter().map(|n| self.address(n, Vec::new())).collect();
            let mut status = status(TaskState::Running, "started");
            status.container = Some(ContainerStatus {
                id: format!("{:064x}", self.next),
                pid: 1,
                exit_code: None,
            });
            changes.push(Change::Put(Object::Task(Task {
                name: format!("{}.{slot}.{id}", service.name()),
                id,
                meta: Meta::default(),
                service_id: service.id.clone(),
                slot,
                node_id: nodes.get((slot as usize - 1) % nodes.len()).cloned(),
                spec: service.spec.task_template.clone().unwrap_or_default(),
                spec_version: service.spec_version,
                desired: TaskState::Running,
                not_before: Timestamp(0),
                status,
                networks: addresses,
            })));
        }
        self.apply(changes)
    }
}

fn ipv4(second: u8, third: u8, length: u8) -> Ipv4Network {
    Ipv4Network::new(Ipv4Addr::new(10, second, third, 0), length).expect("at most 32")
}

fn now() -> Timestamp {
    Timestamp(chrono::Utc::now().timestamp_nanos_opt().unwrap_or(i64::MAX))
}

fn status(state: TaskState, message: &str) -> TaskStatus {
    TaskStatus {
        state,
        since: now(),
        message: message.to_owned(),
        err: String::new(),
        container: None,
    }
}

fn node(id: &str, hostname: &str, role: Role, availability: Availability) -> Node {
    Node {
        id: id.to_owned(),
        meta: Meta::default(),
        name: String::new(),
        labels: BTreeMap::new(),
        role,
        availability,
        description: Some(NodeDescription {
            hostname: hostname.to_owned(),
            os: "linux".to_owned(),
            architecture: "x86_64".to_owned(),
            nano_cpus: 2_000_000_000,
            memory_bytes: 4 << 30,
            engine_version: "0.1.0".to_owned(),
            engine_labels: BTreeMap::new(),
        }),
        status: NodeStatus {
            state: NodeState::Ready,
            message: String::new(),
            addr: "127.0.0.1".to_owned(),
        },
        manager_addr: None,
        overlay: NodeOverlay { public_key: None, endpoint: None, address: None },
    }
}

fn not_found(kind: &str, id: &str) -> ControlError {
    ControlError::new(ErrorKind::NotFound, format!("{kind} {id} not found"))
}

#[async_trait]
impl Swarm for MemorySwarm {
    fn info(&self) -> SwarmInfo {
        self.inner().info.clone()
    }

    fn read(&self, look: &mut dyn FnMut(&State)) -> Result<(), ControlError> {
        look(&self.manager()?.state);
        Ok(())
    }

    async fn init(
        &self,
        request: docker::SwarmInitRequest,
        availability: Availability,
    ) -> Result<String, ControlError> {
        let mut inner = self.inner();
        if inner.info.local_state != LocalState::Inactive {
            return Err(ControlError::new(
                ErrorKind::Unavailable,
                "This node is already part of a swarm. Use \"docker swarm leave\" to leave this swarm and join another one.",
            ));
        }
        inner.create(request.spec.unwrap_or_default(), availability)
    }

    async fn join(
        &self,
        request: docker::SwarmJoinRequest,
        _: Availability,
    ) -> Result<(), ControlError> {
        if !request.join_token.unwrap_or_default().starts_with("SWMTKN-1-") {
            return Err(ControlError::new(ErrorKind::InvalidArgument, "invalid join token"));
        }
        let mut inner = self.inner();
        let id = inner.id("node");
        inner.info = SwarmInfo {
            node_id: id,
            node_addr: "127.0.0.1".to_owned(),
            local_state: LocalState::Active,
            ..SwarmInfo::default()
        };
        Ok(())
    }

    async fn leave(&self, force: bool) -> Result<(), ControlError> {
        let mut inner = self.inner();
        if inner.info.local_state == LocalState::Inactive {
            return Err(ControlError::new(
                ErrorKind::Unavailable,
                "This node is not part of a swarm",
            ));
        }
        if inner.info.control_available && !force {
            return Err(ControlError::new(
                ErrorKind::FailedPrecondition,
                "You are attempting to leave the swarm on a node that is participating as a manager. Removing the last manager erases all current state of the swarm. Use `--force` to ignore this message. ",
            ));
        }
        *inner = Inner::default();
        Ok(())
    }

    async fn update_swarm(
        &self,
        version: u64,
        spec: docker::SwarmSpec,
        rotate: Rotations,
    ) -> Result<(), ControlError> {
        let mut inner = self.manager()?;
        let Some(mut cluster) = inner.state.cluster.clone() else {
            return Err(not_found("swarm", "default"));
        };
        cluster.meta.version = version;
        cluster.spec = spec;
        for (rotate, token) in [
            (rotate.worker_token, &mut cluster.join_tokens.worker),
            (rotate.manager_token, &mut cluster.join_tokens.manager),
        ] {
            if rotate {
                inner.next += 1;
                let keep = token.len() - 6;
                *token = format!("{}{:06}", &token[..keep], inner.next);
            }
        }
        let locks = cluster.spec.encryption_config.as_ref().and_then(|e| e.auto_lock_managers);
        if locks != Some(true) {
            cluster.unlock_key = None;
        } else if cluster.unlock_key.is_none() || rotate.unlock_key {
            inner.next += 1;
            cluster.unlock_key = Some(format!("SWMKEY-1-{:a>43}", inner.next));
        }
        inner.apply(vec![Change::Put(Object::Cluster(cluster))])
    }

    async fn unlock(&self, _key: &str) -> Result<(), ControlError> {
        Err(ControlError::new(ErrorKind::AlreadyExists, "swarm is not locked"))
    }

    async fn update_node(
        &self,
        id: &str,
        version: u64,
        spec: docker::NodeSpec,
    ) -> Result<(), ControlError> {
        let mut inner = self.manager()?;
        let node = inner.state.nodes.get(id).cloned();
        let mut node = node.ok_or_else(|| not_found("node", id))?;
        node.meta.version = version;
        node.labels = spec.labels.unwrap_or_default().into_iter().collect();
        node.availability = match spec.availability {
            Some(docker::NodeSpecAvailabilityEnum::PAUSE) => Availability::Pause,
            Some(docker::NodeSpecAvailabilityEnum::DRAIN) => Availability::Drain,
            _ => Availability::Active,
        };
        inner.apply(vec![Change::Put(Object::Node(node))])
    }

    async fn remove_node(&self, id: &str, force: bool) -> Result<(), ControlError> {
        let mut inner = self.manager()?;
        let node = inner.state.nodes.get(id).ok_or_else(|| not_found("node", id))?;
        if node.status.state != NodeState::Down && !force {
            return Err(ControlError::new(
                ErrorKind::FailedPrecondition,
                format!(
                    "rpc error: code = FailedPrecondition desc = node {id} is not down and can't be removed"
                ),
            ));
        }
        inner.apply(vec![Change::Delete(ObjectKind::Node, id.to_owned())])
    }

    async fn create_service(&self, spec: docker::ServiceSpec) -> Result<String, ControlError> {
        let mut inner = self.manager()?;
        let mut spec = spec;
        let id = inner.id("service");
        spec.name.get_or_insert_with(|| id.clone());
        let mode = spec.mode.get_or_insert_default();
        if mode.global.is_some() || mode.replicated_job.is_some() || mode.global_job.is_some() {
            return Err(ControlError::new(
                ErrorKind::InvalidArgument,
                "the service mode (Mode) must be replicated in this version",
            ));
        }
        mode.replicated.get_or_insert_default().replicas.get_or_insert(1);
        let endpoint = inner.endpoint(&spec)?;
        inner.apply(vec![Change::Put(Object::Service(Service {
            id: id.clone(),
            meta: Meta::default(),
            spec,
            previous_spec: None,
            spec_version: 1,
            endpoint: Some(endpoint),
        }))])?;
        inner.settle(&id)?;
        Ok(id)
    }

    async fn update_service(
        &self,
        id: &str,
        version: u64,
        spec: docker::ServiceSpec,
        rollback: bool,
    ) -> Result<(), ControlError> {
        let mut inner = self.manager()?;
        let service = inner.state.services.get(id).cloned();
        let mut service = service.ok_or_else(|| not_found("service", id))?;
        let spec = match (rollback, service.previous_spec.take()) {
            (false, _) => spec,
            (true, Some(previous)) => previous,
            (true, None) => {
                return Err(ControlError::new(
                    ErrorKind::FailedPrecondition,
                    "service does not have a previous spec",
                ));
            }
        };
        service.meta.version = version;
        if spec.task_template != service.spec.task_template {
            service.spec_version += 1;
        }
        service.previous_spec = Some(std::mem::replace(&mut service.spec, spec));
        service.endpoint = Some(inner.endpoint(&service.spec)?);
        inner.apply(vec![Change::Put(Object::Service(service))])?;
        inner.settle(id)
    }

    async fn remove_service(&self, id: &str) -> Result<(), ControlError> {
        let mut inner = self.manager()?;
        let tasks = inner.state.tasks_of_service(id).map(|t| t.id.clone());
        let mut changes: Vec<Change> = tasks.map(|t| Change::Delete(ObjectKind::Task, t)).collect();
        changes.push(Change::Delete(ObjectKind::Service, id.to_owned()));
        inner.apply(changes)
    }

    async fn create_network(
        &self,
        request: docker::NetworkCreateRequest,
    ) -> Result<String, ControlError> {
        let mut inner = self.manager()?;
        let network = inner.network(request, false);
        let id = network.id.clone();
        inner.apply(vec![Change::Put(Object::Network(network))])?;
        Ok(id)
    }

    async fn remove_network(&self, id: &str) -> Result<(), ControlError> {
        let mut inner = self.manager()?;
        let users = inner.state.services.values();
        let user = users
            .clone()
            .find(|s| s.endpoint.iter().flat_map(|e| &e.vips).any(|v| v.network_id == id));
        if let Some(user) = user {
            return Err(ControlError::new(
                ErrorKind::FailedPrecondition,
                format!(
                    "rpc error: code = FailedPrecondition desc = network {id} is in use by service {}",
                    user.id
                ),
            ));
        }
        inner.apply(vec![Change::Delete(ObjectKind::Network, id.to_owned())])
    }

    async fn service_logs(
        &self,
        tasks: Vec<String>,
        options: LogOptions,
    ) -> Result<BoxStream<'static, LogLine>, ControlError> {
        let inner = self.manager()?;
        let tasks = tasks.iter().filter_map(|id| inner.state.tasks.get(id));
        let mut lines = Vec::new();
        for task in tasks {
            for (stderr, wanted) in [(false, options.stdout), (true, options.stderr)] {
                if wanted {
                    lines.push(LogLine {
                        task_id: task.id.clone(),
                        node_id: task.node_id.clone().unwrap_or_default(),
                        stderr,
                        time: task.status.since,
                        line: format!(
                            "{} of slot {}\n",
                            if stderr { "err" } else { "out" },
                            task.slot
                        )
                        .into_bytes(),
                    });
                }
            }
        }
        Ok(futures_util::stream::iter(lines).boxed())
    }
}
