//! On real namespaces and links: each test makes a namespace that plays the host.
#![expect(clippy::unwrap_used, reason = "a test's helpers fail by panicking")]
use shoal_links::{
    Attachment, Links, LinksError, NetNs, PlugSpec, VETH_PREFIX, host_ifname, namespaces,
};
use std::{
    future::Future,
    net::IpAddr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

/// A folder with the namespace that plays the host; both are gone when it is dropped.
struct Host {
    folder: PathBuf,
    netns: NetNs,
}

impl Host {
    fn new(test: &str) -> Host {
        let folder =
            std::env::temp_dir().join(format!("shoal-links-{test}-{}", std::process::id()));
        let netns = NetNs::create(&folder.join("host")).expect("needs CAP_SYS_ADMIN");
        Host { folder, netns }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Runs a future with the thread in the host's namespace.
    fn run<F: Future<Output = ()>>(&self, test: impl FnOnce() -> F + Send) {
        self.netns
            .run_in(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                runtime.unwrap().block_on(test());
            })
            .unwrap();
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        for name in namespaces(&self.folder).unwrap_or_default() {
            let _ = NetNs::remove(&self.folder.join(name));
        }
        let _ = Command::new("umount").args(["-l", "--quiet"]).arg(&self.folder).status();
        let _ = std::fs::remove_dir(&self.folder);
    }
}

/// Output of `ip` in a namespace.
fn ip(netns: &NetNs, arguments: &str) -> String {
    netns
        .run_in(|| {
            let output = Command::new("ip").args(arguments.split(' ')).output().unwrap();
            assert!(output.status.success(), "ip {arguments}: {output:?}");
            String::from_utf8(output.stdout).unwrap()
        })
        .unwrap()
}

fn read_in(netns: &NetNs, path: &str) -> String {
    netns.run_in(|| std::fs::read_to_string(path)).unwrap().unwrap().trim().to_owned()
}

fn attachment(address: &str, subnet: &str, gateway: &str, default_route: bool) -> Attachment {
    Attachment {
        address: address.parse().unwrap(),
        subnet: subnet.parse().unwrap(),
        gateway: gateway.parse().unwrap(),
        default_route,
    }
}

fn two_networks() -> Vec<Attachment> {
    vec![
        attachment("10.0.1.7", "10.0.1.0/24", "10.0.1.1", true),
        attachment("10.0.0.9", "10.0.0.0/24", "10.0.0.1", false),
        attachment("fd00:1::7", "fd00:1::/64", "fd00:1::1", true),
    ]
}

fn spec<'a>(netns: &'a NetNs, name: &'a str, attachments: &'a [Attachment]) -> PlugSpec<'a> {
    PlugSpec { netns, host_ifname: name, container_ifname: "eth0", attachments, mtu: 1_370 }
}

#[test]
fn a_namespace_is_there_until_removed_and_removing_it_twice_is_no_error() {
    let host = Host::new("life");
    let path = host.path("c1");
    let made = NetNs::create(&path).unwrap();
    let opened = NetNs::open(&path).unwrap();
    assert_eq!(made.cookie().unwrap(), opened.cookie().unwrap());
    assert_ne!(made.cookie().unwrap(), host.netns.cookie().unwrap());
    assert_eq!(namespaces(&host.folder).unwrap(), ["c1", "host"]);
    assert!(matches!(NetNs::create(&path), Err(LinksError::NetNs { action: "create", .. })));
    NetNs::remove(&path).unwrap();
    NetNs::remove(&path).unwrap();
    assert!(!path.exists());
    assert!(matches!(NetNs::open(&path), Err(LinksError::NoNetNs { .. })));
    assert_eq!(namespaces(Path::new("/nonexistent")).unwrap(), Vec::<String>::new());
}

#[test]
fn a_file_left_by_a_restart_of_the_host_is_not_taken_for_a_namespace() {
    let host = Host::new("left");
    std::fs::write(host.path("c1"), "").unwrap();
    let error = NetNs::open(&host.path("c1")).unwrap_err();
    assert!(error.to_string().contains("restarted"), "{error}");
    NetNs::remove(&host.path("c1")).unwrap();
    assert!(!host.path("c1").exists());
}

