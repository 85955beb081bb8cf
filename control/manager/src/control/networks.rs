//! Networks.
use crate::{
    Manager,
    error::{from_store, invalid, not_found, refuse},
    validate,
};
use shoal_cores::{SubnetError, allocate_subnet, attachments, network_of};
use shoal_identity::id;
use shoal_model::{
    ApplyError, Change, ControlError, ErrorKind, Meta, Network, Object, ObjectKind, Service, State,
    TaskState, docker, port_wishes,
};
use shoal_store::StoreError;

/// Subnets tried for a network; each one that is refused means that another network was made.
const SUBNET_ATTEMPTS: usize = 20;

impl Manager {
    /// Makes an overlay network and returns its id.
    pub async fn create_network(
        &self,
        spec: docker::NetworkCreateRequest,
    ) -> Result<String, ControlError> {
        validate::network(&spec)?;
        for attempt in 1.. {
            let network = self.network_for(&spec)?;
            let id = network.id.clone();
            let change = Change::Put(Object::Network(Box::new(network)));
            match self.store().propose(vec![change]).await {
                Ok(_) => return Ok(id),
                // Two made at the same moment choose the same subnet, and the store takes one of them.
                Err(StoreError::Refused(ApplyError::SubnetTaken { .. }))
                    if attempt < SUBNET_ATTEMPTS => {}
                Err(error) => {
                    let refusal = from_store(error);
                    let exists = refusal.kind == ErrorKind::AlreadyExists;
                    return Err(if exists { taken(&spec.name) } else { refusal });
                }
            }
        }
        unreachable!("the last attempt returns")
    }

    fn network_for(&self, spec: &docker::NetworkCreateRequest) -> Result<Network, ControlError> {
        self.store().read(|state| {
            if state.network_named(&spec.name).is_some() {
                return Err(taken(&spec.name));
            }
            let ingress = spec.ingress == Some(true);
            if let Some(other) = state.ingress().filter(|_| ingress) {
                let id = other.id.clone();
                return Err(refuse(ErrorKind::AlreadyExists, ApplyError::IngressPresent { id }));
            }
            let (subnet, subnet6) = allocate_subnet(state, spec).map_err(|error| match error {
                SubnetError::Exhausted { .. } | SubnetError::NoCluster => {
                    refuse(ErrorKind::FailedPrecondition, error)
                }
                SubnetError::Invalid { .. } | SubnetError::Overlap { .. } => invalid(error),
            })?;
            let meta = Meta::default();
            Ok(Network { id: id::new(), meta, spec: spec.clone(), ingress, subnet, subnet6 })
        })
    }

    /// Removes a network that nobody uses. Tasks that are stopping do not count. Without the routing mesh's,
    /// nodes keep their addresses until there is another.
    pub async fn remove_network(&self, id: &str) -> Result<(), ControlError> {
        self.store().read(|state| {
            let network =
                state.networks.get(id).ok_or_else(|| not_found(ObjectKind::Network, id))?;
            let name = network.name();
            let publishes = |s: &&Service| network.ingress && !port_wishes(&s.spec).is_empty();
            if let Some(service) = state.services.values().find(publishes) {
                let text = format!(
                    "ingress network cannot be removed because service {} depends on it",
                    service.id
                );
                return Err(refuse(ErrorKind::FailedPrecondition, text));
            }
            match user(state, network) {
                Some(user) => {
                    let text = format!("network {name} is in use by {user}");
                    Err(refuse(ErrorKind::FailedPrecondition, text))
                }
                None => Ok(()),
            }
        })?;
        let change = Change::Delete(ObjectKind::Network, id.to_owned());
        self.store().propose(vec![change]).await.map_err(from_store).map(drop)
    }
}

/// Docker's daemon says so itself, so there is no gRPC code in it.
fn taken(name: &str) -> ControlError {
    let text = format!("network with name {name} already exists");
    ControlError::new(ErrorKind::AlreadyExists, text)
}

/// Who uses the network, in words.
fn user(state: &State, network: &Network) -> Option<String> {
    let here = |a: &docker::NetworkAttachmentConfig| {
        network_of(state, a).is_some_and(|n| n.id == network.id)
    };
    let service = state.services.values().find(|s| attachments(&s.spec).iter().any(here));
    let running = || {
        let wanted = state
            .tasks
            .values()
            .filter(|t| t.desired <= TaskState::Running && !t.status.state.is_terminal());
        wanted.into_iter().find(|t| t.networks.iter().any(|n| n.network_id == network.id))
    };
    match service {
        Some(service) => Some(format!("service {}", service.name())),
        None => running().map(|task| format!("task {}", task.id)),
    }
}
