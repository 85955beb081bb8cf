use super::*;
use crate::testing::World;
use shoal_model::{
    Availability, NodeState,
    docker::{self, Platform, ResourceObject, TaskSpecPlacement, TaskSpecResources},
};

fn cluster(nodes: usize) -> World {
    let mut world = World::new();
    for n in 1..=nodes {
        world.node(&format!("n{n}"));
    }
    world
}

fn nodes(world: &World, service: &str) -> Vec<String> {
    let mut nodes: Vec<String> =
        world.running(service).iter().filter_map(|t| t.node_id.clone()).collect();
    nodes.sort();
    nodes
}

fn place(edit: impl FnOnce(&mut TaskSpecPlacement)) -> Option<TaskSpecPlacement> {
    let mut placement = TaskSpecPlacement::default();
    edit(&mut placement);
    Some(placement)
}

fn only_error(world: &World, service: &str) -> String {
    let waiting = |t: &&Task| t.status.state == TaskState::Pending;
    world.tasks(service).into_iter().find(waiting).expect("one waits").status.err.clone()
}

#[test]
fn three_replicas_on_three_nodes_are_one_each() {
    let mut world = cluster(3);
    world.service("web", 3, &[], |_| {});
    world.run();
    assert_eq!(nodes(&world, "web"), ["n1", "n2", "n3"]);
    assert_eq!(schedule(&world.state, world.now), []);
}

#[test]
fn tasks_of_the_service_count_before_all_tasks() {
    let mut world = cluster(2);
    world.service("big", 3, &[], |_| {});
    world.run();
    assert_eq!(nodes(&world, "big"), ["n1", "n1", "n2"]);
    world.service("one", 1, &[], |_| {});
    world.run();
    assert_eq!(nodes(&world, "one"), ["n2"], "fewest in all");
    world.scale("one", 2);
    world.run();
    assert_eq!(nodes(&world, "one"), ["n1", "n2"], "fewest of the service");
}

#[test]
fn down_paused_drained_and_unaddressed_nodes_take_no_task() {
    let mut world = cluster(5);
    world.settle();
    world.set_node("n1", |n| n.status.state = NodeState::Down);
    world.set_node("n2", |n| n.availability = Availability::Pause);
    world.set_node("n3", |n| n.availability = Availability::Drain);
    world.set_node("n4", |n| n.status.state = NodeState::Unknown);
    world.service("web", 2, &[], |_| {});
    world.run();
    assert_eq!(nodes(&world, "web"), ["n5", "n5"]);
}

#[test]
fn an_unschedulable_task_says_why_once_and_is_placed_when_it_can_be() {
    let mut world = cluster(3);
    world.set_node("n3", |n| n.availability = Availability::Pause);
    world.service("web", 1, &[], |s| {
        s.task_template.as_mut().unwrap().placement =
            place(|p| p.constraints = Some(vec!["node.labels.disk == ssd".to_owned()]));
    });
    world.settle();
    assert_eq!(
        only_error(&world, "web"),
        "no suitable node (scheduling constraints not satisfied on 2 nodes; 1 node not available for new tasks)"
    );
    assert_eq!(schedule(&world.state, world.now), []);
    world.set_node("n2", |n| drop(n.labels.insert("disk".to_owned(), "ssd".to_owned())));
    world.run();
    assert_eq!(nodes(&world, "web"), ["n2"]);
    assert_eq!(world.running("web")[0].status.err, "");
}

#[test]
fn reservations_platforms_and_the_most_replicas_a_node_are_kept() {
    let mut world = cluster(2);
    world.service("cpu", 3, &[], |s| {
        let reservations = ResourceObject { nano_cpus: Some(1_500_000_000), ..Default::default() };
        s.task_template.as_mut().unwrap().resources =
            Some(TaskSpecResources { reservations: Some(reservations), ..Default::default() });
    });
    world.service("max", 3, &[], |s| {
        s.task_template.as_mut().unwrap().placement = place(|p| p.max_replicas = Some(1));
    });
    world.service("arm", 1, &[], |s| {
        let arm = Platform { architecture: Some("arm64".to_owned()), os: Some("linux".to_owned()) };
        s.task_template.as_mut().unwrap().placement = place(|p| p.platforms = Some(vec![arm]));
    });
    world.run();
    assert_eq!(nodes(&world, "cpu"), ["n1", "n2"]);
    assert_eq!(only_error(&world, "cpu"), "no suitable node (insufficient resources on 2 nodes)");
    assert_eq!(nodes(&world, "max"), ["n1", "n2"]);
    assert_eq!(only_error(&world, "max"), "no suitable node (max replicas per node limit exceed)");
    assert_eq!(only_error(&world, "arm"), "no suitable node (unsupported platform on 2 nodes)");
}

