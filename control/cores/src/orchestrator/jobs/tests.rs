use crate::testing::World;
use shoal_model::{
    Availability, MadeBy, NodeState, Task, TaskState,
    docker::{
        ServiceSpecMode, ServiceSpecModeReplicatedJob, SwarmSpecOrchestration,
        TaskSpecRestartPolicy, TaskSpecRestartPolicyConditionEnum as Condition,
    },
};

fn policy(condition: Condition, max_attempts: i64) -> TaskSpecRestartPolicy {
    TaskSpecRestartPolicy {
        condition: Some(condition),
        max_attempts: Some(max_attempts),
        ..Default::default()
    }
}

fn job(concurrent: i64, total: i64, restart: Option<TaskSpecRestartPolicy>) -> World {
    let mut world = World::new();
    for id in ["n1", "n2", "n3"] {
        world.node(id);
    }
    world.service("job", 0, &[], |s| {
        s.mode = Some(ServiceSpecMode {
            replicated_job: Some(ServiceSpecModeReplicatedJob {
                max_concurrent: Some(concurrent),
                total_completions: Some(total),
            }),
            ..Default::default()
        });
        s.task_template.as_mut().unwrap().restart_policy = restart;
    });
    world.run();
    world
}

fn global_job() -> World {
    let mut world = World::new();
    for id in ["n1", "n2", "n3"] {
        world.node(id);
    }
    world.service("job", 0, &[], |s| {
        s.mode =
            Some(ServiceSpecMode { global_job: Some(Default::default()), ..Default::default() });
    });
    world.run();
    world
}

fn slots(tasks: &[&Task]) -> Vec<u64> {
    let mut slots: Vec<u64> = tasks.iter().map(|t| t.slot).collect();
    slots.sort();
    slots
}

fn complete(world: &World) -> usize {
    world.tasks("job").iter().filter(|t| t.status.state == TaskState::Complete).count()
}

fn end_first(world: &mut World, state: TaskState) -> Task {
    let mut running = world.running("job");
    running.sort_by_key(|t| t.slot);
    let task = running[0].clone();
    world.end(&task.id, state);
    world.run();
    task
}

#[test]
fn so_many_tasks_run_at_a_time_until_so_many_have_ended_well() {
    let mut world = job(2, 5, None);
    assert_eq!(slots(&world.running("job")), [0, 1]);
    assert!(world.tasks("job").iter().all(|t| t.job_iteration == Some(0)));
    assert!(world.tasks("job").iter().all(|t| t.shown_desired() == TaskState::Complete));
    for (running, done) in [(vec![1, 2], 1), (vec![2, 3], 2), (vec![3, 4], 3), (vec![4], 4)] {
        end_first(&mut world, TaskState::Complete);
        assert_eq!((slots(&world.running("job")), complete(&world)), (running, done));
    }
    end_first(&mut world, TaskState::Complete);
    world.pass(3_600_000);
    world.run();
    assert_eq!((world.tasks("job").len(), complete(&world)), (5, 5), "done, and not done again");
}

#[test]
fn a_failed_task_is_tried_again_in_its_slot_as_the_policy_says_with_any_as_on_failure() {
    for (restart, again) in [
        (None, true),
        (Some(policy(Condition::ANY, 0)), true),
        (Some(policy(Condition::ON_FAILURE, 0)), true),
        (Some(policy(Condition::NONE, 0)), false),
    ] {
        let mut world = job(1, 2, restart.clone());
        let failed = end_first(&mut world, TaskState::Failed);
        world.pass(4_999);
        world.run();
        let running = if again { vec![] } else { vec![1] };
        assert_eq!(
            slots(&world.running("job")),
            running,
            "{restart:?}: it waits, and holds its place"
        );
        world.pass(1);
        world.run();
        let running = if again { vec![0] } else { vec![1] };
        assert_eq!(slots(&world.running("job")), running, "{restart:?}");
        assert_eq!(world.state.tasks[&failed.id].desired, TaskState::Shutdown);
    }
}

#[test]
fn a_slot_is_given_up_after_the_most_attempts_and_the_others_go_on() {
    let mut world = job(1, 3, Some(policy(Condition::ON_FAILURE, 2)));
    for _ in 0..3 {
        assert_eq!(slots(&world.running("job")), [0]);
        end_first(&mut world, TaskState::Failed);
        world.pass(5_000);
        world.run();
    }
    for slot in [1, 2] {
        assert_eq!(slots(&world.running("job")), [slot]);
        end_first(&mut world, TaskState::Complete);
    }
    world.pass(3_600_000);
    world.run();
    assert_eq!((world.running("job").len(), complete(&world)), (0, 2));
}

