use crate::{Revision, next_due, testing::World};
use shoal_model::{
    Availability, MadeBy, NodeState, State, Task, TaskState, UpdateState,
    docker::{
        ServiceSpecRollbackConfig, ServiceSpecUpdateConfig,
        ServiceSpecUpdateConfigFailureActionEnum as Action,
        ServiceSpecUpdateConfigOrderEnum as Order, SwarmSpecOrchestration, TaskSpecRestartPolicy,
        TaskSpecRestartPolicyConditionEnum as Condition,
    },
};

mod rollback;
mod start_first;

fn three_nodes() -> World {
    let mut world = World::new();
    for id in ["n1", "n2", "n3"] {
        world.node(id);
    }
    world
}

/// A service that runs for a minute, updated as `edit` says.
fn service(replicas: i64, edit: impl FnOnce(&mut ServiceSpecUpdateConfig)) -> World {
    let mut world = three_nodes();
    world.service("web", replicas, &[], |s| edit(s.update_config.get_or_insert_default()));
    world.run();
    world.pass(60_000);
    world
}

fn status(world: &World) -> (UpdateState, String) {
    let status = world.of("web").update_status.as_ref().unwrap();
    (status.state, status.message.clone())
}

fn is_new(task: &Task) -> bool {
    task.spec_version > 1
}

fn new(world: &World) -> Vec<Task> {
    world.tasks("web").into_iter().filter(|t| is_new(t)).cloned().collect()
}

/// The task the update has made and that is not told to stop.
fn made(world: &mut World) -> Task {
    world.run_until("web", |t| is_new(t) && t.desired <= TaskState::Running)
}

const SECOND: i64 = 1_000_000_000;

#[test]
fn an_update_says_how_it_goes_until_the_last_task_was_watched() {
    let mut world = service(2, |_| {});
    world.update("web");
    world.settle();
    assert_eq!(status(&world), (UpdateState::Updating, "update in progress".to_owned()));
    let started = world.now;
    world.run();
    assert_eq!(world.running("web").iter().filter(|t| is_new(t)).count(), 2);
    assert_eq!(status(&world).0, UpdateState::Updating, "the last ones are watched yet");
    assert_eq!(next_due(&world.state, world.now).unwrap().since(world.now).as_secs(), 5);
    world.pass(5_000);
    world.run();
    assert_eq!(status(&world), (UpdateState::Completed, "update completed".to_owned()));
    let status = world.of("web").update_status.clone().unwrap();
    assert_eq!((status.started, status.completed), (started, Some(world.now)));
    assert_eq!(next_due(&world.state, world.now), None);
}

#[test]
fn what_replaces_no_task_is_no_update() {
    let mut world = service(2, |_| {});
    world.revise("web", Revision::None, |s| {
        s.labels.get_or_insert_default().insert("a".to_owned(), "b".to_owned());
    });
    world.run();
    assert_eq!(world.of("web").update_status, None);
    assert_eq!(new(&world), []);
}

#[test]
fn the_last_tasks_are_watched_for_the_monitoring_time_or_longer_than_the_delay() {
    for (delay, monitor, watched_ms) in [
        (0, None, 5_000),
        (0, Some(0), 5_000),
        (0, Some(2), 2_000),
        (3, Some(10), 13_000),
        (5, None, 11_000),
        (10, Some(2), 21_000),
    ] {
        let mut world = service(1, |c| {
            c.delay = Some(delay * SECOND);
            c.monitor = monitor.map(|m| m * SECOND);
        });
        world.update("web");
        world.run();
        let ran = world.now;
        while status(&world).0 == UpdateState::Updating {
            world.now = next_due(&world.state, world.now).unwrap();
            world.run();
        }
        let watched = world.now.since(ran).as_millis();
        assert_eq!(watched, watched_ms, "delay {delay}, monitor {monitor:?}");
    }
}

