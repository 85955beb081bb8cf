use super::*;
use crate::{SubnetError, allocate_subnet, check_ports, testing::World};
use shoal_model::{
    Node,
    docker::{
        EndpointPortConfig, EndpointSpec, EndpointSpecModeEnum, Ipam, IpamConfig,
        NetworkCreateRequest, ServiceSpec,
    },
};
use std::{collections::BTreeSet, net::Ipv4Addr};

fn publish(spec: &mut ServiceSpec, published: i64) {
    let port = EndpointPortConfig {
        target_port: Some(80),
        published_port: Some(published),
        ..Default::default()
    };
    let endpoint = spec.endpoint_spec.get_or_insert_with(EndpointSpec::default);
    endpoint.ports.get_or_insert_with(Vec::new).push(port);
}

fn held(world: &World) -> Vec<Ipv4Addr> {
    let state = &world.state;
    let nodes = state.nodes.values().filter_map(|n| n.overlay.address);
    let endpoints = state.services.values().filter_map(|s| s.endpoint.as_ref());
    let vips = endpoints.flat_map(|e| &e.vips).map(|v| v.v4);
    let tasks = state.tasks.values().filter(|t| !t.status.state.is_terminal());
    nodes.chain(vips).chain(tasks.flat_map(|t| &t.networks).map(|n| n.v4)).collect()
}

#[test]
fn every_node_vip_and_task_gets_an_address_of_its_own() {
    let mut world = World::new();
    for id in ["n1", "n2", "n3"] {
        world.node(id);
    }
    world.network("app", "10.0.1.0/24");
    world.network("db", "10.0.2.0/24");
    world.service("web", 5, &["app", "db"], |s| publish(s, 8080));
    world.service("api", 5, &["app"], |_| {});
    world.run();
    let all = held(&world);
    assert_eq!(all.len(), 3 + 3 + 1 + 5 * 3 + 5);
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
    assert!(all.iter().all(|a| a.octets()[3] > 1 && a.octets()[3] < 255), "{all:?}");
    assert_eq!(allocate(&world.state, world.now), []);
    let endpoint = world.state.services["svc-web"].endpoint.clone().unwrap();
    let networks: Vec<&str> = endpoint.vips.iter().map(|v| v.network_id.as_str()).collect();
    assert_eq!(networks, ["net-ingress", "net-app", "net-db"]);
}

#[test]
fn the_address_of_an_ended_task_rests_while_there_are_others() {
    let mut world = World::new();
    world.node("n1");
    world.network("app", "10.0.1.0/28");
    world.service("web", 1, &["app"], |_| {});
    world.run();
    let mut given = BTreeSet::new();
    for _ in 0..4 {
        let task = world.running("web")[0].clone();
        assert!(given.insert(task.networks[0].v4), "given twice: {:?}", task.networks);
        world.end(&task.id, TaskState::Failed);
        world.pass(1);
        world.run();
        world.pass(5_000);
        world.run();
    }
    // The search goes on behind the highest in use.
    let highest = *held(&world).iter().filter(|a| a.octets()[2] == 1).max().unwrap();
    world.scale("web", 2);
    world.run();
    let newest = world.running("web").into_iter().max_by_key(|t| t.slot).unwrap().networks[0].v4;
    assert_eq!(newest.to_bits(), highest.to_bits() + 1);
}

#[test]
fn a_full_network_keeps_tasks_new_and_names_itself_until_there_is_room() {
    let mut world = World::new();
    world.node("n1");
    world.network("app", "10.0.1.0/29");
    world.service("web", 5, &["app"], |_| {});
    world.run();
    assert_eq!(world.running("web").len(), 4, "8 less network, gateway, broadcast and VIP");
    let text = |world: &World| {
        let new = world.tasks("web").into_iter().find(|t| t.status.state == TaskState::New);
        new.map(|t| t.status.err.clone())
    };
    assert!(
        text(&world)
            .unwrap()
            .starts_with("no available IPv4 addresses on network app (10.0.1.0/29)")
    );
    assert_eq!(allocate(&world.state, world.now), [], "said once");
    world.end(&world.running("web")[0].id.clone(), TaskState::Failed);
    world.run();
    assert_eq!(world.running("web").len(), 4, "an ended task's address is used in need");
}