#[test]
fn a_plugged_container_has_its_addresses_routes_and_neighbours() {
    let host = Host::new("plug");
    let container = NetNs::create(&host.path("c1")).unwrap();
    let name = host_ifname("task-1");
    let attachments = two_networks();
    host.run(|| async {
        let links = Links::new().unwrap();
        let plugged = links.plug(&spec(&container, &name, &attachments)).await.unwrap();
        assert_eq!(links.index(&name).await.unwrap(), plugged.ifindex);
        assert_eq!(links.plugged(&name).await.unwrap(), Some(plugged));
        assert_eq!(links.plugged("shv-none").await.unwrap(), None);
        assert_eq!(links.names_with_prefix(VETH_PREFIX).await.unwrap(), [name.as_str()]);
        let mac = plugged.host_mac.map(|b| format!("{b:02x}")).join(":");
        let own = plugged.container_mac.map(|b| format!("{b:02x}")).join(":");

        let link = ip(&container, "link show dev eth0");
        assert!(link.contains("mtu 1370") && link.contains("state UP") && link.contains(&own));
        assert!(ip(&container, "link show dev lo").contains("LOOPBACK,UP"));
        assert!(ip(&host.netns, &format!("link show dev {name}")).contains(&mac));

        let addresses = ip(&container, "addr show dev eth0");
        for address in ["inet 10.0.1.7/32", "inet 10.0.0.9/32", "inet6 fd00:1::7/128"] {
            assert!(addresses.contains(address), "{address} in {addresses}");
        }
        assert!(!addresses.contains("tentative"), "{addresses}");

        let routes = ip(&container, "route show");
        for route in [
            "default via 10.0.1.1 dev eth0",
            "10.0.1.1 dev eth0 proto static scope link src 10.0.1.7",
            "10.0.1.0/24 via 10.0.1.1 dev eth0 proto static src 10.0.1.7",
            "10.0.0.1 dev eth0 proto static scope link src 10.0.0.9",
            "10.0.0.0/24 via 10.0.0.1 dev eth0 proto static src 10.0.0.9",
        ] {
            assert!(routes.contains(route), "{route} in {routes}");
        }
        assert!(ip(&container, "route get 10.0.0.77").contains("src 10.0.0.9"));
        assert!(ip(&container, "route get 198.51.100.1").contains("via 10.0.1.1"));
        assert!(ip(&container, "-6 route get fd00:1::42").contains("src fd00:1::7"));
        assert!(ip(&container, "-6 route get 2001:db8::1").contains("via fd00:1::1"));

        for (family, gateway) in [("-4", "10.0.1.1"), ("-4", "10.0.0.1"), ("-6", "fd00:1::1")] {
            let neighbours = ip(&container, &format!("{family} neigh show {gateway}"));
            let wanted = format!("{gateway} dev eth0 lladdr {mac} PERMANENT");
            assert!(neighbours.contains(&wanted), "{wanted} in {neighbours}");
        }

        for (file, value) in [
            ("ipv4/conf/eth0/rp_filter", "0"),
            ("ipv6/conf/eth0/accept_ra", "0"),
            ("ipv6/conf/eth0/accept_dad", "0"),
            ("ipv4/ip_unprivileged_port_start", "0"),
        ] {
            assert_eq!(read_in(&container, &format!("/proc/sys/net/{file}")), value, "{file}");
        }
        let off = format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6");
        assert_eq!(read_in(&host.netns, &off), "1");

        links.unplug(&name).await.unwrap();
        links.unplug(&name).await.unwrap();
        assert!(links.names_with_prefix(VETH_PREFIX).await.unwrap().is_empty());
    });
}

#[test]
fn what_contradicts_itself_is_refused_and_leaves_nothing() {
    let host = Host::new("refuse");
    let container = NetNs::create(&host.path("c1")).unwrap();
    let name = host_ifname("task-2");
    host.run(|| async {
        let links = Links::new().unwrap();
        let cases = [
            (vec![attachment("10.9.1.7", "10.0.1.0/24", "10.0.1.1", true)], "in the subnet"),
            (vec![attachment("10.0.1.1", "10.0.1.0/24", "10.0.1.1", true)], "gateway's address"),
            (
                vec![
                    attachment("10.0.1.7", "10.0.1.0/24", "10.0.1.1", true),
                    attachment("10.0.2.7", "10.0.2.0/24", "10.0.2.1", true),
                ],
                "more than one default route",
            ),
        ];
        for (attachments, reason) in &cases {
            let error = links.plug(&spec(&container, &name, attachments)).await.unwrap_err();
            assert!(error.to_string().contains(reason), "{error}");
        }
        let error = links.plug(&spec(&container, "a-name-too-long-for-a-link", &[])).await;
        assert!(error.unwrap_err().to_string().contains("no name of a link"));
        assert!(links.names_with_prefix(VETH_PREFIX).await.unwrap().is_empty());
    });
}

