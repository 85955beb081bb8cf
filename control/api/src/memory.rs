//! A cluster in memory behind the [`Swarm`] trait: objects and decisions are real, nodes are played,
//! nothing leaves the process. For tests of the server and of the command line.
//!
//! A task runs the moment it is to; one of a job ends well a short time later, one whose image begins
//! with `fail` ends badly at its start. Time passes whenever somebody looks.
use crate::seam::{LocalState, Swarm, SwarmInfo};
use async_trait::async_trait;
use futures_util::{StreamExt, stream::BoxStream};
use ipnetwork::{Ipv4Network, Ipv6Network};
use shoal_cores::{
    DependencyError, Revision, dependency_object, new_dependency, relabelled, revise, roll_back,
    take_rebalance_once,
};
use shoal_model::{
    ApplyError, Availability, Change, Cluster, ContainerStatus, ControlError, DependencyKind,
    DependencySpec, ErrorKind, JoinTokens, LogLine, LogOptions, Meta, Network, Node,
    NodeDescription, NodeOverlay, NodeState, NodeStatus, NodeTls, Object, ObjectKind, Role,
    Rotations, Service, State, Task, TaskState, TaskStatus, Timestamp, docker,
};
use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, Ipv6Addr},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::sync::watch;

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
    versions: watch::Sender<u64>,
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
            inner.apply(vec![Change::Put(Object::Node(Box::new(node)))]).expect("a new id");
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
        let mut inner = self.inner();
        match (inner.info.local_state, inner.info.control_available) {
            (LocalState::Active, true) => {
                inner.settle()?;
                Ok(inner)
            }
            (LocalState::Active, false) => Err(ControlError::new(ErrorKind::Unavailable, WORKER)),
            _ => Err(ControlError::new(ErrorKind::Unavailable, NO_SWARM)),
        }
    }
}

impl Inner {
    fn id(&mut self, kind: &str) -> String {
        self.next += 1;
        numbered(kind, self.next)
    }

    fn apply(&mut self, changes: Vec<Change>) -> Result<(), ControlError> {
        if changes.is_empty() {
            return Ok(());
        }
        let index = self.state.version + 1;
        self.state.apply(index, now(), changes).map_err(|e| match e {
            ApplyError::OutOfSequence { .. } | ApplyError::SubnetTaken { .. } => ControlError::new(
                ErrorKind::Unknown,
                format!("rpc error: code = Unknown desc = {e}"),
            ),
            ApplyError::InUse { .. } | ApplyError::Missing { .. } => ControlError::new(
                ErrorKind::InvalidArgument,
                format!("rpc error: code = InvalidArgument desc = {e}"),
            ),
            ApplyError::NameTaken { .. } => ControlError::new(
                ErrorKind::AlreadyExists,
                format!("rpc error: code = AlreadyExists desc = name conflicts with an existing object: {e}"),
            ),
        })?;
        self.versions.send_replace(index);
        Ok(())
    }