#[test]
fn every_update_is_another_iteration_that_leaves_nothing_running_of_the_one_before() {
    let mut world = job(2, 3, None);
    end_first(&mut world, TaskState::Complete);
    let executed = world.of("job").job_status.unwrap().last_execution;
    world.pass(1_000);
    world.update("job");
    let status = world.of("job").job_status.unwrap();
    assert_eq!((status.iteration, status.last_execution), (1, world.now));
    assert_ne!(status.last_execution, executed);
    world.settle();
    let earlier: Vec<_> =
        world.tasks("job").into_iter().filter(|t| t.job_iteration == Some(0)).collect();
    let wanted: Vec<_> = earlier.iter().map(|t| (t.slot, t.desired)).collect();
    assert!(wanted.contains(&(0, TaskState::Running)), "what is done stays as history");
    assert_eq!(wanted.iter().filter(|(_, d)| *d == TaskState::Remove).count(), 2);
    world.run();
    assert_eq!(slots(&world.running("job")), [0, 1]);
    assert!(world.running("job").iter().all(|t| t.job_iteration == Some(1)));
    assert_eq!(world.of("job").update_status, None, "jobs are not updated, they run again");
}

#[test]
fn a_task_lost_with_its_node_runs_elsewhere_and_one_that_is_done_is_not_missed() {
    type Edit = fn(&mut shoal_model::Node);
    let losses: [Edit; 2] =
        [|n| n.status.state = NodeState::Down, |n| n.availability = Availability::Drain];
    for lose in losses {
        let mut world = job(3, 3, None);
        let done = end_first(&mut world, TaskState::Complete);
        let node = |w: &World, slot| {
            let task = w.running("job").into_iter().find(|t| t.slot == slot).unwrap();
            task.node_id.clone().unwrap()
        };
        let lost = node(&world, 1);
        world.set_node(&lost, lose);
        world.set_node(done.node_id.as_deref().unwrap(), lose);
        world.run();
        assert_ne!(node(&world, 1), lost);
        assert_eq!(complete(&world), 1);
        assert_eq!(world.state.tasks[&done.id].desired, TaskState::Running);
    }
}

#[test]
fn history_is_kept_within_its_limit_and_what_is_done_always() {
    let mut world = job(1, 2, None);
    world.set_cluster(|c| {
        let none = SwarmSpecOrchestration { task_history_retention_limit: Some(0) };
        c.spec.orchestration = Some(none);
    });
    for _ in 0..3 {
        end_first(&mut world, TaskState::Failed);
        world.pass(5_000);
        world.run();
    }
    assert_eq!(world.tasks("job").len(), 1, "no failed attempt is kept");
    end_first(&mut world, TaskState::Complete);
    end_first(&mut world, TaskState::Complete);
    assert_eq!((world.tasks("job").len(), complete(&world)), (2, 2));
    for _ in 0..3 {
        world.update("job");
        world.run();
        end_first(&mut world, TaskState::Complete);
        end_first(&mut world, TaskState::Complete);
    }
    assert_eq!(world.tasks("job").len(), 2, "of earlier iterations nothing");
}

#[test]
fn a_global_job_runs_once_on_each_node_also_on_one_that_comes_later() {
    let mut world = global_job();
    assert_eq!(world.running("job").len(), 3);
    assert!(
        world
            .tasks("job")
            .iter()
            .all(|t| t.name.starts_with(&format!("job.{}.", t.node_id.as_deref().unwrap())))
    );
    for _ in 0..3 {
        end_first(&mut world, TaskState::Complete);
    }
    world.pass(3_600_000);
    world.run();
    assert_eq!((world.tasks("job").len(), complete(&world)), (3, 3));
    world.node("n4");
    world.run();
    assert_eq!(world.running("job")[0].node_id.as_deref(), Some("n4"));
    world.update("job");
    world.run();
    assert_eq!(world.running("job").len(), 4);
    assert_eq!(world.tasks("job").len(), 4, "earlier iterations are forgotten");
}

#[test]
fn a_global_job_on_a_drained_node_stops_and_begins_again_when_it_is_back() {
    let mut world = global_job();
    let done = end_first(&mut world, TaskState::Complete);
    let other = world.running("job")[0].node_id.clone().unwrap();
    for id in [done.node_id.as_deref().unwrap(), &other] {
        world.set_node(id, |n| n.availability = Availability::Drain);
    }
    world.run();
    assert_eq!((world.running("job").len(), complete(&world)), (1, 1));
    for id in [done.node_id.as_deref().unwrap(), &other] {
        world.set_node(id, |n| n.availability = Availability::Active);
    }
    world.run();
    assert_eq!((world.running("job").len(), complete(&world)), (2, 1));
    let again = world.running("job").into_iter().find(|t| t.node_id.as_deref() == Some(&other));
    assert_eq!(again.unwrap().made_by, MadeBy::Restart);
}

