use crate::{next_due, orchestrate, testing::World};
use shoal_model::{
    Availability, Change, NodeState, ObjectKind, Task, TaskState,
    docker::{
        SwarmSpecOrchestration, TaskSpecRestartPolicy,
        TaskSpecRestartPolicyConditionEnum as Condition,
    },
};
use std::time::Duration;

fn three_nodes() -> World {
    let mut world = World::new();
    for id in ["n1", "n2", "n3"] {
        world.node(id);
    }
    world
}

fn policy(condition: Condition, delay_s: i64, max_attempts: i64) -> Option<TaskSpecRestartPolicy> {
    Some(TaskSpecRestartPolicy {
        condition: Some(condition),
        delay: Some(delay_s * 1_000_000_000),
        max_attempts: Some(max_attempts),
        window: None,
    })
}

fn slots(tasks: &[&Task]) -> Vec<u64> {
    let mut slots: Vec<u64> = tasks.iter().map(|t| t.slot).collect();
    slots.sort();
    slots
}

/// Ids of the tasks that run, in order of slot.
fn ids(world: &World) -> Vec<String> {
    let mut running = world.running("web");
    running.sort_by_key(|t| t.slot);
    running.into_iter().map(|t| t.id.clone()).collect()
}

#[test]
fn a_service_gets_a_task_for_each_replica_and_then_nothing_more_is_wanted() {
    let mut world = three_nodes();
    world.service("web", 3, &[], |_| {});
    world.run();
    assert_eq!(slots(&world.running("web")), [1, 2, 3]);
    assert!(world.running("web").iter().all(|t| t.name == format!("web.{}.{}", t.slot, t.id)));
    let mut no_ids = || panic!("nothing is to be made");
    assert_eq!(orchestrate(&world.state, world.now, &mut no_ids), []);
}

#[test]
fn a_dead_task_is_replaced_in_its_slot_after_the_delay() {
    let mut world = three_nodes();
    world.service("web", 2, &[], |_| {});
    world.run();
    let dead = ids(&world)[0].clone();
    world.end(&dead, TaskState::Failed);
    world.run();
    assert_eq!(world.state.tasks[&dead].desired, TaskState::Shutdown);
    let waiting = world.tasks("web").into_iter().find(|t| t.desired == TaskState::Ready).unwrap();
    assert_eq!(waiting.slot, world.state.tasks[&dead].slot);
    assert_eq!(waiting.status.state, TaskState::Ready, "prepared while it waits");
    assert_eq!(next_due(&world.state, world.now), Some(waiting.not_before));
    assert_eq!(waiting.not_before, world.now.after(Duration::from_secs(5)));
    world.pass(4_999);
    world.run();
    assert_eq!(world.running("web").len(), 1);
    world.pass(1);
    world.run();
    assert_eq!(slots(&world.running("web")), [1, 2]);
}

#[test]
fn a_task_rejected_while_it_waits_is_replaced_only_when_its_wait_is_over() {
    let mut world = three_nodes();
    world.service("web", 1, &[], |_| {});
    world.run();
    let first = ids(&world)[0].clone();
    world.end(&first, TaskState::Failed);
    world.run();
    let waiting = world.tasks("web").into_iter().find(|t| t.desired == TaskState::Ready).unwrap();
    let (waiting, due) = (waiting.id.clone(), waiting.not_before);
    world.end(&waiting, TaskState::Rejected);
    world.run();
    assert_eq!(world.tasks("web").len(), 2, "no third before the second's time");
    assert_eq!(next_due(&world.state, world.now), Some(due));
    world.pass(5_000);
    world.run();
    assert_eq!(world.tasks("web").len(), 3);
}

#[test]
fn a_completed_task_stays_ended_on_failure_and_a_failed_one_with_none() {
    for (condition, state) in [
        (Condition::ON_FAILURE, TaskState::Complete),
        (Condition::NONE, TaskState::Failed),
        (Condition::NONE, TaskState::Complete),
    ] {
        let mut world = three_nodes();
        world.set_cluster(|c| {
            let none = SwarmSpecOrchestration { task_history_retention_limit: Some(0) };
            c.spec.orchestration = Some(none);
        });
        world.service("web", 1, &[], |s| {
            s.task_template.as_mut().unwrap().restart_policy = policy(condition, 0, 0);
        });
        world.run();
        let task = ids(&world)[0].clone();
        world.end(&task, state);
        world.run();
        world.pass(3_600_000);
        world.run();
        assert_eq!(world.tasks("web").len(), 1, "{condition:?} {state:?}");
        assert_eq!(world.state.tasks[&task].desired, TaskState::Shutdown);
    }
}

#[test]
fn a_slot_is_given_up_after_the_most_attempts_and_begins_anew_with_a_new_template() {
    let mut world = three_nodes();
    world.service("web", 1, &[], |s| {
        s.task_template.as_mut().unwrap().restart_policy = policy(Condition::ANY, 0, 8);
    });
    world.run();
    let mut started = 0;
    while let Some(id) = ids(&world).first().cloned() {
        started += 1;
        world.end(&id, TaskState::Failed);
        world.pass(1);
        world.run();
    }
    assert_eq!(started, 9, "the first, and 8 restarts");
    world.pass(3_600_000);
    world.run();
    assert!(world.running("web").is_empty());
    world.update("web");
    world.run();
    world.pass(1);
    world.run();
    assert_eq!(world.running("web").len(), 1);
}

