//! Objects by id of which there may be very many: a million tasks, a hundred thousand services.
use crate::{key::IdKey, objects::Service, task::Task};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser::SerializeMap};
use std::{
    collections::{BTreeMap, btree_map},
    fmt,
    iter::Map,
    marker::PhantomData,
    ops::{Bound, Index},
    sync::Arc,
};

/// Objects in order of their ids. They are shared: a copy of all, as for a snapshot, copies none, and none
/// is moved about when another is put beside it.
#[derive(Clone, PartialEq, Debug)]
pub struct Shared<T>(BTreeMap<IdKey, Arc<T>>);

/// Tasks by id.
pub type Tasks = Shared<Task>;

/// Services by id.
pub type Services = Shared<Service>;

/// What has an id.
pub trait Identified {
    /// Its id.
    fn id(&self) -> &str;
}

impl Identified for Task {
    fn id(&self) -> &str {
        &self.id
    }
}

impl Identified for Service {
    fn id(&self) -> &str {
        &self.id
    }
}

impl<T> Default for Shared<T> {
    fn default() -> Shared<T> {
        Shared(BTreeMap::new())
    }
}

impl<T: Identified> Shared<T> {
    /// The object of an id.
    pub fn get(&self, id: &str) -> Option<&T> {
        self.of_key(&id.into())
    }

    /// The object of a key.
    pub fn of_key(&self, key: &IdKey) -> Option<&T> {
        self.0.get(key).map(Arc::as_ref)
    }

    /// The object of an id, to be kept.
    pub fn shared(&self, id: &str) -> Option<&Arc<T>> {
        self.0.get(&id.into())
    }

    /// Whether there is such an object.
    pub fn contains_key(&self, id: &str) -> bool {
        self.0.contains_key(&id.into())
    }

    /// All of them.
    pub fn values(&self) -> impl ExactSizeIterator<Item = &T> + Clone {
        self.0.values().map(Arc::as_ref)
    }

    /// Their ids.
    pub fn keys(&self) -> impl ExactSizeIterator<Item = &str> {
        self.0.values().map(|object| object.id())
    }

    /// Ids behind one, in order; all without one.
    pub fn after(&self, id: Option<&str>) -> impl Iterator<Item = &str> {
        let from = id.map_or(Bound::Unbounded, |id| Bound::Excluded(IdKey::from(id)));
        self.0.range((from, Bound::Unbounded)).map(|(_, object)| object.id())
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn get_mut(&mut self, id: &str) -> Option<&mut Arc<T>> {
        self.0.get_mut(&id.into())
    }

    pub(crate) fn insert(&mut self, object: Arc<T>) {
        self.0.insert(object.id().into(), object);
    }

    pub(crate) fn remove(&mut self, id: &str) -> Option<Arc<T>> {
        self.0.remove(&id.into())
    }
}

impl<T> Index<&str> for Shared<T> {
    type Output = T;

    fn index(&self, id: &str) -> &T {
        &self.0[&id.into()]
    }
}

impl<T> Index<&String> for Shared<T> {
    type Output = T;

    fn index(&self, id: &String) -> &T {
        &self[id.as_str()]
    }
}

impl<T: Identified> FromIterator<T> for Shared<T> {
    fn from_iter<I: IntoIterator<Item = T>>(objects: I) -> Shared<T> {
        let shared = objects.into_iter().map(|object| (object.id().into(), object.into()));
        Shared(shared.collect())
    }
}

impl<'a, T> IntoIterator for &'a Shared<T> {
    type Item = &'a T;
    type IntoIter = Map<btree_map::Values<'a, IdKey, Arc<T>>, fn(&'a Arc<T>) -> &'a T>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.values().map(Arc::as_ref)
    }
}

impl<T: Serialize + Identified> Serialize for Shared<T> {
    /// A map of ids to objects.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.len()))?;
        for object in self {
            map.serialize_entry(object.id(), object)?;
        }
        map.end()
    }
}

/// Reads objects by id as they come.
pub(crate) struct ById<T, F>(pub(crate) F, pub(crate) PhantomData<T>);

impl<'de, T: Deserialize<'de> + Identified, F: FnMut(&mut T)> de::Visitor<'de> for ById<T, F> {
    type Value = Shared<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("objects by id")
    }

    fn visit_map<A: de::MapAccess<'de>>(mut self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut all = Shared::default();
        while let Some((_, mut object)) = map.next_entry::<de::IgnoredAny, T>()? {
            (self.0)(&mut object);
            all.insert(object.into());
        }
        Ok(all)
    }
}

impl<'de, T: Deserialize<'de> + Identified> Deserialize<'de> for Shared<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Shared<T>, D::Error> {
        deserializer.deserialize_map(ById(|_: &mut T| {}, PhantomData))
    }
}
