//! From what the manager said and what is plugged in here, to what the load balancer and the
//! `shoal net` process work from. Pure.
use ipnetwork::{IpNetwork, Ipv4Network};
use serde::{Deserialize, Serialize};
use shoal_dns::NameTable;
use shoal_lb::{
    BackendEntry, Caller, EndpointEntry, IngressTaskEntry, LbTable, Local, NodeSettings, PortEntry,
    Protocol, VipEntry,
};
use shoal_links::Attachment;
use shoal_model::{NetAddresses, NodeTable, TableNetwork, TableService, TableTask};
use shoal_net::{NetEndpoint, NetPeer, NetTable};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
};

/// A container's cable, as plugged in; kept on disk so that a restarted daemon knows it again.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct LocalEndpoint {
    pub(crate) netns: PathBuf,
    pub(crate) netns_cookie: u64,
    pub(crate) host_ifname: String,
    pub(crate) ifindex: u32,
    pub(crate) mac: [u8; 6],
    pub(crate) host_mac: [u8; 6],
    pub(crate) networks: Vec<NetAddresses>,
    /// False once the container has ended; the cable stays a moment to refuse what is under way.
    pub(crate) serving: bool,
}

/// What the node itself contributes.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct NodeLinks {
    pub(crate) node_id: String,
    pub(crate) overlay_ifindex: u32,
    pub(crate) uplink_ifindex: u32,
    pub(crate) overlay_mtu: u32,
    pub(crate) addresses: Vec<IpAddr>,
}

/// Local endpoints by task id.
pub(crate) type Endpoints = BTreeMap<String, LocalEndpoint>;

/// The load balancer's table.
pub(crate) fn lb_table(table: &NodeTable, node: &NodeLinks, local: &Endpoints) -> LbTable {
    let ingress = table.networks.iter().find(|n| n.ingress);
    let mut lb = LbTable {
        node: NodeSettings {
            overlay: table.overlay,
            overlay_ifindex: node.overlay_ifindex,
            uplink_ifindex: node.uplink_ifindex,
            overlay_mtu: node.overlay_mtu,
            addresses: node.addresses.clone(),
        },
        ..LbTable::default()
    };
    for (task, endpoint) in local {
        let cable =
            Local { ifindex: endpoint.ifindex, mac: endpoint.mac, host_mac: endpoint.host_mac };
        for at in &endpoint.networks {
            lb.callers.push(Caller {
                netns_cookie: endpoint.netns_cookie,
                network: at.network_id.clone(),
            });
            lb.endpoints.extend(addresses(at).map(|address| EndpointEntry {
                address,
                network: at.network_id.clone(),
                task: Some(task.clone()),
                local: Some(cable),
            }));
        }
    }
    let networks: BTreeSet<&str> = table.networks.iter().map(|n| n.id.as_str()).collect();
    let remote = |task: &&TableTask| task.node_id != node.node_id && !local.contains_key(&task.id);
    for task in table.services.iter().flat_map(|s| &s.tasks).filter(remote) {
        for at in task.networks.iter().filter(|at| networks.contains(at.network_id.as_str())) {
            lb.endpoints.extend(addresses(at).map(|address| EndpointEntry {
                address,
                network: at.network_id.clone(),
                task: Some(task.id.clone()),
                local: None,
            }));
        }
    }
    if let Some(ingress) = ingress {
        lb.endpoints.extend(table.peers.iter().map(|peer| EndpointEntry {
            address: peer.overlay.into(),
            network: ingress.id.clone(),
            task: None,
            local: None,
        }));
    }
    let peers: BTreeMap<&str, Ipv4Addr> =
        table.peers.iter().map(|peer| (peer.node_id.as_str(), peer.overlay)).collect();
    for service in &table.services {
        lb.vips.extend(vips(service, node, local));
        if let Some(ingress) = ingress {
            published(&mut lb, &peers, ingress, service, node, local);
        }
    }
    lb
}

/// The table without backends on nodes that do not answer, known by their public keys. A service whose
/// backends would all go keeps them: it is better to try than to refuse.
pub(crate) fn without_silent(
    mut table: NodeTable,
    silent: &BTreeSet<String>,
    node: &NodeLinks,
    local: &Endpoints,
) -> NodeTable {
    let peers = table.peers.iter().filter(|peer| silent.contains(&peer.public_key));
    let nodes: BTreeSet<&str> = peers.map(|peer| peer.node_id.as_str()).collect();
    for service in &mut table.services {
        let answers = |task: &TableTask| !nodes.contains(task.node_id.as_str());
        if service.tasks.iter().any(|task| answers(task) && serves(task, node, local)) {
            service.tasks.iter_mut().for_each(|task| task.serving &= answers(task));
        }
    }
    table
}

/// A task of this node serves only while its container is plugged in here, whatever the manager
/// still believes.
fn serves(task: &TableTask, node: &NodeLinks, local: &Endpoints) -> bool {
    let here = || local.get(&task.id).is_some_and(|e| e.serving);
    task.serving && (task.node_id != node.node_id || here())
}

