//! What the cluster is made of when it begins, and ids that tests know.

use super::Inner;
use crate::seam::{LocalState, SwarmInfo};
use ipnetwork::{Ipv4Network, Ipv6Network};
use shoal_model::{
    Availability, Change, Cluster, ControlError, JoinTokens, Meta, Network, Node, NodeDescription,
    NodeOverlay, NodeState, NodeStatus, NodeTls, Object, Role, docker,
};
use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, Ipv6Addr},
};

/// A root certificate (its key is nowhere).
const ROOT: &str = "-----BEGIN CERTIFICATE-----\n\
MIIBfDCCASGgAwIBAgIUVyc7i3sVV0bwjb18F75oy3qZelMwCgYIKoZIzj0EAwIw\n\
EzERMA8GA1UEAwwIc3dhcm0tY2EwHhcNMjYxMTIzMjIxODQwWhcNNDYxMTE4MjIx\n\
ODQwWjATMREwDwYDVQQDDAhzd2FybS1jYTBZMBMGByqGSM49AgEGCCqGSM49AwEH\n\
A0IABBkfBIbj6IZOkBEEEWVFxsvZJCgsbby+bOR1Izvaia0Z7q4XL7Q/NLTNA8s3\n\
Mz2p9oZEWuCXl6UxOIpUv5UftMmjUzBRMB0GA1UdDgQWBBREndv/lcaEjET7qKrG\n\
Wd0gJm5ESDAfBgNVHSMEGDAWgBREndv/lcaEjET7qKrGWd0gJm5ESDAPBgNVHRMB\n\
Af8EBTADAQH/MAoGCCqGSM49BAMCA0kAMEYCIQCKC7Q3YR5CJWk69CW7ptJqIgS1\n\
HR0zww1lktIO9I0ukgIhAKT0UnesAJk+VpRp0fmehPeHk5MzzE/LRFTPFRqrtn6T\n\
-----END CERTIFICATE-----\n";

impl Inner {
    pub(super) fn id(&mut self, kind: &str) -> String {
        self.next += 1;
        numbered(kind, self.next)
    }

    pub(super) fn create(
        &mut self,
        spec: docker::SwarmSpec,
        availability: Availability,
    ) -> Result<String, ControlError> {
        let (cluster, id) = (self.id("cluster"), self.id("node"));
        let mut spec = spec;
        spec.name = Some("default".to_owned());
        let secret = |word: &str| format!("SWMTKN-1-{}-{word:b<25}", root_digest());
        let cluster = Cluster {
            id: cluster,
            meta: Meta::default(),
            spec,
            root_certificate: ROOT.to_owned(),
            root_key: String::new(),
            join_tokens: JoinTokens { worker: secret("worker"), manager: secret("manager") },
            address_pools: vec![ipv4(0, 0, 8)],
            subnet_size: 24,
            ipv6_pool: Ipv6Network::new(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0), 48)
                .expect("48 is a length"),
            data_path_port: 51820,
            removed_nodes: BTreeMap::new(),
            unlock_key: None,
            root_rotation: None,
        };
        let mut manager = node(&id, "alpha", Role::Manager, availability);
        manager.manager_addr = Some("127.0.0.1:2377".to_owned());
        let spec = docker::NetworkCreateRequest { name: "ingress".into(), ..Default::default() };
        let ingress = self.network(spec, true);
        self.apply(vec![
            Change::Put(Object::Cluster(Box::new(cluster))),
            Change::Put(Object::Node(Box::new(manager))),
            Change::Put(Object::Network(Box::new(ingress))),
        ])?;
        self.info = SwarmInfo {
            node_id: id.clone(),
            node_addr: "127.0.0.1".to_owned(),
            local_state: LocalState::Active,
            control_available: true,
            error: String::new(),
            remote_managers: vec![(id.clone(), "127.0.0.1:2377".to_owned())],
            leader: Some(id.clone()),
        };
        Ok(id)
    }

    pub(super) fn network(&mut self, spec: docker::NetworkCreateRequest, ingress: bool) -> Network {
        let third = u8::try_from(self.state.networks.len()).expect("tests have few networks");
        Network {
            id: self.id("network"),
            meta: Meta::default(),
            subnet6: (spec.enable_ipv6 == Some(true)).then(|| {
                Ipv6Network::new(Ipv6Addr::new(0xfd00, 0, 0, third.into(), 0, 0, 0, 0), 64)
                    .expect("64 is a length")
            }),
            spec,
            ingress,
            subnet: ipv4(0, third, 24),
        }
    }
}

/// 25 characters, as the real ones: `service0…01`.
pub(super) fn numbered(kind: &str, number: u64) -> String {
    format!("{kind}{number:0width$}", width = 25 - kind.len())
}

fn ipv4(second: u8, third: u8, length: u8) -> Ipv4Network {
    Ipv4Network::new(Ipv4Addr::new(10, second, third, 0), length).expect("at most 32")
}

/// As join tokens carry it, of the root there is.
fn root_digest() -> String {
    "a".repeat(50)
}

pub(super) fn node(id: &str, hostname: &str, role: Role, availability: Availability) -> Node {
    Node {
        id: id.to_owned(),
        meta: Meta::default(),
        name: String::new(),
        labels: BTreeMap::new(),
        role,
        availability,
        description: Some(NodeDescription {
            hostname: hostname.to_owned(),
            os: "linux".to_owned(),
            architecture: "x86_64".to_owned(),
            nano_cpus: 2_000_000_000,
            memory_bytes: 4 << 30,
            engine_version: "0.1.0".to_owned(),
            ..NodeDescription::default()
        }),
        status: NodeStatus {
            state: NodeState::Ready,
            message: String::new(),
            addr: "127.0.0.1".to_owned(),
        },
        manager_addr: None,
        overlay: NodeOverlay { public_key: None, endpoint: None, address: None },
        down_since: None,
        tls: Some(NodeTls { root: Some(root_digest()), trust: vec![root_digest()] }),
    }
}
