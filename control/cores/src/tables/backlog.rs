//! All of a state, a little at a time.
//!
//! A new leader reads everything, and a million tasks take half a minute: meanwhile it has to take proposals and sessions.
//! What changes behind the place that has been reached is looked at like any other change, what changes before it when
//! the place comes there.
use super::follow::Changed;
use shoal_model::{ObjectKind, State};
use std::{
    collections::BTreeMap,
    ops::Bound::{Excluded, Unbounded},
};

/// Kinds in their order: rows of tasks need those of their networks, and tasks are looked at with their services known.
const ORDER: [ObjectKind; 4] =
    [ObjectKind::Network, ObjectKind::Node, ObjectKind::Service, ObjectKind::Task];

/// What is to be read: kinds before the present one are.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    /// Place in [`ORDER`].
    at: usize,
    /// The last object of the present kind that was looked at.
    last: Option<String>,
}

impl Backlog {
    pub(super) fn is_done(&self) -> bool {
        self.at == ORDER.len()
    }

    /// Whether a change of such an object has to be looked at for itself. Secrets and configs are looked at with the
    /// tasks that need them.
    pub(super) fn has_begun(&self, kind: ObjectKind) -> bool {
        ORDER.iter().position(|other| *other == kind).is_none_or(|place| place <= self.at)
    }

    /// The next objects, at most so many and one of each call at least.
    pub(super) fn next(&mut self, state: &State, most: usize) -> Changed {
        let (mut changed, mut room) = (Changed::default(), most.max(1));
        while room > 0
            && let Some(kind) = ORDER.get(self.at)
        {
            let last = self.last.as_deref();
            let next: Vec<&str> = match kind {
                ObjectKind::Network => after(&state.networks, last).take(room).collect(),
                ObjectKind::Node => after(&state.nodes, last).take(room).collect(),
                ObjectKind::Service => state.services.after(last).take(room).collect(),
                _ => state.tasks.after(last).take(room).collect(),
            };
            next.iter().for_each(|id| changed.note(*kind, id));
            match next.last() {
                Some(id) if next.len() == room => self.last = Some((*id).to_owned()),
                _ => (self.at, self.last) = (self.at + 1, None),
            }
            room -= next.len();
        }
        changed
    }
}

fn after<'a, T>(all: &'a BTreeMap<String, T>, last: Option<&str>) -> impl Iterator<Item = &'a str> {
    let from = last.map_or(Unbounded, Excluded);
    all.range::<str, _>((from, Unbounded)).map(|(id, _)| id.as_str())
}
