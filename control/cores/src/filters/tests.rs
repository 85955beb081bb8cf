use crate::{
    schedule,
    testing::{World, generic_resource},
};
use shoal_model::{
    Availability, GenericResource, Node, NodeState, Plugin, PluginKind, Task, TaskState,
    docker::{self, Platform, TaskSpecPlacement},
};

/// What a case does to the only node, what it asks for, and the explanation; empty: it fits.
type Case = (&'static str, fn(&mut Node), fn(&mut docker::ServiceSpec), &'static str);

fn placement(spec: &mut docker::ServiceSpec) -> &mut TaskSpecPlacement {
    template(spec).placement.get_or_insert_default()
}

fn template(spec: &mut docker::ServiceSpec) -> &mut docker::TaskSpec {
    spec.task_template.get_or_insert_default()
}

fn reserve(spec: &mut docker::ServiceSpec) -> &mut docker::ResourceObject {
    template(spec).resources.get_or_insert_default().reservations.get_or_insert_default()
}

fn container(spec: &mut docker::ServiceSpec) -> &mut docker::TaskSpecContainerSpec {
    template(spec).container_spec.get_or_insert_default()
}

fn platform(spec: &mut docker::ServiceSpec, os: &str, architecture: &str) {
    let text = |t: &str| (!t.is_empty()).then(|| t.to_owned());
    let asked = Platform { os: text(os), architecture: text(architecture) };
    placement(spec).platforms.get_or_insert_default().push(asked);
}

fn plugins(node: &mut Node, all: &[(PluginKind, &str)]) {
    let plugin =
        |(kind, name): &(PluginKind, &str)| Plugin { kind: *kind, name: (*name).to_owned() };
    node.description.as_mut().unwrap().plugins = all.iter().map(plugin).collect();
}

fn log(spec: &mut docker::ServiceSpec, driver: &str) {
    template(spec).log_driver =
        Some(docker::TaskSpecLogDriver { name: Some(driver.to_owned()), ..Default::default() });
}

fn volume(spec: &mut docker::ServiceSpec, driver: &str) {
    let driver = docker::MountVolumeOptionsDriverConfig {
        name: Some(driver.to_owned()),
        ..Default::default()
    };
    container(spec).mounts.get_or_insert_default().push(docker::Mount {
        typ: Some(docker::MountType::VOLUME),
        target: Some("/data".to_owned()),
        volume_options: Some(docker::MountVolumeOptions {
            driver_config: Some(driver),
            ..Default::default()
        }),
        ..Default::default()
    });
}

fn nothing(_: &mut Node) {}

const READY: &str = "1 node not available for new tasks";
const RESOURCES: &str = "insufficient resources on 1 node";
const PLUGIN: &str = "missing plugin on 1 node";
const CONSTRAINT: &str = "scheduling constraints not satisfied on 1 node";
const PLATFORM: &str = "unsupported platform on 1 node";

