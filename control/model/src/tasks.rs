//! Tasks by id. There may be a million of them, so that what a look-up costs is what everything costs.
use crate::task::Task;
use serde::{Serialize, Serializer, ser::SerializeMap};
use std::{
    borrow::Borrow,
    cmp::Ordering,
    collections::{BTreeMap, btree_map},
    fmt,
    ops::Index,
};

/// Bytes of an id that are kept in place; the cluster's own ids have 25. Longer ones work, too.
const IN_PLACE: usize = 30;

/// An id as a key of ordered maps: without a pointer to follow for each comparison.
#[derive(Clone)]
pub struct TaskKey(Bytes);

#[derive(Clone)]
enum Bytes {
    InPlace(u8, [u8; IN_PLACE]),
    Elsewhere(Box<[u8]>),
}

impl TaskKey {
    fn bytes(&self) -> &[u8] {
        match &self.0 {
            Bytes::InPlace(length, bytes) => &bytes[..usize::from(*length)],
            Bytes::Elsewhere(bytes) => bytes,
        }
    }
}

impl From<&str> for TaskKey {
    fn from(id: &str) -> TaskKey {
        let mut bytes = [0; IN_PLACE];
        match (u8::try_from(id.len()), bytes.get_mut(..id.len())) {
            (Ok(length), Some(place)) => {
                place.copy_from_slice(id.as_bytes());
                TaskKey(Bytes::InPlace(length, bytes))
            }
            _ => TaskKey(Bytes::Elsewhere(id.as_bytes().into())),
        }
    }
}

impl Default for TaskKey {
    /// Before all others.
    fn default() -> TaskKey {
        TaskKey(Bytes::InPlace(0, [0; IN_PLACE]))
    }
}

impl Borrow<[u8]> for TaskKey {
    fn borrow(&self) -> &[u8] {
        self.bytes()
    }
}

impl PartialEq for TaskKey {
    fn eq(&self, other: &TaskKey) -> bool {
        self.bytes() == other.bytes()
    }
}

impl Eq for TaskKey {}

impl PartialOrd for TaskKey {
    fn partial_cmp(&self, other: &TaskKey) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for TaskKey {
    /// The order of the ids.
    fn cmp(&self, other: &TaskKey) -> Ordering {
        self.bytes().cmp(other.bytes())
    }
}

impl fmt::Debug for TaskKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        String::from_utf8_lossy(self.bytes()).fmt(f)
    }
}

/// Tasks in order of their ids.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Tasks(BTreeMap<TaskKey, Task>);

impl Tasks {
    /// The task of an id.
    pub fn get(&self, id: &str) -> Option<&Task> {
        self.0.get(id.as_bytes())
    }

    /// The task of a key.
    pub fn of_key(&self, key: &TaskKey) -> Option<&Task> {
        self.0.get(key)
    }

    /// Whether there is such a task.
    pub fn contains_key(&self, id: &str) -> bool {
        self.0.contains_key(id.as_bytes())
    }

    /// All of them.
    pub fn values(&self) -> impl ExactSizeIterator<Item = &Task> + Clone {
        self.0.values()
    }

    /// Their ids.
    pub fn keys(&self) -> impl ExactSizeIterator<Item = &str> {
        self.0.values().map(|task| task.id.as_str())
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn get_mut(&mut self, id: &str) -> Option<&mut Task> {
        self.0.get_mut(id.as_bytes())
    }

    pub(crate) fn insert(&mut self, task: Task) {
        self.0.insert(task.id.as_str().into(), task);
    }

    pub(crate) fn remove(&mut self, id: &str) -> Option<Task> {
        self.0.remove(id.as_bytes())
    }
}

impl Index<&str> for Tasks {
    type Output = Task;

    fn index(&self, id: &str) -> &Task {
        &self.0[id.as_bytes()]
    }
}

impl FromIterator<Task> for Tasks {
    fn from_iter<I: IntoIterator<Item = Task>>(tasks: I) -> Tasks {
        Tasks(tasks.into_iter().map(|task| (task.id.as_str().into(), task)).collect())
    }
}

impl<'a> IntoIterator for &'a Tasks {
    type Item = &'a Task;
    type IntoIter = btree_map::Values<'a, TaskKey, Task>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.values()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_in_the_order_of_their_ids_however_long_they_are() {
        let long = "n".repeat(IN_PLACE + 1);
        let mut ids = ["b", "", "ab", "a", &long, &long[1..], "nn", "é", "z"];
        ids.sort_unstable();
        let mut keys: Vec<TaskKey> = ids.iter().rev().map(|id| TaskKey::from(*id)).collect();
        keys.sort();
        let sorted: Vec<String> = keys.iter().map(|key| format!("{key:?}")).collect();
        assert_eq!(sorted, ids.map(|id| format!("{id:?}")));
        assert_eq!(keys[0], TaskKey::default());
    }

    #[test]
    fn a_key_is_small() {
        assert_eq!(size_of::<TaskKey>(), 32);
    }
}
