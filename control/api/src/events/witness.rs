//! What happened to the cluster's objects between two looks at its state. Pure.
//!
//! A look compares the objects that transactions have touched since the last one with what was seen then.
//! Several changes of an object between two looks are one update, and what came and went in between was
//! not seen.
use super::event::{Action, Event, KINDS};
use crate::convert::{nodes, services};
use shoal_model::{Availability, IdKey, Node, ObjectKind, Role, Service, State, Timestamp};
use std::{collections::BTreeMap, sync::Arc};

/// An object that events are about.
type Key = (ObjectKind, IdKey);

/// What is remembered of an object.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Portrait {
    version: u64,
    created: Timestamp,
    updated: Timestamp,
    name: String,
    labels: BTreeMap<String, String>,
    /// What events tell the change of.
    facts: BTreeMap<&'static str, String>,
}

/// What was seen of an object.
#[derive(Clone, Debug)]
enum Seen {
    /// There may be very many: it is the state's own, and painted when it has changed.
    Service(Arc<Service>),
    /// Any other.
    Other(Box<Portrait>),
}

impl Seen {
    fn portrait(self) -> Portrait {
        let service = match self {
            Seen::Service(service) => service,
            Seen::Other(portrait) => return *portrait,
        };
        Portrait {
            version: service.meta.version,
            created: service.meta.created,
            updated: service.meta.updated,
            name: service.name().to_owned(),
            labels: service
                .spec
                .labels
                .iter()
                .flatten()
                .map(|(k, v)| (k.clone(), v.clone()))
                .collect(),
            facts: of_service(&service),
        }
    }
}

/// A fact that is told also when there was none before.
const FROM_NOTHING: &str = "updatestate";

/// What was seen of the cluster.
#[derive(Debug)]
pub(super) struct Witness {
    /// Id of the cluster; empty before there is one.
    cluster: String,
    version: u64,
    /// The last manager known to lead.
    leader: Option<String>,
    seen: BTreeMap<Key, Seen>,
}

impl Witness {
    /// What there is, is no news.
    pub(super) fn new(state: &State, leader: Option<&str>) -> Witness {
        let seen = keys(state).filter_map(|key| Some((look_at(state, &key, leader)?, key)));
        Witness {
            cluster: id_of(state).to_owned(),
            version: state.version,
            leader: leader.map(str::to_owned),
            seen: seen.map(|(seen, key)| (key, seen)).collect(),
        }
    }

    /// Whether there can be nothing new at this version, with this manager leading.
    pub(super) fn knows(&self, version: u64, leader: Option<&str>) -> bool {
        self.version == version && (leader.is_none() || leader == self.leader.as_deref())
    }

    /// What has happened since the last look, in the order of the last change of each object. `now` is
    /// when removals and changes of the lead are seen: the state does not know.
    pub(super) fn look(
        &mut self,
        state: &State,
        leader: Option<&str>,
        now: Timestamp,
    ) -> Vec<Event> {
        if id_of(state) != self.cluster {
            *self = Witness::new(state, leader);
            return Vec::new();
        }
        let former = self.leader.clone();
        let leader = leader.or(former.as_deref());
        let (mut order, mut place) = (BTreeMap::new(), 0_usize);
        let mut note = |key: Key| {
            place += 1;
            order.insert(key, place);
        };
        if leader != former.as_deref() {
            let both = former.iter().map(String::as_str).chain(leader);
            both.for_each(|id| note((ObjectKind::Node, id.into())));
        }
        match state.touched_since(self.version) {
            Some(touched) => touched
                .filter(|(kind, _)| KINDS.contains(kind))
                .for_each(|(kind, id)| note((kind, id.into()))),
            // Too much has happened, or the state came as a snapshot.
            None => self.seen.keys().cloned().chain(keys(state)).for_each(note),
        }
        let mut order: Vec<(Key, usize)> = order.into_iter().collect();
        order.sort_by_key(|(_, place)| *place);
        let news = order.into_iter().filter_map(|(key, _)| {
            let present = look_at(state, &key, leader);
            let before = match &present {
                Some(present) => self.seen.insert(key.clone(), present.clone()),
                None => self.seen.remove(&key),
            };
            event(key, before.map(Seen::portrait), present.map(Seen::portrait), now)
        });
        let news = news.collect();
        (self.version, self.leader) = (state.version, leader.map(str::to_owned));
        news
    }
}