/// The node has 2 cores and 1 GiB and is a linux/x86_64.
const CASES: &[Case] = &[
    ("nothing asked", nothing, |_| {}, ""),
    ("down", |n| n.status.state = NodeState::Down, |_| {}, READY),
    ("unknown", |n| n.status.state = NodeState::Unknown, |_| {}, READY),
    ("disconnected", |n| n.status.state = NodeState::Disconnected, |_| {}, READY),
    ("paused", |n| n.availability = Availability::Pause, |_| {}, READY),
    ("drained", |n| n.availability = Availability::Drain, |_| {}, READY),
    ("all cores", nothing, |s| reserve(s).nano_cpus = Some(2_000_000_000), ""),
    ("a core too many", nothing, |s| reserve(s).nano_cpus = Some(2_000_000_001), RESOURCES),
    ("all memory", nothing, |s| reserve(s).memory_bytes = Some(1 << 30), ""),
    ("a byte too much", nothing, |s| reserve(s).memory_bytes = Some((1 << 30) + 1), RESOURCES),
    ("the largest reservation", nothing, |s| reserve(s).memory_bytes = Some(i64::MAX), RESOURCES),
    (
        "cores of a silent node",
        |n| n.description = None,
        |s| reserve(s).nano_cpus = Some(1),
        RESOURCES,
    ),
    (
        "a log driver it has",
        |n| plugins(n, &[(PluginKind::Log, "json-file")]),
        |s| log(s, "json-file"),
        "",
    ),
    (
        "a log driver it has not",
        |n| plugins(n, &[(PluginKind::Log, "json-file")]),
        |s| log(s, "gelf"),
        PLUGIN,
    ),
    (
        "the name of another kind",
        |n| plugins(n, &[(PluginKind::Volume, "gelf")]),
        |s| log(s, "gelf"),
        PLUGIN,
    ),
    ("no log", |n| plugins(n, &[(PluginKind::Log, "json-file")]), |s| log(s, "none"), ""),
    (
        "a volume driver it has",
        |n| plugins(n, &[(PluginKind::Volume, "nfs")]),
        |s| volume(s, "nfs"),
        "",
    ),
    (
        "the default volume driver",
        |n| plugins(n, &[(PluginKind::Volume, "local")]),
        |s| volume(s, ""),
        "",
    ),
    (
        "a volume driver it has not",
        |n| plugins(n, &[(PluginKind::Volume, "local")]),
        |s| volume(s, "nfs"),
        PLUGIN,
    ),
    ("a node that tells no drivers", nothing, |s| volume(s, "nfs"), ""),
    (
        "a constraint",
        nothing,
        |s| placement(s).constraints = Some(vec!["node.id == n1".to_owned()]),
        "",
    ),
    (
        "a constraint not met",
        nothing,
        |s| placement(s).constraints = Some(vec!["node.id != n1".to_owned()]),
        CONSTRAINT,
    ),
    (
        "one of two constraints",
        nothing,
        |s| {
            let both = ["node.id == n1", "node.role == manager"].map(str::to_owned);
            placement(s).constraints = Some(both.to_vec());
        },
        CONSTRAINT,
    ),
    ("its platform", nothing, |s| platform(s, "linux", "amd64"), ""),
    ("its platform in uname's word", nothing, |s| platform(s, "linux", "x86_64"), ""),
    ("any machine", nothing, |s| platform(s, "linux", ""), ""),
    ("any system", nothing, |s| platform(s, "", "amd64"), ""),
    ("another machine", nothing, |s| platform(s, "linux", "arm64"), PLATFORM),
    ("another system", nothing, |s| platform(s, "windows", "amd64"), PLATFORM),
    (
        "one of two platforms",
        nothing,
        |s| {
            platform(s, "windows", "amd64");
            platform(s, "linux", "amd64");
        },
        "",
    ),
    (
        "reasons in their order",
        nothing,
        |s| {
            platform(s, "windows", "amd64");
            placement(s).constraints = Some(vec!["node.id != n1".to_owned()]);
        },
        CONSTRAINT,
    ),
];

#[test]
fn each_filter_lets_through_and_refuses_as_swarms_does() {
    for (name, of_node, of_service, explanation) in CASES {
        let mut world = World::new();
        world.node("n1");
        world.settle();
        world.set_node("n1", of_node);
        world.service("web", 1, &[], of_service);
        world.settle();
        let task = world.tasks("web")[0];
        let told = match *explanation {
            "" => (TaskState::Assigned, String::new()),
            reason => (TaskState::Pending, format!("no suitable node ({reason})")),
        };
        assert_eq!((task.status.state, task.status.err.clone()), told, "{name}");
    }
}

