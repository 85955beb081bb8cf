//! Containers with real cables, real programs between them.
#![expect(clippy::unwrap_used, reason = "a test's helpers fail by panicking")]
mod bench;

use bench::{Bench, bench_each};
use shoal_lb::{BackendEntry, Caller, EndpointEntry, Hook, Lb, LbTable, Local, VipEntry, id};
use shoal_links::{Attachment, Links, NetNs, PlugSpec, host_ifname};
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    thread,
    time::Duration,
};

/// A container on network `10.0.<net>.0/24`, whose id is `n<net>`.
struct Container {
    netns: NetNs,
    address: Ipv4Addr,
    net: u8,
    task: &'static str,
    local: Local,
}

impl Container {
    fn start(bench: &Bench, lb: &mut Lb, task: &'static str, net: u8, host: u8) -> Container {
        let netns = NetNs::create(&bench.folder.path().join("netns").join(task)).unwrap();
        let address = Ipv4Addr::new(10, 0, net, host);
        let name = host_ifname(task);
        let attachment = Attachment {
            address: address.into(),
            subnet: format!("10.0.{net}.0/24").parse().unwrap(),
            gateway: Ipv4Addr::new(10, 0, net, 1).into(),
            default_route: true,
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let plugged = runtime
            .block_on(async {
                let spec = PlugSpec {
                    netns: &netns,
                    host_ifname: &name,
                    container_ifname: "eth0",
                    attachments: &[attachment],
                    mtu: 1_380,
                };
                Links::new()?.plug(&spec).await
            })
            .unwrap();
        lb.attach_container(&name).unwrap();
        let local = Local {
            ifindex: plugged.ifindex,
            mac: plugged.container_mac,
            host_mac: plugged.host_mac,
        };
        Container { netns, address, net, task, local }
    }

    /// Whether an echo request is answered within a second.
    fn pings(&self, address: Ipv4Addr) -> bool {
        self.pings_within(address, Duration::from_secs(1))
    }

    /// Whether an echo request is answered, through the socket any process may ping with.
    fn pings_within(&self, address: Ipv4Addr, time: Duration) -> bool {
        let ping = || {
            let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::ICMPV4)).unwrap();
            socket.set_read_timeout(Some(time)).unwrap();
            socket.connect(&SocketAddr::from((address, 0)).into()).unwrap();
            let mut request = [0; 64];
            request[0] = 8;
            request[7] = 1;
            socket.send(&request).unwrap();
            let mut answer = [0; 64];
            matches!((&socket).read(&mut answer), Ok(64)) && answer[0] == 0 && answer[7] == 1
        };
        self.netns.run_in(ping).unwrap()
    }

    /// Serves its name on port 80, until the test ends.
    fn serve(&self) {
        let bind = || TcpListener::bind((self.address, 80)).unwrap();
        let listener = self.netns.run_in(bind).unwrap();
        let name = self.task;
        thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let _ = stream.write_all(name.as_bytes());
                let _ = stream.shutdown(std::net::Shutdown::Write);
                let _ = stream.read(&mut [0]);
            }
        });
    }

    /// What a process of this container, but not of the control group, is told at an address.
    fn ask(&self, address: Ipv4Addr) -> Option<String> {
        let ask = || {
            let timeout = Duration::from_secs(2);
            let mut stream = TcpStream::connect_timeout(&(address, 80).into(), timeout).ok()?;
            stream.set_read_timeout(Some(timeout)).ok()?;
            let mut said = String::new();
            stream.read_to_string(&mut said).ok()?;
            Some(said)
        };
        self.netns.run_in(ask).unwrap()
    }
}

/// All containers' addresses, and on network 1 a VIP 10.0.1.2 for `backends`.
fn table(containers: &[&Container], backends: &[&Container]) -> LbTable {
    let network = |net: u8| format!("n{net}");
    LbTable {
        endpoints: containers
            .iter()
            .map(|c| EndpointEntry {
                address: c.address.into(),
                network: network(c.net),
                task: Some(c.task.into()),
                local: Some(c.local),
            })
            .collect(),
        callers: containers
            .iter()
            .map(|c| Caller { netns_cookie: c.netns.cookie().unwrap(), network: network(c.net) })
            .collect(),
        vips: vec![VipEntry {
            service: "web".into(),
            network: network(1),
            address: Ipv4Addr::new(10, 0, 1, 2).into(),
            backends: backends
                .iter()
                .map(|c| BackendEntry { task: c.task.into(), address: c.address.into() })
                .collect(),
        }],
        ..LbTable::default()
    }
}

