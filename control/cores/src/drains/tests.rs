use super::*;
use crate::testing::World;
use shoal_model::{
    Availability,
    docker::{EndpointPortConfig, EndpointSpec},
};

/// A cluster with its tables, as a manager has them.
struct Cluster {
    world: World,
    tables: Tables,
    drains: Drains,
}

impl Cluster {
    /// `web` on n1 and n2, `db` on n1 on another network; n3 has nothing of either.
    fn new(published: bool) -> Cluster {
        let mut world = World::new();
        world.network("app", "10.0.1.0/24");
        world.network("back", "10.0.2.0/24");
        ["n1", "n2", "n3"].iter().for_each(|n| world.node(n));
        world.set_node("n3", |n| n.availability = Availability::Pause);
        world.service("web", 2, &["app"], |s| {
            let port = EndpointPortConfig {
                target_port: Some(80),
                published_port: Some(8080),
                ..Default::default()
            };
            let ports = published.then(|| vec![port]);
            s.endpoint_spec = Some(EndpointSpec { mode: None, ports });
        });
        world.run();
        let mut cluster = Cluster { world, tables: Tables::default(), drains: Drains::default() };
        cluster.follow();
        for node in ["n1", "n2", "n3"] {
            cluster.drains.applied(node, cluster.tables.version());
        }
        cluster
    }

    fn follow(&mut self) {
        let touched = self.tables.update(&self.world.state);
        self.drains.follow(&self.world.state, &self.tables, &touched);
    }

    /// Scales `web` to one; gives the task told to stop and its node.
    fn stop_one(&mut self) -> (String, String) {
        self.world.scale("web", 1);
        self.world.settle();
        let stopping = self.world.tasks("web").into_iter().find(|t| t.desired > TaskState::Running);
        let task = stopping.unwrap();
        let told = (task.id.clone(), task.node_id.clone().unwrap());
        self.follow();
        told
    }

    fn waits_for(&self, task: &str) -> Vec<&str> {
        self.drains.waits_for(task).unwrap().iter().map(String::as_str).collect()
    }
}

#[test]
fn a_task_is_released_when_every_node_on_its_network_has_applied_its_leaving() {
    let mut cluster = Cluster::new(false);
    let (task, node) = cluster.stop_one();
    assert_eq!(cluster.waits_for(&task), ["n1", "n2"], "n3 has no container on the network");
    cluster.drains.applied("n1", cluster.tables.version() - 1);
    assert_eq!(cluster.waits_for(&task), ["n1", "n2"], "an older generation is not enough");
    cluster.drains.applied("n1", cluster.tables.version());
    assert!(cluster.drains.poll_released().is_empty());
    cluster.drains.applied("n2", cluster.tables.version());
    assert_eq!(cluster.drains.poll_released(), BTreeMap::from([(node, vec![task])]));
    assert!(cluster.drains.poll_released().is_empty(), "told once");
}

#[test]
fn every_node_balances_to_a_published_service() {
    let mut cluster = Cluster::new(true);
    let (task, _) = cluster.stop_one();
    assert_eq!(cluster.waits_for(&task), ["n1", "n2", "n3"]);
}

#[test]
fn nobody_waits_for_a_node_that_is_down_or_removed() {
    let mut cluster = Cluster::new(true);
    cluster.world.set_node("n3", |n| n.status.state = NodeState::Down);
    let (task, _) = cluster.stop_one();
    assert_eq!(cluster.waits_for(&task), ["n1", "n2"]);
    cluster.drains.applied("n1", cluster.tables.version());
    cluster.world.set_node("n2", |n| n.status.state = NodeState::Down);
    cluster.follow();
    assert_eq!(cluster.drains.poll_released().len(), 1);
}

#[test]
fn a_task_that_ended_or_went_is_forgotten() {
    let mut cluster = Cluster::new(false);
    let (task, _) = cluster.stop_one();
    cluster.world.end(&task, TaskState::Failed);
    cluster.follow();
    assert_eq!(cluster.drains.waits_for(&task), None);
    assert!(cluster.drains.waiting.is_empty());
    cluster.drains.applied("n1", u64::MAX);
    assert!(cluster.drains.poll_released().is_empty());
}

#[test]
fn a_new_leader_waits_for_what_nodes_say_in_their_new_sessions() {
    let mut old = Cluster::new(false);
    let (task, node) = old.stop_one();
    let mut new =
        Cluster { world: old.world, tables: Tables::default(), drains: Drains::default() };
    new.follow();
    assert_eq!(new.waits_for(&task), ["n1", "n2"]);
    for other in ["n1", "n2"] {
        assert!(new.drains.reconnected(other).is_empty());
        new.drains.applied(other, new.tables.version());
    }
    assert_eq!(new.drains.poll_released(), BTreeMap::from([(node.clone(), vec![task.clone()])]));
    assert_eq!(
        new.drains.reconnected(&node),
        [task],
        "its node is told again after a reconnection"
    );
}

#[test]
fn a_task_that_never_served_is_released_at_once() {
    let mut cluster = Cluster::new(false);
    cluster.world.scale("web", 3);
    cluster.world.settle();
    cluster.follow();
    for node in ["n1", "n2"] {
        cluster.drains.applied(node, cluster.tables.version());
    }
    // The new one is still starting when it is not wanted any more.
    let (task, _) = {
        cluster.world.scale("web", 2);
        cluster.world.settle();
        let stopping = cluster.world.tasks("web");
        let task = stopping.into_iter().find(|t| t.desired > TaskState::Running).unwrap();
        (task.id.clone(), task.status.state)
    };
    cluster.follow();
    assert!(cluster.waits_for(&task).is_empty());
}