fn vips<'a>(
    service: &'a TableService,
    node: &'a NodeLinks,
    local: &'a Endpoints,
) -> impl Iterator<Item = VipEntry> + 'a {
    service.vips.iter().flat_map(move |vip| {
        addresses(vip).map(move |address| {
            let serving = service.tasks.iter().filter(|t| serves(t, node, local));
            let backends = serving.filter_map(|task| {
                let at = task.networks.iter().find(|at| at.network_id == vip.network_id)?;
                let own = addresses(at).find(|a| a.is_ipv4() == address.is_ipv4())?;
                Some(BackendEntry { task: task.id.clone(), address: own })
            });
            VipEntry {
                service: service.id.clone(),
                network: vip.network_id.clone(),
                address,
                backends: backends.collect(),
            }
        })
    })
}

fn published(
    lb: &mut LbTable,
    peers: &BTreeMap<&str, Ipv4Addr>,
    ingress: &TableNetwork,
    service: &TableService,
    node: &NodeLinks,
    local: &Endpoints,
) {
    if service.ports.is_empty() {
        return;
    }
    let mut keys = Vec::new();
    for task in &service.tasks {
        let at = task.networks.iter().find(|at| at.network_id == ingress.id);
        let Some(at) = at else { continue };
        let here = task.node_id == node.node_id;
        let peer = peers.get(task.node_id.as_str()).copied();
        if !here && peer.is_none() || here && !local.contains_key(&task.id) {
            continue;
        }
        let key = host_part(ingress.subnet, at.v4);
        lb.ingress_tasks.push(IngressTaskEntry {
            key,
            task: task.id.clone(),
            node: if here { None } else { peer },
            v4: at.v4,
            v6: at.v6,
        });
        if serves(task, node, local) {
            keys.push(key);
        }
    }
    lb.ports.extend(service.ports.iter().filter_map(|port| {
        Some(PortEntry {
            protocol: match port.protocol {
                6 => Protocol::Tcp,
                17 => Protocol::Udp,
                _ => return None,
            },
            published: port.published,
            target: port.target,
            service: service.id.clone(),
            tasks: keys.clone(),
        })
    }));
}

/// The `shoal net` process's table.
pub(crate) fn net_table(
    generation: u64,
    table: &NodeTable,
    mtu: u32,
    local: &Endpoints,
) -> NetTable {
    let ingress = table.networks.iter().find(|n| n.ingress).map(|n| n.id.as_str());
    let endpoints = local.iter().map(|(task, endpoint)| {
        let networks = endpoint.networks.iter().map(|at| at.network_id.clone());
        NetEndpoint {
            task: task.clone(),
            netns: endpoint.netns.clone(),
            networks: networks.filter(|n| Some(n.as_str()) != ingress).collect(),
        }
    });
    let peers = table.peers.iter().map(|peer| NetPeer {
        hostname: peer.hostname.clone(),
        public_key: peer.public_key.clone(),
        endpoint: peer.endpoint,
        allowed_ips: peer.allowed_ips.clone(),
        overlay: Some(peer.overlay),
    });
    NetTable {
        generation,
        addresses: table.overlay.map(IpAddr::V4).into_iter().collect(),
        mtu,
        peers: peers.collect(),
        names: NameTable::new(table),
        endpoints: endpoints.collect(),
    }
}

/// How a container's cable is to be addressed: one attachment per network and family. The first
/// network that is not the routing mesh's has the default route.
pub(crate) fn attachments(
    networks: &[shoal_model::Network],
    own: &[NetAddresses],
) -> Vec<Attachment> {
    let mut attachments: Vec<Attachment> = Vec::new();
    let mut at: Vec<_> = own
        .iter()
        .filter_map(|at| Some((networks.iter().find(|n| n.id == at.network_id)?, at)))
        .collect();
    at.sort_by_key(|(network, _)| network.ingress);
    for (network, at) in at {
        let pairs = [
            Some((IpAddr::V4(at.v4), IpNetwork::V4(network.subnet))),
            at.v6.zip(network.subnet6).map(|(a, n)| (IpAddr::V6(a), IpNetwork::V6(n))),
        ];
        for (address, subnet) in pairs.into_iter().flatten() {
            let first = !attachments.iter().any(|a| a.address.is_ipv4() == address.is_ipv4());
            let gateway = gateway(subnet);
            attachments.push(Attachment { address, subnet, gateway, default_route: first });
        }
    }
    attachments
}

/// The first host address of a subnet, which nobody has.
fn gateway(subnet: IpNetwork) -> IpAddr {
    match subnet {
        IpNetwork::V4(n) => Ipv4Addr::from_bits(n.network().to_bits() + 1).into(),
        IpNetwork::V6(n) => std::net::Ipv6Addr::from_bits(n.network().to_bits() + 1).into(),
    }
}

fn host_part(subnet: Ipv4Network, address: Ipv4Addr) -> u32 {
    address.to_bits() & !subnet.mask().to_bits()
}

fn addresses(at: &NetAddresses) -> impl Iterator<Item = IpAddr> + use<> {
    std::iter::once(IpAddr::V4(at.v4)).chain(at.v6.map(IpAddr::V6))
}