#[test]
fn a_global_job_begins_on_no_node_that_is_paused_or_not_ready() {
    let mut world = global_job();
    world.node("n4");
    world.node("n5");
    world.set_node("n4", |n| n.availability = Availability::Pause);
    world.set_node("n5", |n| n.status.state = NodeState::Unknown);
    world.run();
    assert_eq!(world.tasks("job").len(), 3);
    world.set_node("n4", |n| n.availability = Availability::Active);
    world.set_node("n5", |n| n.status.state = NodeState::Ready);
    world.run();
    assert_eq!(world.running("job").len(), 5);
}

#[test]
fn a_slot_whose_lost_task_ended_well_after_all_is_done_whatever_history_keeps() {
    for limit in [0, 1, 5] {
        let mut world = job(1, 2, None);
        world.set_cluster(|c| {
            let limit = SwarmSpecOrchestration { task_history_retention_limit: Some(limit) };
            c.spec.orchestration = Some(limit);
        });
        let lost = world.running("job")[0].clone();
        let node = lost.node_id.clone().unwrap();
        world.set_node(&node, |n| n.status.state = NodeState::Down);
        world.run();
        world.pass(60_000);
        world.run();
        let other = world.running("job").into_iter().find(|t| t.id != lost.id).unwrap().clone();
        assert_eq!(other.slot, 0);
        world.set_node(&node, |n| n.status.state = NodeState::Ready);
        world.end(&lost.id, TaskState::Complete);
        world.run();
        world.pass(3_600_000);
        world.run();
        assert_eq!(slots(&world.running("job")), [1], "limit {limit}: slot 0 is done");
        assert_eq!(complete(&world), 1, "limit {limit}");
    }
}

#[test]
fn a_slot_whose_lost_task_is_not_followed_stays_given_up_and_the_others_go_on() {
    let mut world = job(1, 2, Some(policy(Condition::NONE, 0)));
    let lost = world.running("job")[0].clone();
    let node = lost.node_id.clone().unwrap();
    world.set_node(&node, |n| n.availability = Availability::Drain);
    for _ in 0..3 {
        world.run();
        world.pass(60_000);
    }
    assert_eq!(slots(&world.running("job")), [1], "one at a time");
}

#[test]
fn a_slot_that_was_given_up_stays_so_when_the_end_of_its_lost_task_is_heard_of_late() {
    let second = 1_000_000_000;
    let restart = TaskSpecRestartPolicy {
        delay: Some(0),
        window: Some(60 * second),
        ..policy(Condition::ON_FAILURE, 1)
    };
    let mut world = job(1, 2, Some(restart));
    end_first(&mut world, TaskState::Failed);
    world.run();
    let lost = world.running("job")[0].clone();
    assert_eq!((lost.slot, lost.made_by), (0, MadeBy::Restart));
    let node = lost.node_id.clone().unwrap();
    world.set_node(&node, |n| n.status.state = NodeState::Down);
    world.settle();
    world.run();
    world.pass(120_000);
    world.end(&lost.id, TaskState::Failed);
    world.set_node(&node, |n| n.status.state = NodeState::Ready);
    world.run();
    let wanted = world.tasks("job").into_iter().filter(|t| t.desired <= TaskState::Running);
    assert_eq!(wanted.map(|t| t.slot).collect::<Vec<_>>(), [1], "one at a time");
}

#[test]
fn a_task_the_manager_has_rejected_is_told_to_stop_when_the_next_iteration_begins() {
    let mut world = job(1, 2, None);
    end_first(&mut world, TaskState::Failed);
    let waits = |t: &&&Task| t.desired == TaskState::Ready;
    let waiting = world.tasks("job").iter().find(waits).unwrap().id.clone();
    assert_eq!(world.state.tasks[&waiting].status.state, TaskState::Ready, "prepared on its node");
    world.end(&waiting, TaskState::Rejected);
    world.settle();
    assert_eq!(world.state.tasks[&waiting].desired, TaskState::Ready, "its delay is not over");
    world.update("job");
    world.settle();
    assert_eq!(world.state.tasks[&waiting].desired, TaskState::Shutdown);
}