#[test]
fn a_cable_whose_name_is_taken_is_refused_and_the_first_one_stays() {
    let host = Host::new("taken");
    let (one, two) =
        (NetNs::create(&host.path("c1")).unwrap(), NetNs::create(&host.path("c2")).unwrap());
    let name = host_ifname("task-3");
    let attachments = two_networks();
    host.run(|| async {
        let links = Links::new().unwrap();
        let plugged = links.plug(&spec(&one, &name, &attachments)).await.unwrap();
        let error = links.plug(&spec(&two, &name, &attachments)).await.unwrap_err();
        assert!(error.to_string().contains("unplug it first"), "{error}");
        assert_eq!(links.index(&name).await.unwrap(), plugged.ifindex);
        assert!(ip(&one, "addr show dev eth0").contains("10.0.1.7"));
    });
}

#[test]
fn a_cable_goes_with_its_namespace() {
    let host = Host::new("goes");
    let name = host_ifname("task-4");
    host.run(|| async {
        let links = Links::new().unwrap();
        let container = NetNs::create(&host.path("c1")).unwrap();
        links.plug(&spec(&container, &name, &two_networks())).await.unwrap();
        drop(container);
        NetNs::remove(&host.path("c1")).unwrap();
        // The kernel takes a namespace apart in the background.
        for _ in 0..200 {
            if links.names_with_prefix(VETH_PREFIX).await.unwrap().is_empty() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{name} is still there");
    });
}

#[test]
fn the_overlay_device_has_exactly_the_addresses_asked_for() {
    let host = Host::new("overlay");
    host.run(|| async {
        let links = Links::new().unwrap();
        // A bridge stands in for the TUN device: any device has MTU and addresses.
        ip(&host.netns, "link add ov0 type bridge");
        let addresses: [IpAddr; 2] = ["10.0.0.2".parse().unwrap(), "fd00::2".parse().unwrap()];
        let index = links.set_up("ov0", 1_380, &addresses).await.unwrap();
        assert_eq!(index, links.index("ov0").await.unwrap());
        let shown = ip(&host.netns, "addr show dev ov0");
        for part in ["mtu 1380", "inet 10.0.0.2/32", "inet6 fd00::2/128", ",UP"] {
            assert!(shown.contains(part), "{part} in {shown}");
        }
        assert!(!shown.contains("fe80"), "{shown}");
        links.set_up("ov0", 1_380, &["10.0.0.3".parse().unwrap()]).await.unwrap();
        let shown = ip(&host.netns, "addr show dev ov0");
        assert!(shown.contains("10.0.0.3/32"), "{shown}");
        assert!(!shown.contains("10.0.0.2/32") && !shown.contains("fd00"), "{shown}");
        assert!(matches!(links.set_up("none0", 1_380, &[]).await, Err(LinksError::NoLink(_))));
    });
}

#[test]
fn the_uplink_and_the_address_to_advertise_are_found() {
    let host = Host::new("uplink");
    let outside = NetNs::create(&host.path("outside")).unwrap();
    host.run(|| async {
        let links = Links::new().unwrap();
        let error = links.advertise_address(&[]).await.unwrap_err();
        assert!(error.to_string().starts_with("could not find the system's IP address"), "{error}");
        for (command, netns) in [
            ("link set lo up", &host.netns),
            ("link add up0 type veth peer name up1", &host.netns),
            ("addr add 192.0.2.1/24 dev up0", &host.netns),
            ("link set up0 up", &host.netns),
            ("link set up1 up", &host.netns),
            ("link add shoal0 type bridge", &host.netns),
            ("addr add 10.0.0.2/32 dev shoal0", &host.netns),
            ("link set lo up", &outside),
        ] {
            ip(netns, command);
        }
        let found = links.advertise_address(&["shoal0"]).await.unwrap();
        assert_eq!((found.address, &*found.ifname), ("192.0.2.1".parse().unwrap(), "up0"));
        let all = links.node_addresses(&["shoal0"]).await.unwrap();
        assert_eq!(all.iter().map(|a| a.address.to_string()).collect::<Vec<_>>(), ["192.0.2.1"]);
        let uplink = links.uplink_for("192.0.2.1".parse().unwrap()).await.unwrap();
        assert_eq!(uplink.ifindex, links.index("up0").await.unwrap());
        let error = links.uplink_for("192.0.2.99".parse().unwrap()).await.unwrap_err();
        assert!(error.to_string().contains("192.0.2.99"), "{error}");

        ip(&host.netns, "addr add 198.51.100.9/32 dev lo");
        ip(&host.netns, "route add default via 192.0.2.254 dev up0");
        let uplink = links.uplink_for("198.51.100.9".parse().unwrap()).await.unwrap();
        assert_eq!(uplink.ifname, "up0", "an address on lo leaves by the default route");
    });
}