#[test]
fn what_cannot_be_given_names_the_object_the_reason_and_the_remedy() {
    type Make = fn(&mut World);
    let cases: [(Make, &str); 4] = [
        (
            |w| w.service("web", 8, &["tiny"], |_| {}),
            "no available IPv4 addresses on network tiny (10.0.9.0/29): remove tasks, or use a network with a larger subnet",
        ),
        (
            |w| {
                w.service("full", 5, &["tiny"], |s| {
                    let mode = Some(EndpointSpecModeEnum::DNSRR);
                    s.endpoint_spec = Some(EndpointSpec { mode, ports: None });
                });
                w.run();
                w.service("web", 1, &["tiny"], |_| {});
            },
            "no virtual address for service web: no available IPv4 addresses on network tiny (10.0.9.0/29): remove tasks, or use a network with a larger subnet",
        ),
        (
            |w| {
                w.service("full", 1, &[], |s| publish(s, 8080));
                w.run();
                w.pass(1);
                w.service("web", 1, &[], |s| publish(s, 8080));
            },
            "port '8080' is already in use by service 'full' (svc-full) as an ingress port: publish another port, or remove that service",
        ),
        (
            |w| w.service("web", 1, &["gone"], |_| {}),
            "no virtual address for service web: network net-gone not found: make it again, or update the service to one that is there",
        ),
    ];
    for (make, text) in cases {
        let mut world = World::new();
        world.node("n1");
        world.network("tiny", "10.0.9.0/29");
        make(&mut world);
        world.settle();
        let new = world.tasks("web").into_iter().find(|t| t.status.state == TaskState::New);
        assert_eq!(new.map(|t| t.status.err.as_str()), Some(text));
        assert_eq!(allocate(&world.state, world.now), [], "said once");
    }
}

#[test]
fn a_service_keeps_its_vip_and_ports_over_updates() {
    let mut world = World::new();
    world.node("n1");
    world.network("app", "10.0.1.0/24");
    world.service("first", 0, &["app"], |s| publish(s, 0));
    world.service("web", 1, &["app"], |s| publish(s, 0));
    world.run();
    let before = world.state.services["svc-web"].endpoint.clone().unwrap();
    assert_eq!(before.ports[0].published, 30_001);
    world.set_service("web", |s| {
        s.spec_version = 2;
        publish(&mut s.spec, 8443);
        let template = s.spec.task_template.as_mut().unwrap();
        template.networks.as_mut().unwrap()[0].aliases = Some(vec!["www".to_owned()]);
    });
    world.run();
    let after = world.state.services["svc-web"].endpoint.clone().unwrap();
    let v4 = |e: &EndpointState| e.vips.iter().map(|v| v.v4).collect::<Vec<_>>();
    assert_eq!(v4(&before), v4(&after));
    assert_eq!(after.vips[1].aliases, ["www"]);
    assert_eq!(after.ports.iter().map(|p| p.published).collect::<Vec<_>>(), [30_001, 8443]);
}

#[test]
fn dnsrr_has_no_vip_but_its_tasks_have_addresses() {
    let mut world = World::new();
    world.node("n1");
    world.network("app", "10.0.1.0/24");
    world.service("web", 1, &["app"], |s| {
        let mode = Some(EndpointSpecModeEnum::DNSRR);
        s.endpoint_spec = Some(EndpointSpec { mode, ports: None });
    });
    world.run();
    assert_eq!(world.state.services["svc-web"].endpoint, Some(EndpointState::default()));
    assert_eq!(world.running("web")[0].networks.len(), 1);
}

