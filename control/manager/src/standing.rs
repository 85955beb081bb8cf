//! What the state says of a node that calls; asked before every call.
//!
//! Only a leader knows the newest state. A manager that is behind must not refuse the one that brings
//! it up to date, so it says so when it cannot tell. Nodes that were removed are on a list in the state
//! itself: everybody who has heard of the removal refuses them, behind or not.
use crate::manager::Shared;
use shoal_identity::{Members, Standing};
use shoal_model::{Role, State, longest_pause, patience};
use std::time::Duration;

impl Members for Shared {
    fn standing(&self, node_id: &str) -> Standing {
        let leads = self.lead.borrow().is_some();
        let leader = self.leader();
        self.store.read(|state| standing(state, node_id, leads, leader.as_deref()))
    }

    fn patience(&self) -> Duration {
        patience(longest_pause(self.store.read(|state| state.nodes.len())))
    }
}

/// `leads`: this manager does, with all that came before applied. `leader`: whoever does, as far as is
/// known here.
fn standing(state: &State, node: &str, leads: bool, leader: Option<&str>) -> Standing {
    if state.cluster.as_ref().is_some_and(|c| c.removed_nodes.contains_key(node)) {
        return Standing::Gone;
    }
    match state.nodes.get(node).map(|n| n.role) {
        Some(Role::Manager) => Standing::Member(Role::Manager),
        // With no leader, or with this one as the leader, its promotion may just not be known here.
        Some(Role::Worker) if leader.is_some_and(|leader| leader != node) => {
            Standing::Member(Role::Worker)
        }
        Some(Role::Worker) => Standing::Unsure,
        None if leads => Standing::Gone,
        None => Standing::Unsure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{InitRequest, ManagerConfig, cluster};
    use shoal_model::{Change, Object, Timestamp};

    fn state() -> (State, String) {
        let config = ManagerConfig {
            state_dir: "/nowhere".into(),
            listen: "127.0.0.1:0".parse().unwrap(),
            advertise: "127.0.0.1:2377".parse().unwrap(),
            unlock_key: None,
        };
        let new = cluster::create(&config, InitRequest::default()).unwrap();
        let mut state = State::default();
        state.apply(1, Timestamp(1), new.changes).unwrap();
        let manager = state.nodes.keys().next().unwrap().clone();
        let mut worker = state.nodes[&manager].clone();
        (worker.id, worker.role) = ("worker".to_owned(), Role::Worker);
        worker.meta = Default::default();
        let mut cluster = state.cluster.clone().unwrap();
        cluster.removed_nodes.insert("removed".to_owned(), Timestamp(9));
        let changes = [Object::Node(Box::new(worker)), Object::Cluster(Box::new(cluster))];
        state.apply(2, Timestamp(2), changes.into_iter().map(Change::Put).collect()).unwrap();
        (state, manager)
    }

    #[test]
    fn every_node_s_standing_is_as_certain_as_the_manager_is() {
        let (state, manager) = state();
        let (worker, unknown) = (Standing::Member(Role::Worker), Standing::Unsure);
        let known = Standing::Member(Role::Manager);
        // Node; how a leader, a follower, one without a leader, and one that the node leads see it.
        let table = [
            (manager.as_str(), [known; 4]),
            ("worker", [worker, worker, unknown, unknown]),
            ("absent", [Standing::Gone, unknown, unknown, unknown]),
            ("removed", [Standing::Gone; 4]),
        ];
        for (node, expected) in table {
            let seen =
                [(true, Some("me")), (false, Some("other")), (false, None), (false, Some(node))]
                    .map(|(leads, leader)| standing(&state, node, leads, leader));
            assert_eq!(seen, expected, "{node}");
        }
    }
}
