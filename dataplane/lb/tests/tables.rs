//! What the maps are to hold, and the order in which they come to hold it.
#![expect(clippy::unwrap_used, reason = "a test's helpers fail by panicking")]
use proptest::prelude::*;
use shoal_lb::{
    BackendEntry, Caller, Change, Contents, EndpointEntry, IngressTaskEntry, LbTable, Local,
    NodeSettings, PortEntry, Protocol, TableError, VipEntry, contents, id, plan,
};
use shoal_maps::{
    Address, BackendKey, CallerKey, MAGLEV_SIZE, MAX_ENDPOINTS, MAX_NODE_ADDRESSES, MAX_PORTS,
    PortKey,
};
use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn address(text: &str) -> Address {
    ip(text).into()
}

fn endpoint(address: IpAddr, network: &str, task: &str) -> EndpointEntry {
    EndpointEntry { address, network: network.into(), task: Some(task.into()), local: None }
}

/// A service on network `app` with tasks `t<n>` at 10.0.1.<n>, published on 8080.
fn web(tasks: &[u8]) -> LbTable {
    LbTable {
        node: NodeSettings {
            overlay: Some(Ipv4Addr::new(10, 0, 0, 2)),
            overlay_ifindex: 7,
            uplink_ifindex: 2,
            overlay_mtu: 1_380,
            addresses: vec![ip("192.0.2.1")],
        },
        endpoints: tasks
            .iter()
            .map(|n| endpoint(Ipv4Addr::new(10, 0, 1, *n).into(), "app", &format!("t{n}")))
            .collect(),
        callers: vec![Caller { netns_cookie: 77, network: "app".into() }],
        vips: vec![VipEntry {
            service: "web".into(),
            network: "app".into(),
            address: ip("10.0.1.2"),
            backends: tasks
                .iter()
                .map(|n| BackendEntry {
                    task: format!("t{n}"),
                    address: Ipv4Addr::new(10, 0, 1, *n).into(),
                })
                .collect(),
        }],
        ports: vec![port(8_080, tasks)],
        ingress_tasks: tasks
            .iter()
            .map(|n| IngressTaskEntry {
                key: (*n).into(),
                task: format!("t{n}"),
                node: Some(Ipv4Addr::new(10, 0, 0, 3)),
                v4: Ipv4Addr::new(10, 0, 0, *n),
                v6: None,
            })
            .collect(),
    }
}

fn port(published: u16, tasks: &[u8]) -> PortEntry {
    PortEntry {
        protocol: Protocol::Tcp,
        published,
        target: 80,
        service: "web".into(),
        tasks: tasks.iter().map(|n| (*n).into()).collect(),
    }
}

fn port_key(port: u16) -> PortKey {
    PortKey { port: port.to_be_bytes(), protocol: 6, pad: 0 }
}

fn fresh(table: &LbTable) -> Contents {
    contents(table, &Contents::default()).unwrap()
}

#[test]
fn a_table_becomes_map_contents() {
    let mut table = web(&[11, 12]);
    table.endpoints[0].local =
        Some(Local { ifindex: 9, mac: [6, 0, 0, 0, 0, 1], host_mac: [2, 0, 0, 0, 0, 1] });
    table.endpoints.push(EndpointEntry {
        address: ip("10.0.0.2"),
        network: "ingress".into(),
        task: None,
        local: None,
    });
    let c = fresh(&table);
    assert_eq!((c.config.overlay, c.config.overlay_ifindex), (address("10.0.0.2"), 7));
    assert_eq!((c.config.uplink_ifindex, c.config.overlay_mtu), (2, 1_380));
    let local = c.endpoints[&address("10.0.1.11")];
    assert_eq!((local.network, local.task, local.ifindex), (id("app"), id("t11"), 9));
    assert_eq!(c.endpoints[&address("10.0.1.12")].ifindex, 0);
    assert_eq!(c.endpoints[&address("10.0.0.2")].task, 0);
    assert!(c.callers.contains(&CallerKey { netns_cookie: 77, network: id("app") }));
    let vip = c.vips[&address("10.0.1.2")];
    assert_eq!((vip.service, vip.network, vip.count), (id("web"), id("app"), 2));
    let slot = |slot| BackendKey { service: id("web"), network: id("app"), slot, pad: 0 };
    assert_eq!(c.backends[&slot(0)].address, address("10.0.1.11"));
    assert_eq!(c.backends[&slot(1)].task, id("t12"));
    assert!(c.stats.contains(&id("t11")) && c.stats.contains(&id("t12")));
    assert_eq!(c.traffic.iter().copied().collect::<Vec<_>>(), [id("t11")]);
    let published = c.ports[&port_key(8_080)];
    assert_eq!((published.backends, published.target_port), (2, [0, 80]));
    let maglev = &c.maglev[&published.maglev];
    assert_eq!(maglev.len(), MAGLEV_SIZE as usize);
    assert!(maglev.iter().all(|task| [11, 12].contains(task)));
    assert!(c.node_addresses.contains(&address("192.0.2.1")));
}