#[test]
fn a_cluster_without_nodes_has_no_suitable_one() {
    let mut world = cluster(0);
    world.service("web", 1, &[], |_| {});
    world.settle();
    assert_eq!(only_error(&world, "web"), "no suitable node");
}

/// Nodes with labels: `zone.rack`, either of them empty for none.
fn labelled(nodes: &[(&str, &str, &str)]) -> World {
    let mut world = World::new();
    for (id, zone, rack) in nodes {
        world.node(id);
        world.set_node(id, |n| {
            for (key, value) in [("zone", zone), ("rack", rack)] {
                if !value.is_empty() {
                    n.labels.insert(key.to_owned(), (*value).to_owned());
                }
            }
        });
    }
    world
}

fn prefer(spec: &mut docker::ServiceSpec, descriptors: &[&str]) {
    let spread = |descriptor: &&str| docker::TaskSpecPlacementPreferences {
        spread: Some(docker::TaskSpecPlacementSpread {
            spread_descriptor: Some((*descriptor).to_owned()),
        }),
    };
    let placement = spec.task_template.as_mut().unwrap().placement.get_or_insert_default();
    placement.preferences = Some(descriptors.iter().map(spread).collect());
}

fn tally(world: &World, service: &str) -> Vec<(String, usize)> {
    let mut tally = BTreeMap::new();
    nodes(world, service).into_iter().for_each(|n| *tally.entry(n).or_default() += 1);
    tally.into_iter().collect()
}

/// Zones of `id.zone.rack`, descriptors, replicas, and the tasks each node gets.
type SpreadCase = (
    &'static str,
    &'static [(&'static str, &'static str, &'static str)],
    &'static [&'static str],
    i64,
    &'static [(&'static str, usize)],
);

const SPREADS: &[SpreadCase] = &[
    (
        "zones of different size get the same",
        &[("n1", "a", ""), ("n2", "a", ""), ("n3", "a", ""), ("n4", "b", "")],
        &["node.labels.zone"],
        12,
        &[("n1", 2), ("n2", 2), ("n3", 2), ("n4", 6)],
    ),
    (
        "nodes without the label are one zone",
        &[("n1", "a", ""), ("n2", "", ""), ("n3", "", "")],
        &["node.labels.zone"],
        8,
        &[("n1", 4), ("n2", 2), ("n3", 2)],
    ),
    (
        "the second preference divides within the first",
        &[("n1", "a", "1"), ("n2", "a", "1"), ("n3", "a", "2"), ("n4", "b", "1")],
        &["node.labels.zone", "node.labels.rack"],
        16,
        &[("n1", 2), ("n2", 2), ("n3", 4), ("n4", 8)],
    ),
    (
        "their order matters",
        &[("n1", "a", "1"), ("n2", "a", "1"), ("n3", "a", "2"), ("n4", "b", "1")],
        &["node.labels.rack", "node.labels.zone"],
        16,
        &[("n1", 2), ("n2", 2), ("n3", 8), ("n4", 4)],
    ),
    (
        "a label nobody has divides nothing",
        &[("n1", "a", ""), ("n2", "b", ""), ("n3", "b", "")],
        &["node.labels.none"],
        6,
        &[("n1", 2), ("n2", 2), ("n3", 2)],
    ),
    (
        "the prefix has no case, the label has",
        &[("n1", "a", ""), ("n2", "b", ""), ("n3", "b", "")],
        &["NODE.Labels.zone", "node.labels.ZONE"],
        4,
        &[("n1", 2), ("n2", 1), ("n3", 1)],
    ),
];

#[test]
fn preferences_spread_tasks_evenly_over_the_values_of_labels() {
    for (name, nodes, descriptors, replicas, wanted) in SPREADS {
        let mut world = labelled(nodes);
        world.service("web", *replicas, &[], |s| prefer(s, descriptors));
        world.run();
        let wanted: Vec<_> = wanted.iter().map(|(n, tasks)| ((*n).to_owned(), *tasks)).collect();
        assert_eq!(tally(&world, "web"), wanted, "{name}");
    }
}

