use super::*;
use crate::{
    Drains, Revision,
    assignment::{alive, assignment},
    testing::World,
};
use proptest::prelude::*;
use shoal_model::{
    Availability, Change, Dependency, Difference, Meta, NodeState, Object, ObjectKind, Rows, State,
    Task, TaskState,
    docker::{self, EndpointPortConfig, EndpointSpec},
};
use std::sync::Arc;

const NODES: [&str; 4] = ["n1", "n2", "n3", "n4"];
const NETWORKS: [&str; 3] = ["app", "back", "mid"];
const SERVICES: [&str; 3] = ["web", "db", "pub"];
/// What services may use, by kind and id.
const DEPENDENCIES: [(DependencyKind, &str); 3] = [
    (DependencyKind::Secret, "key"),
    (DependencyKind::Secret, "word"),
    (DependencyKind::Config, "key"),
];

fn make(world: &mut World, (kind, id): (DependencyKind, &str)) {
    let present = world.state.dependencies(kind).get(id);
    let dependency = Arc::new(Dependency {
        id: id.to_owned(),
        meta: present.map_or_else(Meta::default, |present| present.meta),
        name: id.to_owned(),
        labels: BTreeMap::from([("at".to_owned(), world.state.version.to_string())]),
        content: format!("{kind} {id}").into_bytes().into(),
        templating: None,
    });
    world.put(match kind {
        DependencyKind::Secret => Object::Secret(dependency),
        DependencyKind::Config => Object::Config(dependency),
    });
}

/// Makes a service's next tasks use what is there of those in the mask.
fn refer(world: &mut World, service: &str, mask: u8) {
    let of = |kind| {
        let all = DEPENDENCIES
            .iter()
            .enumerate()
            .filter(move |(n, one)| one.0 == kind && mask & 1 << n != 0);
        all.map(|(_, (_, id))| (*id).to_owned())
    };
    let there = |kind, id: &String| world.state.dependencies(kind).contains_key(id);
    let secrets =
        of(DependencyKind::Secret).filter(|id| there(DependencyKind::Secret, id)).map(|id| {
            docker::TaskSpecContainerSpecSecrets { secret_id: Some(id), ..Default::default() }
        });
    let secrets: Vec<_> = secrets.collect();
    let configs =
        of(DependencyKind::Config).filter(|id| there(DependencyKind::Config, id)).map(|id| {
            docker::TaskSpecContainerSpecConfigs { config_id: Some(id), ..Default::default() }
        });
    let configs: Vec<_> = configs.collect();
    world.revise(service, Revision::Tasks, |spec| {
        let template = spec.task_template.get_or_insert_default();
        let container = template.container_spec.get_or_insert_default();
        (container.secrets, container.configs) = (Some(secrets), Some(configs));
    });
}

/// A node as its agent sees it.
struct Agent {
    subscriber: Subscriber,
    rows: Rows,
}

impl Agent {
    fn new(node: &str) -> Agent {
        Agent { subscriber: Subscriber::new(node), rows: Rows::default() }
    }

    /// Takes in what is new; the number of rows it took.
    fn hear(&mut self, tables: &Tables, state: &State) -> Option<usize> {
        let delta = tables.difference(state, &mut self.subscriber)?;
        let rows = delta.rows.iter().flat_map(|rows| Row::read_all(rows)).map(Result::unwrap);
        let difference = Difference {
            base: delta.base,
            kept: delta.kept,
            generation: delta.generation,
            gone: delta.gone,
            rows: rows.collect(),
        };
        let length = difference.rows.len();
        self.rows.apply(difference).unwrap();
        Some(length)
    }
}

/// The same without the generation, which only moves when there is something to tell.
fn assert_same(agent: &Agent, state: &State, node: &str) {
    if !state.nodes.contains_key(node) {
        return; // it is told nothing any more
    }
    let mut told = agent.rows.assignment();
    let whole = assignment(state, node);
    assert!(told.generation <= whole.generation);
    told.generation = whole.generation;
    assert_eq!(told, whole, "{node}");
}

fn world() -> World {
    let mut world = World::new();
    for (index, name) in NETWORKS.iter().enumerate() {
        world.network(name, &format!("10.0.{}.0/24", index + 1));
    }
    NODES[..3].iter().for_each(|n| world.node(n));
    world.service("web", 2, &["app", "mid"], |_| {});
    world.service("db", 1, &["back"], |_| {});
    world.service("pub", 2, &["back"], |s| {
        let port = EndpointPortConfig {
            target_port: Some(80),
            published_port: Some(8080),
            ..Default::default()
        };
        s.endpoint_spec = Some(EndpointSpec { mode: None, ports: Some(vec![port]) });
    });
    world.run();
    world
}

