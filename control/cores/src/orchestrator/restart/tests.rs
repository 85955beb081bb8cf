use crate::testing::World;
use shoal_model::{
    Availability, Meta, NodeState, Object, Task, TaskState, Timestamp,
    docker::{TaskSpecRestartPolicy, TaskSpecRestartPolicyConditionEnum as Condition},
};

const SECOND: i64 = 1_000_000_000;

fn service(restart: TaskSpecRestartPolicy) -> World {
    let mut world = World::new();
    for id in ["n1", "n2"] {
        world.node(id);
    }
    world.service("web", 1, &[], |s| {
        s.task_template.as_mut().unwrap().restart_policy = Some(restart);
    });
    world.run();
    world
}

/// Lets the task run for so long, and end badly, again and again: how often it ran at all, up to 20.
fn runs(world: &mut World, lasting_ms: i64) -> usize {
    for run in 0..20 {
        let Some(id) = world.running("web").first().map(|t| t.id.clone()) else { return run };
        world.pass(lasting_ms);
        world.end(&id, TaskState::Failed);
        world.run();
        world.pass(1_000);
        world.run();
    }
    20
}

#[test]
fn restarts_are_counted_within_the_window_before_the_end() {
    for (max_attempts, window_s, lasting_ms, expected) in [
        (0, None, 0, 20),
        (1, None, 0, 2),
        (3, None, 0, 4),
        (3, None, 3_600_000, 4),
        (3, Some(0), 3_600_000, 4),
        // Four restarts a second apart, and the delay: all within ten seconds.
        (3, Some(10), 0, 4),
        // Each run outlasts the window: none counts.
        (3, Some(10), 10_000, 20),
        (1, Some(10), 10_000, 20),
        (1, Some(10), 9_000, 20),
        (1, Some(10), 8_999, 2),
        // The last two are within it, or one of them.
        (2, Some(10), 3_000, 3),
        (2, Some(10), 4_000, 20),
    ] {
        let mut world = service(TaskSpecRestartPolicy {
            delay: Some(SECOND),
            max_attempts: Some(max_attempts),
            window: window_s.map(|s| s * SECOND),
            ..Default::default()
        });
        let ran = runs(&mut world, lasting_ms);
        assert_eq!(ran, expected, "{max_attempts} within {window_s:?} s, each {lasting_ms} ms");
    }
}

#[test]
fn a_new_specification_begins_with_no_restarts() {
    let mut world = service(TaskSpecRestartPolicy {
        delay: Some(SECOND),
        max_attempts: Some(2),
        ..Default::default()
    });
    for _ in 0..2 {
        assert_eq!(runs(&mut world, 0), 3);
        world.update("web");
        world.run();
    }
    world.run();
    assert_eq!(world.running("web").len(), 1);
}

#[test]
fn what_is_lost_with_its_node_is_restarted_by_the_same_policy_without_its_delay() {
    for (condition, max_attempts, again) in [
        (Condition::ANY, 0, true),
        (Condition::ON_FAILURE, 0, true),
        (Condition::NONE, 0, false),
        (Condition::ANY, 1, true),
    ] {
        let mut world = service(TaskSpecRestartPolicy {
            condition: Some(condition),
            max_attempts: Some(max_attempts),
            ..Default::default()
        });
        let node = world.running("web")[0].node_id.clone().unwrap();
        world.set_node(&node, |n| n.status.state = NodeState::Down);
        world.run();
        let there = world.running("web").iter().any(|t| t.node_id.as_ref() != Some(&node));
        assert_eq!(there, again, "{condition}, {max_attempts}");
    }
}

#[test]
fn a_start_waits_for_the_predecessor_to_stop_a_minute_at_most() {
    let mut world = service(TaskSpecRestartPolicy::default());
    let old = world.running("web")[0].clone();
    world.set_node(old.node_id.as_deref().unwrap(), |n| n.availability = Availability::Drain);
    world.settle();
    let new = world.tasks("web").into_iter().find(|t| t.id != old.id).unwrap().id.clone();
    let desired = |w: &World| w.state.tasks[&new].desired;
    assert_eq!(desired(&world), TaskState::Ready);
    world.pass(59_999);
    world.settle();
    assert_eq!(desired(&world), TaskState::Ready);
    assert_eq!(crate::next_due(&world.state, world.now).unwrap().since(world.now).as_millis(), 1);
    world.pass(1);
    world.settle();
    assert_eq!(desired(&world), TaskState::Running);
}

#[test]
fn what_is_lost_while_it_waits_for_its_delay_is_followed_when_that_is_over() {
    let mut world = service(TaskSpecRestartPolicy::default());
    let dead = world.running("web")[0].id.clone();
    world.end(&dead, TaskState::Failed);
    world.run();
    let waits = |w: &World| {
        let task = w.tasks("web").into_iter().find(|t| t.desired == TaskState::Ready).unwrap();
        task.clone()
    };
    let waiting = waits(&world);
    world.set_node(waiting.node_id.as_deref().unwrap(), |n| n.status.state = NodeState::Down);
    world.run();
    let next = waits(&world);
    assert_ne!(next.id, waiting.id);
    assert_eq!(next.not_before, waiting.not_before);
    world.pass(5_000);
    world.run();
    assert_eq!(world.running("web").len(), 1);
}

#[test]
fn a_start_waits_for_one_that_is_told_to_stop_in_the_same_moment() {
    let mut world = service(TaskSpecRestartPolicy::default());
    let mut old = world.running("web")[0].clone();
    // One that ran would be kept.
    old.status.state = TaskState::Starting;
    world.put(Object::Task(old.clone().into()));
    world.pass(1);
    let mut new = Task { id: "new".to_owned(), meta: Meta::default(), ..old.clone() };
    (new.desired, new.status.state) = (TaskState::Ready, TaskState::Ready);
    world.put(Object::Task(new.into()));
    world.settle();
    assert_eq!(world.state.tasks[&old.id].desired, TaskState::Shutdown);
    assert_eq!(world.state.tasks["new"].desired, TaskState::Ready);
    world.run();
    assert_eq!(world.state.tasks["new"].desired, TaskState::Running);
}

#[test]
fn a_delay_counts_from_the_leader_s_clock_where_the_managers_is_ahead_of_it() {
    let mut world = service(TaskSpecRestartPolicy::default());
    // A leader's clock was an hour ahead and has been set back; what is noted goes on from there.
    world.pass(3_600_000);
    let dead = world.running("web")[0].id.clone();
    world.end(&dead, TaskState::Failed);
    world.now = Timestamp(world.now.0 - 3_600_000_000_000);
    world.settle();
    let waits = world.tasks("web").into_iter().find(|t| t.desired == TaskState::Ready).unwrap();
    assert_eq!(waits.not_before.since(world.now).as_secs(), 5);
}
