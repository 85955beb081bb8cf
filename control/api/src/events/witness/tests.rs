use super::*;
use serde_json::{Value, json};
use shoal_model::{
    Change, Cluster, Content, Dependency, JoinTokens, Meta, NodeDescription, NodeOverlay,
    NodeState, NodeStatus, Object, UpdateState, UpdateStatus, docker,
};
use std::sync::Arc;

const SECOND: i64 = 1_000_000_000;

fn cluster(id: &str) -> Object {
    Object::Cluster(Box::new(Cluster {
        id: id.to_owned(),
        meta: Meta::default(),
        spec: docker::SwarmSpec::default(),
        root_certificate: String::new(),
        root_key: String::new(),
        join_tokens: JoinTokens { worker: String::new(), manager: String::new() },
        address_pools: Vec::new(),
        subnet_size: 24,
        ipv6_pool: "fd00::/48".parse().unwrap(),
        data_path_port: 1,
        removed_nodes: BTreeMap::new(),
        unlock_key: None,
        root_rotation: None,
    }))
}

fn node(id: &str, role: Role) -> Node {
    Node {
        id: id.to_owned(),
        meta: Meta::default(),
        name: String::new(),
        labels: BTreeMap::new(),
        role,
        availability: Availability::Active,
        description: Some(NodeDescription {
            hostname: format!("host-{id}"),
            ..NodeDescription::default()
        }),
        status: NodeStatus { state: NodeState::Ready, message: String::new(), addr: String::new() },
        manager_addr: (role == Role::Manager).then(|| "192.0.2.1:2377".to_owned()),
        overlay: NodeOverlay { public_key: None, endpoint: None, address: None },
        down_since: None,
        tls: None,
    }
}