#[test]
fn vips_of_both_families_of_one_service_keep_their_backends_apart() {
    let mut table = web(&[11]);
    table.endpoints.push(endpoint(ip("fd00::11"), "app", "t11"));
    table.vips.push(VipEntry {
        address: ip("fd00::2"),
        backends: vec![BackendEntry { task: "t11".into(), address: ip("fd00::11") }],
        ..table.vips[0].clone()
    });
    let c = fresh(&table);
    for (vip, backend) in [("10.0.1.2", "10.0.1.11"), ("fd00::2", "fd00::11")] {
        let vip = c.vips[&address(vip)];
        let key = BackendKey { service: vip.service, network: vip.network, slot: 0, pad: 0 };
        assert_eq!(c.backends[&key].address, address(backend));
    }
}

#[test]
fn a_task_taken_out_of_service_keeps_its_counters_as_long_as_it_has_an_address() {
    let mut table = web(&[11, 12]);
    table.vips[0].backends.pop();
    table.ports[0].tasks.pop();
    table.ingress_tasks.pop();
    assert!(fresh(&table).stats.contains(&id("t12")));
}

#[test]
fn what_contradicts_itself_is_refused_by_name() {
    let refused = |change: fn(&mut LbTable)| {
        let mut table = web(&[11, 12]);
        change(&mut table);
        contents(&table, &Contents::default()).unwrap_err().to_string()
    };
    for (said, expected) in [
        (
            refused(|t| t.endpoints[1].address = t.endpoints[0].address),
            "address 10.0.1.11 is given to both task t11 and task t12",
        ),
        (
            refused(|t| t.vips[0].address = t.endpoints[0].address),
            "address 10.0.1.11 is given to both task t11 and service web",
        ),
        (
            refused(|t| t.endpoints[1].network = "other".into()),
            "backend 10.0.1.12 (task t12) of service web is no endpoint of network app",
        ),
        (
            refused(|t| t.vips[0].address = ip("fd00::2")),
            "backend 10.0.1.11 of VIP fd00::2 is of the other address family",
        ),
        (
            refused(|t| {
                t.vips.push(VipEntry { address: ip("10.0.1.3"), ..t.vips[0].clone() });
            }),
            "service web has two addresses of one family on network app",
        ),
        (
            refused(|t| {
                t.ports.push(PortEntry { service: "api".into(), ..t.ports[0].clone() });
            }),
            "port 8080/tcp is published by both web and api",
        ),
        (
            refused(|t| t.ports[0].target = 0),
            "service web publishes port 8080 to 0: ports are 1 to 65535",
        ),
        (
            refused(|t| t.ports[0].tasks.push(99)),
            "port 8080/tcp of service web names ingress task 99, which is unknown",
        ),
        (
            refused(|t| t.ingress_tasks[1].key = 1 << 24),
            "ingress task t12 has key 16777216: keys are 1 to 16777215, each once",
        ),
        (
            refused(|t| t.ingress_tasks[1].key = 11),
            "ingress task t12 has key 11: keys are 1 to 16777215, each once",
        ),
        (
            refused(|t| {
                t.endpoints[0].local = Some(Local { ifindex: 0, mac: [0; 6], host_mac: [0; 6] });
            }),
            "endpoint 10.0.1.11 is local but has no link",
        ),
    ] {
        assert_eq!(said, expected);
    }
}

#[test]
fn what_does_not_fit_is_refused_with_both_numbers() {
    let mut table = LbTable::default();
    for n in 0..=MAX_ENDPOINTS {
        table.endpoints.push(EndpointEntry {
            address: Ipv4Addr::from(0x0a00_0000 + n).into(),
            network: "app".into(),
            task: None,
            local: None,
        });
    }
    let error = contents(&table, &Contents::default()).unwrap_err();
    let max = MAX_ENDPOINTS as usize;
    assert!(matches!(error, TableError::TooMany { what: "endpoints", found, max: m, .. }
            if found == max + 1 && m == max));
    let said = error.to_string();
    assert!(said.starts_with("65537 endpoints do not fit a node's table of 65536: "), "{said}");

    let ports = (1..=MAX_PORTS as u16 + 1).map(|n| port(n, &[])).collect();
    let table = LbTable { ports, ..LbTable::default() };
    let error = contents(&table, &Contents::default()).unwrap_err();
    assert!(error.to_string().starts_with("257 published ports do not fit"), "{error}");
}

