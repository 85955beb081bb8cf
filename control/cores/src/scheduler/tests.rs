use super::*;
use crate::testing::World;
use shoal_model::{
    Availability, NodeState,
    docker::{Platform, ResourceObject, TaskSpecPlacement, TaskSpecResources},
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