#[cfg(test)]
mod tests {
    use super::*;
    use shoal_model::{PublishedPort, TablePeer};

    fn at(network: &str, v4: [u8; 4]) -> NetAddresses {
        NetAddresses { network_id: network.into(), v4: v4.into(), v6: None, aliases: vec![] }
    }

    fn task(id: &str, node: &str, serving: bool, host: u8) -> TableTask {
        TableTask {
            id: id.into(),
            name: format!("web.1.{id}"),
            slot: 1,
            node_id: node.into(),
            serving,
            networks: vec![at("app", [10, 0, 1, host]), at("ing", [10, 0, 0, host])],
        }
    }

    fn table(tasks: Vec<TableTask>) -> NodeTable {
        let network = |id: &str, subnet: &str| TableNetwork {
            id: id.into(),
            name: id.into(),
            ingress: id == "ing",
            internal: false,
            subnet: subnet.parse().unwrap(),
            subnet6: None,
        };
        NodeTable {
            overlay: Some([10, 0, 0, 2].into()),
            data_path_port: 51820,
            networks: vec![network("app", "10.0.1.0/24"), network("ing", "10.0.0.0/24")],
            peers: vec![TablePeer {
                node_id: "n2".into(),
                hostname: "node2".into(),
                public_key: "k".into(),
                endpoint: "192.0.2.2:51820".parse().unwrap(),
                overlay: [10, 0, 0, 3].into(),
                allowed_ips: vec![],
            }],
            services: vec![TableService {
                id: "s".into(),
                name: "web".into(),
                vips: vec![at("app", [10, 0, 1, 2])],
                ports: vec![PublishedPort { protocol: 6, published: 8080, target: 80 }],
                tasks,
            }],
        }
    }

    fn plugged() -> LocalEndpoint {
        LocalEndpoint {
            netns: "/run/ns".into(),
            netns_cookie: 7,
            host_ifname: "v".into(),
            ifindex: 9,
            mac: [2; 6],
            host_mac: [3; 6],
            networks: vec![at("app", [10, 0, 1, 11]), at("ing", [10, 0, 0, 11])],
            serving: true,
        }
    }

    fn node() -> NodeLinks {
        NodeLinks { node_id: "n1".into(), ..NodeLinks::default() }
    }

    #[test]
    fn local_and_remote_tasks_become_backends_of_the_vip_and_of_the_port() {
        let table = table(vec![task("a", "n1", true, 11), task("b", "n2", true, 12)]);
        let lb = lb_table(&table, &node(), &Endpoints::from([("a".into(), plugged())]));
        let backends: Vec<_> = lb.vips[0].backends.iter().map(|b| b.task.as_str()).collect();
        assert_eq!(backends, ["a", "b"]);
        assert_eq!(lb.ports[0].tasks, [11, 12]);
        let nodes: Vec<_> = lb.ingress_tasks.iter().map(|t| t.node).collect();
        assert_eq!(nodes, [None, Some([10, 0, 0, 3].into())]);
        let local = lb.endpoints.iter().filter(|e| e.local.is_some()).count();
        assert_eq!((local, lb.endpoints.len()), (2, 5), "two own, two remote, one peer");
    }

    #[test]
    fn a_task_that_does_not_serve_is_reached_but_not_chosen() {
        let table = table(vec![task("b", "n2", false, 12)]);
        let lb = lb_table(&table, &node(), &Endpoints::new());
        assert!(lb.vips[0].backends.is_empty() && lb.ports[0].tasks.is_empty());
        assert!(lb.endpoints.iter().any(|e| e.task.as_deref() == Some("b")));
    }

    #[test]
    fn a_silent_nodes_backends_are_left_out_unless_there_are_no_others() {
        let both = table(vec![task("a", "n1", true, 11), task("b", "n2", true, 12)]);
        let silent = BTreeSet::from(["k".to_owned()]);
        let local = Endpoints::from([("a".into(), plugged())]);
        let lb = lb_table(&without_silent(both.clone(), &silent, &node(), &local), &node(), &local);
        assert_eq!(lb.ports[0].tasks, [11]);
        assert!(lb.endpoints.iter().any(|e| e.task.as_deref() == Some("b")), "it is reached");
        // Its own task ended: the silent node's is all there is.
        let none = Endpoints::new();
        assert_eq!(without_silent(both.clone(), &silent, &node(), &none), both);
        let other = BTreeSet::from(["other".to_owned()]);
        assert_eq!(without_silent(both.clone(), &other, &node(), &local), both);
    }

    #[test]
    fn a_local_task_without_its_cable_is_no_backend() {
        let table = table(vec![task("a", "n1", true, 11)]);
        let lb = lb_table(&table, &node(), &Endpoints::new());
        assert!(lb.vips[0].backends.is_empty() && lb.ingress_tasks.is_empty());
    }

    #[test]
    fn containers_ask_names_of_their_networks_but_not_of_the_mesh() {
        let local = Endpoints::from([("a".into(), plugged())]);
        let net = net_table(3, &table(vec![]), 1420, &local);
        assert_eq!(net.endpoints[0].networks, ["app"]);
        assert_eq!(net.peers[0].hostname, "node2");
    }
}
