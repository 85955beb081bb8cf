//! A small cluster for tests: objects in, cores run, changes applied.
use crate::{
    Allocator, Orchestrator, Revision, allocate, orchestrate, revise, roll_back, schedule,
};
use shoal_model::{
    Availability, Change, Cluster, JoinTokens, Meta, Network, Node, NodeDescription, NodeOverlay,
    NodeState, NodeStatus, Object, Role, Service, State, Task, TaskState, Timestamp, docker,
};
use std::{collections::BTreeMap, sync::Arc};

/// So many of a kind, as a service asks for them.
pub(crate) fn generic_resource(kind: &str, value: i64) -> docker::GenericResourcesInner {
    docker::GenericResourcesInner {
        discrete_resource_spec: Some(docker::GenericResourcesInnerDiscreteResourceSpec {
            kind: Some(kind.to_owned()),
            value: Some(value),
        }),
        ..Default::default()
    }
}

pub(crate) struct World {
    pub(crate) state: State,
    pub(crate) now: Timestamp,
    ids: u64,
    orchestrator: Orchestrator,
    allocator: Allocator,
}

impl World {
    pub(crate) fn new() -> World {
        let mut world = World {
            state: State::default(),
            now: Timestamp(1_000_000_000_000),
            ids: 0,
            orchestrator: Orchestrator::default(),
            allocator: Allocator::default(),
        };
        world.put(Object::Cluster(Box::new(Cluster {
            id: "cluster".to_owned(),
            meta: Meta::default(),
            spec: docker::SwarmSpec::default(),
            root_certificate: String::new(),
            root_key: String::new(),
            join_tokens: JoinTokens { worker: String::new(), manager: String::new() },
            address_pools: vec!["10.0.0.0/8".parse().unwrap()],
            subnet_size: 24,
            ipv6_pool: "fd00:1::/48".parse().unwrap(),
            data_path_port: 51820,
            removed_nodes: BTreeMap::new(),
            unlock_key: None,
            root_rotation: None,
        })));
        world.network_with("ingress", "10.0.0.0/24", |n| n.ingress = true);
        world
    }

    pub(crate) fn apply(&mut self, changes: Vec<Change>) {
        let index = self.state.version + 1;
        self.state.apply(index, self.now, changes).unwrap();
    }

    pub(crate) fn put(&mut self, object: Object) {
        self.apply(vec![Change::Put(object)]);
    }

    pub(crate) fn pass(&mut self, ms: i64) {
        self.now = Timestamp(self.now.0 + ms * 1_000_000);
    }

    /// Runs the three cores until none wants anything, applying each answer.
    pub(crate) fn settle(&mut self) {
        self.settle_cores(3);
    }

    /// Leaves the tasks waiting for their nodes.
    pub(crate) fn settle_but_schedule(&mut self) {
        self.settle_cores(2);
    }

    fn settle_cores(&mut self, cores: usize) {
        for _ in 0..50 {
            let mut quiet = true;
            for core in 0..cores {
                let ids = &mut self.ids;
                let mut new_id = || {
                    *ids += 1;
                    format!("t{:03}", *ids)
                };
                let changes = match core {
                    0 => self.orchestrator.orchestrate(&self.state, self.now, &mut new_id),
                    1 => self.allocator.allocate(&self.state, self.now),
                    _ => schedule(&self.state, self.now),
                };
                if !changes.is_empty() {
                    quiet = false;
                    self.apply(changes);
                }
            }
            if quiet {
                self.nothing_is_overlooked();
                return;
            }
        }
        panic!("the cores never come to rest");
    }

    /// The cores that follow the changes want nothing: then those that look at everything do neither.
    fn nothing_is_overlooked(&self) {
        let mut no_id = || "overlooked".to_owned();
        assert_eq!(orchestrate(&self.state, self.now, &mut no_id), []);
        assert_eq!(allocate(&self.state, self.now), []);
    }

    pub(crate) fn node(&mut self, id: &str) {
        self.put(Object::Node(Box::new(Node {
            id: id.to_owned(),
            meta: Meta::default(),
            name: String::new(),
            labels: BTreeMap::new(),
            role: Role::Worker,
            availability: Availability::Active,
            description: Some(NodeDescription {
                hostname: format!("host-{id}"),
                os: "linux".to_owned(),
                architecture: "x86_64".to_owned(),
                nano_cpus: 2_000_000_000,
                memory_bytes: 1 << 30,
                ..NodeDescription::default()
            }),
            status: NodeStatus {
                state: NodeState::Ready,
                message: String::new(),
                addr: String::new(),
            },
            manager_addr: None,
            overlay: NodeOverlay {
                public_key: Some(format!("key-{id}")),
                endpoint: Some("192.0.2.1:51820".parse().unwrap()),
                address: None,
            },
            down_since: None,
            tls: None,
        })));
    }

    pub(crate) fn set_node(&mut self, id: &str, edit: impl FnOnce(&mut Node)) {
        let mut node = self.state.nodes[id].clone();
        edit(&mut node);
        self.put(Object::Node(Box::new(node)));
    }

    pub(crate) fn set_cluster(&mut self, edit: impl FnOnce(&mut Cluster)) {
        let mut cluster = self.state.cluster.clone().unwrap();
        edit(&mut cluster);
        self.put(Object::Cluster(Box::new(cluster)));
    }

    pub(crate) fn network(&mut self, name: &str, subnet: &str) {
        self.network_with(name, subnet, |_| {});
    }

