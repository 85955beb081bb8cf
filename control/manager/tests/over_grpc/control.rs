//! What users ask for wrongly, in Docker's words; and logs.

use crate::support::*;
use futures_util::StreamExt;
use shoal_model::{
    ControlError, DependencyKind, DependencySpec, ErrorKind, LogOptions, NodeState, TaskState,
    docker,
};
use shoal_rpc::{LogBatch, LogLine};
use std::time::Duration;
use tokio::time::timeout;

fn publish(spec: &mut docker::ServiceSpec, published: i64) {
    let port = docker::EndpointPortConfig {
        target_port: Some(80),
        published_port: Some(published),
        ..Default::default()
    };
    spec.endpoint_spec.get_or_insert_default().ports.get_or_insert_default().push(port);
}

fn is(error: ControlError, kind: ErrorKind, text: &str) {
    assert_eq!((error.kind, error.message.as_str()), (kind, text));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_services_are_refused_with_docker_s_words() {
    let dir = tempfile::tempdir().unwrap();
    let manager = init(dir.path()).await;
    let mut first = service("web", 1, &[]);
    publish(&mut first, 8080);
    let web = manager.create_service(first.clone()).await.unwrap();

    type Edit = fn(&mut docker::ServiceSpec);
    let edits: [(Edit, &str); 21] = [
        (|s| s.name = Some("a b".into()), "name must be valid as a DNS name component: \"a b\""),
        (
            |s| s.name = Some("a".repeat(64)),
            "name must be 63 characters or fewer: \"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"",
        ),
        (|s| s.task_template = None, "TaskSpec: missing in service spec"),
        (
            |s| s.task_template.as_mut().unwrap().container_spec.as_mut().unwrap().image = None,
            "ContainerSpec: image reference must be provided",
        ),
        (|s| s.mode = service("", -1, &[]).mode, "Number of replicas must be non-negative"),
        (
            |s| s.mode.as_mut().unwrap().global = Some(Default::default()),
            "must specify only one service mode",
        ),
        (
            |s| {
                s.mode = Some(docker::ServiceSpecMode {
                    replicated_job: Some(docker::ServiceSpecModeReplicatedJob {
                        max_concurrent: Some(-1),
                        total_completions: None,
                    }),
                    ..Default::default()
                })
            },
            "Maximum concurrent jobs must not be negative",
        ),
        (
            |s| {
                let global_job = Some(Default::default());
                s.mode = Some(docker::ServiceSpecMode { global_job, ..Default::default() });
                s.update_config = Some(Default::default());
            },
            "Jobs may not have an update config",
        ),
        (
            |s| {
                let global_job = Some(Default::default());
                s.mode = Some(docker::ServiceSpecMode { global_job, ..Default::default() });
                s.rollback_config = Some(Default::default());
            },
            "Jobs may not have a rollback config",
        ),
        (
            |s| s.update_config.get_or_insert_default().monitor = Some(-1),
            "TaskSpec: update-monitor cannot be negative",
        ),
        (
            |s| s.rollback_config.get_or_insert_default().max_failure_ratio = Some(1.5),
            "TaskSpec: rollback-maxfailureratio cannot be less than 0 or bigger than 1",
        ),
        (
            |s| {
                publish(s, 9000);
                publish(s, 9000)
            },
            "EndpointSpec: duplicate published ports provided",
        ),
        (
            |s| {
                publish(s, 9000);
                s.endpoint_spec.as_mut().unwrap().mode = Some(docker::EndpointSpecModeEnum::DNSRR)
            },
            "EndpointSpec: port published with ingress mode can't be used with dnsrr mode",
        ),
        (
            |s| {
                publish(s, 9000);
                s.endpoint_spec.as_mut().unwrap().ports.as_mut().unwrap()[0].publish_mode =
                    Some(docker::EndpointPortConfigPublishModeEnum::HOST)
            },
            "EndpointSpec.Ports.PublishMode host is not supported in this version",
        ),
        (
            |s| {
                s.task_template.as_mut().unwrap().placement = Some(docker::TaskSpecPlacement {
                    constraints: Some(vec!["node.role".into()]),
                    ..Default::default()
                })
            },
            "constraint expected one operator from ==, !=: 'node.role'",
        ),
        (
            |s| {
                let spread = docker::TaskSpecPlacementSpread {
                    spread_descriptor: Some("node.hostname".into()),
                };
                s.task_template.as_mut().unwrap().placement = Some(docker::TaskSpecPlacement {
                    preferences: Some(vec![docker::TaskSpecPlacementPreferences {
                        spread: Some(spread),
                    }]),
                    ..Default::default()
                })
            },
            "Placement.Preferences: cannot spread over \"node.hostname\": give node.labels.KEY or engine.labels.KEY",
        ),
        (
            |s| {
                let named = docker::GenericResourcesInnerNamedResourceSpec {
                    kind: Some("gpu".into()),
                    value: Some("UUID1".into()),
                };
                let resources = s.task_template.as_mut().unwrap().resources.get_or_insert_default();
                resources.reservations = Some(docker::ResourceObject {
                    generic_resources: Some(vec![docker::GenericResourcesInner {
                        named_resource_spec: Some(named),
                        ..Default::default()
                    }]),
                    ..Default::default()
                });
            },
            "invalid argument for resource gpu: generic resources are asked for by number, not by name",
        ),
        (
            |s| {
                s.task_template.as_mut().unwrap().container_spec.as_mut().unwrap().secrets =
                    Some(vec![Default::default()])
            },
            "malformed secret reference",
        ),
        (
            |s| {
                s.task_template.as_mut().unwrap().container_spec.as_mut().unwrap().configs =
                    Some(vec![docker::TaskSpecContainerSpecConfigs {
                        config_id: Some("none".into()),
                        config_name: Some("site".into()),
                        file: Some(docker::TaskSpecContainerSpecFile1 {
                            name: Some("/etc/site".into()),
                            ..Default::default()
                        }),
                        runtime: None,
                    }])
            },
            "config not found: site",
        ),
        (
            |s| {
                s.task_template.as_mut().unwrap().container_spec.as_mut().unwrap().configs =
                    Some(vec![docker::TaskSpecContainerSpecConfigs {
                        config_id: Some("none".into()),
                        config_name: Some("site".into()),
                        runtime: Some(Default::default()),
                        ..Default::default()
                    }])
            },
            "malformed config reference 'site', no target provided",
        ),
        (
            |s| {
                s.task_template.as_mut().unwrap().networks =
                    Some(vec![docker::NetworkAttachmentConfig {
                        target: Some("ingress".into()),
                        ..Default::default()
                    }])
            },
            "Service cannot be explicitly attached to the ingress network \"ingress\"",
        ),
    ];
    for (edit, text) in edits {
        let mut spec = service("other", 1, &[]);
        edit(&mut spec);
        let refused = manager.create_service(spec).await.unwrap_err();
        is(
            refused,
            ErrorKind::InvalidArgument,
            &format!("rpc error: code = InvalidArgument desc = {text}"),
        );
    }
    is(
        manager.create_service(service("web", 1, &[])).await.unwrap_err(),
        ErrorKind::AlreadyExists,
        "rpc error: code = AlreadyExists desc = name conflicts with an existing object: service web already exists",
    );
    let mut clash = service("other", 1, &[]);
    publish(&mut clash, 8080);
    is(
        manager.create_service(clash).await.unwrap_err(),
        ErrorKind::InvalidArgument,
        &format!(
            "rpc error: code = InvalidArgument desc = port '8080' is already in use by service 'web' ({web}) as an ingress port"
        ),
    );
    is(
        manager.create_service(service("other", 1, &["nope"])).await.unwrap_err(),
        ErrorKind::NotFound,
        "network nope not found",
    );
    let unnamed = docker::ServiceSpec { name: None, ..service("", 0, &[]) };
    let id = manager.create_service(unnamed).await.unwrap();
    assert!(manager.store().read(|s| s.services[&id].name().contains('_')));

    is(
        manager.update_service(&web, 1, first.clone(), false).await.unwrap_err(),
        ErrorKind::Unknown,
        "rpc error: code = Unknown desc = update out of sequence",
    );
    until(&manager, "the VIP", |s| s.services[&web].endpoint.is_some()).await;
    let version = || manager.store().read(|s| s.services[&web].meta.version);
    is(
        manager.update_service(&web, version(), first.clone(), true).await.unwrap_err(),
        ErrorKind::FailedPrecondition,
        &format!(
            "rpc error: code = FailedPrecondition desc = service {web} does not have a previous spec"
        ),
    );
    // An update and back again: the template counts, the number of replicas does not.
    let spec_version = || manager.store().read(|s| s.services[&web].spec_version);
    let mut two = first.clone();
    two.mode = service("", 2, &[]).mode;
    manager.update_service(&web, version(), two.clone(), false).await.unwrap();
    assert_eq!(spec_version(), 1);
    two.task_template.as_mut().unwrap().force_update = Some(1);
    manager.update_service(&web, version(), two, false).await.unwrap();
    assert!(spec_version() > 1);
    until(&manager, "the update", |s| {
        s.services[&web].update_status.as_ref().is_some_and(|u| u.slots.is_some())
    })
    .await;
    let mut global = first.clone();
    global.mode =
        Some(docker::ServiceSpecMode { global: Some(Default::default()), ..Default::default() });
    is(
        manager.update_service(&web, version(), global, false).await.unwrap_err(),
        ErrorKind::InvalidArgument,
        "rpc error: code = InvalidArgument desc = service mode change is not allowed",
    );
    manager.update_service(&web, version(), first, true).await.unwrap();
    assert_eq!(spec_version(), 1, "tasks that still have the former version stay");
    is(
        manager.remove_service("gone").await.unwrap_err(),
        ErrorKind::NotFound,
        "service gone not found",
    );
    manager.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_stays_as_it_is_and_as_long_as_a_service_refers_to_it() {
    let dir = tempfile::tempdir().unwrap();
    let manager = init(dir.path()).await;
    let kind = DependencyKind::Secret;
    let asked = |name: &str| DependencySpec {
        name: name.to_owned(),
        data: Some(b"open sesame".to_vec().into()),
        ..DependencySpec::default()
    };
    let key = manager.create_dependency(kind, asked("key")).await.unwrap();
    is(
        manager.create_dependency(kind, asked("key")).await.unwrap_err(),
        ErrorKind::AlreadyExists,
        "rpc error: code = AlreadyExists desc = secret key already exists",
    );
    let mut spec = service("web", 1, &[]);
    spec.task_template.as_mut().unwrap().container_spec.as_mut().unwrap().secrets =
        Some(vec![docker::TaskSpecContainerSpecSecrets {
            secret_id: Some(key.clone()),
            secret_name: Some("key".into()),
            file: Some(docker::TaskSpecContainerSpecFile {
                name: Some("key".into()),
                ..Default::default()
            }),
        }]);
    let web = manager.create_service(spec).await.unwrap();
    is(
        manager.remove_dependency(kind, &key).await.unwrap_err(),
        ErrorKind::InvalidArgument,
        "rpc error: code = InvalidArgument desc = secret 'key' is in use by the following service: web",
    );
    let version = manager.store().read(|state| state.secrets[&key].meta.version);
    let relabelled = DependencySpec { data: None, ..asked("key") };
    manager.update_dependency(kind, &key, version, relabelled.clone()).await.unwrap();
    is(
        manager.update_dependency(kind, &key, version, relabelled).await.unwrap_err(),
        ErrorKind::Unknown,
        "rpc error: code = Unknown desc = update out of sequence",
    );
    manager.remove_service(&web).await.unwrap();
    manager.remove_dependency(kind, &key).await.unwrap();
    is(
        manager.remove_dependency(kind, &key).await.unwrap_err(),
        ErrorKind::NotFound,
        &format!("secret {key} not found"),
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn networks_in_use_or_ill_made_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let manager = init(dir.path()).await;
    let app = manager.create_network(overlay("app")).await.unwrap();
    is(
        manager.create_network(overlay("app")).await.unwrap_err(),
        ErrorKind::AlreadyExists,
        "network with name app already exists",
    );
    let subnet = |text: &str| {
        let config = docker::IpamConfig { subnet: Some(text.to_owned()), ..Default::default() };
        let ipam = docker::Ipam { config: Some(vec![config]), ..Default::default() };
        docker::NetworkCreateRequest { ipam: Some(ipam), ..overlay("two") }
    };
    let refused = manager.create_network(subnet("10.0.1.0/25")).await.unwrap_err();
    assert!(
        refused.message.contains("Pool overlaps with other one on this address space"),
        "{refused}"
    );
    manager.create_network(subnet("192.168.7.0/24")).await.unwrap();
    let web = manager.create_service(service("web", 1, &["app"])).await.unwrap();
    is(
        manager.remove_network(&app).await.unwrap_err(),
        ErrorKind::FailedPrecondition,
        "rpc error: code = FailedPrecondition desc = network app is in use by service web",
    );
    manager.remove_service(&web).await.unwrap();
    until(&manager, "no task", |s| s.tasks.is_empty()).await;
    manager.remove_network(&app).await.unwrap();
    manager.shutdown().await;

    let dir = tempfile::tempdir().unwrap();
    let mut small = shoal_manager::InitRequest::default();
    small.request.default_addr_pool = Some(vec!["10.0.0.0/24".to_owned()]);
    let manager =
        shoal_manager::Manager::init(config(dir.path(), loopback()), small).await.unwrap();
    is(
        manager.create_network(overlay("app")).await.unwrap_err(),
        ErrorKind::FailedPrecondition,
        "rpc error: code = FailedPrecondition desc = could not find an available, non-overlapping IPv4 address pool among the defaults to assign to the network: no /24 of 10.0.0.0/24 is free; remove a network, name a --subnet outside of the pool, or begin the swarm with a larger --default-addr-pool",
    );
    manager.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_are_drained_and_roles_stay_as_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let manager = init(dir.path()).await;
    let _agent = Agent::start(manager.listening(), manager.certificate().clone()).await;
    let own = manager.node_id().to_owned();
    until(&manager, "ready", |s| {
        let node = &s.nodes[&own];
        node.status.state == NodeState::Ready && node.overlay.address.is_some()
    })
    .await;
    let web = manager.create_service(service("web", 1, &[])).await.unwrap();
    until(&manager, "running", |s| running(s, &web).len() == 1).await;
    let version = || manager.store().read(|s| s.nodes[&own].meta.version);
    let worker =
        docker::NodeSpec { role: Some(docker::NodeSpecRoleEnum::WORKER), ..Default::default() };
    is(
        manager.update_node(&own, version(), worker).await.unwrap_err(),
        ErrorKind::FailedPrecondition,
        "rpc error: code = FailedPrecondition desc = attempting to demote the last manager of the swarm",
    );
    let drain = docker::NodeSpec {
        availability: Some(docker::NodeSpecAvailabilityEnum::DRAIN),
        labels: Some([("disk".to_owned(), "ssd".to_owned())].into()),
        ..Default::default()
    };
    manager.update_node(&own, version(), drain).await.unwrap();
    until(&manager, "drained", |s| {
        let waiting = s.tasks_of_service(&web).find(|t| t.status.state == TaskState::Pending);
        waiting.is_some_and(|t| {
            t.status.err == "no suitable node (1 node not available for new tasks)"
        })
    })
    .await;
    assert_eq!(manager.store().read(|s| s.nodes[&own].labels["disk"].clone()), "ssd");
    let refused = manager.remove_node(&own, true).await.unwrap_err();
    assert!(refused.message.contains("must be demoted to worker before removal"));
    manager.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logs_come_from_the_nodes_of_the_tasks_and_end_with_them() {
    let dir = tempfile::tempdir().unwrap();
    let manager = init(dir.path()).await;
    let addr = manager.listening();
    let mut own = Agent::start(addr, manager.certificate().clone()).await;
    let other = Agent::start(addr, join(addr, &worker_token(&manager)).await.unwrap()).await;
    until(&manager, "ready", |s| {
        s.nodes.values().filter(|n| n.status.state == NodeState::Ready).count() == 2
    })
    .await;
    let web = manager.create_service(service("web", 2, &[])).await.unwrap();
    until(&manager, "running", |s| running(s, &web).len() == 2).await;
    let tasks = manager.store().read(|s| running(s, &web));
    let of =
        |agent: &Agent| tasks.iter().find(|t| t.node_id == Some(agent.id())).unwrap().id.clone();
    let (here, there) = (of(&own), of(&other));
    // The other node is connected no more.
    let lost = other.id();
    drop(other);
    until(&manager, "down", |s| s.nodes[&lost].status.state == NodeState::Down).await;

    let options =
        LogOptions { stdout: true, stderr: true, follow: false, tail: Some(2), since: None };
    let ids = vec![here.clone(), there.clone()];
    let lines = manager.service_logs(ids, options).unwrap();
    let asked = timeout(Duration::from_secs(5), own.subscriptions.recv()).await.unwrap().unwrap();
    assert_eq!((&asked.tasks, asked.tail, asked.follow), (&vec![here.clone()], 2, false));
    let line = |text: &str, time| LogLine {
        task_id: here.clone(),
        stderr: false,
        time,
        line: text.as_bytes().to_vec(),
    };
    let batch = |lines| LogBatch { subscription: asked.id.clone(), lines };
    let batches = vec![batch(vec![line("one\n", 1)]), batch(vec![line("two\n", 2)])];
    let mut client = dispatcher(addr, &own.node).await;
    client.publish_logs(tokio_stream::iter(batches)).await.unwrap();
    let lines: Vec<_> = timeout(Duration::from_secs(5), lines.collect()).await.unwrap();
    let texts = |task: &str| -> Vec<String> {
        let own = lines.iter().filter(|l| l.task_id == task);
        own.map(|l| String::from_utf8(l.line.clone()).unwrap()).collect()
    };
    assert_eq!(texts(&here), ["one\n", "two\n"]);
    let missing = texts(&there);
    assert_eq!(missing.len(), 1);
    assert!(missing[0].contains(&format!("node {lost} is not available")), "{missing:?}");

    // A subscription that is over, or another node's, takes nothing.
    let late = client.publish_logs(tokio_stream::iter([batch(vec![])])).await.unwrap_err();
    assert_eq!(late.code(), tonic::Code::NotFound);
    // Lines of a task that was not asked for are refused.
    let again = manager.service_logs(vec![here.clone()], options).unwrap();
    let asked = timeout(Duration::from_secs(5), own.subscriptions.recv()).await.unwrap().unwrap();
    let stranger = LogLine { task_id: there, ..line("lie\n", 3) };
    let batch = LogBatch { subscription: asked.id, lines: vec![stranger] };
    let refused = client.publish_logs(tokio_stream::iter([batch])).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::PermissionDenied);
    assert_eq!(again.count().await, 0);
    manager.shutdown().await;
}