/// One thing that happens to a cluster.
#[derive(Clone, Debug)]
enum Event {
    Scale(usize, i64),
    Update(usize),
    Labels(usize, u8),
    Make(usize),
    Refer(usize, u8),
    Remove(usize),
    RemoveService(usize),
    Availability(usize, bool),
    Up(usize, bool),
    AddNode,
    RemoveNode(usize),
    RemoveNetwork(usize),
    End(usize, TaskState),
    Agents,
    Settle,
    /// A node hears what is new.
    Hear(usize),
    /// A node's session begins anew.
    Reset(usize),
}

fn event() -> impl Strategy<Value = Event> {
    let service = 0..SERVICES.len();
    let node = 0..NODES.len();
    prop_oneof![
        (service.clone(), 0..6_i64).prop_map(|(s, n)| Event::Scale(s, n)),
        service.clone().prop_map(Event::Update),
        (service.clone(), 0..3_u8).prop_map(|(s, n)| Event::Labels(s, n)),
        service.clone().prop_map(Event::RemoveService),
        (0..DEPENDENCIES.len()).prop_map(Event::Make),
        (0..DEPENDENCIES.len()).prop_map(Event::Remove),
        (service, 0..8_u8).prop_map(|(s, mask)| Event::Refer(s, mask)),
        (node.clone(), any::<bool>()).prop_map(|(n, b)| Event::Availability(n, b)),
        (node.clone(), any::<bool>()).prop_map(|(n, b)| Event::Up(n, b)),
        Just(Event::AddNode),
        node.clone().prop_map(Event::RemoveNode),
        (0..NETWORKS.len()).prop_map(Event::RemoveNetwork),
        (0..20_usize, prop_oneof![Just(TaskState::Failed), Just(TaskState::Complete)])
            .prop_map(|(t, s)| Event::End(t, s)),
        Just(Event::Agents),
        Just(Event::Agents),
        Just(Event::Settle),
        Just(Event::Settle),
        node.clone().prop_map(Event::Hear),
        node.clone().prop_map(Event::Hear),
        node.prop_map(Event::Reset),
    ]
}

