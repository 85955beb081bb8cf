use crate::{Revision, testing::World};
use shoal_model::{
    Availability, Node, TaskState,
    docker::{
        ResourceObject, ServiceSpec, TaskSpecPlacement, TaskSpecResources, TaskSpecRestartPolicy,
    },
};

fn constrain(spec: &mut ServiceSpec, constraint: &str) {
    let template = spec.task_template.get_or_insert_default();
    template.placement = Some(TaskSpecPlacement {
        constraints: Some(vec![constraint.to_owned()]),
        ..Default::default()
    });
}

/// `web` with a task on n1 and on n2, which are labelled; n3 is not.
fn labelled(edit: impl FnOnce(&mut ServiceSpec)) -> World {
    let mut world = World::new();
    for id in ["n1", "n2", "n3"] {
        world.node(id);
    }
    for id in ["n1", "n2"] {
        world.set_node(id, |n| drop(n.labels.insert("disk".to_owned(), "ssd".to_owned())));
    }
    world.service("web", 2, &[], |s| {
        constrain(s, "node.labels.disk==ssd");
        edit(s);
    });
    world.run();
    world
}

#[test]
fn a_task_whose_node_lost_its_label_is_rejected_and_runs_elsewhere_after_its_delay() {
    let mut world = labelled(|_| {});
    world.set_node("n3", |n| drop(n.labels.insert("disk".to_owned(), "ssd".to_owned())));
    world.set_node("n1", |n| n.labels.clear());
    world.settle();
    let task = world.tasks("web").into_iter().find(|t| t.node_id.as_deref() == Some("n1")).unwrap();
    assert_eq!(
        (task.status.state, task.status.message.as_str(), task.status.err.as_str(), task.desired),
        (
            TaskState::Rejected,
            "task rejected by constraint enforcer",
            "assigned node no longer meets constraints",
            TaskState::Shutdown
        )
    );
    world.pass(5_000);
    world.run();
    let mut nodes: Vec<_> =
        world.running("web").iter().map(|t| t.node_id.clone().unwrap()).collect();
    nodes.sort();
    assert_eq!(nodes, ["n2", "n3"]);
}

#[test]
fn on_a_paused_node_nothing_is_enforced() {
    let mut world = labelled(|_| {});
    world.set_node("n1", |n| {
        n.labels.clear();
        n.availability = Availability::Pause;
    });
    world.run();
    assert_eq!(world.running("web").len(), 2);
    world.set_node("n1", |n| n.availability = Availability::Active);
    world.run();
    assert_eq!(world.running("web").len(), 1);
}

#[test]
fn constraints_are_those_the_service_has_now() {
    let mut world = labelled(|_| {});
    world.revise("web", Revision::Placement, |s| constrain(s, "node.labels.zone!=west"));
    world.run();
    assert_eq!(world.of("web").update_status, None, "every node suits");
    world.set_node("n1", |n| n.labels.clear());
    world.run();
    assert_eq!(world.running("web").len(), 2, "the label is of no interest any more");
    world.set_node("n1", |n| drop(n.labels.insert("zone".to_owned(), "west".to_owned())));
    world.settle();
    let rejected = world.tasks("web").into_iter().filter(|t| t.status.state == TaskState::Rejected);
    assert_eq!(rejected.count(), 1);
    assert_eq!(world.of("web").update_status, None, "it is no update");
}

#[test]
fn where_resources_shrank_those_that_were_there_first_stay() {
    type Edit = fn(&mut Node);
    let shrinks: [Edit; 2] = [
        |n| n.description.as_mut().unwrap().nano_cpus = 1_000_000_000,
        |n| n.description.as_mut().unwrap().memory_bytes = 1 << 28,
    ];
    for shrink in shrinks {
        let mut world = World::new();
        world.node("n1");
        for name in ["first", "second"] {
            world.service(name, 1, &[], |s| {
                let template = s.task_template.as_mut().unwrap();
                template.resources = Some(TaskSpecResources {
                    reservations: Some(ResourceObject {
                        nano_cpus: Some(1_000_000_000),
                        memory_bytes: Some(1 << 28),
                        ..Default::default()
                    }),
                    ..Default::default()
                });
                template.restart_policy =
                    Some(TaskSpecRestartPolicy { delay: Some(0), ..Default::default() });
            });
            world.run();
            world.pass(1);
        }
        assert_eq!((world.running("first").len(), world.running("second").len()), (1, 1));
        world.set_node("n1", shrink);
        world.run();
        assert_eq!((world.running("first").len(), world.running("second").len()), (1, 0));
        let waiting = world.tasks("second").into_iter().find(|t| t.desired <= TaskState::Running);
        assert_eq!(
            waiting.unwrap().status.err,
            "no suitable node (insufficient resources on 1 node)"
        );
    }
}