fn service(replicas: i64, image: &str) -> docker::ServiceSpec {
    docker::ServiceSpec {
        name: Some("web".to_owned()),
        task_template: Some(docker::TaskSpec {
            container_spec: Some(docker::TaskSpecContainerSpec {
                image: Some(image.to_owned()),
                ..Default::default()
            }),
            ..Default::default()
        }),
        mode: Some(docker::ServiceSpecMode {
            replicated: Some(docker::ServiceSpecModeReplicated { replicas: Some(replicas) }),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn secret(id: &str) -> Arc<Dependency> {
    Arc::new(Dependency {
        id: id.to_owned(),
        meta: Meta::default(),
        name: format!("name-{id}"),
        labels: BTreeMap::new(),
        content: Content::from(vec![1]),
        templating: None,
    })
}

/// A cluster and who watches it.
struct Scene {
    state: State,
    witness: Witness,
}

impl Scene {
    /// One manager that leads.
    fn new() -> Scene {
        let mut state = State::default();
        let manager = Object::Node(Box::new(node("m", Role::Manager)));
        let changes = vec![Change::Put(cluster("c")), Change::Put(manager)];
        state.apply(1, Timestamp(SECOND), changes).unwrap();
        let witness = Witness::new(&state, Some("m"));
        Scene { state, witness }
    }

    fn apply(&mut self, changes: Vec<Change>) {
        let version = self.state.version + 1;
        let now = Timestamp(i64::try_from(version).unwrap() * SECOND);
        self.state.apply(version, now, changes).unwrap();
    }

    fn put(&mut self, object: Object) {
        self.apply(vec![Change::Put(object)]);
    }

    fn edit_node(&mut self, id: &str, edit: impl FnOnce(&mut Node)) {
        let mut node = self.state.nodes[id].clone();
        edit(&mut node);
        self.put(Object::Node(Box::new(node)));
    }

    fn edit_service(&mut self, edit: impl FnOnce(&mut Service)) {
        let mut service = self.state.services["s"].clone();
        edit(&mut service);
        self.put(Object::Service(Arc::new(service)));
    }

    fn look(&mut self, leader: Option<&str>) -> Vec<Event> {
        self.witness.look(&self.state, leader, Timestamp(100 * SECOND))
    }

    /// Kind, action, id and attributes of each, and the second it happened in.
    fn news(&mut self) -> Vec<Value> {
        let told = self.look(Some("m"));
        told.iter()
            .map(|event| {
                let json = event.json();
                let id = &json["Actor"]["ID"];
                json!([json["Type"], json["Action"], id, json["Actor"]["Attributes"], json["time"]])
            })
            .collect()
    }
}

#[test]
fn what_is_made_changed_and_removed_is_told_in_order_and_once() {
    let mut scene = Scene::new();
    assert!(scene.news().is_empty(), "what there is, is no news");
    scene.put(Object::Secret(secret("x")));
    scene.put(Object::Config(secret("y")));
    let expected = [
        json!(["secret", "create", "x", { "name": "name-x" }, 2]),
        json!(["config", "create", "y", { "name": "name-y" }, 3]),
    ];
    assert_eq!(scene.news(), expected);
    assert!(scene.news().is_empty());
    let mut labelled = Dependency::clone(&scene.state.configs["y"]);
    labelled.labels.insert("a".to_owned(), "b".to_owned());
    scene.put(Object::Config(Arc::new(labelled)));
    scene.apply(vec![Change::Delete(ObjectKind::Secret, "x".to_owned())]);
    let news = scene.look(Some("m"));
    assert_eq!(news[0].labels, BTreeMap::from([("a".to_owned(), "b".to_owned())]));
    let told: Vec<(Action, Timestamp)> = news.iter().map(|e| (e.action, e.time)).collect();
    let expected =
        [(Action::Update, Timestamp(4 * SECOND)), (Action::Remove, Timestamp(100 * SECOND))];
    assert_eq!(told, expected);
    assert_eq!(news[1].name, "name-x", "one that is gone still has its name");
    // What came and went between two looks was not seen.
    scene.put(Object::Secret(secret("z")));
    scene.apply(vec![Change::Delete(ObjectKind::Secret, "z".to_owned())]);
    assert!(scene.news().is_empty());
}

#[test]
fn an_update_of_a_service_tells_its_image_replicas_and_state_before_and_after() {
    let mut scene = Scene::new();
    let made = Service::new("s".to_owned(), service(2, "i:1"), Timestamp(0));
    scene.put(Object::Service(Arc::new(made)));
    assert_eq!(scene.news(), [json!(["service", "create", "s", { "name": "web" }, 2])]);
    scene.edit_service(|s| {
        s.spec = service(5, "i:2");
        s.update_status = Some(UpdateStatus::begin(UpdateState::Updating, "", Timestamp(0)));
    });
    let told = json!({
        "name": "web", "replicas.old": "2", "replicas.new": "5",
        "image.old": "i:1", "image.new": "i:2", "updatestate.new": "updating",
    });
    assert_eq!(scene.news(), [json!(["service", "update", "s", told, 3])]);
    // Two changes between two looks are one update, from the first to the last.
    for state in [UpdateState::Paused, UpdateState::RollbackStarted] {
        scene.edit_service(|s| s.update_status.as_mut().unwrap().state = state);
    }
    let told = json!({
        "name": "web", "updatestate.old": "updating", "updatestate.new": "rollback_started",
    });
    assert_eq!(scene.news(), [json!(["service", "update", "s", told, 5])]);
    scene.edit_service(|s| s.spec.mode = None);
    let told = json!({ "name": "web" });
    assert_eq!(scene.news(), [json!(["service", "update", "s", told, 6])], "no count to compare");
}

#[test]
fn an_update_of_a_node_tells_its_state_role_and_availability_before_and_after() {
    let mut scene = Scene::new();
    scene.put(Object::Node(Box::new(node("n", Role::Worker))));
    assert_eq!(scene.news(), [json!(["node", "create", "n", { "name": "host-n" }, 2])]);
    scene.edit_node("n", |n| {
        n.status.state = NodeState::Down;
        n.availability = Availability::Drain;
        n.name = "named".to_owned();
    });
    let told = json!({
        "name": "named", "state.old": "ready", "state.new": "down",
        "availability.old": "active", "availability.new": "drain",
    });
    assert_eq!(scene.news(), [json!(["node", "update", "n", told, 3])]);
    scene.edit_node("n", |n| {
        n.role = Role::Manager;
        n.manager_addr = Some("192.0.2.2:2377".to_owned());
    });
    let told = json!({ "name": "named", "role.old": "worker", "role.new": "manager" });
    assert_eq!(scene.news(), [json!(["node", "update", "n", told, 4])]);
    scene.edit_node("n", |n| n.status.state = NodeState::Ready);
    let told = json!({
        "name": "named", "state.old": "down", "state.new": "ready",
        "reachability.old": "unreachable", "reachability.new": "reachable",
    });
    assert_eq!(scene.news(), [json!(["node", "update", "n", told, 5])]);
}

#[test]
fn a_change_of_the_lead_is_told_of_both_managers_and_silence_is_none() {
    let mut scene = Scene::new();
    scene.put(Object::Node(Box::new(node("n", Role::Manager))));
    scene.news();
    assert!(scene.witness.knows(2, Some("m")) && scene.witness.knows(2, None));
    assert!(!scene.witness.knows(2, Some("n")) && !scene.witness.knows(3, Some("m")));
    assert!(scene.look(None).is_empty(), "nobody leads for a moment");
    let told: Vec<Value> = scene.look(Some("n")).iter().map(Event::json).collect();
    let lead = |old: &str, new: &str, name: &str| json!({ "name": name, "leader.old": old, "leader.new": new });
    assert_eq!(told.len(), 2);
    for (event, id, expected) in [
        (&told[0], "m", lead("true", "false", "host-m")),
        (&told[1], "n", lead("false", "true", "host-n")),
    ] {
        assert_eq!(event["Actor"], json!({ "ID": id, "Attributes": expected }));
        assert_eq!((&event["Action"], &event["time"]), (&json!("update"), &json!(100)));
    }
    assert!(scene.look(Some("n")).is_empty());
}

#[test]
fn a_state_that_came_as_a_snapshot_is_compared_whole() {
    let mut scene = Scene::new();
    scene.put(Object::Secret(secret("x")));
    scene.news();
    scene.put(Object::Secret(secret("y")));
    scene.apply(vec![Change::Delete(ObjectKind::Secret, "x".to_owned())]);
    scene.edit_node("m", |n| n.availability = Availability::Pause);
    // A copy has no memory of what was touched.
    scene.state = scene.state.clone();
    assert!(scene.state.touched_since(2).is_none());
    let mut told: Vec<String> = scene
        .news()
        .iter()
        .map(|n| format!("{} {} {}", n[0], n[1], n[2]).replace('"', ""))
        .collect();
    told.sort_unstable();
    assert_eq!(told, ["node update m", "secret create y", "secret remove x"]);
}

#[test]
fn of_another_cluster_nothing_is_news_at_first() {
    let mut scene = Scene::new();
    let mut other = State::default();
    other
        .apply(
            9,
            Timestamp(0),
            vec![Change::Put(cluster("d")), Change::Put(Object::Secret(secret("x")))],
        )
        .unwrap();
    scene.state = other;
    assert!(scene.news().is_empty());
    scene.state.apply(10, Timestamp(0), vec![Change::Put(Object::Secret(secret("y")))]).unwrap();
    assert_eq!(scene.news()[0][2], "y");
}