fn happen(world: &mut World, event: &Event) {
    let service = |s: &usize| SERVICES[*s];
    let there = |world: &World, s: &usize| {
        world.state.services.contains_key(&format!("svc-{}", SERVICES[*s]))
    };
    let known = |world: &World, n: &usize| world.state.nodes.contains_key(NODES[*n]);
    match event {
        Event::Scale(s, n) if there(world, s) => world.scale(service(s), *n),
        Event::Update(s) if there(world, s) => world.update(service(s)),
        Event::Labels(s, n) if there(world, s) => world.set_service(service(s), |s| {
            s.spec.labels = Some([("n".to_owned(), n.to_string())].into());
        }),
        Event::Make(n) => make(world, DEPENDENCIES[*n]),
        Event::Refer(s, mask) if there(world, s) => refer(world, service(s), *mask),
        Event::Remove(n) => {
            let (kind, id) = DEPENDENCIES[*n];
            // Tasks of an earlier specification may still use it.
            if world.state.users_of(kind, id).next().is_none() {
                world.apply(vec![Change::Delete(kind.into(), id.to_owned())]);
            }
        }
        Event::RemoveService(s) => {
            let id = format!("svc-{}", service(s));
            world.apply(vec![Change::Delete(ObjectKind::Service, id)]);
        }
        Event::Availability(n, active) if known(world, n) => world.set_node(NODES[*n], |node| {
            node.availability = if *active { Availability::Active } else { Availability::Drain };
        }),
        Event::Up(n, up) if known(world, n) => world.set_node(NODES[*n], |node| {
            node.status.state = if *up { NodeState::Ready } else { NodeState::Down };
        }),
        Event::AddNode if !known(world, &3) => world.node(NODES[3]),
        Event::RemoveNode(n) => {
            world.apply(vec![Change::Delete(ObjectKind::Node, NODES[*n].to_owned())]);
        }
        Event::RemoveNetwork(n) => {
            let id = format!("net-{}", NETWORKS[*n]);
            world.apply(vec![Change::Delete(ObjectKind::Network, id)]);
        }
        Event::End(t, to) => {
            let running =
                world.state.tasks.values().filter(|t| t.status.state == TaskState::Running);
            let ids: Vec<String> = running.map(|t| t.id.clone()).collect();
            if !ids.is_empty() {
                world.end(&ids[t % ids.len()], *to);
            }
        }
        Event::Agents => world.agents(),
        Event::Settle => world.settle(),
        _ => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn differences_one_after_another_give_the_same_as_the_whole(
        events in prop::collection::vec(event(), 1..60),
    ) {
        let mut world = world();
        let mut tables = Tables::default();
        let mut agents = NODES.map(Agent::new);
        // Whose session would look.
        let mut called = NODES.map(|_| true);
        for event in &events {
            happen(&mut world, event);
            let touched = tables.update(&world.state);
            for (called, node) in called.iter_mut().zip(NODES) {
                *called |= touched.everybody || touched.concerned.contains(node);
            }
            match event {
                Event::Hear(n) => {
                    let news = agents[*n].hear(&tables, &world.state);
                    prop_assert!(news.is_none() || called[*n], "{} was not called", NODES[*n]);
                    called[*n] = false;
                    assert_same(&agents[*n], &world.state, NODES[*n]);
                }
                Event::Reset(n) => {
                    agents[*n].subscriber.reset();
                    called[*n] = true;
                }
                _ => {}
            }
        }
        for (agent, node) in agents.iter_mut().zip(NODES) {
            agent.hear(&tables, &world.state);
            assert_same(agent, &world.state, node);
            prop_assert_eq!(agent.hear(&tables, &world.state), None, "told twice");
        }
        // Tables made anew from the same state say the same.
        let mut anew = Tables::default();
        anew.update(&world.state);
        assert_equal(&anew, &tables, &world.state);
    }

    #[test]
    fn tables_read_a_little_at_a_time_while_the_state_changes_are_those_read_at_once(
        before in prop::collection::vec(event(), 0..40),
        during in prop::collection::vec((event(), 1..4_usize), 0..40),
        after in prop::collection::vec(event(), 0..10),
    ) {
        let mut world = world();
        before.iter().for_each(|event| happen(&mut world, event));
        let (mut tables, mut drains) = (Tables::default(), Drains::default());
        let mut told = 0;
        for (event, most) in &during {
            let touched = tables.follow(&world.state, *most);
            drains.follow(&world.state, &tables, &touched);
            let mut node = Subscriber::new(NODES[0]);
            if tables.is_complete() {
                told += usize::from(touched.all);
            } else {
                prop_assert_eq!(&touched, &Touched::default());
                prop_assert_eq!(tables.difference(&world.state, &mut node), None);
            }
            happen(&mut world, event);
        }
        loop {
            let touched = tables.follow(&world.state, 2);
            drains.follow(&world.state, &tables, &touched);
            told += usize::from(touched.all);
            if tables.is_complete() {
                break;
            }
        }
        prop_assert!(told > 0, "it was never said that all was looked at");
        for event in &after {
            happen(&mut world, event);
            let touched = tables.update(&world.state);
            drains.follow(&world.state, &tables, &touched);
        }
        let mut anew = Tables::default();
        let touched = anew.update(&world.state);
        assert_equal(&anew, &tables, &world.state);
        let mut drained = Drains::default();
        drained.follow(&world.state, &anew, &touched);
        for task in world.state.tasks.keys() {
            let draining = |drains: &Drains| drains.waits_for(task).is_some();
            prop_assert_eq!(draining(&drains), draining(&drained), "{}", task);
        }
    }
}

/// Tables made in two ways from one state.
fn assert_equal(anew: &Tables, tables: &Tables, state: &State) {
    for node in NODES {
        for tables in [anew, tables] {
            let mut agent = Agent::new(node);
            agent.hear(tables, state);
            assert_same(&agent, state, node);
        }
        let counted = |t: &Tables| {
            let of_node = t.nodes.get(node);
            of_node.map(|n| (n.joined.clone(), n.needs.clone(), n.heard_on.clone(), n.down))
        };
        assert_eq!(counted(anew), counted(tables));
    }
    assert_eq!(anew.tasks, tables.tasks);
    let shelves = |t: &Tables| {
        let of_network = |(id, n): (&String, &OfNetwork)| (id.clone(), n.nodes.clone());
        t.networks.iter().map(of_network).collect::<Vec<_>>()
    };
    assert_eq!(shelves(anew), shelves(tables));
}

#[test]
fn a_change_is_told_only_to_those_it_concerns_and_only_itself() {
    let mut world = world();
    world.set_node("n3", |n| n.availability = Availability::Pause);
    world.scale("web", 2);
    world.run();
    let mut tables = Tables::default();
    tables.update(&world.state);
    let mut agents = NODES[..3].iter().map(|n| Agent::new(n)).collect::<Vec<_>>();
    for agent in &mut agents {
        agent.hear(&tables, &world.state);
    }
    let db = world.running("db")[0].clone();
    let other = NODES[..3].iter().position(|n| {
        world.state.tasks_of_node(n).all(|t| t.networks.iter().all(|a| a.network_id != "net-back"))
    });
    world.end(&db.id, TaskState::Starting);
    tables.update(&world.state);
    if let Some(other) = other {
        assert_eq!(
            agents[other].hear(&tables, &world.state),
            None,
            "it has nothing on that network"
        );
    }
    let own = NODES.iter().position(|n| db.node_id.as_deref() == Some(n)).unwrap();
    let told = agents[own].hear(&tables, &world.state).unwrap();
    assert!((1..=2).contains(&told), "its own row and its row on the network: {told}");
}

#[test]
fn an_update_names_the_nodes_that_may_have_something_new_to_hear() {
    let mut world = world();
    let mut tables = Tables::default();
    assert!(tables.update(&world.state).everybody, "all was read anew");
    let mut agents: Vec<Agent> = NODES[..3].iter().map(|n| Agent::new(n)).collect();
    for agent in &mut agents {
        agent.hear(&tables, &world.state);
    }
    let db = world.running("db")[0].clone();
    let own = db.node_id.clone().unwrap();
    world.set_node(&own, |n| n.status.message = "a word".to_owned());
    let touched = tables.update(&world.state);
    assert_eq!((touched.everybody, touched.concerned), (false, BTreeSet::from([own.clone()])));
    world.end(&db.id, TaskState::Complete);
    let touched = tables.update(&world.state);
    assert!(!touched.everybody && touched.concerned.contains(&own), "{touched:?}");
    for (agent, node) in agents.iter_mut().zip(NODES) {
        let news = agent.hear(&tables, &world.state).is_some();
        assert!(!news || touched.concerned.contains(node), "{node} was not named");
    }
    world.node("n4");
    world.run();
    assert!(tables.update(&world.state).everybody);
}

#[test]
fn a_network_that_is_removed_while_its_tasks_stop_is_gone_with_everything_on_it() {
    let mut world = world();
    world.scale("db", 3);
    world.run();
    let mut tables = Tables::default();
    tables.update(&world.state);
    let mut agent = Agent::new("n1");
    agent.hear(&tables, &world.state);
    let db: Vec<Task> = world.running("db").into_iter().cloned().collect();
    let there = |agent: &Agent, task: &Task| {
        let ip = ipnetwork::IpNetwork::from(std::net::IpAddr::V4(task.networks[0].v4));
        agent.rows.assignment().table.peers.iter().any(|p| p.allowed_ips.contains(&ip))
    };
    let far = db.iter().find(|t| t.node_id.as_deref() != Some("n1")).unwrap();
    let near = db.iter().find(|t| t.node_id.as_deref() == Some("n1")).unwrap();
    assert!(there(&agent, far));
    for name in ["db", "pub"] {
        world.apply(vec![Change::Delete(ObjectKind::Service, format!("svc-{name}"))]);
    }
    world.settle();
    world.apply(vec![Change::Delete(ObjectKind::Network, "net-back".to_owned())]);
    assert!(alive(&world.state.tasks[&near.id]) && alive(&world.state.tasks[&far.id]));
    tables.update(&world.state);
    agent.hear(&tables, &world.state);
    assert_same(&agent, &world.state, "n1");
    assert!(!there(&agent, far), "it is told of an address on a network that is gone");
    let mut anew = Agent::new("n1");
    anew.hear(&tables, &world.state);
    assert_same(&anew, &world.state, "n1");
}

#[test]
fn reports_on_the_way_to_running_are_not_sent_back() {
    let mut world = world();
    world.scale("db", 2);
    world.settle();
    let mut tables = Tables::default();
    tables.update(&world.state);
    let starting = world.tasks("db").into_iter().find(|t| t.status.state < TaskState::Running);
    let task = starting.unwrap().clone();
    let mut agent = Agent::new(task.node_id.as_deref().unwrap());
    agent.hear(&tables, &world.state);
    for state in [TaskState::Accepted, TaskState::Preparing, TaskState::Starting] {
        world.end(&task.id, state);
        tables.update(&world.state);
        assert_eq!(agent.hear(&tables, &world.state), None, "{state:?}");
    }
    world.end(&task.id, TaskState::Running);
    tables.update(&world.state);
    assert!(agent.hear(&tables, &world.state).is_some());
}

#[test]
fn a_task_read_again_from_the_log_is_no_change() {
    let mut world = world();
    let labels = |n: usize| (0..n).map(|i| (format!("label{i}"), i.to_string())).collect();
    let mut task = world.running("db")[0].clone();
    Arc::make_mut(&mut task.spec).container_spec.as_mut().unwrap().labels = Some(labels(20));
    world.put(Object::Task(task.clone().into()));
    let mut tables = Tables::default();
    tables.update(&world.state);
    let mut agent = Agent::new(task.node_id.as_deref().unwrap());
    agent.hear(&tables, &world.state);
    let mut again = world.state.tasks[&task.id].clone();
    Arc::make_mut(&mut again.spec).container_spec.as_mut().unwrap().labels = Some(labels(20));
    world.put(Object::Task(again.into()));
    tables.update(&world.state);
    assert_eq!(agent.hear(&tables, &world.state), None);
}

#[test]
fn a_node_with_a_new_session_is_told_again_only_what_changed_meanwhile() {
    let mut world = world();
    let mut tables = Tables::default();
    tables.update(&world.state);
    let mut agent = Agent::new("n1");
    agent.hear(&tables, &world.state);
    let rows = agent.rows.len();
    let again = |agent: &mut Agent| {
        let known = agent.rows.sections();
        let known = known.into_iter().map(|(name, digest)| (name.to_owned(), digest)).collect();
        agent.subscriber = Subscriber::new("n1");
        agent.subscriber.has(known);
    };
    // Another manager, which has read the state anew, and nothing has changed.
    let mut tables = Tables::default();
    tables.update(&world.state);
    again(&mut agent);
    let own = world.state.tasks_of_node("n1").count();
    assert_eq!(agent.hear(&tables, &world.state), Some(1 + own), "itself and its tasks");
    assert_eq!(agent.rows.len(), rows);
    assert_same(&agent, &world.state, "n1");
    // A service on one of its networks changes, and a node is added.
    again(&mut agent);
    world.scale("web", 5);
    world.node("n4");
    world.run();
    tables.update(&world.state);
    agent.hear(&tables, &world.state);
    assert_same(&agent, &world.state, "n1");
    // What it said it has counts for one session only.
    agent.subscriber.reset();
    assert!(agent.hear(&tables, &world.state).unwrap() > 1 + own);
}

#[test]
fn who_is_too_far_behind_gets_the_whole() {
    let mut world = world();
    let mut tables = Tables::default();
    tables.update(&world.state);
    let mut agent = Agent::new("n1");
    agent.hear(&tables, &world.state);
    // A state read from a snapshot does not know what was touched.
    world.scale("web", 4);
    world.state = world.state.clone();
    assert!(tables.update(&world.state).all);
    let delta = tables.difference(&world.state, &mut agent.subscriber.clone()).unwrap();
    assert_eq!(delta.base, None);
    agent.hear(&tables, &world.state);
    assert_same(&agent, &world.state, "n1");
}

#[test]
fn a_node_is_told_a_secret_from_its_first_task_that_uses_it_to_the_end_of_the_last() {
    let mut world = world();
    make(&mut world, DEPENDENCIES[0]);
    refer(&mut world, "db", 1);
    world.run();
    let holders = |world: &World| -> Vec<&str> {
        let holds = |node: &&str| !assignment(&world.state, node).dependencies.is_empty();
        NODES[..3].iter().copied().filter(holds).collect()
    };
    let db = world.running("db")[0].clone();
    let node = db.node_id.clone().unwrap();
    assert_eq!(holders(&world), [node.as_str()]);
    let mut tables = Tables::default();
    tables.update(&world.state);
    let mut agent = Agent::new(&node);
    agent.hear(&tables, &world.state);
    let held = agent.rows.assignment().dependencies;
    assert_eq!(held[0].content.bytes(), b"secret key");
    // Labels are nothing to its tasks.
    make(&mut world, DEPENDENCIES[0]);
    tables.update(&world.state);
    assert_eq!(agent.hear(&tables, &world.state), None);
    world.scale("db", 0);
    world.settle();
    assert_eq!(holders(&world), [node.as_str()], "its task is told to stop, and has not ended");
    world.end(&db.id, TaskState::Shutdown);
    assert_eq!(holders(&world), [""; 0]);
    tables.update(&world.state);
    agent.hear(&tables, &world.state);
    assert_same(&agent, &world.state, &node);
}
