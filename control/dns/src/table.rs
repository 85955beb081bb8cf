//! The name table: from what the manager said of services to addresses, per network.
use serde::{Deserialize, Serialize};
use shoal_model::{NetAddresses, NodeTable, TableService};
use std::{collections::BTreeMap, net::IpAddr};

/// Time to live of an answer that names a VIP, seconds. Docker's; a VIP lives as long as its
/// service.
pub const VIP_TTL: u32 = 600;
/// Time to live of an answer that names tasks, seconds. Docker says 600 here too, which keeps dead
/// tasks in the caches of clients; tasks come and go, so nobody should keep this for long.
pub const TASK_TTL: u32 = 1;

/// What the table says to a question.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// The name is ours and has these addresses of the family asked for. An empty list means
    /// "exists, but has none of this family" (NODATA).
    Addresses {
        /// Addresses.
        addresses: Vec<IpAddr>,
        /// Seconds.
        ttl: u32,
    },
    /// The address is ours and has this name, relative to nothing.
    Name(String),
    /// Not ours and never to be asked elsewhere: a single label.
    NotFound,
    /// Not ours: to be asked of the host's resolvers.
    Elsewhere,
}

/// Names of all networks a node takes part in.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct NameTable {
    networks: BTreeMap<String, NetworkNames>,
}

#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
struct NetworkNames {
    /// The network's own name: `web.app` is `web` on `app`.
    name: String,
    names: BTreeMap<String, Entry>,
    reverse: BTreeMap<IpAddr, String>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Entry {
    addresses: Vec<IpAddr>,
    ttl: u32,
}

impl NameTable {
    /// Builds the table. The ingress network has no names: it carries the routing mesh only.
    pub fn new(table: &NodeTable) -> NameTable {
        let mut networks = BTreeMap::new();
        for network in table.networks.iter().filter(|n| !n.ingress) {
            let mut names =
                NetworkNames { name: network.name.to_lowercase(), ..NetworkNames::default() };
            for service in &table.services {
                names.add_service(&network.id, service);
            }
            networks.insert(network.id.clone(), names);
        }
        NameTable { networks }
    }

    /// Answers a question for addresses from a container attached to `networks` (ids, in order of
    /// preference). `name` is without the final dot; case does not matter.
    pub fn addresses(&self, networks: &[String], name: &str, ipv6: bool) -> Answer {
        let name = name.to_lowercase();
        for network in networks.iter().filter_map(|id| self.networks.get(id)) {
            let local = name
                .strip_suffix(&network.name)
                .and_then(|rest| rest.strip_suffix('.'))
                .and_then(|rest| network.names.get(rest));
            if let Some(entry) = network.names.get(&name).or(local) {
                let of_family = |a: &&IpAddr| a.is_ipv6() == ipv6;
                let addresses = entry.addresses.iter().filter(of_family).copied().collect();
                return Answer::Addresses { addresses, ttl: entry.ttl };
            }
        }
        if name.contains('.') { Answer::Elsewhere } else { Answer::NotFound }
    }

    /// Answers a question for the name of an address.
    pub fn name(&self, networks: &[String], address: IpAddr) -> Answer {
        networks
            .iter()
            .filter_map(|id| self.networks.get(id))
            .find_map(|n| n.reverse.get(&address).map(|name| format!("{name}.{}", n.name)))
            .map_or(Answer::Elsewhere, Answer::Name)
    }
}

impl NetworkNames {
    fn add_service(&mut self, network: &str, service: &TableService) {
        let on_network = |all: &[NetAddresses]| -> Option<NetAddresses> {
            all.iter().find(|a| a.network_id == network).cloned()
        };
        let vip = on_network(&service.vips);
        let mut tasks = Vec::new();
        let mut aliases = vip.as_ref().map(|v| v.aliases.clone()).unwrap_or_default();
        let mut on_this_network = vip.is_some();
        for task in &service.tasks {
            let Some(at) = on_network(&task.networks) else { continue };
            on_this_network = true;
            if aliases.is_empty() {
                aliases.clone_from(&at.aliases);
            }
            if !task.serving {
                continue;
            }
            let addresses = both(&at);
            self.reverse.extend(addresses.iter().map(|a| (*a, task.name.clone())));
            self.add(&task.name, addresses.clone(), TASK_TTL);
            tasks.extend(addresses);
        }
        if !on_this_network {
            return;
        }
        let (own, ttl) = match &vip {
            Some(vip) => (both(vip), VIP_TTL),
            None => (tasks.clone(), TASK_TTL),
        };
        if vip.is_some() {
            self.reverse.extend(own.iter().map(|a| (*a, service.name.clone())));
        }
        for name in std::iter::once(&service.name).chain(&aliases) {
            self.add(name, own.clone(), ttl);
            self.add(&format!("tasks.{name}"), tasks.clone(), TASK_TTL);
        }
    }

