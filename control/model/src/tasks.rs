//! Tasks by id. There may be a million of them.
use crate::{key::IdKey, task::Task};
use serde::{Serialize, Serializer, ser::SerializeMap};
use std::{
    collections::{BTreeMap, btree_map},
    iter::Map,
    ops::{Bound, Index},
    sync::Arc,
};

/// Tasks in order of their ids. They are shared: a copy of all, as for a snapshot, copies none, and one
/// that is replaced is not moved about.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Tasks(BTreeMap<IdKey, Arc<Task>>);

impl Tasks {
    /// The task of an id.
    pub fn get(&self, id: &str) -> Option<&Task> {
        self.of_key(&id.into())
    }

    /// The task of a key.
    pub fn of_key(&self, key: &IdKey) -> Option<&Task> {
        self.0.get(key).map(Arc::as_ref)
    }

    /// Whether there is such a task.
    pub fn contains_key(&self, id: &str) -> bool {
        self.0.contains_key(&id.into())
    }

    /// All of them.
    pub fn values(&self) -> impl ExactSizeIterator<Item = &Task> + Clone {
        self.0.values().map(Arc::as_ref)
    }

    /// Their ids.
    pub fn keys(&self) -> impl ExactSizeIterator<Item = &str> {
        self.0.values().map(|task| task.id.as_str())
    }

    /// Ids behind one, in order; all without one.
    pub fn after(&self, id: Option<&str>) -> impl Iterator<Item = &str> {
        let from = id.map_or(Bound::Unbounded, |id| Bound::Excluded(IdKey::from(id)));
        self.0.range((from, Bound::Unbounded)).map(|(_, task)| task.id.as_str())
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn get_mut(&mut self, id: &str) -> Option<&mut Arc<Task>> {
        self.0.get_mut(&id.into())
    }

    pub(crate) fn insert(&mut self, task: Arc<Task>) {
        self.0.insert(task.id.as_str().into(), task);
    }

    pub(crate) fn remove(&mut self, id: &str) -> Option<Arc<Task>> {
        self.0.remove(&id.into())
    }
}

impl Index<&str> for Tasks {
    type Output = Task;

    fn index(&self, id: &str) -> &Task {
        &self.0[&id.into()]
    }
}

impl FromIterator<Task> for Tasks {
    fn from_iter<I: IntoIterator<Item = Task>>(tasks: I) -> Tasks {
        Tasks(tasks.into_iter().map(|task| (task.id.as_str().into(), task.into())).collect())
    }
}

impl<'a> IntoIterator for &'a Tasks {
    type Item = &'a Task;
    type IntoIter = Map<btree_map::Values<'a, IdKey, Arc<Task>>, fn(&'a Arc<Task>) -> &'a Task>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.values().map(Arc::as_ref)
    }
}

impl Serialize for Tasks {
    /// A map of ids to tasks.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.len()))?;
        for task in self {
            map.serialize_entry(&task.id, task)?;
        }
        map.end()
    }
}