#[test]
fn a_network_driver_has_to_be_there() {
    let mut world = World::new();
    world.node("n1");
    world.set_node("n1", |n| plugins(n, &[(PluginKind::Network, "overlay")]));
    world.network("app", "10.0.1.0/24");
    world.network_with("odd", "10.0.2.0/24", |n| n.spec.driver = Some("odd".to_owned()));
    world.service("web", 1, &["app"], |_| {});
    world.service("odd", 1, &["odd"], |_| {});
    world.settle();
    assert_eq!(world.tasks("web")[0].status.state, TaskState::Assigned);
    assert_eq!(world.tasks("odd")[0].status.err, format!("no suitable node ({PLUGIN})"));
}

fn publish_on_host(spec: &mut docker::ServiceSpec, port: i64) {
    spec.endpoint_spec.get_or_insert_default().ports.get_or_insert_default().push(
        docker::EndpointPortConfig {
            publish_mode: Some(docker::EndpointPortConfigPublishModeEnum::HOST),
            published_port: Some(port),
            target_port: Some(80),
            ..Default::default()
        },
    );
}

fn errors(world: &World, service: &str) -> Vec<String> {
    let waiting = |t: &&Task| t.status.state == TaskState::Pending;
    world.tasks(service).into_iter().filter(waiting).map(|t| t.status.err.clone()).collect()
}

#[test]
fn a_host_port_is_taken_once_on_a_node_until_its_task_has_ended() {
    let mut world = World::new();
    ["n1", "n2"].iter().for_each(|n| world.node(n));
    world.service("web", 3, &[], |s| publish_on_host(s, 80));
    world.run();
    world.service("other", 1, &[], |s| publish_on_host(s, 80));
    world.service("ephemeral", 3, &[], |s| publish_on_host(s, 0));
    world.run();
    assert_eq!(world.running("web").len(), 2);
    assert_eq!(world.running("ephemeral").len(), 3);
    let err = "no suitable node (host-mode port already in use on 2 nodes)";
    assert_eq!([errors(&world, "web"), errors(&world, "other")].concat(), [err, err]);
    world.scale("web", 0);
    world.settle();
    assert_eq!(errors(&world, "other"), [err], "its tasks are told to stop, and have not yet");
    world.run();
    assert_eq!(world.running("other").len(), 1);
}

#[test]
fn generic_resources_are_given_by_name_or_number_and_come_back() {
    let mut world = World::new();
    ["n1", "n2"].iter().for_each(|n| world.node(n));
    let named =
        |value: &str| GenericResource::Named { kind: "gpu".to_owned(), value: value.to_owned() };
    let discrete = |value| GenericResource::Discrete { kind: "gpu".to_owned(), value };
    world.set_node("n1", |n| {
        n.description.as_mut().unwrap().generic_resources = ["u1", "u2", "u3"].map(named).to_vec();
    });
    world.set_node("n2", |n| {
        n.description.as_mut().unwrap().generic_resources = vec![discrete(5)];
    });
    let ask = |s: &mut docker::ServiceSpec| {
        reserve(s).generic_resources = Some(vec![generic_resource("gpu", 2)]);
    };
    world.service("web", 4, &[], ask);
    world.run();
    let mut given: Vec<_> = world
        .running("web")
        .iter()
        .map(|t| (t.node_id.clone().unwrap(), t.assigned_generic_resources.clone()))
        .collect();
    given.sort();
    let n = str::to_owned;
    assert_eq!(
        given,
        [
            (n("n1"), ["u1", "u2"].map(named).to_vec()),
            (n("n2"), vec![discrete(2)]),
            (n("n2"), vec![discrete(2)]),
        ]
    );
    assert_eq!(errors(&world, "web"), ["no suitable node (insufficient resources on 2 nodes)"]);
    let first = world.running("web").into_iter().find(|t| t.node_id.as_deref() == Some("n1"));
    let first = first.unwrap().id.clone();
    world.end(&first, TaskState::Complete);
    world.run();
    let next = world.tasks("web").into_iter().find(|t| t.seat() == Some("n1"));
    assert_eq!(next.unwrap().assigned_generic_resources, ["u1", "u2"].map(named));
    assert_eq!(schedule(&world.state, world.now), []);
}