#[test]
fn engine_labels_spread_too() {
    let mut world = cluster(3);
    for (id, rack) in [("n1", "x"), ("n2", "y"), ("n3", "y")] {
        world.set_node(id, |n| {
            let labels = &mut n.description.as_mut().unwrap().engine_labels;
            labels.insert("rack".to_owned(), rack.to_owned());
        });
    }
    world.service("web", 4, &[], |s| prefer(s, &["engine.labels.rack"]));
    world.run();
    assert_eq!(nodes(&world, "web"), ["n1", "n1", "n2", "n3"]);
}

#[test]
fn what_a_full_zone_cannot_take_goes_to_the_others_and_uneven_zones_are_evened_out() {
    let mut world = labelled(&[("n1", "a", ""), ("n2", "b", ""), ("n3", "c", "")]);
    world.settle();
    world.set_node("n3", |n| n.availability = Availability::Pause);
    world.service("web", 4, &[], |s| {
        prefer(s, &["node.labels.zone"]);
        let reservations = ResourceObject { nano_cpus: Some(500_000_000), ..Default::default() };
        s.task_template.as_mut().unwrap().resources =
            Some(TaskSpecResources { reservations: Some(reservations), ..Default::default() });
    });
    world.run();
    assert_eq!(nodes(&world, "web"), ["n1", "n1", "n2", "n2"]);
    world.set_node("n3", |n| n.availability = Availability::Active);
    world.scale("web", 6);
    world.run();
    assert_eq!(nodes(&world, "web"), ["n1", "n1", "n2", "n2", "n3", "n3"]);
    world.set_node("n1", |n| n.description.as_mut().unwrap().nano_cpus = 1_000_000_000);
    world.scale("web", 10);
    world.run();
    assert_eq!(tally(&world, "web"), [("n1".into(), 2), ("n2".into(), 4), ("n3".into(), 4)]);
}

#[test]
fn services_of_one_task_do_not_all_go_to_the_same_zone() {
    let mut world = labelled(&[("n1", "a", ""), ("n2", "b", ""), ("n3", "c", "")]);
    for service in ["s1", "s2", "s3"] {
        world.service(service, 1, &[], |s| prefer(s, &["node.labels.zone"]));
    }
    world.run();
    let all: Vec<_> = ["s1", "s2", "s3"].iter().flat_map(|s| nodes(&world, s)).collect();
    assert_eq!(all, ["n1", "n2", "n3"]);
}

/// Lets the service's task fail on `node` so often, each time a second later.
fn fail(world: &mut World, node: &str, version: u64, times: usize) {
    for n in 0..times {
        let mut task = world.tasks("web")[0].clone();
        task.id = format!("failed-{node}-{version}-{}-{n}", world.now.0);
        task.meta = Default::default();
        task.node_id = Some(node.to_owned());
        task.spec_version = version;
        task.desired = TaskState::Shutdown;
        task.status.state = TaskState::Running;
        task.slot = 99;
        let id = task.id.clone();
        world.put(Object::Task(task.into()));
        world.end(&id, if n % 2 == 0 { TaskState::Failed } else { TaskState::Rejected });
        world.apply(vec![Change::Delete(shoal_model::ObjectKind::Task, id)]);
        world.pass(1_000);
    }
}

#[test]
fn a_node_where_the_service_failed_five_times_in_five_minutes_comes_last() {
    for (name, failures, version, wait_ms, wanted) in [
        ("four are none", 4, 1, 0, "n1"),
        ("five count", 5, 1, 0, "n2"),
        ("not those of another version", 5, 2, 0, "n1"),
        ("not those of long ago", 5, 1, 300_000, "n1"),
        ("and one is less than five", 6, 1, 295_500, "n1"),
    ] {
        let mut world = cluster(2);
        // With two tasks here, n2 comes after n1 by all else.
        world.service("ballast", 2, &[], |s| {
            s.task_template.as_mut().unwrap().placement =
                place(|p| p.constraints = Some(vec!["node.id == n2".to_owned()]));
        });
        world.run();
        world.service("web", 1, &[], |_| {});
        world.settle_but_schedule();
        fail(&mut world, "n1", version, failures);
        world.pass(wait_ms);
        world.run();
        assert_eq!(nodes(&world, "web"), [wanted], "{name}");
    }
}

#[test]
fn where_all_nodes_fail_the_task_is_still_placed() {
    let mut world = cluster(1);
    world.service("web", 1, &[], |_| {});
    world.settle_but_schedule();
    fail(&mut world, "n1", 1, 9);
    world.run();
    assert_eq!(nodes(&world, "web"), ["n1"]);
}

