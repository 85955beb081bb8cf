use crate::{next_due, testing::World};
use shoal_model::{NodeState, TaskState};

#[test]
fn tasks_of_a_node_that_is_down_for_a_day_are_orphans_and_hold_nothing() {
    let mut world = World::new();
    world.node("n1");
    world.node("n2");
    world.network("app", "10.0.1.0/24");
    world.service("web", 2, &["app"], |_| {});
    world.run();
    world.set_node("n1", |n| n.status.state = NodeState::Down);
    world.run();
    let lost = world.tasks("web").into_iter().find(|t| t.node_id.as_deref() == Some("n1"));
    let lost = lost.unwrap().id.clone();
    let day = 24 * 3_600;
    assert_eq!(next_due(&world.state, world.now).unwrap().since(world.now).as_secs(), day);
    // Whatever else changes of the node, it counts from when it went down.
    world.pass(3_600_000);
    world.set_node("n1", |n| drop(n.labels.insert("a".to_owned(), "b".to_owned())));
    world.pass(23 * 3_600_000 - 1);
    world.run();
    assert_eq!(world.state.tasks[&lost].status.state, TaskState::Running);
    world.pass(1);
    world.run();
    let status = &world.state.tasks[&lost].status;
    assert_eq!(
        (status.state, status.message.as_str()),
        (TaskState::Orphaned, "node down for 24 hours")
    );
    assert_eq!(world.running("web").len(), 2);
    assert_eq!(next_due(&world.state, world.now), None);
}

#[test]
fn a_node_that_comes_back_within_the_day_begins_a_new_one_when_it_is_lost_again() {
    let mut world = World::new();
    world.node("n1");
    world.node("n2");
    world.service("web", 2, &[], |_| {});
    world.run();
    world.set_node("n1", |n| n.status.state = NodeState::Down);
    world.settle();
    world.pass(12 * 3_600_000);
    world.set_node("n1", |n| n.status.state = NodeState::Ready);
    world.set_node("n1", |n| n.status.state = NodeState::Down);
    world.pass(23 * 3_600_000);
    world.settle();
    assert!(world.tasks("web").iter().all(|t| t.status.state != TaskState::Orphaned));
}
