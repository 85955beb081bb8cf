//! Nodes.
use crate::{
    Manager,
    error::{from_store, invalid, not_found, out_of_sequence, refuse},
};
use shoal_model::{
    Availability, Change, ControlError, ErrorKind, NodeState, Object, ObjectKind, Role,
    docker::{self, NodeSpecAvailabilityEnum as AskedAvailability, NodeSpecRoleEnum as AskedRole},
};

impl Manager {
    /// Changes name, labels and availability of a node. `version` is the one the user read.
    pub async fn update_node(
        &self,
        id: &str,
        version: u64,
        spec: docker::NodeSpec,
    ) -> Result<(), ControlError> {
        let node = self.store().read(|state| {
            let present = state.nodes.get(id).ok_or_else(|| not_found(ObjectKind::Node, id))?;
            if present.meta.version != version {
                return Err(out_of_sequence());
            }
            let mut node = present.clone();
            match (spec.role, present.role) {
                (Some(AskedRole::MANAGER), Role::Worker) => {
                    let text = "promoting a node is not supported: this version runs one manager";
                    return Err(invalid(text));
                }
                (Some(AskedRole::WORKER), Role::Manager) => {
                    let text = "attempting to demote the last manager of the swarm";
                    return Err(refuse(ErrorKind::FailedPrecondition, text));
                }
                _ => {}
            }
            node.availability = match spec.availability {
                None | Some(AskedAvailability::EMPTY) => present.availability,
                Some(AskedAvailability::ACTIVE) => Availability::Active,
                Some(AskedAvailability::PAUSE) => Availability::Pause,
                Some(AskedAvailability::DRAIN) => Availability::Drain,
            };
            node.name = spec.name.clone().unwrap_or_default();
            node.labels = spec.labels.clone().unwrap_or_default().into_iter().collect();
            Ok(node)
        })?;
        let change = Change::Put(Object::Node(node));
        self.store().propose(vec![change]).await.map_err(from_store).map(drop)
    }

    /// Forgets a node; one that is not down only with `force`. It may not come back with its old
    /// certificate.
    pub async fn remove_node(&self, id: &str, force: bool) -> Result<(), ControlError> {
        self.store().read(|state| {
            let node = state.nodes.get(id).ok_or_else(|| not_found(ObjectKind::Node, id))?;
            if node.role == Role::Manager {
                let text = format!(
                    "node {id} is a cluster manager and is a member of the raft cluster. It must be demoted to worker before removal"
                );
                return Err(refuse(ErrorKind::FailedPrecondition, text));
            }
            if node.status.state != NodeState::Down && !force {
                let text = format!("node {id} is not down and can't be removed");
                return Err(refuse(ErrorKind::FailedPrecondition, text));
            }
            Ok(())
        })?;
        let change = Change::Delete(ObjectKind::Node, id.to_owned());
        // Its session sees that it is gone and ends with the reason.
        self.store().propose(vec![change]).await.map_err(from_store).map(drop)
    }
}
