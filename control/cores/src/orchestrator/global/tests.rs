use crate::{Revision, orchestrate, testing::World};
use shoal_model::{
    Availability, Change, NodeState, ObjectKind, Task, TaskState, UpdateState,
    docker::{
        Platform, ServiceSpec, ServiceSpecUpdateConfigOrderEnum as Order, TaskSpecPlacement,
        TaskSpecRestartPolicy, TaskSpecRestartPolicyConditionEnum as Condition,
    },
};

fn three_nodes() -> World {
    let mut world = World::new();
    for id in ["n1", "n2", "n3"] {
        world.node(id);
    }
    world
}

fn agent(edit: impl FnOnce(&mut ServiceSpec)) -> World {
    let mut world = three_nodes();
    world.global("agent", edit);
    world.run();
    world
}

fn constrain(spec: &mut ServiceSpec, constraint: &str) {
    let template = spec.task_template.get_or_insert_default();
    template.placement = Some(TaskSpecPlacement {
        constraints: Some(vec![constraint.to_owned()]),
        ..Default::default()
    });
}

/// Nodes with a running task, in order.
fn nodes(world: &World) -> Vec<String> {
    let mut nodes: Vec<String> =
        world.running("agent").iter().filter_map(|t| t.node_id.clone()).collect();
    nodes.sort();
    nodes
}

#[test]
fn each_node_has_one_task_that_is_named_after_it_from_the_beginning() {
    let mut world = three_nodes();
    world.global("agent", |_| {});
    let mut ids = ["a", "b", "c"].into_iter().map(str::to_owned);
    let changes = orchestrate(&world.state, world.now, &mut || ids.next().unwrap());
    world.apply(changes);
    let shape = |t: &Task| (t.name.clone(), t.slot, t.node_id.clone().unwrap(), t.status.state);
    let tasks: Vec<_> = world.tasks("agent").into_iter().map(shape).collect();
    let expected =
        |id: &str, node: &str| (format!("agent.{node}.{id}"), 0, node.to_owned(), TaskState::New);
    assert_eq!(tasks, [expected("a", "n1"), expected("b", "n2"), expected("c", "n3")]);
    world.run();
    assert_eq!(nodes(&world), ["n1", "n2", "n3"]);
    let mut no_ids = || panic!("nothing is to be made");
    assert_eq!(orchestrate(&world.state, world.now, &mut no_ids), []);
}

#[test]
fn a_node_that_comes_later_gets_its_task_and_one_that_goes_takes_it_along() {
    let mut world = agent(|_| {});
    world.node("n4");
    world.run();
    assert_eq!(nodes(&world), ["n1", "n2", "n3", "n4"]);
    world.apply(vec![Change::Delete(ObjectKind::Node, "n2".to_owned())]);
    world.run();
    assert_eq!(nodes(&world), ["n1", "n3", "n4"]);
    assert_eq!(world.tasks("agent").len(), 3, "nothing is kept of a node that is gone");
}

#[test]
fn where_a_global_task_runs_follows_the_nodes() {
    type Edit = fn(&mut shoal_model::Node);
    let label: Edit = |n| drop(n.labels.insert("disk".to_owned(), "ssd".to_owned()));
    let cases: [(&str, Edit, Edit); 3] = [
        (
            "drained",
            |n| n.availability = Availability::Drain,
            |n| {
                n.availability = Availability::Active;
            },
        ),
        ("down", |n| n.status.state = NodeState::Down, |n| n.status.state = NodeState::Ready),
        ("without the label", |n| n.labels.clear(), label),
    ];
    for (what, lose, back) in cases {
        let mut world = three_nodes();
        for id in ["n1", "n2", "n3"] {
            world.set_node(id, label);
        }
        world.global("agent", |s| constrain(s, "node.labels.disk==ssd"));
        world.run();
        world.set_node("n2", lose);
        world.run();
        let kept: Vec<String> = nodes(&world).into_iter().filter(|n| n != "n2").collect();
        assert_eq!(kept, ["n1", "n3"], "{what}");
        let lost = world.tasks("agent").into_iter().find(|t| t.node_id.as_deref() == Some("n2"));
        assert_eq!(lost.unwrap().desired, TaskState::Shutdown, "{what}");
        assert_eq!(world.tasks("agent").len(), 3, "{what}: no other node gets a second one");
        world.set_node("n2", back);
        world.run();
        assert_eq!(nodes(&world), ["n1", "n2", "n3"], "{what}, and back");
    }
}

#[test]
fn on_a_paused_node_an_old_task_goes_when_the_one_that_was_started_before_it_runs() {
    let mut world = agent(|s| {
        let config = s.update_config.get_or_insert_default();
        config.parallelism = Some(0);
        config.order = Some(Order::START_FIRST);
    });
    world.update("agent");
    world.settle();
    let on_n2 = |world: &World| -> Vec<(String, TaskState)> {
        let tasks = world.tasks("agent").into_iter();
        let live =
            tasks.filter(|t| t.node_id.as_deref() == Some("n2") && t.desired <= TaskState::Running);
        live.map(|t| (t.id.clone(), t.status.state)).collect()
    };
    assert_eq!(on_n2(&world).len(), 2, "the successor is made, and the old one runs");
    world.set_node("n2", |n| n.availability = Availability::Pause);
    // Overtaken by another update, which leaves the node as it is.
    world.update("agent");
    world.run();
    let left = on_n2(&world);
    assert_eq!(left.len(), 1, "{left:?}");
    assert_eq!(left[0].1, TaskState::Running);
}

