//! How the rows follow what changed: networks, nodes, services, tasks.
use super::{OfTask, Own, Tables, one_less, shelf::write};
use crate::assignment::{alive, data_path_port, digest, heard, network, serving};
use shoal_model::{
    ALL_NODES, MemberRow, NodeState, PeerRow, Row, RowKey, Service, ServiceRow, State, Task,
    bugs::{self, Bug},
    needs,
};
use std::{collections::BTreeSet, sync::Arc};

impl Tables {
    pub(super) fn touch_network(&mut self, state: &State, id: &str) {
        let present = state.networks.get(id);
        let row = present.map(network).map(Row::Network);
        let known = self.networks.get(id).map(|n| &n.shelf);
        let known = known.is_some_and(|s| s.version_of(&RowKey::Network(id.to_owned())).is_some());
        self.set_of_network(id, RowKey::Network(id.to_owned()), row.as_ref());
        if present.is_none() {
            let on_it = self.networks.get(id).into_iter().flat_map(|n| n.shelf.all());
            let on_it: Vec<RowKey> = on_it.map(|(key, _)| key.clone()).collect();
            for key in on_it {
                self.set_of_network(id, key, None);
            }
        }
        self.sweep_network(id);
        if !known {
            return; // all tasks on it are looked at anyway
        }
        // Networks seldom change once they are made.
        let on_it = |task: &&Task| task.networks.iter().any(|at| at.network_id == id);
        let on_it: Vec<&str> =
            state.tasks.values().filter(on_it).map(|task| task.id.as_str()).collect();
        for task in on_it {
            self.own_row(state, task);
        }
    }

    pub(super) fn touch_node(&mut self, state: &State, id: &str) {
        let version = self.version;
        let present = state.nodes.get(id);
        let peer = present.and_then(|node| {
            Some(PeerRow {
                network_id: ALL_NODES.to_owned(),
                node_id: node.id.clone(),
                hostname: node.hostname().to_owned(),
                public_key: node.overlay.public_key.clone()?,
                endpoint: node.overlay.endpoint?,
                overlay: node.overlay.address?,
            })
        });
        if self.node(id).peer != peer {
            let of_node = self.node(id);
            of_node.peer = peer;
            let networks: Vec<String> = of_node.heard_on.keys().cloned().collect();
            self.peer_row(ALL_NODES, id);
            networks.iter().for_each(|network| self.peer_row(network, id));
        }
        // Its role or state may be another, too.
        self.concern_node(id);
        let row = present.map(|node| Row::Node {
            overlay: node.overlay.address,
            data_path_port: data_path_port(state, node),
        });
        let own = self.node(id);
        // One that never said hello has no data plane yet.
        own.down = present.is_none_or(|node| {
            node.status.state == NodeState::Down || node.overlay.public_key.is_none()
        });
        own.shelf.put(version, RowKey::Node, row.as_ref().map(write));
        self.sweep_node(id);
    }

    /// What those on a network know of a node, or those that are told all nodes.
    fn peer_row(&mut self, network: &str, node: &str) {
        let of_all = network == ALL_NODES;
        let of_node = self.nodes.get(node);
        let of_node = of_node.filter(|n| of_all || n.heard_on.contains_key(network));
        let peer = of_node.and_then(|n| n.peer.as_ref());
        let row = peer.map(|p| Row::Peer(PeerRow { network_id: network.to_owned(), ..p.clone() }));
        let key = RowKey::Peer { network: network.to_owned(), node: node.to_owned() };
        match of_all {
            true => self.set_of_network(network, key, row.as_ref()),
            false => self.set_on_network(network, key, row.as_ref()),
        }
        self.sweep_network(network);
    }

    pub(super) fn touch_service(&mut self, state: &State, id: &str, tasks: &mut BTreeSet<String>) {
        let present = state.services.get(id);
        let told = present.map(|s| {
            let labels = s.spec.labels.clone().unwrap_or_default();
            (s.name().to_owned(), labels.into_iter().collect())
        });
        let known = self.services.entry(id.to_owned()).or_default();
        if told.as_ref() != Some(&known.told) {
            known.told = told.unwrap_or_default();
            // Those that have not been looked at yet will be.
            let known = state.tasks_of_service(id).filter(|task| self.tasks.contains_key(&task.id));
            tasks.extend(known.map(|task| task.id.clone()));
        }
        self.service_rows(present, id);
    }

    /// Rows of a service on all networks it is on.
    fn service_rows(&mut self, present: Option<&Service>, id: &str) {
        let Some(known) = self.services.get(id) else { return };
        let endpoint = present.and_then(|s| s.endpoint.as_ref());
        let vips = endpoint.map(|e| e.vips.as_slice()).unwrap_or_default();
        let ports = endpoint.map(|e| e.ports.as_slice()).unwrap_or_default();
        let mut on: BTreeSet<String> = BTreeSet::new();
        if present.is_some() {
            on.extend(vips.iter().map(|vip| vip.network_id.clone()));
            on.extend(known.members.keys().cloned());
            on.extend(self.ingress.clone().filter(|_| !ports.is_empty()));
        }
        let before = known.networks.clone();
        for network in before.union(&on) {
            let row = present.filter(|_| on.contains(network)).map(|service| {
                Row::Service(ServiceRow {
                    network_id: network.clone(),
                    id: id.to_owned(),
                    name: service.name().to_owned(),
                    ports: ports.to_vec(),
                    vip: vips.iter().find(|vip| vip.network_id == *network).cloned(),
                })
            });
            let key = RowKey::Service { network: network.clone(), service: id.to_owned() };
            self.set_on_network(network, key, row.as_ref());
            self.sweep_network(network);
        }
        match self.services.get_mut(id) {
            Some(known) if present.is_some() || !known.members.is_empty() => known.networks = on,
            _ => drop(self.services.remove(id)),
        }
    }