#[test]
fn so_many_places_are_under_way_as_parallelism_says_each_for_the_delay_more() {
    for (parallelism, waves) in [(1, vec![1, 2, 3, 4]), (3, vec![3, 4]), (0, vec![4])] {
        let mut world = service(4, |c| {
            c.parallelism = Some(parallelism);
            c.delay = Some(10 * SECOND);
        });
        world.update("web");
        for made in waves {
            world.run();
            assert_eq!(new(&world).len(), made, "parallelism {parallelism}");
            world.pass(9_999);
            world.run();
            assert_eq!(new(&world).len(), made, "parallelism {parallelism}: the delay is kept");
            world.pass(1);
        }
    }
}

/// How a task of an update comes to its end.
#[derive(Clone, Copy, Debug)]
enum End {
    /// Before it runs.
    Early(TaskState),
    /// So many milliseconds after it runs.
    After(i64, TaskState),
}

#[test]
fn a_task_that_ends_before_it_runs_or_while_it_is_watched_is_a_failure() {
    for (end, failure) in [
        (End::Early(TaskState::Rejected), true),
        (End::Early(TaskState::Failed), true),
        (End::After(0, TaskState::Failed), true),
        (End::After(2_000, TaskState::Failed), true),
        (End::After(2_000, TaskState::Complete), true),
        (End::After(2_001, TaskState::Failed), false),
    ] {
        let mut world = service(2, |c| {
            c.monitor = Some(2 * SECOND);
            // The second place waits, so that the update goes on meanwhile.
            c.delay = Some(60 * SECOND);
        });
        world.update("web");
        let task = made(&mut world);
        match end {
            End::Early(state) => world.end(&task.id, state),
            End::After(ms, state) => {
                world.run();
                world.pass(ms);
                world.end(&task.id, state);
            }
        }
        world.settle();
        let paused =
            format!("update paused due to failure or early termination of task {}", task.id);
        let expected = match failure {
            true => (UpdateState::Paused, paused),
            false => (UpdateState::Updating, "update in progress".to_owned()),
        };
        assert_eq!(status(&world), expected, "{end:?}");
    }
}

#[test]
fn so_many_failures_are_borne_as_the_ratio_of_the_replaced_places_allows() {
    for (replicas, ratio, action, failing, expected) in [
        (4, 0.0, Action::PAUSE, 1, UpdateState::Paused),
        (4, 0.25, Action::PAUSE, 1, UpdateState::Updating),
        (4, 0.25, Action::PAUSE, 2, UpdateState::Paused),
        (4, 0.25, Action::ROLLBACK, 2, UpdateState::RollbackStarted),
        (4, 0.0, Action::CONTINUE, 4, UpdateState::Updating),
        (10, 0.1, Action::PAUSE, 1, UpdateState::Updating),
        (10, 0.1, Action::PAUSE, 2, UpdateState::Paused),
        (4, 1.0, Action::PAUSE, 4, UpdateState::Updating),
    ] {
        let mut world = service(replicas, |c| {
            c.parallelism = Some(0);
            c.max_failure_ratio = Some(ratio);
            c.failure_action = Some(action);
        });
        world.update("web");
        world.settle();
        for task in new(&world).into_iter().take(failing) {
            world.end(&task.id, TaskState::Failed);
        }
        world.settle();
        assert_eq!(status(&world).0, expected, "{failing} of {replicas}, ratio {ratio}, {action}");
    }
}

#[test]
fn the_restarts_of_a_failed_task_do_not_count_again() {
    let mut world = service(4, |c| c.max_failure_ratio = Some(0.25));
    world.update("web");
    let first = made(&mut world);
    world.end(&first.id, TaskState::Rejected);
    for _ in 0..4 {
        world.pass(5_000);
        let again = |t: &Task| t.slot == first.slot && is_new(t) && t.times.ended.is_none();
        let task = world.run_until("web", again);
        world.end(&task.id, TaskState::Rejected);
    }
    world.run();
    assert!(status(&world).1.starts_with("update "), "one of four failed, and again");
    assert_ne!(status(&world).0, UpdateState::Paused);
}

