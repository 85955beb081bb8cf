//! What a transaction asks for, and why it is refused.

use super::{Object, ObjectKind, State};
use crate::{
    bugs::{self, Bug},
    claims::port_wishes,
    dependency::{DependencyKind, references},
    objects::Service,
};
use serde::{Deserialize, Serialize};

/// One change of one object.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum Change {
    /// Creates (version 0) or replaces (version it was read at).
    Put(Object),
    /// Removes; what is already gone is no error.
    Delete(ObjectKind, String),
}

/// Why a transaction was refused; nothing of it was applied.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error, Serialize, Deserialize)]
pub enum ApplyError {
    /// The object was changed since it was read. Docker's text.
    #[error("update out of sequence")]
    OutOfSequence {
        /// Kind.
        kind: ObjectKind,
        /// Id.
        id: String,
    },
    /// Another object of the kind has the name.
    #[error("{} {name} already exists", kind.as_str())]
    NameTaken {
        /// Kind.
        kind: ObjectKind,
        /// Name.
        name: String,
    },
    /// Another network has a part of the subnet: it was made at the same moment.
    #[error("the subnet of network {name} overlaps that of network {other}")]
    SubnetTaken {
        /// Name of the network.
        name: String,
        /// Name of the other.
        other: String,
    },
    /// There is a network of the routing mesh already. SwarmKit's text.
    #[error("ingress network ({id}) is already present")]
    IngressPresent {
        /// Its id.
        id: String,
    },
    /// Services refer to it. SwarmKit's text.
    #[error(
        "{} '{name}' is in use by the following service{}: {}",
        kind.as_str(), if services.len() == 1 { "" } else { "s" }, services.join(", ")
    )]
    InUse {
        /// Kind.
        kind: ObjectKind,
        /// Name.
        name: String,
        /// Names of the services, the first [`MOST_NAMED`] of them.
        services: Vec<String>,
    },
    /// A service refers to what was removed at the same moment. SwarmKit's text.
    #[error("{kind} not found: {id}")]
    Missing {
        /// Kind.
        kind: DependencyKind,
        /// Id.
        id: String,
    },
}

/// Services named in one message.
pub const MOST_NAMED: usize = 20;

impl State {
    pub(super) fn check(&self, changes: &[Change]) -> Result<(), ApplyError> {
        for change in changes {
            let object = match change {
                Change::Put(object) => object,
                Change::Delete(ObjectKind::Secret, id) => {
                    self.check_unused(DependencyKind::Secret, id)?;
                    continue;
                }
                Change::Delete(ObjectKind::Config, id) => {
                    self.check_unused(DependencyKind::Config, id)?;
                    continue;
                }
                Change::Delete(ObjectKind::Network, id) => {
                    self.check_unpublished(id)?;
                    continue;
                }
                Change::Delete(..) => continue,
            };
            let (kind, id) = (object.kind(), object.id());
            let present = self.version_of(kind, id).unwrap_or(0);
            if object.meta().version != present && !bugs::active(Bug::IgnoreVersion) {
                return Err(ApplyError::OutOfSequence { kind, id: id.to_owned() });
            }
            if let Object::Network(network) = object
                && let Some(other) = self.networks.values().find(|o| o.id != id && o.meets(network))
            {
                let (name, other) = (network.name().to_owned(), other.name().to_owned());
                return Err(ApplyError::SubnetTaken { name, other });
            }
            if let Object::Network(network) = object
                && let Some(other) = self.ingress().filter(|o| network.ingress && o.id != id)
            {
                return Err(ApplyError::IngressPresent { id: other.id.clone() });
            }
            let of_kind = |kind, name| self.dependency_named(kind, name).map(|o| &o.id);
            let (name, taken) = match object {
                Object::Service(s) => {
                    self.check_dependencies(s)?;
                    (s.name(), self.service_named(s.name()).map(|o| &o.id))
                }
                Object::Secret(o) => (o.name.as_str(), of_kind(DependencyKind::Secret, &o.name)),
                Object::Config(o) => (o.name.as_str(), of_kind(DependencyKind::Config, &o.name)),
                Object::Network(n) => (n.name(), self.network_named(n.name()).map(|o| &o.id)),
                _ => continue,
            };
            if taken.is_some_and(|other| other != id) {
                return Err(ApplyError::NameTaken { kind, name: name.to_owned() });
            }
        }
        Ok(())
    }

    fn check_unused(&self, kind: DependencyKind, id: &str) -> Result<(), ApplyError> {
        let users = self.users_of(kind, id).take(MOST_NAMED);
        let services: Vec<String> = users.map(|service| service.name().to_owned()).collect();
        match self.dependencies(kind).get(id) {
            Some(used) if !services.is_empty() && !bugs::active(Bug::RemoveUsed) => {
                let (kind, name) = (ObjectKind::from(kind), used.name.clone());
                Err(ApplyError::InUse { kind, name, services })
            }
            _ => Ok(()),
        }
    }

    /// The routing mesh's network stays as long as a service publishes ports on it.
    fn check_unpublished(&self, network: &str) -> Result<(), ApplyError> {
        let Some(ingress) = self.ingress().filter(|n| n.id == network) else { return Ok(()) };
        let publish = self.services.values().filter(|s| !port_wishes(&s.spec).is_empty());
        let services: Vec<String> = publish.take(MOST_NAMED).map(|s| s.name().to_owned()).collect();
        if services.is_empty() {
            return Ok(());
        }
        let (kind, name) = (ObjectKind::Network, ingress.name().to_owned());
        Err(ApplyError::InUse { kind, name, services })
    }

    /// What a service refers to newly must be there. What it had before is exempt: an update that goes
    /// back by itself must not be held up by what was removed since; its tasks say what they miss.
    fn check_dependencies(&self, service: &Service) -> Result<(), ApplyError> {
        let present = self.services.get(&service.id);
        let before = present.map(|present| &present.spec);
        let earlier = present.and_then(|present| present.previous_spec.as_ref());
        let had = |one: &(DependencyKind, &str)| {
            let specs = before.into_iter().chain(earlier).filter_map(|s| s.task_template.as_ref());
            specs.flat_map(references).any(|other| other == *one)
        };
        let all = service.spec.task_template.iter().flat_map(references);
        let missing = all.filter(|(kind, id)| !self.dependencies(*kind).contains_key(*id));
        match missing.into_iter().find(|one| !had(one)) {
            Some((kind, id)) => Err(ApplyError::Missing { kind, id: id.to_owned() }),
            None => Ok(()),
        }
    }
}