    pub(super) fn touch_task(&mut self, state: &State, id: &str) {
        let present = state.tasks.get(id);
        let before = self.tasks.get(id).cloned().unwrap_or_default();
        let now = present.map(of_task).unwrap_or_default();
        self.member_rows(present, id, &before, &now);
        self.members(state, &before, &now);
        self.heard_on(&before, &now);
        self.joined(&before, &now);
        self.needed(state, &before, &now);
        if before.node != now.node
            && let Some(node) = &before.node
        {
            let version = self.version;
            self.node(node).own.set(version, RowKey::Task(id.to_owned()), None);
            self.concern_node(node);
        }
        match present {
            Some(_) => drop(self.tasks.insert(id.to_owned(), now)),
            None => drop(self.tasks.remove(id)),
        }
        self.own_row(state, id);
        before.node.iter().for_each(|node| self.sweep_node(node));
    }

    fn member_rows(&mut self, present: Option<&Task>, id: &str, before: &OfTask, now: &OfTask) {
        let networks: BTreeSet<&String> = before.heard.iter().chain(&now.heard).collect();
        for network in networks {
            let at = present
                .filter(|_| now.heard.contains(network))
                .and_then(|task| task.networks.iter().find(|at| at.network_id == *network));
            let row = present.zip(at).map(|(task, at)| {
                Row::Member(MemberRow {
                    service_id: task.service_id.clone(),
                    id: task.id.clone(),
                    name: task.name.clone(),
                    slot: task.slot,
                    node_id: task.node_id.clone().unwrap_or_default(),
                    serving: serving(task),
                    at: at.clone(),
                })
            });
            let key = RowKey::Member { network: network.clone(), task: id.to_owned() };
            self.set_on_network(network, key, row.as_ref());
            self.sweep_network(network);
        }
    }

    /// Counts where a service has tasks; its rows follow when that changes.
    fn members(&mut self, state: &State, before: &OfTask, now: &OfTask) {
        let mut changed: BTreeSet<&String> = BTreeSet::new();
        for network in &now.heard {
            let service = self.services.entry(now.service.clone()).or_default();
            let count = service.members.entry(network.clone()).or_default();
            *count += 1;
            if *count == 1 {
                changed.insert(&now.service);
            }
        }
        for network in &before.heard {
            let Some(service) = self.services.get_mut(&before.service) else { continue };
            if one_less(&mut service.members, network) {
                changed.insert(&before.service);
            }
        }
        for service in changed {
            self.service_rows(state.services.get(service), service);
        }
    }

    /// Counts where others hear of a node's tasks.
    fn heard_on(&mut self, before: &OfTask, now: &OfTask) {
        if (&before.node, &before.heard) == (&now.node, &now.heard) {
            return;
        }
        // First what comes: a peer is not taken away between.
        for (node, network) in now.node.iter().flat_map(|n| now.heard.iter().map(move |h| (n, h))) {
            let count = self.node(node).heard_on.entry(network.clone()).or_default();
            *count += 1;
            if *count == 1 {
                self.peer_row(network, node);
            }
        }
        let before = before.node.iter().flat_map(|n| before.heard.iter().map(move |h| (n, h)));
        for (node, network) in before {
            let heard_on = &mut self.node(node).heard_on;
            if one_less(heard_on, network) {
                self.peer_row(network, node);
            } else if bugs::active(Bug::TakeSharedPeer) {
                let key = RowKey::Peer { network: network.clone(), node: node.clone() };
                self.set_on_network(network, key, None);
            }
        }
    }

    /// Counts where a node takes part.
    fn joined(&mut self, before: &OfTask, now: &OfTask) {
        let version = self.version;
        if let Some(node) = &now.node {
            for network in &now.joined {
                *self.node(node).joined.entry(network.clone()).or_default() += 1;
                if self.network(network).nodes.insert(node.clone()) {
                    self.node(node).moved = version;
                    self.concern_node(node);
                }
            }
        }
        if let Some(node) = &before.node {
            for network in &before.joined {
                if one_less(&mut self.node(node).joined, network) {
                    self.node(node).moved = version;
                    self.network(network).nodes.remove(node);
                    self.concern_node(node);
                    self.sweep_network(network);
                }
            }
        }
    }

    /// The row a task's own node has of it.
    pub(super) fn own_row(&mut self, state: &State, id: &str) {
        let Some(task) = state.tasks.get(id).filter(|task| task.is_assigned()) else { return };
        let Some(node) = &task.node_id else { return };
        let row = Own::Task { digest: digest(state, task), spec: Arc::clone(&task.spec) };
        let version = self.version;
        if self.node(node).own.set(version, RowKey::Task(id.to_owned()), Some(row)) {
            self.concern_node(node);
        }
    }
}

fn of_task(task: &Task) -> OfTask {
    let networks = |really| -> Vec<String> {
        let all: BTreeSet<&String> =
            task.networks.iter().filter(|_| really).map(|at| &at.network_id).collect();
        all.into_iter().cloned().collect()
    };
    OfTask {
        service: task.service_id.clone(),
        node: task.node_id.clone().filter(|_| task.is_assigned()),
        heard: networks(heard(task)),
        joined: networks(alive(task)),
        needs: needs(task).map(|(kind, id)| (kind, id.to_owned())).collect(),
    }
}