#[test]
fn a_paused_update_goes_no_further_until_another_one_is_asked_for() {
    let mut world = service(3, |_| {});
    world.update("web");
    let task = made(&mut world);
    world.end(&task.id, TaskState::Rejected);
    world.settle();
    assert_eq!(status(&world).0, UpdateState::Paused);
    for _ in 0..5 {
        world.pass(60_000);
        world.run();
    }
    let old = world.running("web").iter().filter(|t| !is_new(t)).count();
    assert_eq!((old, world.running("web").len()), (2, 3), "the failed one was restarted");
    world.scale("web", 4);
    for _ in 0..5 {
        world.run();
        world.pass(5_000);
    }
    assert_eq!(status(&world).0, UpdateState::Completed);
    assert!(world.running("web").iter().all(|t| is_new(t)));
}

#[test]
fn a_new_update_cancels_the_one_under_way_and_its_failures() {
    let mut world = service(4, |c| {
        c.parallelism = Some(2);
        c.max_failure_ratio = Some(0.25);
    });
    world.update("web");
    let task = made(&mut world);
    world.end(&task.id, TaskState::Failed);
    world.settle();
    assert_eq!(status(&world).0, UpdateState::Updating);
    world.pass(1);
    world.update("web");
    let second = world.of("web").spec_version;
    let task = world.run_until("web", |t| t.spec_version == second);
    world.end(&task.id, TaskState::Failed);
    for _ in 0..4 {
        world.run();
        world.pass(5_000);
    }
    assert_eq!(status(&world).0, UpdateState::Completed, "one failure each");
    assert!(world.running("web").iter().all(|t| t.spec_version == second));
}

#[test]
fn places_that_had_been_given_up_are_updated_and_brought_back() {
    let mut world = three_nodes();
    world.service("web", 2, &[], |s| {
        s.task_template.as_mut().unwrap().restart_policy =
            Some(TaskSpecRestartPolicy { condition: Some(Condition::NONE), ..Default::default() });
    });
    world.run();
    let end_all = |world: &mut World| {
        let ids: Vec<String> = world.running("web").iter().map(|t| t.id.clone()).collect();
        ids.iter().for_each(|id| world.end(id, TaskState::Complete));
        world.run();
        world.pass(60_000);
        world.run();
        assert!(world.running("web").is_empty());
    };
    end_all(&mut world);
    world.update("web");
    world.run();
    assert_eq!(world.running("web").iter().filter(|t| is_new(t)).count(), 2);
    end_all(&mut world);
    world.roll_back("web");
    world.run();
    assert_eq!(world.running("web").iter().filter(|t| !is_new(t)).count(), 2);
    end_all(&mut world);
}

#[test]
fn a_change_of_placement_replaces_only_tasks_whose_node_does_not_suit() {
    let mut world = service(3, |_| {});
    world.revise("web", Revision::Placement, |s| {
        let template = s.task_template.get_or_insert_default();
        template.placement.get_or_insert_default().constraints =
            Some(vec!["node.id!=n3".to_owned()]);
    });
    world.settle();
    assert_eq!(status(&world).0, UpdateState::Updating);
    for _ in 0..3 {
        world.run();
        world.pass(5_000);
    }
    assert_eq!(status(&world).0, UpdateState::Completed);
    let running = world.running("web");
    assert!(running.iter().all(|t| t.node_id.as_deref() != Some("n3")));
    assert_eq!(running.iter().filter(|t| is_new(t)).count(), 1);
}

#[test]
fn without_any_history_failures_are_counted_all_the_same() {
    let mut world = service(4, |c| {
        c.parallelism = Some(0);
        c.monitor = Some(60 * SECOND);
        c.max_failure_ratio = Some(0.5);
    });
    world.set_cluster(|c| {
        let none = SwarmSpecOrchestration { task_history_retention_limit: Some(0) };
        c.spec.orchestration = Some(none);
    });
    world.update("web");
    world.run();
    for (task, expected) in new(&world).into_iter().zip([
        UpdateState::Updating,
        UpdateState::Updating,
        UpdateState::Paused,
    ]) {
        world.end(&task.id, TaskState::Failed);
        for _ in 0..3 {
            world.pass(5_000);
            world.run();
        }
        assert_eq!(status(&world).0, expected);
    }
    world.update("web");
    for _ in 0..8 {
        world.run();
        world.pass(60_000);
    }
    assert_eq!(world.tasks("web").len(), 4, "afterwards nothing is kept");
}