#[test]
fn a_port_in_use_names_the_service_that_has_it() {
    let mut world = World::new();
    world.node("n1");
    world.service("web", 1, &[], |s| publish(s, 8080));
    world.run();
    let mut spec = ServiceSpec::default();
    publish(&mut spec, 8080);
    assert_eq!(
        check_ports(&world.state, None, &spec).unwrap_err().to_string(),
        "port '8080' is already in use by service 'web' (svc-web) as an ingress port"
    );
    assert_eq!(check_ports(&world.state, Some("svc-web"), &spec), Ok(()));
    // Two asked at the same time: the later one is told, its tasks wait, and get it when it is free.
    world.pass(1);
    world.service("api", 1, &[], |s| publish(s, 8080));
    world.run();
    let api = world.state.services["svc-api"].endpoint.clone().unwrap();
    assert!(api.err.contains("by service 'web'"), "{}", api.err);
    assert_eq!(world.tasks("api")[0].status.err, api.err);
    world.apply(vec![Change::Delete(ObjectKind::Service, "svc-web".to_owned())]);
    world.run();
    assert_eq!(world.running("api").len(), 1);
    assert_eq!(world.tasks("api")[0].status.err, "");
}

#[test]
fn an_ipv6_network_gives_both_addresses_with_the_same_host_number() {
    let mut world = World::new();
    world.node("n1");
    world.network_with("app", "10.0.1.0/24", |n| {
        n.subnet6 = Some("fd00:1:0:7::/64".parse().unwrap())
    });
    world.service("web", 1, &["app"], |_| {});
    world.run();
    let task = world.running("web")[0].networks[0].clone();
    assert_eq!(task.v4.to_string(), "10.0.1.3");
    assert_eq!(task.v6.unwrap().to_string(), "fd00:1:0:7::3");
}

fn request(subnet: Option<&str>, ipv6: bool) -> NetworkCreateRequest {
    let config =
        subnet.map(|s| vec![IpamConfig { subnet: Some(s.to_owned()), ..Default::default() }]);
    NetworkCreateRequest {
        name: "new".to_owned(),
        enable_ipv6: Some(ipv6),
        ipam: config.map(|config| Ipam { config: Some(config), ..Default::default() }),
        ..Default::default()
    }
}

#[test]
fn a_network_gets_the_lowest_subnet_nobody_has() {
    let mut world = World::new();
    world.network("one", "10.0.1.0/24");
    world.network("wide", "10.0.2.128/25");
    world.network("far", "10.0.4.0/22");
    let subnet = |world: &World, r| {
        allocate_subnet(&world.state, &r)
            .map(|(v4, v6)| (v4.to_string(), v6.map(|n| n.to_string())))
    };
    assert_eq!(subnet(&world, request(None, false)), Ok(("10.0.3.0/24".to_owned(), None)));
    world.network("three", "10.0.3.0/24");
    assert_eq!(
        subnet(&world, request(None, true)),
        Ok(("10.0.8.0/24".to_owned(), Some("fd00:1::/64".to_owned())))
    );
    assert_eq!(
        subnet(&world, request(Some("172.30.5.9/16"), false)),
        Ok(("172.30.0.0/16".to_owned(), None))
    );
}

#[test]
fn a_subnet_that_cannot_be_had_says_why() {
    let mut world = World::new();
    let refused = |world: &World, r| allocate_subnet(&world.state, &r).unwrap_err();
    assert_eq!(
        refused(&world, request(Some("10.0.0.0/16"), false)).to_string(),
        "invalid pool request: Pool overlaps with other one on this address space: 10.0.0.0/16 overlaps network ingress (10.0.0.0/24)"
    );
    for wrong in ["10.0.1.0/31", "224.0.0.0/8", "nonsense", "fd00:9::/64"] {
        assert!(
            matches!(refused(&world, request(Some(wrong), false)), SubnetError::Invalid { .. }),
            "{wrong}"
        );
    }
    world.set_cluster(|c| c.address_pools = vec!["10.0.0.0/23".parse().unwrap()]);
    assert!(allocate_subnet(&world.state, &request(None, false)).is_ok());
    world.network("last", "10.0.1.0/24");
    assert_eq!(
        refused(&world, request(None, false)).to_string(),
        "could not find an available, non-overlapping IPv4 address pool among the defaults to assign to the network: no /24 of 10.0.0.0/23 is free; remove a network, name a --subnet outside of the pool, or begin the swarm with a larger --default-addr-pool"
    );
}

