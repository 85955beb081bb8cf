//! Nodes.
use crate::{
    Manager, clock,
    cluster::node_validity,
    edit,
    error::{from_store, not_found, out_of_sequence, refuse},
};
use shoal_model::{
    Availability, Change, ControlError, ErrorKind, NodeState, Object, ObjectKind, Role, State,
    Timestamp,
    docker::{self, NodeSpecAvailabilityEnum as AskedAvailability, NodeSpecRoleEnum as AskedRole},
};

/// Removed nodes that are remembered; of more, those are forgotten whose certificates end first. The
/// leader refuses them all the same, since they are not among its nodes.
const MOST_REMOVED: usize = 5_000;

impl Manager {
    /// Changes name, labels, availability and role of a node. `version` is the one the user read. A
    /// node that is promoted or demoted learns of it in its session, and the keeper sees to its vote.
    pub async fn update_node(
        &self,
        id: &str,
        version: u64,
        spec: docker::NodeSpec,
    ) -> Result<(), ControlError> {
        let demoted = self.store().read(|state| {
            let role = state.nodes.get(id).map(|n| n.role);
            role == Some(Role::Manager) && spec.role == Some(AskedRole::WORKER)
        });
        let node = self.store().read(|state| {
            let present = state.nodes.get(id).ok_or_else(|| not_found(ObjectKind::Node, id))?;
            if present.meta.version != version {
                return Err(out_of_sequence());
            }
            let mut node = present.clone();
            node.role = match (spec.role, present.role) {
                (Some(AskedRole::MANAGER), Role::Worker) if present.manager_addr.is_some() => {
                    let text = format!("node {id} is being demoted; try again when it is a worker");
                    return Err(refuse(ErrorKind::FailedPrecondition, text));
                }
                (Some(AskedRole::MANAGER), _) => Role::Manager,
                (Some(AskedRole::WORKER), _) => Role::Worker,
                (None | Some(AskedRole::EMPTY), role) => role,
            };
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
        if demoted {
            self.can_lose(id)?;
        }
        let change = Change::Put(Object::Node(Box::new(node)));
        self.store().propose(vec![change]).await.map_err(from_store).map(drop)
    }

    /// Forgets a node; one that is not down only with `force`. It may not come back with its old
    /// certificate.
    pub async fn remove_node(&self, id: &str, force: bool) -> Result<(), ControlError> {
        self.store().read(|state| {
            let node = state.nodes.get(id).ok_or_else(|| not_found(ObjectKind::Node, id))?;
            if node.role == Role::Manager || node.manager_addr.is_some() {
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
        // Its session sees that it is gone and ends with the reason.
        let removed = edit::change(self.store(), |state| {
            let node = state.nodes.get(id)?;
            // Promoted meanwhile: then it is a matter of its vote first.
            (node.role == Role::Worker).then(|| removal(state, id, clock::now()))
        });
        removed.await.map_err(from_store)
    }
}

/// Deletes a node and notes that its certificate counts no more.
fn removal(state: &State, id: &str, now: Timestamp) -> Vec<Change> {
    let mut changes = vec![Change::Delete(ObjectKind::Node, id.to_owned())];
    if let Some(mut cluster) = state.cluster.clone() {
        let ends = now.after(node_validity(&cluster.spec));
        cluster.removed_nodes.retain(|_, ends| *ends > now);
        while cluster.removed_nodes.len() >= MOST_REMOVED {
            let first = cluster.removed_nodes.iter().min_by_key(|(_, ends)| **ends);
            let Some(first) = first.map(|(id, _)| id.clone()) else { break };
            cluster.removed_nodes.remove(&first);
        }
        cluster.removed_nodes.insert(id.to_owned(), ends);
        changes.push(Change::Put(Object::Cluster(Box::new(cluster))));
    }
    changes
}
