//! Updates that begin a new task before the old one ends.
use super::*;

#[test]
fn a_task_that_is_to_start_first_and_fails_leaves_the_old_one_running() {
    let mut world = service(2, |c| c.order = Some(Order::START_FIRST));
    world.update("web");
    let task = made(&mut world);
    world.end(&task.id, TaskState::Rejected);
    for _ in 0..3 {
        world.run_until("web", |t| is_new(t) && t.desired == TaskState::Ready);
        let old = world.running("web").into_iter().filter(|t| !is_new(t));
        assert_eq!(old.count(), 2);
        let again = world.tasks("web").into_iter();
        let again = again.filter(|t| is_new(t) && t.desired <= TaskState::Running);
        let again: Vec<String> = again.map(|t| t.id.clone()).collect();
        again.iter().for_each(|id| world.end(id, TaskState::Rejected));
        world.pass(10_000);
    }
    assert_eq!(status(&world).0, UpdateState::Paused);
}

#[test]
fn start_first_stops_the_old_task_only_when_the_new_one_runs() {
    let mut world = three_nodes();
    world.service("web", 1, &[], |s| {
        let order = Some(Order::START_FIRST);
        s.update_config = Some(ServiceSpecUpdateConfig { order, ..Default::default() });
    });
    world.run();
    let old = world.running("web")[0].id.clone();
    world.update("web");
    world.settle();
    assert_eq!(world.tasks("web").len(), 2);
    assert_eq!(world.state.tasks[&old].desired, TaskState::Running);
    world.run();
    assert_eq!(world.state.tasks[&old].status.state, TaskState::Shutdown);
    assert_eq!(world.running("web").len(), 1);
}

#[test]
fn an_update_that_overtakes_others_leaves_none_of_their_tasks_beside_the_old_one() {
    let mut world = service(1, |u| u.order = Some(Order::START_FIRST));
    for _ in 0..3 {
        world.update("web");
        world.settle();
    }
    let wanted = world.tasks("web").into_iter().filter(|t| t.desired <= TaskState::Running);
    let states: Vec<(bool, TaskState)> = wanted.map(|t| (is_new(t), t.status.state)).collect();
    assert_eq!(states.len(), 2, "{states:?}");
    assert!(states.contains(&(false, TaskState::Running)));
    world.run();
    assert_eq!(world.running("web").len(), 1);
}

#[test]
fn a_task_that_waits_for_its_time_starts_although_a_paused_update_leaves_it_behind() {
    let mut world = service(2, |_| {});
    let ids: Vec<String> = world.running("web").into_iter().map(|t| t.id.clone()).collect();
    ids.iter().for_each(|id| world.end(id, TaskState::Failed));
    world.settle();
    // Replacements wait for their delay while the update fails in the first slot.
    world.update("web");
    let new = made(&mut world);
    world.end(&new.id, TaskState::Failed);
    world.run();
    assert_eq!(status(&world).0, UpdateState::Paused);
    world.pass(61_000);
    world.run();
    assert_eq!(world.running("web").len(), 2);
}

/// An update with `start-first` whose new task finds no node.
fn update_that_waits_for_a_node(replicas: i64) -> World {
    let mut world = service(replicas, |u| {
        u.order = Some(Order::START_FIRST);
        u.failure_action = Some(Action::CONTINUE);
    });
    let pause = |world: &mut World, availability| {
        for id in ["n1", "n2", "n3"] {
            world.set_node(id, |n| n.availability = availability);
        }
    };
    pause(&mut world, Availability::Pause);
    world.update("web");
    world.settle();
    let waits = new(&world).pop().unwrap();
    assert_eq!(waits.status.state, TaskState::Pending);
    world
}

/// Whether the old task runs beside the one that waits.
fn overlaps(world: &World) -> bool {
    let old = |t: &&Task| !is_new(t) && t.desired == TaskState::Running;
    world.running("web").into_iter().any(|t| old(&t))
}

fn nodes_return(world: &mut World) {
    for id in ["n1", "n2", "n3"] {
        world.set_node(id, |n| n.availability = Availability::Active);
    }
    world.run();
    world.pass(6_000);
    world.run();
    assert!(!overlaps(world));
    assert_eq!(status(world).0, UpdateState::Completed);
}

