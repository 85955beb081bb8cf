//! Back to the specification before, by failure or by hand.
use super::*;

#[test]
fn a_rollback_brings_back_what_was_replaced_and_leaves_the_rest() {
    let mut world = service(3, |c| c.failure_action = Some(Action::ROLLBACK));
    let before: Vec<String> = world.running("web").iter().map(|t| t.id.clone()).collect();
    let spec = world.of("web").spec.clone();
    world.update("web");
    let started = world.now;
    let task = made(&mut world);
    world.pass(1_000);
    world.end(&task.id, TaskState::Rejected);
    world.settle();
    let message =
        format!("update rolled back due to failure or early termination of task {}", task.id);
    assert_eq!(status(&world), (UpdateState::RollbackStarted, message));
    let web = world.of("web");
    assert_eq!((&web.spec, web.spec_version, &web.previous_spec), (&spec, 1, &None));
    assert_eq!(web.update_status.as_ref().unwrap().started, started);
    for _ in 0..3 {
        world.run();
        world.pass(5_000);
    }
    assert_eq!(status(&world), (UpdateState::RollbackCompleted, "rollback completed".to_owned()));
    let after: Vec<String> = world.running("web").iter().map(|t| t.id.clone()).collect();
    assert!(world.running("web").iter().all(|t| !is_new(t)));
    assert_eq!(after.iter().filter(|id| before.contains(id)).count(), 2);
}

#[test]
fn a_rollback_is_never_rolled_back() {
    let mut world = service(3, |c| {
        c.failure_action = Some(Action::ROLLBACK);
        c.parallelism = Some(0);
    });
    world.update("web");
    world.run();
    let task = new(&world).remove(0);
    world.end(&task.id, TaskState::Failed);
    let back = world.run_until("web", |t| {
        t.spec_version == 1
            && t.desired <= TaskState::Running
            && t.status.state < TaskState::Running
    });
    world.end(&back.id, TaskState::Rejected);
    world.settle();
    let message =
        format!("rollback paused due to failure or early termination of task {}", back.id);
    assert_eq!(status(&world), (UpdateState::RollbackPaused, message));
}

#[test]
fn a_rollback_has_settings_of_its_own() {
    let mut world = service(4, |c| {
        c.parallelism = Some(0);
        c.order = Some(Order::START_FIRST);
    });
    world.set_service("web", |s| {
        s.spec.rollback_config =
            Some(ServiceSpecRollbackConfig { parallelism: Some(2), ..Default::default() });
    });
    world.update("web");
    world.run();
    world.pass(5_000);
    world.run();
    assert_eq!(status(&world).0, UpdateState::Completed);
    world.pass(1_000);
    world.roll_back("web");
    world.settle();
    let manual = (UpdateState::RollbackStarted, "manually requested rollback".to_owned());
    assert_eq!(status(&world), manual);
    let stopping = world.tasks("web").into_iter();
    let stopping = stopping.filter(|t| is_new(t) && t.desired == TaskState::Shutdown);
    assert_eq!(stopping.count(), 2, "two at a time, and stop first");
}

#[test]
fn a_second_rollback_leads_back_to_where_one_came_from() {
    let mut world = service(2, |_| {});
    world.update("web");
    let versions = |w: &World| (w.of("web").spec_version, w.of("web").previous_spec_version);
    let (second, first) = versions(&world);
    for expected in [(first, second), (second, first), (first, second)] {
        world.pass(60_000);
        world.roll_back("web");
        world.run();
        assert_eq!(versions(&world), expected);
        assert!(world.running("web").iter().all(|t| t.spec_version == expected.0));
    }
    world.update("web");
    assert!(world.of("web").spec_version > second, "a version is never used twice");
}
