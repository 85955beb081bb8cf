//! The control API: what a request makes of the state, as `control/manager/src/control` decides it.
mod dependencies;
mod found;
mod networks;
mod services;

use super::{Waiter, World};
use crate::{event::Event, identity::rotated, log::Author, stats::Count};
use shoal_cores::REBALANCE_LABEL;
use shoal_model::{
    ApplyError, Availability, Change, DependencyKind, DependencySpec, NodeState, Object,
    ObjectKind, Role, State, Timestamp, docker,
};
use std::sync::Arc;

/// A request.
#[derive(Clone, Debug)]
pub(crate) enum Ask {
    CreateService(Box<docker::ServiceSpec>),
    UpdateService {
        id: String,
        version: u64,
        spec: Box<docker::ServiceSpec>,
    },
    RollBackService {
        id: String,
        version: u64,
    },
    RemoveService {
        id: String,
    },
    CreateNetwork {
        name: String,
        ipv6: bool,
        subnet: Option<String>,
    },
    RemoveNetwork {
        id: String,
    },
    CreateDependency {
        kind: DependencyKind,
        spec: DependencySpec,
    },
    /// Another label; all else stays.
    LabelDependency {
        kind: DependencyKind,
        id: String,
        version: u64,
        label: String,
    },
    RemoveDependency {
        kind: DependencyKind,
        id: String,
    },
    UpdateNode {
        id: String,
        version: u64,
        availability: Availability,
        zone: &'static str,
    },
    /// Promotes a node, or demotes it.
    SetRole {
        id: String,
        version: u64,
        role: Role,
    },
    /// `force`: also one that is not down.
    RemoveNode {
        id: String,
        force: bool,
    },
    /// A new root; `back`: the present one, which gives a rotation up.
    RotateRoot {
        version: u64,
        back: bool,
    },
    /// Whether all services are spread anew.
    Rebalance {
        version: u64,
        everywhere: bool,
    },
}

/// What a client is told.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    /// Done, in this transaction, which made this version.
    Done {
        version: u64,
        txn: u64,
    },
    Refused(Refusal),
    /// Not a leader: nothing was done.
    Elsewhere,
    /// Perhaps it was done.
    Unknown,
}

impl Reply {
    pub(crate) fn digest(&self) -> u64 {
        match self {
            Reply::Done { version, .. } => version << 2,
            Reply::Refused(_) => 1,
            Reply::Elsewhere => 2,
            Reply::Unknown => 3,
        }
    }
}

/// Why a request is not done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Refusal {
    /// The object was changed since it was read.
    OutOfSequence,
    /// Wrong, or not now.
    Other,
}

impl Refusal {
    pub(in crate::manager) fn of(error: ApplyError) -> Refusal {
        match error {
            // Another was quicker: worth another look.
            ApplyError::OutOfSequence { .. } | ApplyError::SubnetTaken { .. } => {
                Refusal::OutOfSequence
            }
            ApplyError::NameTaken { .. }
            | ApplyError::IngressPresent { .. }
            | ApplyError::InUse { .. }
            | ApplyError::Missing { .. } => Refusal::Other,
        }
    }
}

impl World {
    /// A request arrives.
    pub(crate) fn hear_request(&mut self, client: usize, request: u64, m: usize) {
        if !self.serves(m) {
            // A host without power says nothing.
            if self.hosts[m].up {
                self.reply(m, client, request, Reply::Elsewhere);
            }
            return;
        }
        let Some(ask) = self.clients[client].request(request) else { return };
        self.stats.add(Count::Requests);
        let id = format!("{:016x}", self.dice.next());
        let now = self.wall(m);
        if let Ask::SetRole { id, role: Role::Worker, .. } = ask
            && self.holds_the_log(id)
        {
            return self.reply(m, client, request, Reply::Refused(Refusal::Other));
        }
        match change(&self.peers[m].state, ask, id, now) {
            Ok(change) => {
                let mut changes = vec![change];
                if let Change::Delete(ObjectKind::Node, id) = &changes[0] {
                    changes.extend(self.certificate_counts_no_more(m, id.clone()));
                }
                let waiter = Waiter::Client { client, request };
                self.propose(m, Author::Client(client), changes, waiter);
            }
            Err(refusal) => self.reply(m, client, request, Reply::Refused(refusal)),
        }
    }

    /// Whether it is one of those that have the log, which are always the same.
    fn holds_the_log(&self, id: &str) -> bool {
        self.agents.iter().take(self.config.managers).any(|agent| agent.node_id == id)
    }