#[test]
fn an_update_is_not_complete_while_an_old_task_runs_until_the_new_one_does() {
    let mut world = update_that_waits_for_a_node(1);
    // The update's own task gets a node and is lost with it; what follows is not the update's.
    world.set_node("n2", |n| n.availability = Availability::Active);
    world.settle();
    let placed = new(&world).pop().unwrap();
    assert_eq!(placed.node_id.as_deref(), Some("n2"));
    world.set_node("n2", |n| {
        n.availability = Availability::Pause;
        n.status.state = NodeState::Down;
    });
    for _ in 0..10 {
        world.settle();
        world.pass(30_000);
    }
    let followed = new(&world).into_iter().find(|t| t.desired <= TaskState::Running).unwrap();
    assert_eq!(followed.made_by, MadeBy::Restart);
    assert!(overlaps(&world));
    assert_eq!(status(&world).0, UpdateState::Updating);
    world.set_node("n2", |n| n.status.state = NodeState::Ready);
    nodes_return(&mut world);
}

#[test]
fn an_update_is_not_complete_while_the_new_task_is_rejected_and_made_again() {
    let mut world = service(1, |u| {
        u.order = Some(Order::START_FIRST);
        u.failure_action = Some(Action::CONTINUE);
    });
    world.update("web");
    let mut task = made(&mut world);
    for _ in 0..4 {
        world.end(&task.id, TaskState::Rejected);
        world.run();
        // Also while the rejected one is kept until its time has come.
        world.pass(2_000);
        world.run();
        assert!(overlaps(&world));
        assert_eq!(status(&world).0, UpdateState::Updating);
        world.pass(10_000);
        task = made(&mut world);
    }
    world.settle();
    world.pass(6_000);
    world.run();
    assert!(!overlaps(&world));
    assert_eq!(status(&world).0, UpdateState::Completed);
}

#[test]
fn scaling_during_an_update_leaves_it_under_way() {
    let mut world = update_that_waits_for_a_node(2);
    world.scale("web", 3);
    world.settle();
    assert!(overlaps(&world));
    assert_eq!(status(&world), (UpdateState::Updating, "update in progress".to_owned()));
    let replaced: Vec<u64> = new(&world).iter().map(|t| t.slot).filter(|slot| *slot < 3).collect();
    assert_eq!(replaced.len(), 1, "the one that waits is not made again, and it is one at a time");
    nodes_return(&mut world);
    assert_eq!(world.running("web").len(), 3);
}

#[test]
fn a_place_whose_old_task_suits_again_loses_the_new_one_when_the_update_is_rolled_back() {
    let mut world = service(3, |u| {
        u.order = Some(Order::START_FIRST);
        u.parallelism = Some(0);
        u.failure_action = Some(Action::ROLLBACK);
    });
    let old: Vec<String> = world.running("web").into_iter().map(|t| t.id.clone()).collect();
    // Nothing suits but n1, and what runs elsewhere is to be replaced.
    world.set_node("n1", |n| n.labels.extend([("disk".to_owned(), "ssd".to_owned())]));
    world.revise("web", Revision::Placement, |s| {
        let placement = s.task_template.get_or_insert_default().placement.get_or_insert_default();
        placement.constraints = Some(vec!["node.labels.disk==ssd".to_owned()]);
    });
    let failed = made(&mut world);
    world.end(&failed.id, TaskState::Failed);
    world.settle();
    world.run();
    let running: Vec<String> = world.running("web").into_iter().map(|t| t.id.clone()).collect();
    assert_eq!(running, old, "the old tasks run on, and nothing beside them");
    assert_eq!(world.tasks("web").iter().filter(|t| t.desired <= TaskState::Running).count(), 3);
    assert_eq!(status(&world).0, UpdateState::RollbackCompleted);
}

#[test]
fn where_the_new_task_failed_and_the_old_one_is_lost_the_next_one_waits_for_its_delay() {
    let mut world = service(1, |u| {
        u.order = Some(Order::START_FIRST);
        u.failure_action = Some(Action::CONTINUE);
    });
    world.revise("web", Revision::Tasks, |s| {
        let template = s.task_template.get_or_insert_default();
        template.force_update = Some(1);
        template.restart_policy = Some(TaskSpecRestartPolicy {
            condition: Some(Condition::NONE),
            delay: Some(20 * SECOND),
            ..TaskSpecRestartPolicy::default()
        });
    });
    let failed = made(&mut world);
    world.end(&failed.id, TaskState::Failed);
    let ended = world.now;
    world.settle();
    world.pass(3_000);
    assert!(overlaps(&world), "the new one is given up, the old one runs");
    let node = world.running("web")[0].node_id.clone().unwrap();
    world.set_node(&node, |n| n.status.state = NodeState::Down);
    world.settle();
    let next = made(&mut world);
    assert_eq!(next.made_by, MadeBy::Restart);
    assert_eq!(next.not_before.since(ended).as_secs(), 20);
}