/// Two services of different age and size, and room for four tasks in all.
#[test]
fn services_take_turns_and_one_that_fits_nowhere_holds_up_nobody() {
    let mut world = cluster(2);
    let core = |s: &mut docker::ServiceSpec| {
        let reservations = ResourceObject { nano_cpus: Some(1_000_000_000), ..Default::default() };
        s.task_template.as_mut().unwrap().resources =
            Some(TaskSpecResources { reservations: Some(reservations), ..Default::default() });
    };
    world.service("impossible", 50, &[], |s| {
        s.task_template.as_mut().unwrap().placement =
            place(|p| p.constraints = Some(vec!["node.role == manager".to_owned()]));
    });
    world.settle_but_schedule();
    world.pass(1_000);
    world.service("large", 100, &[], core);
    world.settle_but_schedule();
    world.pass(1_000);
    world.service("small", 2, &[], core);
    world.run();
    assert_eq!([nodes(&world, "large").len(), nodes(&world, "small").len()], [2, 2]);
    assert_eq!(only_error(&world, "large"), "no suitable node (insufficient resources on 2 nodes)");
    assert_eq!(
        only_error(&world, "impossible"),
        "no suitable node (scheduling constraints not satisfied on 2 nodes)"
    );
}

#[test]
fn a_preassigned_task_is_only_asked_of_its_node() {
    let mut world = cluster(2);
    world.service("web", 3, &[], |s| {
        s.task_template.as_mut().unwrap().placement =
            place(|p| p.constraints = Some(vec!["node.id != n2".to_owned()]));
    });
    world.settle_but_schedule();
    let ids: Vec<String> = world.tasks("web").iter().map(|t| t.id.clone()).collect();
    for (id, node) in ids.iter().zip(["n1", "n2", "gone"]) {
        let mut task = world.state.tasks[id].clone();
        task.node_id = Some(node.to_owned());
        world.put(Object::Task(task.into()));
    }
    let changes = schedule(&world.state, world.now);
    world.apply(changes);
    let told: Vec<_> = ids
        .iter()
        .map(|id| &world.state.tasks[id])
        .map(|t| (t.status.state, t.status.message.as_str(), t.status.err.as_str()))
        .collect();
    assert_eq!(
        told,
        [
            (TaskState::Assigned, "scheduler confirmed task can run on preassigned node", ""),
            (
                TaskState::Pending,
                "pending task scheduling",
                "scheduling constraints not satisfied on 1 node"
            ),
            (TaskState::Pending, "pending task scheduling", ""),
        ]
    );
    assert_eq!(schedule(&world.state, world.now), []);
}

#[test]
fn what_is_stuck_is_looked_at_again_only_when_there_may_be_room() {
    let mut world = cluster(1);
    world.service("web", 2, &[], |s| {
        s.task_template.as_mut().unwrap().placement = place(|p| p.max_replicas = Some(1));
    });
    world.settle_but_schedule();
    let mut scheduler = Scheduler::default();
    while let changes @ [_, ..] = &scheduler.schedule(&world.state, world.now)[..] {
        world.apply(changes.to_vec());
    }
    assert_eq!(only_error(&world, "web"), "no suitable node (max replicas per node limit exceed)");
    assert_eq!(scheduler.stuck.len(), 1);
    let room = world.state.room();
    world.agents();
    assert_eq!(world.state.room(), room, "a task that starts leaves no room");
    assert_eq!(scheduler.schedule(&world.state, world.now), []);
    world.node("n2");
    world.settle_but_schedule();
    assert!(world.state.room() > room);
    let changes = scheduler.schedule(&world.state, world.now);
    assert_eq!(changes.len(), 1);
    world.apply(changes);
    assert_eq!(world.state.waiting().count(), 0);
    assert_eq!(scheduler.schedule(&world.state, world.now), []);
    assert_eq!(scheduler.stuck.len(), 0);
}

#[test]
fn one_call_has_a_bound_and_the_next_goes_on() {
    let mut world = cluster(2);
    world.service("web", 7, &[], |_| {});
    world.settle_but_schedule();
    let mut sizes = Vec::new();
    loop {
        let changes = Scheduler::default().at_most(3, &world.state, world.now);
        if changes.is_empty() {
            break;
        }
        sizes.push(changes.len());
        world.apply(changes);
    }
    assert_eq!(sizes, [3, 3, 1]);
}