    pub(crate) fn network_with(
        &mut self,
        name: &str,
        subnet: &str,
        edit: impl FnOnce(&mut Network),
    ) {
        let mut network = Network {
            id: format!("net-{name}"),
            meta: Meta::default(),
            spec: docker::NetworkCreateRequest { name: name.to_owned(), ..Default::default() },
            ingress: false,
            subnet: subnet.parse().unwrap(),
            subnet6: None,
        };
        edit(&mut network);
        self.put(Object::Network(Box::new(network)));
    }

    /// A service `name` on `networks`; `edit` may change its specification.
    pub(crate) fn service(
        &mut self,
        name: &str,
        replicas: i64,
        networks: &[&str],
        edit: impl FnOnce(&mut docker::ServiceSpec),
    ) {
        let attach = |n: &&str| docker::NetworkAttachmentConfig {
            target: Some(format!("net-{n}")),
            ..Default::default()
        };
        let mut spec = docker::ServiceSpec {
            name: Some(name.to_owned()),
            task_template: Some(docker::TaskSpec {
                container_spec: Some(docker::TaskSpecContainerSpec {
                    image: Some("image".to_owned()),
                    ..Default::default()
                }),
                networks: Some(networks.iter().map(attach).collect()),
                ..Default::default()
            }),
            mode: Some(docker::ServiceSpecMode {
                replicated: Some(docker::ServiceSpecModeReplicated { replicas: Some(replicas) }),
                ..Default::default()
            }),
            ..Default::default()
        };
        edit(&mut spec);
        self.put(Object::Service(Arc::new(Service::new(format!("svc-{name}"), spec, self.now))));
    }

    /// A global service `name`.
    pub(crate) fn global(&mut self, name: &str, edit: impl FnOnce(&mut docker::ServiceSpec)) {
        self.service(name, 0, &[], |s| {
            let global = Some(Default::default());
            s.mode = Some(docker::ServiceSpecMode { global, ..Default::default() });
            edit(s);
        });
    }

    pub(crate) fn set_service(&mut self, name: &str, edit: impl FnOnce(&mut Service)) {
        let mut service = self.state.services[&format!("svc-{name}")].clone();
        edit(&mut service);
        self.put(Object::Service(Arc::new(service)));
    }

    pub(crate) fn of(&self, name: &str) -> &Service {
        &self.state.services[&format!("svc-{name}")]
    }

    /// Gives a service a new specification, as the manager does.
    pub(crate) fn revise(
        &mut self,
        name: &str,
        revision: Revision,
        edit: impl FnOnce(&mut docker::ServiceSpec),
    ) {
        let mut spec = self.of(name).spec.clone();
        edit(&mut spec);
        self.put(Object::Service(Arc::new(revise(self.of(name), spec, revision, self.now))));
    }

    /// Gives a service a new template.
    pub(crate) fn update(&mut self, name: &str) {
        let version = self.of(name).meta.version;
        self.revise(name, Revision::Tasks, |s| {
            let template = s.task_template.get_or_insert_default();
            template.force_update = Some(version);
        });
    }

    /// Gives a service the specification it had before, as the user asks.
    pub(crate) fn roll_back(&mut self, name: &str) {
        let service = roll_back(self.of(name), self.now).unwrap();
        self.put(Object::Service(Arc::new(service)));
    }

    pub(crate) fn scale(&mut self, name: &str, replicas: i64) {
        self.revise(name, Revision::None, |s| {
            s.mode = Some(docker::ServiceSpecMode {
                replicated: Some(docker::ServiceSpecModeReplicated { replicas: Some(replicas) }),
                ..Default::default()
            });
        });
    }

    /// Plays the agents: a task that is wanted runs, one that is not stops.
    pub(crate) fn agents(&mut self) {
        let now = self.now;
        let mut changes = Vec::new();
        for task in self.state.tasks.values() {
            let node = task.node_id.as_ref().and_then(|n| self.state.nodes.get(n));
            let up = node.is_some_and(|n| n.status.state != NodeState::Down);
            let to = match task.desired {
                TaskState::Ready => TaskState::Ready,
                TaskState::Running => TaskState::Running,
                _ => TaskState::Shutdown,
            };
            if up
                && task.is_assigned()
                && task.status.state < to
                && !task.status.state.is_terminal()
            {
                let mut task = task.clone();
                task.status.state = to;
                task.status.since = now;
                changes.push(Change::Put(Object::Task(task.into())));
            }
        }
        if !changes.is_empty() {
            self.apply(changes);
        }
    }

    /// Cores and agents in turn, until the agents have nothing to report.
    pub(crate) fn run(&mut self) {
        for _ in 0..100 {
            self.settle();
            let before = self.state.version;
            self.agents();
            if self.state.version == before {
                return;
            }
        }
        panic!("the cluster never comes to rest");
    }

    pub(crate) fn end(&mut self, task: &str, state: TaskState) {
        let mut task = self.state.tasks[task].clone();
        task.status.state = state;
        task.status.since = self.now;
        self.put(Object::Task(task.into()));
    }

    /// Runs, until a task of the service has been made that satisfies `wanted`.
    pub(crate) fn run_until(&mut self, service: &str, wanted: impl Fn(&Task) -> bool) -> Task {
        for _ in 0..100 {
            self.settle();
            if let Some(task) = self.tasks(service).into_iter().find(|t| wanted(t)) {
                return task.clone();
            }
            self.agents();
        }
        panic!("no task of {service} is as wanted");
    }

    pub(crate) fn tasks(&self, service: &str) -> Vec<&Task> {
        self.state.tasks_of_service(&format!("svc-{service}")).collect()
    }

    /// Tasks that run and are to run.
    pub(crate) fn running(&self, service: &str) -> Vec<&Task> {
        let runs =
            |t: &&Task| t.status.state == TaskState::Running && t.desired == TaskState::Running;
        self.tasks(service).into_iter().filter(runs).collect()
    }
}