    fn create(
        &mut self,
        spec: docker::SwarmSpec,
        availability: Availability,
    ) -> Result<String, ControlError> {
        let (cluster, id) = (self.id("cluster"), self.id("node"));
        let mut spec = spec;
        spec.name = Some("default".to_owned());
        let secret = |word: &str| format!("SWMTKN-1-{}-{word:b<25}", root_digest());
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
            root_rotation: None,
        };
        let mut manager = node(&id, "alpha", Role::Manager, availability);
        manager.manager_addr = Some("127.0.0.1:2377".to_owned());
        let spec = docker::NetworkCreateRequest { name: "ingress".into(), ..Default::default() };
        let ingress = self.network(spec, true);
        self.apply(vec![
            Change::Put(Object::Cluster(Box::new(cluster))),
            Change::Put(Object::Node(Box::new(manager))),
            Change::Put(Object::Network(Box::new(ingress))),
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

    fn check_networks(&self, spec: &docker::ServiceSpec) -> Result<(), ControlError> {
        for wanted in shoal_cores::attachments(spec) {
            if shoal_cores::network_of(&self.state, wanted).is_none() {
                let target = wanted.target.as_deref().unwrap_or_default();
                let text = format!("network {target} not found");
                return Err(ControlError::new(ErrorKind::NotFound, text));
            }
        }
        Ok(())
    }

    /// Lets the cores decide and the nodes act until nothing is left to do now.
    fn settle(&mut self) -> Result<(), ControlError> {
        for _ in 0..ROUNDS {
            let before = self.state.version;
            let (now, mut next) = (now(), self.next);
            let mut new_id = || {
                next += 1;
                numbered("task", next)
            };
            let wanted = shoal_cores::orchestrate(&self.state, now, &mut new_id);
            self.next = next;
            self.apply(wanted)?;
            self.apply(shoal_cores::allocate(&self.state, now))?;
            self.apply(shoal_cores::schedule(&self.state, now))?;
            let reported = self.play(now);
            self.apply(reported)?;
            if self.state.version == before {
                return Ok(());
            }
        }
        Err(ControlError::new(ErrorKind::Unknown, "the cluster never comes to rest"))
    }

    /// What the nodes report of their tasks.
    fn play(&mut self, now: Timestamp) -> Vec<Change> {
        let tasks: Vec<Task> =
            self.state.tasks.values().filter(|t| t.is_assigned()).cloned().collect();
        let changes = tasks.into_iter().filter_map(|task| self.report(task, now));
        changes.map(|task| Change::Put(Object::Task(task.into()))).collect()
    }

    fn report(&mut self, mut task: Task, now: Timestamp) -> Option<Task> {
        let container = task.spec.container_spec.as_ref();
        let image = container.and_then(|c| c.image.as_deref()).unwrap_or_default();
        let done = task.job_iteration.is_some()
            && task.times.running.is_some_and(|at| now.since(at) >= JOB_LASTS);
        let (state, message) = match task.desired {
            TaskState::Ready => (TaskState::Ready, "prepared"),
            TaskState::Running if image.starts_with("fail") => (TaskState::Failed, "started"),
            TaskState::Running if done => (TaskState::Complete, "finished"),
            TaskState::Running => (TaskState::Running, "started"),
            _ => (TaskState::Shutdown, "shutdown"),
        };
        if task.status.state.is_terminal() || task.status.state >= state {
            return None;
        }
        let failed = state == TaskState::Failed;
        let mut container = task.status.container.take();
        if container.is_none() && (failed || state == TaskState::Running) {
            self.next += 1;
            let id = format!("{:064x}", self.next);
            container = Some(ContainerStatus { id, pid: 1, exit_code: None, unhealthy: false });
        }
        if let Some(container) = &mut container {
            container.exit_code = state.is_terminal().then_some(i64::from(failed));
        }
        let err = if failed { "task: non-zero exit (1)" } else { "" };
        task.status = TaskStatus {
            state,
            since: now,
            message: message.to_owned(),
            err: err.to_owned(),
            container,
        };
        Some(task)
    }
}

/// Rounds of decisions in a row.
const ROUNDS: usize = 1_000;

/// How long a job's task runs.
const JOB_LASTS: Duration = Duration::from_millis(300);

/// 25 characters, as the real ones: `service0…01`.
fn numbered(kind: &str, number: u64) -> String {
    format!("{kind}{number:0width$}", width = 25 - kind.len())
}

fn ipv4(second: u8, third: u8, length: u8) -> Ipv4Network {
    Ipv4Network::new(Ipv4Addr::new(10, second, third, 0), length).expect("at most 32")
}

fn now() -> Timestamp {
    Timestamp(chrono::Utc::now().timestamp_nanos_opt().unwrap_or(i64::MAX))
}

/// As join tokens carry it, of the root there is.
fn root_digest() -> String {
    "a".repeat(50)
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
            ..NodeDescription::default()
        }),
        status: NodeStatus {
            state: NodeState::Ready,
            message: String::new(),
            addr: "127.0.0.1".to_owned(),
        },
        manager_addr: None,
        overlay: NodeOverlay { public_key: None, endpoint: None, address: None },
        down_since: None,
        tls: Some(NodeTls { root: Some(root_digest()), trust: vec![root_digest()] }),
    }
}

