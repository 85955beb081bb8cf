use crate::{Orchestrator, orchestrate, testing::World};
use shoal_model::{Change, NodeState, Object, ObjectKind, TaskState};

fn wanted(orchestrator: &mut Orchestrator, world: &World) -> Vec<Change> {
    orchestrator.orchestrate(&world.state, world.now, &mut || "new".to_owned())
}

/// With ids that are new in each `call`.
fn wanted_with(orchestrator: &mut Orchestrator, world: &World, call: usize) -> Vec<Change> {
    let mut ids = 0;
    let mut new_id = || {
        ids += 1;
        format!("new{call}.{ids}")
    };
    orchestrator.orchestrate(&world.state, world.now, &mut new_id)
}

/// Two services on two nodes, and an orchestrator that has seen them at rest.
fn calm() -> (World, Orchestrator) {
    let mut world = World::new();
    world.network("app", "10.0.1.0/24");
    ["n1", "n2"].iter().for_each(|n| world.node(n));
    world.service("web", 2, &["app"], |_| {});
    world.service("api", 2, &["app"], |_| {});
    world.run();
    let mut orchestrator = Orchestrator::default();
    assert_eq!(wanted(&mut orchestrator, &world), []);
    (world, orchestrator)
}

#[test]
fn what_was_wanted_and_not_done_is_wanted_again_though_nothing_changed() {
    let (mut world, mut orchestrator) = calm();
    world.scale("web", 3);
    let first = wanted(&mut orchestrator, &world);
    assert_eq!(first.len(), 1);
    assert_eq!(wanted(&mut orchestrator, &world), first);
    assert_eq!(orchestrator.next_due(world.now), Some(world.now));
    world.apply(first);
    assert_eq!(wanted(&mut orchestrator, &world), []);
    assert_eq!(orchestrator.next_due(world.now), None);
}

#[test]
fn a_node_that_falls_has_the_services_looked_at_that_have_tasks_there() {
    let (mut world, mut orchestrator) = calm();
    world.set_node("n1", |n| n.status.state = NodeState::Down);
    let retired = |change: &Change| match change {
        Change::Put(Object::Task(task)) => task.desired == TaskState::Shutdown,
        _ => false,
    };
    let changes = wanted(&mut orchestrator, &world);
    assert_eq!(changes.iter().filter(|c| retired(c)).count(), 2, "one of each service");
}

#[test]
fn a_task_that_was_removed_has_its_service_looked_at() {
    let (mut world, mut orchestrator) = calm();
    let id = world.running("web")[0].id.clone();
    world.apply(vec![Change::Delete(ObjectKind::Task, id)]);
    assert!(matches!(&wanted(&mut orchestrator, &world)[..], [Change::Put(Object::Task(_))]));
}

#[test]
fn whose_time_has_come_is_looked_at_and_not_before() {
    let (mut world, mut orchestrator) = calm();
    let id = world.running("web")[0].id.clone();
    world.end(&id, TaskState::Failed);
    let restart = wanted(&mut orchestrator, &world);
    world.apply(restart);
    assert_eq!(wanted(&mut orchestrator, &world), []);
    let due = orchestrator.next_due(world.now).unwrap();
    assert_eq!(due.since(world.now).as_secs(), 5, "the delay of the restart policy");
    world.now = due;
    assert_eq!(orchestrator.next_due(world.now), Some(due));
    assert_ne!(wanted(&mut orchestrator, &world), []);
}

#[test]
fn one_that_is_too_far_behind_looks_at_everything() {
    let (mut world, mut orchestrator) = calm();
    world.scale("web", 3);
    // A copy does not know what was changed before it.
    world.state = world.state.clone();
    assert_eq!(wanted(&mut orchestrator, &world).len(), 1);
}

#[test]
fn all_there_is_is_looked_at_in_steps_and_what_changes_at_once() {
    let mut world = World::new();
    world.network("app", "10.0.1.0/24");
    ["n1", "n2", "n3"].iter().for_each(|n| world.node(n));
    world.service("web", 3, &["app"], |_| {});
    world.service("api", 3, &["app"], |_| {});
    world.run();
    world.set_node("n1", |n| n.status.state = NodeState::Down);
    // Each node and each service has more tasks than a step.
    let mut orchestrator = Orchestrator::in_steps(1);
    assert_eq!(wanted_with(&mut orchestrator, &world, 0), [], "the first node");
    world.scale("web", 4);
    let changes = wanted_with(&mut orchestrator, &world, 1);
    assert_eq!(made_for(&changes), ["svc-web", "svc-web"], "one that was lost, and the fourth");
    world.apply(changes);
    let mut made = Vec::new();
    for call in 2.. {
        let changes = wanted_with(&mut orchestrator, &world, call);
        made.extend(made_for(&changes));
        world.apply(changes);
        if orchestrator.is_complete() {
            break;
        }
        assert_eq!(orchestrator.next_due(world.now), Some(world.now), "at once");
        assert!(call < 10, "it is never done");
    }
    assert_eq!(made, ["svc-api"], "one that was lost");
    assert_eq!(orchestrate(&world.state, world.now, &mut String::new), []);
}

/// The services of the tasks that are made.
fn made_for(changes: &[Change]) -> Vec<String> {
    let service = |change: &Change| match change {
        Change::Put(Object::Task(task)) if task.meta.version == 0 => Some(task.service_id.clone()),
        _ => None,
    };
    changes.iter().filter_map(service).collect()
}
