//! The server over real sockets on loopback, asked by a real resolver; another one stands in for the
//! host's resolver.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use hickory_resolver::{
    Resolver, TokioResolver,
    config::{NameServerConfig, ResolverConfig},
    net::runtime::TokioRuntimeProvider,
    proto::rr::RecordType,
};
use shoal_dns::{Forwarder, NameServer, NameTable, Names, Served};
use shoal_model::{NetAddresses, NodeTable, TableNetwork, TableService, TableTask};
use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    sync::Arc,
};

fn at(v4: [u8; 4]) -> NetAddresses {
    NetAddresses { network_id: "n".into(), v4: v4.into(), v6: None, aliases: vec![] }
}

/// A network called `network` with one service, its VIP and its tasks.
fn table(network: &str, service: &str, vip: [u8; 4], tasks: u8) -> NameTable {
    let task = |slot: u8| TableTask {
        id: format!("t{slot}"),
        name: format!("{service}.{slot}.t{slot}"),
        slot: slot.into(),
        node_id: "node".into(),
        serving: true,
        networks: vec![at([10, 0, 9, slot])],
    };
    NameTable::new(&NodeTable {
        networks: vec![TableNetwork {
            id: "n".into(),
            name: network.into(),
            ingress: false,
            internal: false,
            subnet: "10.0.9.0/24".parse().unwrap(),
            subnet6: None,
        }],
        services: vec![TableService {
            id: "s".into(),
            name: service.into(),
            vips: vec![at(vip)],
            ports: vec![],
            tasks: (1..=tasks).map(task).collect(),
        }],
        ..NodeTable::default()
    })
}

/// Serves `table` on a port of its own; other names go to `resolvers`.
fn serve(table: NameTable, resolvers: &[SocketAddr]) -> (SocketAddr, Arc<Names>, Served) {
    // The same port for both; another test may take it in between.
    let (udp, tcp) = (0..50)
        .find_map(|_| {
            let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            let tcp = TcpListener::bind(udp.local_addr().unwrap()).ok()?;
            Some((udp, tcp))
        })
        .expect("a port free for UDP and TCP");
    let addr = udp.local_addr().unwrap();
    let names = Arc::new(Names::new(Forwarder::new(resolvers).unwrap()));
    names.set(table);
    let server = NameServer::new(Arc::clone(&names), vec!["n".into()]);
    (addr, names, server.serve(udp, tcp).unwrap())
}

fn ask(server: SocketAddr) -> TokioResolver {
    let mut config = NameServerConfig::udp_and_tcp(server.ip());
    config.connections.iter_mut().for_each(|c| c.port = server.port());
    let config = ResolverConfig::from_parts(None, vec![], vec![config]);
    let mut builder = Resolver::builder_with_config(config, TokioRuntimeProvider::default());
    builder.options_mut().cache_size = 0;
    builder.options_mut().ndots = 0;
    builder.build().unwrap()
}

async fn addresses(resolver: &TokioResolver, name: &str) -> Vec<IpAddr> {
    let found = resolver.lookup(name, RecordType::A).await.unwrap();
    found.answers().iter().filter_map(|r| r.data.ip_addr()).collect()
}

#[tokio::test]
async fn a_service_is_its_vip_and_its_tasks_take_turns_in_being_first() {
    let (server, names, _served) = serve(table("app", "web", [10, 0, 9, 200], 3), &[]);
    let resolver = ask(server);
    assert_eq!(addresses(&resolver, "web").await, [IpAddr::from([10, 0, 9, 200])]);
    let mut first = BTreeSet::new();
    for _ in 0..3 {
        let tasks = addresses(&resolver, "tasks.web").await;
        assert_eq!(tasks.len(), 3);
        first.insert(tasks[0]);
    }
    assert_eq!(first.len(), 3, "each was first once");
    assert_eq!(names.counts(), (4, 0));
}

#[tokio::test]
async fn an_unknown_single_label_is_nxdomain_and_goes_nowhere() {
    let (server, names, _served) = serve(table("app", "web", [10, 0, 9, 200], 0), &[]);
    let error = ask(server).lookup("nosuch", RecordType::A).await.unwrap_err();
    assert!(error.is_nx_domain(), "{error}");
    assert_eq!(names.counts().1, 0);
}

#[tokio::test]
async fn other_names_are_asked_of_the_hosts_resolver() {
    let (host, ..) = serve_for_ever(table("org", "example", [192, 0, 2, 7], 0));
    let (server, names, _served) = serve(table("app", "web", [10, 0, 9, 200], 0), &[host]);
    let found = addresses(&ask(server), "example.org").await;
    assert_eq!(found, [IpAddr::from([192, 0, 2, 7])]);
    assert_eq!(names.counts().1, 1);
    let error = ask(server).lookup("nosuch", RecordType::A).await.unwrap_err();
    assert!(error.is_nx_domain());
}

#[tokio::test]
async fn without_a_resolver_other_names_fail_at_once() {
    let (server, ..) = serve_for_ever(table("app", "web", [10, 0, 9, 200], 0));
    let error = ask(server).lookup("example.org", RecordType::A).await.unwrap_err();
    assert!(!error.is_nx_domain(), "a failure, not a denial: {error}");
}

#[tokio::test]
async fn a_new_table_answers_the_next_question() {
    let (server, names, _served) = serve(table("app", "web", [10, 0, 9, 200], 0), &[]);
    let resolver = ask(server);
    names.set(table("app", "web", [10, 0, 9, 201], 0));
    assert_eq!(addresses(&resolver, "web").await, [IpAddr::from([10, 0, 9, 201])]);
}

/// As [`serve`], until the test ends.
fn serve_for_ever(table: NameTable) -> (SocketAddr, Arc<Names>) {
    let (addr, names, served) = serve(table, &[]);
    std::mem::forget(served);
    (addr, names)
}