#[test]
fn a_removed_network_s_subnet_is_not_given_again_while_its_tasks_stop() {
    let mut world = World::new();
    world.node("n1");
    world.network("app", "10.0.1.0/24");
    world.service("web", 1, &["app"], |_| {});
    world.run();
    world.apply(vec![
        Change::Delete(ObjectKind::Service, "svc-web".to_owned()),
        Change::Delete(ObjectKind::Network, "net-app".to_owned()),
    ]);
    world.settle();
    let next = |world: &World| allocate_subnet(&world.state, &request(None, false)).unwrap().0;
    assert_eq!(next(&world).to_string(), "10.0.2.0/24");
    assert!(allocate_subnet(&world.state, &request(Some("10.0.1.0/24"), false)).is_err());
    world.run();
    assert_eq!(next(&world).to_string(), "10.0.1.0/24");
}

#[test]
fn a_cluster_publishes_no_more_ports_than_its_nodes_have_tables_for() {
    let mut world = World::new();
    world.service("web", 0, &[], |s| (1..=250).for_each(|port| publish(s, port)));
    let wants = |ports: i64| {
        let mut spec = ServiceSpec::default();
        (1..=ports).for_each(|port| publish(&mut spec, 1_000 + port));
        check_ports(&world.state, None, &spec)
    };
    assert_eq!(wants(6), Ok(()));
    let refused = wants(7).unwrap_err().to_string();
    assert!(refused.contains("250 of 256") && refused.contains("7 more"), "{refused}");
}

#[test]
fn a_service_that_asks_for_nothing_has_what_the_allocator_would_say() {
    let mut world = World::new();
    world.network("app", "10.0.1.0/24");
    world.service("bare", 0, &[], |_| {});
    world.service("attached", 0, &["app"], |_| {});
    world.service("dnsrr", 0, &["app"], |s| {
        let mode = Some(EndpointSpecModeEnum::DNSRR);
        s.endpoint_spec = Some(EndpointSpec { mode, ports: None });
    });
    world.settle();
    for name in ["bare", "dnsrr"] {
        let service = world.of(name);
        assert!(service.endpoint.is_some());
        assert_eq!(crate::free_endpoint(&service.spec), service.endpoint, "{name}");
    }
    assert_eq!(crate::free_endpoint(&world.of("attached").spec), None);
}

#[test]
fn a_node_for_which_the_routing_mesh_has_no_address_says_so_until_it_has_one() {
    let mut world = World::new();
    // 10.0.0.0/24 without the network, the gateway and the broadcast.
    let ids: Vec<String> = (0..254).map(|n| format!("n{n:03}")).collect();
    ids.iter().for_each(|id| world.node(id));
    world.settle();
    let without: Vec<&Node> =
        world.state.nodes.values().filter(|n| n.overlay.address.is_none()).collect();
    assert_eq!(without.len(), 1);
    let (id, message) = (without[0].id.clone(), &without[0].status.message);
    assert!(message.contains("no address is left in network ingress (10.0.0.0/24)"), "{message}");
    world.set_node(&id, |n| n.status.state = NodeState::Down);
    world.set_node(&id, |n| n.status.message = "heartbeat failure".to_owned());
    world.settle();
    assert_eq!(world.state.nodes[&id].status.message, "heartbeat failure");
    world.set_node(&id, |n| n.status.state = NodeState::Ready);
    world.settle();
    assert!(world.state.nodes[&id].status.message.starts_with("it takes no tasks"));
    let other = ids.iter().find(|other| **other != id).unwrap();
    world.apply(vec![Change::Delete(ObjectKind::Node, other.clone())]);
    world.settle();
    assert!(world.state.nodes[&id].overlay.address.is_some());
    assert_eq!(world.state.nodes[&id].status.message, "");
}

