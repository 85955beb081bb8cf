//! What a transaction did to the state.

use super::place;
use crate::log::Txn;
use shoal_model::{Change, Object, ObjectKind, State, Task, Timestamp};
use std::{collections::BTreeMap, sync::Arc};

/// What a transaction did to the state.
pub(crate) struct Step<'a> {
    pub(crate) txn: &'a Txn,
    /// Objects as they were, in the order of the changes.
    pub(crate) old: &'a [Option<Object>],
    /// The state with the transaction.
    pub(crate) state: &'a State,
    /// Facts about tasks that the state does not tell.
    pub(crate) tasks: &'a BTreeMap<String, TaskFacts>,
}

impl Step<'_> {
    /// Tasks put by this transaction: as they were and as they are.
    pub(crate) fn tasks_put(&self) -> impl Iterator<Item = (Option<&Task>, &Task)> + '_ {
        self.txn.changes.iter().zip(self.old).filter_map(|(change, old)| {
            let Change::Put(Object::Task(task)) = change else { return None };
            let old = match old {
                Some(Object::Task(old)) => Some(&**old),
                _ => None,
            };
            Some((old, self.state.tasks.get(&task.id)?))
        })
    }

    /// Tasks of a place but one, in the order they were made.
    pub(crate) fn others_of_slot(&self, task: &Task) -> Vec<&Task> {
        let mut others: Vec<&Task> = self
            .state
            .tasks_of_service(&task.service_id)
            .filter(|t| t.slot == task.slot && place(t) == place(task) && t.id != task.id)
            .collect();
        others.sort_by_key(|t| self.tasks.get(&t.id).map(|f| f.order));
        others
    }
}

/// What is remembered of a task beside the state.
pub(crate) struct TaskFacts {
    /// Order in which tasks were made, whatever the clocks said.
    pub(crate) order: u64,
    /// Clock of the leader when its end became known, if it ended while it was wanted.
    pub(crate) ended: Option<Timestamp>,
}

/// The object a change is about, as it is.
pub(super) fn present(state: &State, change: &Change) -> Option<Object> {
    let (kind, id) = match change {
        Change::Put(object) => (object.kind(), object.id()),
        Change::Delete(kind, id) => (*kind, id.as_str()),
    };
    match kind {
        ObjectKind::Cluster => state.cluster.clone().map(Box::new).map(Object::Cluster),
        ObjectKind::Node => state.nodes.get(id).cloned().map(Box::new).map(Object::Node),
        ObjectKind::Network => state.networks.get(id).cloned().map(Box::new).map(Object::Network),
        ObjectKind::Service => state.services.get(id).cloned().map(Arc::new).map(Object::Service),
        ObjectKind::Task => state.tasks.get(id).map(|task| Object::Task(task.clone().into())),
        ObjectKind::Secret => state.secrets.get(id).cloned().map(Object::Secret),
        ObjectKind::Config => state.configs.get(id).cloned().map(Object::Config),
    }
}

/// What a transaction does, for who reads the events.
pub(super) fn words(txn: &Txn) -> String {
    let word = |change: &Change| match change {
        Change::Put(Object::Task(t)) => format!(
            "task {} {}.{}v{} {:?}→{:?} on {}",
            t.id.get(..6).unwrap_or(&t.id),
            t.service_id.get(..4).unwrap_or_default(),
            place(t),
            t.spec_version,
            t.status.state,
            t.desired,
            t.node_id.as_deref().unwrap_or("-")
        ),
        Change::Put(Object::Node(n)) => {
            format!("{} {:?} {:?} {:?}", n.id, n.role, n.status.state, n.availability)
        }
        Change::Put(Object::Service(s)) => format!(
            "service {} {} v{} {:?} {}",
            s.id.get(..4).unwrap_or_default(),
            s.name(),
            s.spec_version,
            s.mode(),
            s.update_status.as_ref().map_or("never updated".to_owned(), |u| format!(
                "{:?} since {}",
                u.state, u.began.0
            ))
        ),
        Change::Put(object) => format!("{} {}", object.kind().as_str(), object.id()),
        Change::Delete(kind, id) => format!("no {} {}", kind.as_str(), id.get(..6).unwrap_or(id)),
    };
    txn.changes.iter().map(word).collect::<Vec<_>>().join(", ")
}