    /// Notes in the cluster's object that a node was removed.
    fn certificate_counts_no_more(&self, m: usize, id: String) -> Option<Change> {
        let lifetime = self.config.certificates.as_ref()?.lifetime;
        let mut cluster = self.peers[m].state.cluster.clone()?;
        let now = self.wall(m);
        cluster.removed_nodes.retain(|_, ends| *ends > now);
        cluster.removed_nodes.insert(id, Timestamp(now.0 + lifetime));
        Some(Change::Put(Object::Cluster(Box::new(cluster))))
    }

    pub(in crate::manager) fn reply(
        &mut self,
        m: usize,
        client: usize,
        request: u64,
        reply: Reply,
    ) {
        let place = self.config.hosts + client;
        if self.hosts[m].power && self.net.clear(m, place) {
            let delay = self.net.delay(m, place);
            self.after(delay, Event::Answer { client, request, reply });
        }
    }
}

/// The change a request asks for.
fn change(state: &State, ask: &Ask, new_id: String, now: Timestamp) -> Result<Change, Refusal> {
    let object =
        match ask {
            Ask::CreateService(spec) => {
                Object::Service(Arc::new(services::create(state, spec, new_id, now)?))
            }
            Ask::UpdateService { id, version, spec } => {
                Object::Service(Arc::new(services::update(state, id, *version, Some(spec), now)?))
            }
            Ask::RollBackService { id, version } => {
                Object::Service(Arc::new(services::update(state, id, *version, None, now)?))
            }
            Ask::RemoveService { id } => {
                state.services.get(id).ok_or(Refusal::Other)?;
                return Ok(Change::Delete(ObjectKind::Service, id.clone()));
            }
            Ask::CreateNetwork { name, ipv6, subnet } => Object::Network(Box::new(
                networks::create(state, name, *ipv6, subnet.as_deref(), new_id)?,
            )),
            Ask::RemoveNetwork { id } => {
                let network = state.networks.get(id).ok_or(Refusal::Other)?;
                if network.ingress || networks::is_used(state, network) {
                    return Err(Refusal::Other);
                }
                return Ok(Change::Delete(ObjectKind::Network, id.clone()));
            }
            Ask::CreateDependency { kind, spec } => {
                dependencies::create(state, *kind, spec, new_id)?
            }
            Ask::LabelDependency { kind, id, version, label } => {
                dependencies::label(state, *kind, id, *version, label)?
            }
            Ask::RemoveDependency { kind, id } => return dependencies::remove(state, *kind, id),
            Ask::UpdateNode { id, version, availability, zone } => {
                let mut node = state.nodes.get(id).ok_or(Refusal::Other)?.clone();
                if node.meta.version != *version {
                    return Err(Refusal::OutOfSequence);
                }
                node.availability = *availability;
                node.labels.insert("zone".to_owned(), (*zone).to_owned());
                Object::Node(Box::new(node))
            }
            Ask::SetRole { id, version, role } => {
                let mut node = state.nodes.get(id).ok_or(Refusal::Other)?.clone();
                if node.meta.version != *version {
                    return Err(Refusal::OutOfSequence);
                }
                node.role = *role;
                Object::Node(Box::new(node))
            }
            Ask::RemoveNode { id, force } => {
                let node = state.nodes.get(id).ok_or(Refusal::Other)?;
                if node.role == Role::Manager || node.status.state != NodeState::Down && !force {
                    return Err(Refusal::Other);
                }
                return Ok(Change::Delete(ObjectKind::Node, id.clone()));
            }
            Ask::RotateRoot { version, back } => {
                let cluster = state.cluster.as_ref().ok_or(Refusal::Other)?;
                if cluster.meta.version != *version {
                    return Err(Refusal::OutOfSequence);
                }
                Object::Cluster(Box::new(rotated(cluster, *back, &new_id)?))
            }
            Ask::Rebalance { version, everywhere } => {
                let mut cluster = state.cluster.clone().ok_or(Refusal::Other)?;
                if cluster.meta.version != *version {
                    return Err(Refusal::OutOfSequence);
                }
                set_rebalance(&mut cluster.spec, *everywhere);
                Object::Cluster(Box::new(cluster))
            }
        };
    Ok(Change::Put(object))
}

fn set_rebalance(spec: &mut docker::SwarmSpec, everywhere: bool) {
    let labels = spec.labels.get_or_insert_default();
    if everywhere {
        labels.insert(REBALANCE_LABEL.to_owned(), "true".to_owned());
    } else {
        labels.remove(REBALANCE_LABEL);
    }
}
