use crate::{
    next_due,
    testing::{World, generic_resource},
};
use shoal_model::{
    Availability, MadeBy, NodeState, Task, TaskState,
    docker::{
        EndpointPortConfig, EndpointPortConfigPublishModeEnum, EndpointSpec, ResourceObject,
        ServiceSpec, ServiceSpecUpdateConfig, TaskSpecPlacement, TaskSpecPlacementPreferences,
        TaskSpecPlacementSpread,
    },
};
use std::collections::BTreeMap;

/// `web` with all its tasks on n1 and n2; n3 has come back empty.
fn uneven(replicas: i64, edit: impl FnOnce(&mut ServiceSpec)) -> World {
    let mut world = World::new();
    for id in ["n1", "n2", "n3"] {
        world.node(id);
    }
    world.set_node("n3", |n| n.availability = Availability::Pause);
    world.service("web", replicas, &[], edit);
    world.run();
    world.set_node("n3", |n| n.availability = Availability::Active);
    world.pass(60_000);
    world
}

fn switch_on(spec: &mut ServiceSpec) {
    spec.labels.get_or_insert_default().insert("shoal.rebalance".to_owned(), "true".to_owned());
}

/// Running tasks a node.
fn spread(world: &World) -> Vec<usize> {
    let mut by_node: BTreeMap<String, usize> =
        world.state.nodes.keys().map(|id| (id.clone(), 0)).collect();
    for task in world.running("web") {
        *by_node.get_mut(task.node_id.as_ref().unwrap()).unwrap() += 1;
    }
    by_node.into_values().collect()
}

fn moves(world: &World) -> Vec<Task> {
    let tasks = world.tasks("web").into_iter();
    tasks.filter(|t| t.made_by == MadeBy::Rebalance).cloned().collect()
}

fn for_a_while(world: &mut World) {
    for _ in 0..20 {
        world.run();
        world.pass(5_000);
    }
}

#[test]
fn without_being_asked_nothing_moves() {
    let mut world = uneven(6, |_| {});
    for_a_while(&mut world);
    assert_eq!(spread(&world), [3, 3, 0]);
}

#[test]
fn one_task_after_the_other_moves_to_the_emptiest_node_and_none_is_missing_meanwhile() {
    let mut world = uneven(6, switch_on);
    world.settle();
    let first = moves(&world);
    assert_eq!(first.len(), 1);
    assert_eq!(first[0].node_id.as_deref(), Some("n3"));
    assert_eq!(world.running("web").len(), 6, "the old one goes on");
    world.run();
    assert_eq!((world.running("web").len(), moves(&world).len()), (6, 1));
    assert_eq!(next_due(&world.state, world.now).unwrap().since(world.now).as_secs(), 5);
    world.pass(4_999);
    world.run();
    assert_eq!(moves(&world).len(), 1, "it takes its time");
    for_a_while(&mut world);
    assert_eq!((spread(&world), moves(&world).len()), (vec![2, 2, 2], 2));
}

#[test]
fn a_difference_of_one_is_even() {
    let mut world = uneven(2, switch_on);
    for_a_while(&mut world);
    assert_eq!((spread(&world), moves(&world)), (vec![1, 1, 0], vec![]));
}

#[test]
fn the_cluster_s_label_is_for_all_services() {
    let mut world = uneven(6, |_| {});
    world.set_cluster(|c| {
        c.spec
            .labels
            .get_or_insert_default()
            .insert("shoal.rebalance".to_owned(), "true".to_owned());
    });
    for_a_while(&mut world);
    assert_eq!(spread(&world), [2, 2, 2]);
}

#[test]
fn asked_once_it_is_done_once() {
    let mut world = uneven(6, |_| {});
    world.set_service("web", |s| s.rebalance = true);
    for_a_while(&mut world);
    assert_eq!((spread(&world), world.of("web").rebalance), (vec![2, 2, 2], false));
    world.set_node("n3", |n| n.availability = Availability::Drain);
    world.run();
    world.set_node("n3", |n| n.availability = Availability::Active);
    for_a_while(&mut world);
    assert_eq!(spread(&world), [3, 3, 0]);
}

#[test]
fn nothing_moves_while_an_update_goes_on_or_a_task_is_missing() {
    let mut world = uneven(6, |s| {
        switch_on(s);
        let delay = Some(30_000_000_000);
        s.update_config = Some(ServiceSpecUpdateConfig { delay, ..Default::default() });
    });
    world.update("web");
    world.run();
    assert!(world.of("web").update_status.as_ref().unwrap().in_progress());
    assert_eq!(moves(&world), []);
    let mut world = uneven(6, switch_on);
    let task = world.running("web")[0].id.clone();
    world.end(&task, TaskState::Failed);
    world.settle();
    assert_eq!(moves(&world), []);
}