#[test]
fn a_paused_node_keeps_its_task_and_gets_neither_a_new_one_nor_an_update() {
    let mut world = agent(|s| {
        s.update_config.get_or_insert_default().parallelism = Some(0);
    });
    world.set_node("n2", |n| n.availability = Availability::Pause);
    world.update("agent");
    for _ in 0..3 {
        world.run();
        world.pass(5_000);
    }
    assert_eq!(world.of("agent").update_status.as_ref().unwrap().state, UpdateState::Completed);
    let version = world.of("agent").spec_version;
    let old: Vec<_> =
        world.running("agent").into_iter().filter(|t| t.spec_version != version).collect();
    assert_eq!(old.len(), 1, "the paused node's");
    let old = old[0].id.clone();
    world.end(&old, TaskState::Failed);
    world.pass(60_000);
    world.run();
    assert_eq!(nodes(&world), ["n1", "n3"]);
    world.set_node("n2", |n| n.availability = Availability::Active);
    world.run();
    world.pass(60_000);
    world.run();
    assert_eq!(nodes(&world), ["n1", "n2", "n3"]);
    assert!(world.running("agent").iter().all(|t| t.spec_version == version));
}

#[test]
fn an_outdated_task_of_a_node_that_is_active_again_is_replaced_without_another_update() {
    let mut world = agent(|_| {});
    world.set_node("n2", |n| n.availability = Availability::Pause);
    world.update("agent");
    for _ in 0..3 {
        world.run();
        world.pass(5_000);
    }
    let status = world.of("agent").update_status.clone();
    world.set_node("n2", |n| n.availability = Availability::Active);
    world.run();
    let version = world.of("agent").spec_version;
    assert!(world.running("agent").iter().all(|t| t.spec_version == version));
    assert_eq!(nodes(&world), ["n1", "n2", "n3"]);
    assert_eq!(world.of("agent").update_status, status);
}

#[test]
fn a_dead_task_is_restarted_on_its_node_as_the_policy_says() {
    for (condition, state, again) in [
        (Condition::ANY, TaskState::Complete, true),
        (Condition::ON_FAILURE, TaskState::Failed, true),
        (Condition::ON_FAILURE, TaskState::Complete, false),
        (Condition::NONE, TaskState::Failed, false),
    ] {
        let mut world = agent(|s| {
            s.task_template.as_mut().unwrap().restart_policy =
                Some(TaskSpecRestartPolicy { condition: Some(condition), ..Default::default() });
        });
        let dead = world.running("agent")[1].id.clone();
        world.end(&dead, state);
        world.run();
        assert_eq!(nodes(&world).len(), 2);
        world.pass(5_000);
        world.run();
        assert_eq!(nodes(&world).len() == 3, again, "{condition} {state:?}");
    }
}

#[test]
fn a_changed_constraint_stops_tasks_at_once_and_makes_others() {
    let mut world = agent(|s| constrain(s, "node.id!=n3"));
    assert_eq!(nodes(&world), ["n1", "n2"]);
    world.revise("agent", Revision::Placement, |s| constrain(s, "node.id!=n1"));
    world.settle();
    let stopped = world.tasks("agent").into_iter().find(|t| t.desired == TaskState::Shutdown);
    assert_eq!(stopped.unwrap().node_id.as_deref(), Some("n1"));
    world.run();
    assert_eq!(nodes(&world), ["n2", "n3"]);
    let version = world.of("agent").spec_version;
    let kept = world.running("agent").into_iter().filter(|t| t.spec_version != version);
    assert_eq!(kept.count(), 1, "n2's suits as it is");
}

#[test]
fn a_node_of_another_platform_gets_no_task_until_it_has_told_that_it_fits() {
    let platform = |architecture: &str| Platform {
        architecture: Some(architecture.to_owned()),
        os: Some("linux".to_owned()),
    };
    let mut world = three_nodes();
    world.set_node("n2", |n| n.description.as_mut().unwrap().architecture = "aarch64".to_owned());
    world.set_node("n3", |n| n.description = None);
    world.global("agent", |s| {
        let template = s.task_template.as_mut().unwrap();
        template.placement.get_or_insert_default().platforms = Some(vec![platform("amd64")]);
    });
    world.run();
    assert_eq!(nodes(&world), ["n1"]);
    let described = world.state.nodes["n1"].description.clone();
    world.set_node("n3", |n| n.description = described);
    world.run();
    assert_eq!(nodes(&world), ["n1", "n3"]);
}

#[test]
fn a_node_keeps_as_many_ended_tasks_as_the_history_limit_says() {
    let mut world = agent(|s| {
        s.task_template.as_mut().unwrap().restart_policy =
            Some(TaskSpecRestartPolicy { delay: Some(0), ..Default::default() });
    });
    for _ in 0..8 {
        let on_n1 = |t: &&&Task| t.node_id.as_deref() == Some("n1");
        let id = world.running("agent").iter().find(on_n1).unwrap().id.clone();
        world.end(&id, TaskState::Failed);
        world.pass(1);
        world.run();
    }
    assert_eq!(world.tasks("agent").len(), 5 + 1 + 1);
}