#[test]
fn a_port_keeps_its_table_whatever_comes_and_goes() {
    let mut table = LbTable { ports: vec![port(100, &[]), port(200, &[])], ..LbTable::default() };
    let first = fresh(&table);
    let place = |c: &Contents, p| c.ports[&port_key(p)].maglev;
    table.ports.insert(0, port(50, &[]));
    let second = contents(&table, &first).unwrap();
    assert_eq!(place(&second, 100), place(&first, 100));
    assert_eq!(place(&second, 200), place(&first, 200));
    table.ports.retain(|p| p.published != 100);
    table.ports.push(port(300, &[]));
    let third = contents(&table, &second).unwrap();
    assert_eq!(place(&third, 200), place(&first, 200));
    assert_eq!(place(&third, 50), place(&second, 50));
    assert_ne!(place(&third, 300), place(&first, 100), "not the table of the port that leaves");
}

#[test]
fn all_tables_can_be_in_use_and_be_exchanged_for_others() {
    let full = |from: u16| LbTable {
        ports: (from..from + MAX_PORTS as u16).map(|n| port(n, &[])).collect(),
        ..LbTable::default()
    };
    let old = fresh(&full(1));
    let new = contents(&full(1_000), &old).unwrap();
    assert_eq!(new.maglev.len(), MAX_PORTS as usize);
    assert_eq!(replay(&old, &new), new);
}

#[test]
fn equal_tables_need_no_change_whatever_their_order() {
    let mut turned = web(&[11, 12, 13]);
    let old = fresh(&turned);
    turned.vips[0].backends.reverse();
    turned.endpoints.reverse();
    turned.ports[0].tasks.reverse();
    assert_eq!(plan(&old, &contents(&turned, &old).unwrap()), []);
}

/// Kinds of change in order, repetitions left out.
fn kinds(changes: &[Change]) -> Vec<&'static str> {
    let mut kinds: Vec<_> = changes
        .iter()
        .map(|change| match change {
            Change::Config(_) => "config",
            Change::Stats(_, true) => "stats",
            Change::Stats(_, false) => "no stats",
            Change::Traffic(_, true) => "traffic",
            Change::Traffic(_, false) => "no traffic",
            Change::Endpoint(_, Some(_)) => "endpoint",
            Change::Endpoint(_, None) => "no endpoint",
            Change::Caller(_, true) => "caller",
            Change::Caller(_, false) => "no caller",
            Change::IngressTask(_, Some(_)) => "ingress task",
            Change::IngressTask(_, None) => "no ingress task",
            Change::Backend(_, Some(_)) => "backend",
            Change::Backend(_, None) => "no backend",
            Change::Vip(_, Some(_)) => "vip",
            Change::Vip(_, None) => "no vip",
            Change::Maglev(..) => "maglev",
            Change::Port(_, Some(_)) => "port",
            Change::Port(_, None) => "no port",
            Change::NodeAddress(_, true) => "node address",
            Change::NodeAddress(_, false) => "no node address",
        })
        .collect();
    kinds.dedup();
    kinds
}

#[test]
fn what_is_pointed_at_is_written_before_what_points_at_it() {
    let new = fresh(&web(&[11, 12]));
    assert_eq!(
        kinds(&plan(&Contents::default(), &new)),
        [
            "config",
            "stats",
            "endpoint",
            "caller",
            "ingress task",
            "backend",
            "vip",
            "maglev",
            "port",
            "node address"
        ]
    );
}

#[test]
fn what_points_is_removed_before_what_it_points_at() {
    let old = fresh(&web(&[11, 12]));
    assert_eq!(
        kinds(&plan(&old, &Contents::default())),
        [
            "config",
            "no port",
            "no node address",
            "no vip",
            "no backend",
            "no ingress task",
            "no caller",
            "no endpoint",
            "no stats"
        ]
    );
}

#[test]
fn a_growing_vip_gets_its_slots_before_its_count_and_a_shrinking_one_after() {
    let small = LbTable { ports: vec![], ingress_tasks: vec![], ..web(&[11]) };
    let large = LbTable { ports: vec![], ingress_tasks: vec![], ..web(&[11, 12]) };
    let (small, large) = (fresh(&small), fresh(&large));
    let vip = address("10.0.1.2");
    let slot = BackendKey { service: id("web"), network: id("app"), slot: 1, pad: 0 };
    let task = address("10.0.1.12");
    assert_eq!(
        plan(&small, &large),
        [
            Change::Stats(id("t12"), true),
            Change::Endpoint(task, Some(large.endpoints[&task])),
            Change::Backend(slot, Some(large.backends[&slot])),
            Change::Vip(vip, Some(large.vips[&vip])),
        ]
    );
    assert_eq!(
        plan(&large, &small),
        [
            Change::Vip(vip, Some(small.vips[&vip])),
            Change::Backend(slot, None),
            Change::Endpoint(task, None),
            Change::Stats(id("t12"), false),
        ]
    );
}