#[test]
fn a_move_that_fails_changes_nothing_and_is_not_tried_again_for_a_while() {
    type Fail = fn(&mut World, &str);
    let fails: [(&str, Fail); 3] = [
        ("rejected", |w, id| w.end(id, TaskState::Rejected)),
        ("node lost", |w, _| w.set_node("n3", |n| n.status.state = NodeState::Down)),
        ("node paused", |w, _| w.set_node("n3", |n| n.availability = Availability::Pause)),
    ];
    for (what, fail) in fails {
        let mut world = uneven(6, switch_on);
        let before: Vec<String> = world.running("web").iter().map(|t| t.id.clone()).collect();
        let id = if what == "node paused" {
            // Before the scheduler has seen it.
            let changes = crate::orchestrate(&world.state, world.now, &mut || "move".to_owned());
            world.apply(changes);
            "move".to_owned()
        } else {
            world.settle();
            moves(&world)[0].id.clone()
        };
        fail(&mut world, &id);
        world.run();
        world.pass(60_000);
        world.run();
        let after: Vec<String> = world.running("web").iter().map(|t| t.id.clone()).collect();
        assert_eq!(after, before, "{what}");
        world.set_node("n3", |n| {
            n.status.state = NodeState::Ready;
            n.availability = Availability::Active;
        });
        world.pass(300_000);
        for_a_while(&mut world);
        assert_eq!(spread(&world), [2, 2, 2], "{what}: in the end it works");
    }
}

#[test]
fn a_moved_task_that_ends_before_the_old_one_is_told_to_stop_is_followed_by_none() {
    for lost in [false, true] {
        let mut world = uneven(6, switch_on);
        let before: Vec<String> = world.running("web").iter().map(|t| t.id.clone()).collect();
        world.settle();
        let id = moves(&world)[0].id.clone();
        world.end(&id, TaskState::Running);
        if lost {
            world.set_node("n3", |n| n.status.state = NodeState::Down);
        } else {
            world.end(&id, TaskState::Rejected);
        }
        world.run();
        let wanted = world.tasks("web").into_iter().filter(|t| t.desired <= TaskState::Running);
        let after: Vec<String> = wanted.map(|t| t.id.clone()).collect();
        assert_eq!(after, before, "lost: {lost}");
    }
}

#[test]
fn only_nodes_that_may_take_the_task_count() {
    let mut world = uneven(6, |s| {
        switch_on(s);
        let template = s.task_template.as_mut().unwrap();
        template.placement = Some(TaskSpecPlacement {
            constraints: Some(vec!["node.id!=n3".to_owned()]),
            ..Default::default()
        });
    });
    for_a_while(&mut world);
    assert_eq!(spread(&world), [3, 3, 0]);
}

#[test]
fn nothing_is_moved_to_a_node_that_lacks_what_a_task_takes_there() {
    type Ask = fn(&mut ServiceSpec);
    let asks: [(&str, Ask); 3] = [
        ("processors", |s| reserve(s).nano_cpus = Some(64_000_000_000)),
        ("a generic resource", |s| {
            reserve(s).generic_resources = Some(vec![generic_resource("gpu", 1)]);
        }),
        ("a host port that is taken", publish),
    ];
    for (what, ask) in asks {
        let mut world = uneven(6, |_| {});
        let there = Some(vec!["node.id==n3".to_owned()]);
        world.service("other", 1, &[], |s| {
            publish(s);
            let template = s.task_template.as_mut().unwrap();
            template.placement =
                Some(TaskSpecPlacement { constraints: there, ..Default::default() });
        });
        world.run();
        world.set_service("web", |s| {
            switch_on(&mut s.spec);
            ask(&mut s.spec);
        });
        for_a_while(&mut world);
        assert_eq!(moves(&world), [], "{what}");
    }
}

fn reserve(spec: &mut ServiceSpec) -> &mut ResourceObject {
    let resources = spec.task_template.get_or_insert_default().resources.get_or_insert_default();
    resources.reservations.get_or_insert_default()
}

fn publish(spec: &mut ServiceSpec) {
    spec.endpoint_spec = Some(EndpointSpec {
        ports: Some(vec![EndpointPortConfig {
            target_port: Some(80),
            published_port: Some(80),
            publish_mode: Some(EndpointPortConfigPublishModeEnum::HOST),
            ..Default::default()
        }]),
        ..Default::default()
    });
}

#[test]
fn along_a_spread_preference_it_is_the_groups_that_are_evened() {
    let zone = |world: &mut World, id: &str, zone: &str| {
        world.set_node(id, |n| drop(n.labels.insert("zone".to_owned(), zone.to_owned())));
    };
    let mut world = uneven(6, |s| {
        let template = s.task_template.as_mut().unwrap();
        template.placement = Some(TaskSpecPlacement {
            preferences: Some(vec![TaskSpecPlacementPreferences {
                spread: Some(TaskSpecPlacementSpread {
                    spread_descriptor: Some("node.labels.zone".to_owned()),
                }),
            }]),
            ..Default::default()
        });
    });
    for (id, name) in [("n1", "east"), ("n2", "east"), ("n3", "west")] {
        zone(&mut world, id, name);
    }
    world.set_service("web", |s| switch_on(&mut s.spec));
    for_a_while(&mut world);
    let spread = spread(&world);
    assert_eq!((spread[0] + spread[1], spread[2]), (3, 3), "{spread:?}");
    assert!(spread[0].abs_diff(spread[1]) <= 1, "{spread:?}");
}