#[test]
fn a_scaled_down_service_loses_what_does_not_run_then_the_fullest_node_then_the_highest_slot() {
    let mut world = three_nodes();
    world.service("web", 6, &[], |_| {});
    world.run();
    let idle = ids(&world)[1].clone();
    world.end(&idle, TaskState::Failed);
    world.settle();
    world.scale("web", 5);
    world.run();
    assert_eq!(slots(&world.running("web")), [1, 3, 4, 5, 6], "slot 2 waited for its restart");
    world.scale("web", 3);
    world.run();
    let nodes: std::collections::BTreeSet<_> =
        world.running("web").iter().map(|t| t.node_id.clone()).collect();
    assert_eq!(nodes.len(), 3, "one a node is left");
    world.scale("web", 0);
    world.run();
    assert!(world.tasks("web").is_empty(), "nothing of it is kept");
    world.scale("web", 2);
    world.run();
    assert_eq!(slots(&world.running("web")), [1, 2]);
}

#[test]
fn tasks_of_a_drained_node_move_and_the_new_one_waits_until_the_old_one_stopped() {
    let mut world = three_nodes();
    world.service("web", 3, &[], |_| {});
    world.run();
    world.set_node("n2", |n| n.availability = Availability::Drain);
    world.settle();
    let old = world.tasks("web").into_iter().find(|t| t.node_id.as_deref() == Some("n2")).unwrap();
    assert_eq!(old.desired, TaskState::Shutdown);
    let new = world.tasks("web").into_iter().find(|t| t.desired == TaskState::Ready).unwrap();
    assert_eq!((new.slot, new.not_before), (old.slot, world.now));
    world.run();
    let running = world.running("web");
    assert_eq!(slots(&running), [1, 2, 3]);
    assert!(running.iter().all(|t| t.node_id.as_deref() != Some("n2")));
}

#[test]
fn tasks_of_a_down_node_are_replaced_at_once_and_not_moved_back() {
    let mut world = three_nodes();
    world.service("web", 3, &[], |_| {});
    world.run();
    world.set_node("n3", |n| n.status.state = NodeState::Down);
    world.run();
    assert_eq!(
        slots(
            &world
                .running("web")
                .into_iter()
                .filter(|t| t.node_id.as_deref() != Some("n3"))
                .collect::<Vec<_>>()
        ),
        [1, 2, 3]
    );
    let lost = world.tasks("web").into_iter().find(|t| t.node_id.as_deref() == Some("n3")).unwrap();
    assert_eq!((lost.status.state, lost.desired), (TaskState::Running, TaskState::Shutdown));
    let before = ids(&world);
    world.set_node("n3", |n| n.status.state = NodeState::Ready);
    world.run();
    assert_eq!(ids(&world), before);
}

#[test]
fn tasks_of_a_removed_node_become_orphans() {
    let mut world = three_nodes();
    world.service("web", 3, &[], |_| {});
    world.run();
    world.apply(vec![Change::Delete(ObjectKind::Node, "n1".to_owned())]);
    world.run();
    let lost = world.tasks("web").into_iter().find(|t| t.node_id.as_deref() == Some("n1")).unwrap();
    assert_eq!(lost.status.state, TaskState::Orphaned);
    assert_eq!(slots(&world.running("web")), [1, 2, 3]);
}

#[test]
fn a_task_told_to_stop_on_a_down_node_becomes_an_orphan_when_the_node_is_removed() {
    let mut world = three_nodes();
    world.network("app", "10.0.1.0/24");
    world.service("web", 3, &["app"], |_| {});
    world.run();
    world.set_node("n1", |n| n.status.state = NodeState::Down);
    world.run();
    world.apply(vec![Change::Delete(ObjectKind::Node, "n1".to_owned())]);
    world.run();
    let living = world.tasks("web").into_iter().filter(|t| !t.status.state.is_terminal());
    assert_eq!(living.count(), 3, "the lost one holds no address for ever");
}

#[test]
fn tasks_of_a_removed_service_go_when_they_have_stopped_or_their_node_is_down() {
    let mut world = three_nodes();
    world.service("web", 3, &[], |_| {});
    world.run();
    world.set_node("n1", |n| n.status.state = NodeState::Down);
    world.apply(vec![Change::Delete(ObjectKind::Service, "svc-web".to_owned())]);
    world.settle();
    let left = world.tasks("web");
    assert_eq!(left.len(), 2);
    assert!(left.iter().all(|t| t.desired == TaskState::Remove));
    world.run();
    assert!(world.state.tasks.is_empty());
}

#[test]
fn a_slot_keeps_as_many_tasks_as_the_history_limit_says() {
    let mut world = three_nodes();
    world.service("web", 1, &[], |s| {
        s.task_template.as_mut().unwrap().restart_policy = policy(Condition::ANY, 0, 0);
    });
    world.run();
    let mut ended = Vec::new();
    for _ in 0..8 {
        let id = ids(&world)[0].clone();
        world.end(&id, TaskState::Failed);
        ended.push(id);
        world.pass(1);
        world.run();
    }
    assert_eq!(world.tasks("web").len(), 5);
    assert!(ended[4..].iter().all(|id| world.state.tasks.contains_key(id)), "the newest are kept");
    world.set_cluster(|c| {
        let two = SwarmSpecOrchestration { task_history_retention_limit: Some(2) };
        c.spec.orchestration = Some(two);
    });
    world.run();
    assert_eq!(world.tasks("web").len(), 2);
}