#[test]
fn the_routing_meshs_network_can_be_made_anew_and_nodes_get_addresses_there() {
    let mut world = World::new();
    ["n1", "n2"].iter().for_each(|n| world.node(n));
    world.service("web", 1, &[], |s| publish(s, 8080));
    world.run();
    let address = |world: &World, node: &str| world.state.nodes[node].overlay.address.unwrap();
    let before = address(&world, "n1");
    let gone = vec![Change::Delete(ObjectKind::Network, "net-ingress".to_owned())];
    let mut state = world.state.clone();
    let refused = state.apply(state.version + 1, world.now, gone.clone()).unwrap_err();
    assert_eq!(refused.to_string(), "network 'ingress' is in use by the following service: web");
    world.apply(vec![Change::Delete(ObjectKind::Service, "svc-web".to_owned())]);
    world.run();
    world.apply(gone);
    world.service("web", 1, &[], |s| publish(s, 8080));
    world.node("n3");
    world.run();
    assert_eq!(address(&world, "n1"), before, "kept as long as there is no other");
    assert_eq!(world.running("web").len(), 0);
    assert!(world.tasks("web")[0].status.err.contains("no ingress network is present"));
    let message = |world: &World| world.state.nodes["n3"].status.message.clone();
    assert!(message(&world).contains("--ingress"), "{}", message(&world));

    // Others keep off what the nodes still have; the next of the mesh's may be where the last was.
    let subnet = |ingress| {
        let spec = NetworkCreateRequest { ingress: Some(ingress), ..Default::default() };
        allocate_subnet(&world.state, &spec).unwrap().0.to_string()
    };
    assert_eq!((subnet(false), subnet(true)), ("10.0.1.0/24".into(), "10.0.0.0/24".into()));

    ["n4", "n5", "n6"].iter().for_each(|n| world.node(n));
    let subnet = Some("10.9.0.0/29".to_owned());
    let config = Some(vec![IpamConfig { subnet, ..Default::default() }]);
    let ipam = Some(Ipam { config, ..Default::default() });
    let small = NetworkCreateRequest { ingress: Some(true), ipam, ..Default::default() };
    let refused = allocate_subnet(&world.state, &small).unwrap_err().to_string();
    assert!(refused.contains("6 nodes and has 5"), "{refused}");

    world.network_with("mesh", "10.9.0.0/16", |n| n.ingress = true);
    // The nodes have not moved yet.
    let spec = NetworkCreateRequest::default();
    assert_eq!(allocate_subnet(&world.state, &spec).unwrap().0.to_string(), "10.0.1.0/24");
    world.run();
    assert_eq!(allocate_subnet(&world.state, &spec).unwrap().0.to_string(), "10.0.0.0/24");
    let mesh = world.state.ingress().unwrap().clone();
    let all: BTreeSet<Ipv4Addr> = ["n1", "n2", "n3"].map(|n| address(&world, n)).into();
    assert!(all.len() == 3 && all.iter().all(|at| mesh.subnet.contains(*at)), "{all:?}");
    assert_eq!(message(&world), "");
    assert_eq!(world.running("web")[0].networks[0].network_id, "net-mesh");
    let second =
        Network { id: "net-other".to_owned(), subnet: "10.8.0.0/24".parse().unwrap(), ..mesh };
    let second = Network {
        spec: NetworkCreateRequest { name: "other".to_owned(), ..Default::default() },
        meta: Default::default(),
        ..second
    };
    let change = vec![Change::Put(Object::Network(Box::new(second)))];
    let refused = world.state.apply(world.state.version + 1, world.now, change).unwrap_err();
    assert_eq!(refused.to_string(), "ingress network (net-mesh) is already present");
}