#[test]
fn containers_of_one_network_reach_each_other_and_those_of_another_do_not() {
    bench_each("containers", |bench| {
        let mut lb = bench.open();
        let a = Container::start(bench, &mut lb, "task-a", 1, 11);
        let b = Container::start(bench, &mut lb, "task-b", 1, 12);
        let stranger = Container::start(bench, &mut lb, "task-c", 3, 13);
        assert!(!a.pings(b.address), "nothing passes before the table says so");
        lb.apply(&table(&[&a, &b, &stranger], &[&a, &b])).unwrap();
        assert!(a.pings(b.address) && b.pings(a.address));
        assert!(!a.pings(stranger.address) && !stranger.pings(a.address));

        b.serve();
        assert_eq!(a.ask(b.address).as_deref(), Some("task-b"));
        assert_eq!(stranger.ask(b.address), None);

        let counters = lb.counters().unwrap();
        assert!(counters.drops["other_network"] > 0, "{:?}", counters.drops);
        let traffic = counters.traffic[&id("task-b")];
        assert!(traffic.rx_packets > 0 && traffic.tx_bytes > 0, "{traffic:?}");
        drop(lb);
        assert!(a.pings(b.address), "without a daemon, too");
    });
}

#[test]
fn a_vip_serves_processes_the_socket_hooks_do_not_see() {
    bench_each("fallback", |bench| {
        let mut lb = bench.open();
        let client = Container::start(bench, &mut lb, "client", 1, 11);
        let server = Container::start(bench, &mut lb, "server", 1, 12);
        let stranger = Container::start(bench, &mut lb, "stranger", 3, 13);
        let all = [&client, &server, &stranger];
        lb.apply(&table(&all, &[&server])).unwrap();
        server.serve();
        let vip = Ipv4Addr::new(10, 0, 1, 2);
        assert!(client.pings(vip), "a VIP answers ping");
        assert_eq!(client.ask(vip).as_deref(), Some("server"));
        assert_eq!(server.ask(vip).as_deref(), Some("server"), "through its own VIP");
        assert_eq!(stranger.ask(vip), None);
        assert!(!stranger.pings(vip));
        assert_eq!(lb.counters().unwrap().backends[&id("server")].connections, 2);

        lb.apply(&table(&all, &[])).unwrap();
        assert_eq!(client.ask(vip), None);
        assert!(lb.counters().unwrap().drops["no_backend"] > 0);
    });
}

#[test]
fn no_packet_is_lost_while_daemons_take_over_from_each_other() {
    bench_each("relay", |bench| {
        let mut lb = bench.open();
        let a = Container::start(bench, &mut lb, "task-a", 1, 11);
        let b = Container::start(bench, &mut lb, "task-b", 1, 12);
        lb.apply(&table(&[&a, &b], &[])).unwrap();
        assert!(a.pings(b.address));
        drop(lb);
        let (over, answered) = (AtomicBool::new(false), AtomicU32::new(0));
        thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    // A busy machine is slow, but only what is lost is never answered.
                    let answer = a.pings_within(b.address, Duration::from_secs(20));
                    assert!(answer, "after {answered:?} answers");
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            });
            for _ in 0..3 {
                let mut lb = bench.open();
                // The agent attaches again to what it finds.
                lb.attach_container(&host_ifname("task-a")).unwrap();
                lb.attach_container(&host_ifname("task-b")).unwrap();
            }
            over.store(true, Ordering::Relaxed);
        });
        assert!(answered.load(Ordering::Relaxed) > 100, "{answered:?}");
    });
}

#[test]
fn a_daemon_that_hangs_programs_up_otherwise_leaves_none_of_the_other_way() {
    bench_each("change", |bench| {
        let mut lb = bench.open();
        let a = Container::start(bench, &mut lb, "task-a", 1, 11);
        let b = Container::start(bench, &mut lb, "task-b", 1, 12);
        lb.apply(&table(&[&a, &b], &[])).unwrap();
        drop(lb);
        let mut lb = Lb::open_by(Hook::Clsact, &bench.config).unwrap();
        lb.attach_container(&host_ifname("task-a")).unwrap();
        assert!(a.pings(b.address));
        lb.detach_container(&host_ifname("task-a")).unwrap();
        assert!(!a.pings(b.address), "nothing forwards any more");
    });
}