    /// Services may share an alias: then it has the addresses of all.
    fn add(&mut self, name: &str, addresses: Vec<IpAddr>, ttl: u32) {
        let entry = self.names.entry(name.to_lowercase());
        let entry = entry.or_insert(Entry { addresses: Vec::new(), ttl });
        entry.ttl = entry.ttl.min(ttl);
        for address in addresses {
            if !entry.addresses.contains(&address) {
                entry.addresses.push(address);
            }
        }
    }
}

fn both(at: &NetAddresses) -> Vec<IpAddr> {
    std::iter::once(IpAddr::V4(at.v4)).chain(at.v6.map(IpAddr::V6)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use shoal_model::{TableNetwork, TableTask};

    fn at(network: &str, v4: [u8; 4], aliases: &[&str]) -> NetAddresses {
        NetAddresses {
            network_id: network.into(),
            v4: v4.into(),
            v6: (v4[3] == 9).then(|| "fd00::9".parse().unwrap()),
            aliases: aliases.iter().map(|a| (*a).into()).collect(),
        }
    }

    fn task(slot: u64, serving: bool, networks: Vec<NetAddresses>) -> TableTask {
        let name = format!("web.{slot}.t{slot}");
        TableTask { id: format!("t{slot}"), name, slot, node_id: "n".into(), serving, networks }
    }

    fn table() -> NameTable {
        let network = |id: &str, name: &str| TableNetwork {
            id: id.into(),
            name: name.into(),
            ingress: name == "ingress",
            internal: false,
            subnet: "10.0.1.0/24".parse().unwrap(),
            subnet6: None,
        };
        let web = TableService {
            id: "s".into(),
            name: "Web".into(),
            vips: vec![at("a", [10, 0, 1, 9], &["www"]), at("i", [10, 0, 0, 2], &[])],
            ports: vec![],
            tasks: vec![
                task(1, true, vec![at("a", [10, 0, 1, 3], &[])]),
                task(2, true, vec![at("a", [10, 0, 1, 4], &[])]),
                task(3, false, vec![at("a", [10, 0, 1, 5], &[])]),
            ],
        };
        let rr = TableService {
            id: "r".into(),
            name: "rr".into(),
            vips: vec![],
            ports: vec![],
            tasks: vec![TableTask {
                name: "rr.1.x".into(),
                ..task(1, true, vec![at("a", [10, 0, 1, 20], &["www"])])
            }],
        };
        NameTable::new(&NodeTable {
            networks: vec![network("a", "app"), network("b", "back"), network("i", "ingress")],
            services: vec![web, rr],
            ..NodeTable::default()
        })
    }

    fn ask(networks: &[&str], name: &str) -> Answer {
        let networks: Vec<String> = networks.iter().map(|n| (*n).into()).collect();
        table().addresses(&networks, name, false)
    }

    fn found(addresses: &[[u8; 4]], ttl: u32) -> Answer {
        Answer::Addresses { addresses: addresses.iter().map(|a| (*a).into()).collect(), ttl }
    }

    #[test]
    fn a_service_name_is_its_vip_and_case_does_not_matter() {
        assert_eq!(ask(&["a"], "web"), found(&[[10, 0, 1, 9]], VIP_TTL));
        assert_eq!(ask(&["a"], "WEB"), found(&[[10, 0, 1, 9]], VIP_TTL));
        assert_eq!(ask(&["b", "a"], "web.app"), found(&[[10, 0, 1, 9]], VIP_TTL));
    }

    #[test]
    fn tasks_lists_serving_tasks_only() {
        let both = [[10, 0, 1, 3], [10, 0, 1, 4]];
        assert_eq!(ask(&["a"], "tasks.web"), found(&both, TASK_TTL));
        assert_eq!(ask(&["a"], "web.3.t3"), Answer::Elsewhere);
        assert_eq!(ask(&["a"], "web.1.t1"), found(&[[10, 0, 1, 3]], TASK_TTL));
    }

    #[test]
    fn another_network_does_not_know_the_name() {
        assert_eq!(ask(&["b"], "web"), Answer::NotFound);
        assert_eq!(ask(&[], "web"), Answer::NotFound);
        assert_eq!(ask(&["i"], "web"), Answer::NotFound, "the ingress network has no names");
    }

    #[test]
    fn without_a_vip_the_name_is_its_tasks() {
        assert_eq!(ask(&["a"], "rr"), found(&[[10, 0, 1, 20]], TASK_TTL));
    }

    #[test]
    fn an_alias_of_two_services_has_the_addresses_of_both() {
        assert_eq!(ask(&["a"], "www"), found(&[[10, 0, 1, 9], [10, 0, 1, 20]], TASK_TTL));
    }

    #[test]
    fn a_family_it_has_not_is_no_data_and_dotted_names_go_elsewhere() {
        let networks = ["a".to_owned()];
        let empty = Answer::Addresses { addresses: vec![], ttl: TASK_TTL };
        assert_eq!(table().addresses(&networks, "rr", true), empty);
        let v6 = vec!["fd00::9".parse().unwrap()];
        let web = Answer::Addresses { addresses: v6, ttl: VIP_TTL };
        assert_eq!(table().addresses(&networks, "web", true), web);
        assert_eq!(ask(&["a"], "example.org"), Answer::Elsewhere);
        assert_eq!(ask(&["a"], "nosuch"), Answer::NotFound);
    }

    #[test]
    fn addresses_have_names() {
        let networks = ["a".to_owned()];
        let name = |a: [u8; 4]| table().name(&networks, a.into());
        assert_eq!(name([10, 0, 1, 9]), Answer::Name("Web.app".into()));
        assert_eq!(name([10, 0, 1, 3]), Answer::Name("web.1.t1.app".into()));
        assert_eq!(name([10, 0, 1, 200]), Answer::Elsewhere);
    }
}