#[test]
fn another_manager_goes_on_exactly_where_the_first_one_stopped() {
    let mut world = service(3, |c| {
        c.delay = Some(3 * SECOND);
        c.failure_action = Some(Action::ROLLBACK);
    });
    world.update("web");
    for _ in 0..40 {
        let text = serde_json::to_string(&world.state).unwrap();
        let copy: State = serde_json::from_str(&text).unwrap();
        let next = |state| next_due(state, world.now);
        assert_eq!(next(&copy), next(&world.state));
        world.state = copy;
        world.run();
        world.pass(1_000);
    }
    assert_eq!(status(&world).0, UpdateState::Completed);
}

#[test]
fn a_new_template_replaces_one_slot_after_the_other() {
    let mut world = three_nodes();
    world.service("web", 3, &[], |_| {});
    world.run();
    world.update("web");
    for replaced in 1..=3 {
        world.settle();
        let stopping = world.tasks("web").into_iter();
        let stopping = stopping.filter(|t| t.spec_version == 1 && t.desired == TaskState::Shutdown);
        assert_eq!(stopping.count(), replaced);
        // The old one stops, the new one is prepared, then told to run, then runs.
        world.agents();
        world.settle();
        assert!(world.running("web").len() >= 2);
        world.agents();
    }
    world.run();
    assert!(world.running("web").iter().all(|t| t.spec_version > 1));
}

#[test]
fn parallelism_0_replaces_all_slots_and_a_delay_is_kept_between_them() {
    let mut world = three_nodes();
    world.service("all", 3, &[], |s| {
        let all = ServiceSpecUpdateConfig { parallelism: Some(0), ..Default::default() };
        s.update_config = Some(all);
    });
    world.service("web", 2, &[], |s| {
        let slow = ServiceSpecUpdateConfig { delay: Some(10_000_000_000), ..Default::default() };
        s.update_config = Some(slow);
    });
    world.run();
    world.pass(60_000);
    world.update("all");
    world.update("web");
    world.settle();
    let new = |w: &World, s: &str| w.tasks(s).iter().filter(|t| t.spec_version > 1).count();
    assert_eq!(new(&world, "all"), 3);
    world.run();
    assert_eq!(new(&world, "web"), 1);
    world.pass(9_000);
    world.run();
    assert_eq!(world.of("all").update_status.as_ref().unwrap().message, "update completed");
    assert_eq!(
        next_due(&world.state, world.now),
        Some(world.now.after(std::time::Duration::from_secs(1)))
    );
    world.pass(999);
    world.run();
    assert_eq!(new(&world, "web"), 1);
    world.pass(1);
    world.run();
    assert_eq!(new(&world, "web"), 2);
}

#[test]
fn a_failing_update_goes_no_further_unless_told_to() {
    for (action, replaced) in [(None, 1), (Some(Action::CONTINUE), 3)] {
        let mut world = three_nodes();
        world.service("web", 3, &[], |s| {
            s.update_config =
                Some(ServiceSpecUpdateConfig { failure_action: action, ..Default::default() });
            s.task_template.as_mut().unwrap().restart_policy =
                Some(TaskSpecRestartPolicy { delay: Some(0), ..Default::default() });
        });
        world.run();
        world.update("web");
        world.settle();
        let new = world.tasks("web").into_iter().find(|t| t.spec_version > 1).unwrap().id.clone();
        world.end(&new, TaskState::Rejected);
        world.run();
        let updated = world.running("web").iter().filter(|t| t.spec_version > 1).count();
        assert_eq!(updated, replaced, "{action:?}");
        assert_eq!(world.running("web").len(), 3);
    }
}
