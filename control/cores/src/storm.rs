//! Everything that can happen, in a random order: invariants hold at each step, and when all is calm
//! again the cluster is as asked for.
use crate::testing::World;
use shoal_model::{
    Availability, Change, MadeBy, Mode, NodeState, ObjectKind, State, TaskState, UpdateState,
    docker,
};
use std::collections::BTreeSet;

const NODES: [&str; 4] = ["n1", "n2", "n3", "n4"];
const SERVICES: [&str; 3] = ["web", "api", "agent"];

/// Knuth's linear congruential generator: a storm can be repeated by its seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % sides
    }
}

fn check(world: &World, seed: u64) {
    let state = &world.state;
    let mut held = BTreeSet::new();
    let nodes = state.nodes.values().filter_map(|n| n.overlay.address);
    let vips = state.services.values().filter_map(|s| s.endpoint.as_ref());
    let vips = vips.flat_map(|e| &e.vips).map(|v| v.v4);
    let living = state.tasks.values().filter(|t| !t.status.state.is_terminal());
    for address in nodes.chain(vips).chain(living.clone().flat_map(|t| &t.networks).map(|n| n.v4)) {
        assert!(held.insert(address), "seed {seed}: {address} is given twice");
    }
    let mut slots = BTreeSet::new();
    let stops_first =
        |t: &&&shoal_model::Task| t.service_id != "svc-api" && t.made_by != MadeBy::Rebalance;
    for task in living.filter(|t| t.desired == TaskState::Running).filter(|t| stops_first(&t)) {
        let node = if task.slot == 0 { task.node_id.as_deref() } else { None };
        let slot = (&task.service_id, task.slot, node);
        assert!(slots.insert(slot), "seed {seed}: two tasks are to run in {slot:?}");
    }
    assert!(state.tasks.len() < 200, "seed {seed}: history grows");
}

/// What the state derives as it goes is what it derives from the objects alone.
fn check_derived(world: &World, seed: u64) {
    let written = serde_json::to_string(&world.state).unwrap();
    let read: State = serde_json::from_str(&written).unwrap();
    assert!(read == world.state, "seed {seed}: what is derived went astray");
}

fn disturb(world: &mut World, dice: &mut Dice) {
    let node = NODES[dice.roll(NODES.len())];
    let service = SERVICES[dice.roll(SERVICES.len())];
    match dice.roll(12) {
        0 => world.set_node(node, |n| n.status.state = NodeState::Down),
        1 => world.set_node(node, |n| n.status.state = NodeState::Ready),
        2 => world.set_node(node, |n| n.availability = Availability::Drain),
        3 => world.set_node(node, |n| n.availability = Availability::Active),
        4 if service != "agent" => world.scale(service, i64::try_from(dice.roll(7)).unwrap()),
        5 => world.update(service),
        6 => {
            let tasks: Vec<_> = world.running(service).iter().map(|t| t.id.clone()).collect();
            if !tasks.is_empty() {
                let ends = [TaskState::Failed, TaskState::Complete, TaskState::Rejected];
                world.end(&tasks[dice.roll(tasks.len())], ends[dice.roll(3)]);
            }
        }
        7 => world.agents(),
        8 if world.of(service).previous_spec.is_some() => world.roll_back(service),
        9 => world.set_node(node, |n| match n.labels.remove("off") {
            Some(_) => {}
            None => drop(n.labels.insert("off".to_owned(), "yes".to_owned())),
        }),
        10 => world.set_service(service, |s| s.rebalance = true),
        _ => world.pass(i64::try_from(dice.roll(8_000)).unwrap()),
    }
}

#[test]
fn a_cluster_survives_any_order_of_events_and_comes_to_rest_as_asked() {
    for seed in 0..60 {
        let mut dice = Dice(seed);
        let mut world = World::new();
        world.network("app", "10.0.1.0/24");
        NODES.iter().for_each(|n| world.node(n));
        world.service("web", 4, &["app"], |s| {
            s.update_config = Some(docker::ServiceSpecUpdateConfig {
                failure_action: Some(docker::ServiceSpecUpdateConfigFailureActionEnum::ROLLBACK),
                monitor: Some(2_000_000_000),
                ..Default::default()
            });
        });
        world.global("agent", |s| {
            let template = s.task_template.as_mut().unwrap();
            template.placement.get_or_insert_default().constraints =
                Some(vec!["node.labels.off!=yes".to_owned()]);
        });
        world.service("api", 2, &["app"], |s| {
            s.update_config = Some(docker::ServiceSpecUpdateConfig {
                order: Some(docker::ServiceSpecUpdateConfigOrderEnum::START_FIRST),
                failure_action: Some(docker::ServiceSpecUpdateConfigFailureActionEnum::CONTINUE),
                parallelism: Some(2),
                ..Default::default()
            });
        });
        for _ in 0..120 {
            disturb(&mut world, &mut dice);
            if dice.roll(3) > 0 {
                world.settle();
            }
            check(&world, seed);
        }
        check_derived(&world, seed);
        for node in NODES {
            world.set_node(node, |n| {
                n.status.state = NodeState::Ready;
                n.availability = Availability::Active;
                n.labels.clear();
            });
        }
        // A last update ends whatever a failure had stopped.
        SERVICES.iter().for_each(|s| world.update(s));
        for _ in 0..20 {
            world.run();
            world.pass(61_000);
        }
        for service in SERVICES {
            let asked = world.of(service);
            let wanted = match asked.mode() {
                Mode::Replicated { replicas } => replicas,
                _ => 4,
            };
            let running = world.running(service);
            assert_eq!(running.len() as u64, wanted, "seed {seed}: {service}");
            assert!(running.iter().all(|t| t.spec_version == asked.spec_version), "seed {seed}");
            let update = asked.update_status.as_ref().map(|u| u.state);
            let ended = matches!(update, None | Some(UpdateState::Completed));
            assert!(ended, "seed {seed}: {service} is {update:?}");
            assert!(!asked.rebalance, "seed {seed}: {service} is not evened");
        }
        let removed = SERVICES.map(|s| Change::Delete(ObjectKind::Service, format!("svc-{s}")));
        world.apply(removed.to_vec());
        world.run();
        assert!(world.state.tasks.is_empty(), "seed {seed}");
    }
}
