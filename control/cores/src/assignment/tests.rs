use super::*;
use crate::testing::World;
use shoal_model::{
    Availability, Change, ContainerStatus, Object, ObjectKind,
    docker::{EndpointPortConfig, EndpointSpec},
};

/// `web` on n1 and n2 in network app, `db` on n2 only in network back; `pub` published, on n1.
fn world() -> World {
    let mut world = World::new();
    world.network("app", "10.0.1.0/24");
    world.network("back", "10.0.2.0/24");
    world.node("n1");
    world.node("n2");
    world.service("web", 2, &["app"], |_| {});
    world.run();
    world.set_node("n1", |n| n.availability = Availability::Pause);
    world.service("db", 1, &["back"], |_| {});
    world.run();
    world.set_node("n1", |n| n.availability = Availability::Active);
    world.set_node("n2", |n| n.availability = Availability::Pause);
    world.service("pub", 1, &["back"], |s| {
        let port = EndpointPortConfig {
            target_port: Some(80),
            published_port: Some(8080),
            ..Default::default()
        };
        s.endpoint_spec = Some(EndpointSpec { mode: None, ports: Some(vec![port]) });
    });
    world.node("n3");
    world.set_node("n3", |n| n.availability = Availability::Pause);
    world.run();
    world
}

fn names(table: &NodeTable) -> Vec<&str> {
    table.services.iter().map(|s| s.name.as_str()).collect()
}

#[test]
fn a_node_is_told_only_of_the_networks_it_takes_part_in() {
    let world = world();
    let n3 = assignment(&world.state, "n3");
    assert!(n3.tasks.is_empty());
    let networks: Vec<&str> = n3.table.networks.iter().map(|n| n.name.as_str()).collect();
    assert_eq!(networks, ["ingress"]);
    assert_eq!(names(&n3.table), ["pub"], "published, so every node must know it");
    let published = &n3.table.services[0];
    assert_eq!(published.vips.len(), 1);
    assert_eq!(published.tasks[0].networks.len(), 1, "not its address on back");
    let n1 = n3.table.peers.iter().find(|p| p.node_id == "n1").unwrap();
    assert_eq!(n1.allowed_ips.len(), 2, "its own and the published task's: {:?}", n1.allowed_ips);

    let n1 = assignment(&world.state, "n1");
    assert_eq!(names(&n1.table), ["db", "pub", "web"]);
    assert_eq!(n1.tasks.len(), 2);
    let n2 = n1.table.peers.iter().find(|p| p.node_id == "n2").unwrap();
    assert_eq!(n2.allowed_ips.len(), 3, "its own, web's and db's");
    assert!(n1.table.peers.iter().all(|p| p.node_id != "n1"));
}

#[test]
fn a_task_serves_only_while_it_runs_is_well_and_is_to_run() {
    let mut world = world();
    let serving = |world: &World| {
        let table = assignment(&world.state, "n1").table;
        let web = table.services.into_iter().find(|s| s.name == "web").unwrap();
        web.tasks.iter().filter(|t| t.serving).count()
    };
    assert_eq!(serving(&world), 2);
    let id = world.running("web")[0].id.clone();
    world.end(&id, TaskState::Starting);
    assert_eq!(serving(&world), 1);
    world.end(&id, TaskState::Running);
    let mut task = world.state.tasks[&id].clone();
    task.status.container = Some(ContainerStatus { unhealthy: true, ..Default::default() });
    world.put(Object::Task(task.clone().into()));
    assert_eq!(serving(&world), 1);
    task.meta = world.state.tasks[&id].meta;
    task.status.container = None;
    world.put(Object::Task(task.into()));
    world.scale("web", 1);
    world.settle();
    assert_eq!(serving(&world), 1);
    let stopping =
        assignment(&world.state, "n2").tasks.len() + assignment(&world.state, "n1").tasks.len();
    assert_eq!(stopping, 4, "one told to stop is assigned until it has stopped");
}

#[test]
fn a_stopping_task_of_a_removed_service_keeps_its_service_name() {
    let mut world = world();
    world.apply(vec![Change::Delete(ObjectKind::Service, "svc-db".to_owned())]);
    world.settle();
    let n2 = assignment(&world.state, "n2");
    let task = n2.tasks.iter().find(|t| t.service_name == "db").unwrap();
    assert_eq!(task.task.desired, TaskState::Remove);
    assert_eq!(task.networks.len(), 1);
    assert_eq!(names(&n2.table), ["pub", "web"]);
}

#[test]
fn a_node_that_is_not_there_gets_nothing() {
    let world = world();
    let nothing = assignment(&world.state, "gone");
    assert_eq!(nothing.tasks, []);
    assert_eq!(nothing.table, NodeTable::default());
    assert_eq!(nothing.generation, world.state.version);
}