#[test]
fn when_a_map_cannot_hold_old_and_new_at_once_removals_go_first() {
    let addresses = |from: u8| LbTable {
        node: NodeSettings {
            addresses: (0..MAX_NODE_ADDRESSES as u8)
                .map(|n| Ipv4Addr::new(192, 0, 2, from + n).into())
                .collect(),
            ..NodeSettings::default()
        },
        ..web(&[11])
    };
    let (old, new) = (fresh(&addresses(1)), fresh(&addresses(2)));
    assert_eq!(kinds(&plan(&old, &new)), ["no node address", "node address"]);
    assert_eq!(replay(&old, &new), new);
}

/// Makes the changes one by one, asserting after each what a program relies on.
fn replay(old: &Contents, new: &Contents) -> Contents {
    let mut now = old.clone();
    let mut entries: BTreeMap<u32, u32> = BTreeMap::new();
    for (first, table) in &old.maglev {
        entries.extend((*first..).zip(table.iter().copied()));
    }
    fn put<K: Ord, V>(map: &mut BTreeMap<K, V>, key: K, value: Option<V>) {
        match value {
            Some(value) => map.insert(key, value),
            None => map.remove(&key),
        };
    }
    for change in plan(old, new) {
        match change {
            Change::Config(value) => now.config = value,
            Change::Stats(k, true) => _ = now.stats.insert(k),
            Change::Stats(k, false) => _ = now.stats.remove(&k),
            Change::Traffic(k, true) => _ = now.traffic.insert(k),
            Change::Traffic(k, false) => _ = now.traffic.remove(&k),
            Change::Caller(k, true) => _ = now.callers.insert(k),
            Change::Caller(k, false) => _ = now.callers.remove(&k),
            Change::NodeAddress(k, true) => _ = now.node_addresses.insert(k),
            Change::NodeAddress(k, false) => _ = now.node_addresses.remove(&k),
            Change::Endpoint(k, v) => put(&mut now.endpoints, k, v),
            Change::IngressTask(k, v) => put(&mut now.ingress_tasks, k, v),
            Change::Backend(k, v) => put(&mut now.backends, k, v),
            Change::Vip(k, v) => put(&mut now.vips, k, v),
            Change::Port(k, v) => put(&mut now.ports, k, v),
            Change::Maglev(entry, task) => _ = entries.insert(entry, task),
        }
        assert!(now.node_addresses.len() <= MAX_NODE_ADDRESSES as usize);
        assert!(now.ports.len() <= MAX_PORTS as usize);
        for vip in now.vips.values() {
            for slot in 0..vip.count {
                let (service, network) = (vip.service, vip.network);
                let key = BackendKey { service, network, slot, pad: 0 };
                let backend = now.backends.get(&key).expect("a counted slot is written");
                assert!(now.endpoints.contains_key(&backend.address), "after {change:?}");
                assert!(now.stats.contains(&backend.task), "after {change:?}");
            }
        }
        for port in now.ports.values().filter(|p| p.backends > 0) {
            for entry in port.maglev..port.maglev + MAGLEV_SIZE {
                let task = entries.get(&entry).copied().unwrap_or(0);
                assert!(now.ingress_tasks.contains_key(&task), "after {change:?}");
            }
        }
    }
    now.maglev = now
        .ports
        .values()
        .map(|p| (p.maglev, (p.maglev..p.maglev + MAGLEV_SIZE).map(|e| entries[&e]).collect()))
        .collect();
    now
}

/// A cluster's state: which of few tasks serve, on which of few ports.
fn any_table() -> impl Strategy<Value = LbTable> {
    let tasks = proptest::collection::btree_set(10_u8..20, 0..6);
    let ports = proptest::collection::btree_map(1_u16..5, proptest::bool::ANY, 0..4);
    (tasks, ports, any::<bool>(), 2_u8..4).prop_map(|(tasks, ports, other, vip)| {
        let tasks: Vec<u8> = tasks.into_iter().collect();
        let mut table = web(&tasks);
        table.ports = ports
            .into_iter()
            .map(|(p, serving)| port(p, if serving { &tasks } else { &[] }))
            .collect();
        table.vips[0].address = Ipv4Addr::new(10, 0, 1, vip).into();
        if other {
            table.vips[0].service = "api".into();
        }
        table
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn at_every_step_between_any_two_tables_programs_find_what_they_follow(
        first in any_table(), second in any_table()
    ) {
        let old = fresh(&first);
        let new = contents(&second, &old).unwrap();
        prop_assert_eq!(replay(&old, &new), new);
    }
}
