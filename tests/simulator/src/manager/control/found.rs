//! The objects of a new cluster.
use super::set_rebalance;
use crate::{identity::FIRST_ROOT, world::World};
use shoal_model::{
    Availability, Change, Cluster, JoinTokens, Meta, Network, Node, NodeOverlay, NodeState,
    NodeStatus, NodeTls, Object, Role, docker,
};
use std::collections::BTreeMap;

impl World {
    /// The objects of a new cluster: all hosts have joined.
    pub(in crate::manager) fn found(&mut self) -> Vec<Change> {
        let pool = |text: &str| text.parse().expect("a constant");
        let mut spec = docker::SwarmSpec::default();
        spec.orchestration.get_or_insert_default().task_history_retention_limit =
            Some(self.config.history);
        if self.config.rebalance.as_ref().is_some_and(|r| r.everywhere) {
            set_rebalance(&mut spec, true);
        }
        let cluster = Cluster {
            id: "cluster".to_owned(),
            meta: Meta::default(),
            spec,
            root_certificate: FIRST_ROOT.to_owned(),
            root_key: "key".to_owned(),
            join_tokens: JoinTokens { worker: String::new(), manager: String::new() },
            address_pools: vec![pool("10.0.0.0/16")],
            subnet_size: self.config.subnet_size,
            ipv6_pool: "fd00:1::/48".parse().expect("a constant"),
            data_path_port: 51_820,
            removed_nodes: BTreeMap::new(),
            unlock_key: None,
            root_rotation: None,
        };
        let ingress = Network {
            id: "ingress".to_owned(),
            meta: Meta::default(),
            spec: docker::NetworkCreateRequest { name: "ingress".to_owned(), ..Default::default() },
            ingress: true,
            subnet: pool("10.255.0.0/24"),
            subnet6: None,
        };
        let mut changes = vec![
            Change::Put(Object::Cluster(Box::new(cluster))),
            Change::Put(Object::Network(Box::new(ingress))),
        ];
        for host in 0..self.config.hosts {
            let id = self.agents[host].node_id.clone();
            changes.push(Change::Put(Object::Node(Box::new(self.new_node(host, id)))));
        }
        changes
    }

    pub(crate) fn new_node(&self, host: usize, id: String) -> Node {
        let manager = host < self.config.managers;
        Node {
            id,
            meta: Meta::default(),
            name: String::new(),
            labels: BTreeMap::from([("zone".to_owned(), self.config.zones[host].to_owned())]),
            role: if manager { Role::Manager } else { Role::Worker },
            availability: Availability::Active,
            description: None,
            status: NodeStatus {
                state: NodeState::Unknown,
                message: String::new(),
                addr: String::new(),
            },
            manager_addr: None,
            overlay: NodeOverlay { public_key: None, endpoint: None, address: None },
            down_since: None,
            tls: self.tls(host).map(|tls| NodeTls {
                root: Some(tls.certificate.root.clone()),
                trust: tls.trust.clone(),
            }),
        }
    }
}