fn not_found(kind: &str, id: &str) -> ControlError {
    ControlError::new(ErrorKind::NotFound, format!("{kind} {id} not found"))
}

fn refused(refusal: DependencyError) -> ControlError {
    let kind = refusal.kind();
    ControlError::new(kind, format!("rpc error: code = {kind:?} desc = {refusal}"))
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

    fn progress(&self) -> Option<(watch::Receiver<u64>, Option<String>)> {
        let inner = self.inner();
        let managed = inner.info.control_available;
        managed.then(|| (inner.versions.subscribe(), inner.info.leader.clone()))
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
        inner.apply(vec![Change::Put(Object::Cluster(Box::new(cluster)))])
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
        inner.apply(vec![Change::Put(Object::Node(Box::new(node)))])
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
        inner.check_networks(&spec)?;
        let rebalance = take_rebalance_once(&mut spec);
        let service = Service { rebalance, ..Service::new(id.clone(), spec, now()) };
        inner.apply(vec![Change::Put(Object::Service(Box::new(service)))])?;
        inner.settle()?;
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
        let present = inner.state.services.get(id).ok_or_else(|| not_found("service", id))?;
        let mut service = if rollback {
            roll_back(present, now()).ok_or_else(|| {
                let text = "service does not have a previous spec";
                ControlError::new(ErrorKind::FailedPrecondition, text)
            })?
        } else {
            let mut spec = spec;
            let rebalance = take_rebalance_once(&mut spec) || present.rebalance;
            let same = spec.task_template == present.spec.task_template;
            let revision = if same { Revision::None } else { Revision::Tasks };
            Service { rebalance, ..revise(present, spec, revision, now()) }
        };
        service.meta.version = version;
        inner.check_networks(&service.spec)?;
        inner.apply(vec![Change::Put(Object::Service(Box::new(service)))])?;
        inner.settle()
    }

    async fn remove_service(&self, id: &str) -> Result<(), ControlError> {
        let mut inner = self.manager()?;
        inner.apply(vec![Change::Delete(ObjectKind::Service, id.to_owned())])?;
        inner.settle()
    }

    async fn create_network(
        &self,
        request: docker::NetworkCreateRequest,
    ) -> Result<String, ControlError> {
        let mut inner = self.manager()?;
        let network = inner.network(request, false);
        let id = network.id.clone();
        inner.apply(vec![Change::Put(Object::Network(Box::new(network)))])?;
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

    async fn create_dependency(
        &self,
        kind: DependencyKind,
        spec: DependencySpec,
    ) -> Result<String, ControlError> {
        let mut inner = self.manager()?;
        let id = inner.id(kind.as_str());
        let new = new_dependency(&inner.state, kind, id.clone(), spec).map_err(refused)?;
        inner.apply(vec![Change::Put(dependency_object(kind, new.into()))])?;
        Ok(id)
    }

    async fn update_dependency(
        &self,
        kind: DependencyKind,
        id: &str,
        version: u64,
        spec: DependencySpec,
    ) -> Result<(), ControlError> {
        let mut inner = self.manager()?;
        let present = inner.state.dependencies(kind).get(id);
        let present = present.ok_or_else(|| not_found(kind.as_str(), id))?;
        let mut new = relabelled(present, spec).map_err(refused)?;
        new.meta.version = version;
        inner.apply(vec![Change::Put(dependency_object(kind, new.into()))])
    }

    async fn remove_dependency(&self, kind: DependencyKind, id: &str) -> Result<(), ControlError> {
        let mut inner = self.manager()?;
        if !inner.state.dependencies(kind).contains_key(id) {
            return Err(not_found(kind.as_str(), id));
        }
        inner.apply(vec![Change::Delete(kind.into(), id.to_owned())])
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