fn event(
    (kind, id): Key,
    before: Option<Portrait>,
    present: Option<Portrait>,
    now: Timestamp,
) -> Option<Event> {
    let mut attributes = BTreeMap::new();
    let (action, time, shown) = match (before, present) {
        (Some(before), Some(present)) if before == present => return None,
        (Some(before), Some(present)) => {
            for (fact, new) in &present.facts {
                let old = before.facts.get(fact);
                if old == Some(new) || (old.is_none() && *fact != FROM_NOTHING) {
                    continue;
                }
                attributes.extend(old.map(|old| (format!("{fact}.old"), old.clone())));
                attributes.insert(format!("{fact}.new"), new.clone());
            }
            // A change of the lead changes no object.
            let same = before.version == present.version;
            (Action::Update, if same { now } else { present.updated }, present)
        }
        (None, Some(present)) => (Action::Create, present.created, present),
        (Some(before), None) => (Action::Remove, now, before),
        (None, None) => return None,
    };
    let Portrait { name, labels, .. } = shown;
    let id = id.as_str().to_owned();
    Some(Event { kind, action, id, name, labels, attributes, time })
}

fn id_of(state: &State) -> &str {
    state.cluster.as_ref().map(|cluster| cluster.id.as_str()).unwrap_or_default()
}

/// All objects that events are about.
fn keys(state: &State) -> impl Iterator<Item = Key> + '_ {
    let nodes = state.nodes.keys().map(|id| (ObjectKind::Node, id.into()));
    let networks = state.networks.keys().map(|id| (ObjectKind::Network, id.into()));
    let services = state.services.keys().map(|id| (ObjectKind::Service, id.into()));
    let secrets = state.secrets.keys().map(|id| (ObjectKind::Secret, id.into()));
    let configs = state.configs.keys().map(|id| (ObjectKind::Config, id.into()));
    nodes.chain(networks).chain(services).chain(secrets).chain(configs)
}

fn look_at(state: &State, (kind, id): &Key, leader: Option<&str>) -> Option<Seen> {
    let id = id.as_str();
    let (meta, name, labels, facts) = match kind {
        ObjectKind::Node => {
            let node = state.nodes.get(id)?;
            let name = match &node.description {
                Some(description) if node.name.is_empty() => &description.hostname,
                _ => &node.name,
            };
            (&node.meta, name.clone(), node.labels.clone(), of_node(node, leader))
        }
        ObjectKind::Network => {
            let network = state.networks.get(id)?;
            let labels = network.spec.labels.clone().unwrap_or_default();
            let labels = labels.into_iter().collect();
            (&network.meta, network.spec.name.clone(), labels, BTreeMap::new())
        }
        ObjectKind::Service => return state.services.shared(id).cloned().map(Seen::Service),
        ObjectKind::Secret | ObjectKind::Config => {
            let all = if *kind == ObjectKind::Secret { &state.secrets } else { &state.configs };
            let one = all.get(id)?;
            (&one.meta, one.name.clone(), one.labels.clone(), BTreeMap::new())
        }
        ObjectKind::Cluster | ObjectKind::Task => return None,
    };
    let (version, created, updated) = (meta.version, meta.created, meta.updated);
    Some(Seen::Other(Portrait { version, created, updated, name, labels, facts }.into()))
}

fn of_node(node: &Node, leader: Option<&str>) -> BTreeMap<&'static str, String> {
    let availability = match node.availability {
        Availability::Active => "active",
        Availability::Pause => "pause",
        Availability::Drain => "drain",
    };
    let role = if node.role == Role::Manager { "manager" } else { "worker" };
    let state = nodes::node_state(node.status.state).to_string();
    let mut facts = BTreeMap::from([
        ("availability", availability.to_owned()),
        ("role", role.to_owned()),
        ("state", state),
    ]);
    if let Some(status) = nodes::manager_status(node, leader) {
        facts.insert("leader", status.leader.unwrap_or_default().to_string());
        facts.extend(status.reachability.map(|word| ("reachability", word.to_string())));
    }
    facts
}

fn of_service(service: &Service) -> BTreeMap<&'static str, String> {
    let template = service.spec.task_template.as_ref();
    let image = template.and_then(|t| t.container_spec.as_ref()).and_then(|c| c.image.clone());
    let mode = service.spec.mode.as_ref().and_then(|mode| mode.replicated.as_ref());
    let replicas = mode.and_then(|mode| mode.replicas).map(|replicas| replicas.to_string());
    let status = service.update_status.as_ref();
    let update = status.map(|status| services::update_state(status.state).to_string());
    let facts = [("image", image), ("replicas", replicas), (FROM_NOTHING, update)];
    facts.into_iter().filter_map(|(fact, word)| Some((fact, word?))).collect()
}

#[cfg(test)]
mod tests;
