//! Nodes with what they carry, in the course of one call.
use crate::filters::{Filters, Refusal};
use shoal_model::{Load, Node, State, Task};
use std::{borrow::Cow, collections::BTreeMap};

/// How well a node suits a task, best first: one where the service does not keep failing, with the
/// fewest tasks of the service, with the fewest tasks, with the lowest id.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Rank {
    pub(crate) failing: bool,
    pub(crate) of_service: u32,
    pub(crate) tasks: u64,
    /// Number of the node: they are numbered in order of their ids.
    pub(crate) seat: u32,
}

impl Rank {
    /// Before all others.
    pub(crate) const FIRST: Rank = Rank { failing: false, of_service: 0, tasks: 0, seat: 0 };
}

/// Nodes by number.
pub(crate) struct Seats<'a> {
    seats: Vec<(&'a Node, Cow<'a, Load>)>,
    services: BTreeMap<String, Spread>,
}

/// Tasks of one service.
#[derive(Default)]
pub(crate) struct Spread {
    by_seat: BTreeMap<u32, u32>,
    /// Where tasks were placed in this call, one after the other.
    placed: Vec<u32>,
}

impl<'a> Seats<'a> {
    pub(crate) fn of(state: &'a State) -> Seats<'a> {
        let mut loads = state.loads().peekable();
        let mut load = |node: &Node| {
            // Both are in order of id; loads without a node are those of one that was removed.
            while loads.next_if(|(id, _)| *id < node.id.as_str()).is_some() {}
            let found = loads.next_if(|(id, _)| *id == node.id.as_str());
            found.map_or_else(|| Cow::Owned(Load::default()), |(_, load)| Cow::Borrowed(load))
        };
        let seats = state.nodes.values().map(|node| (node, load(node))).collect();
        Seats { seats, services: BTreeMap::new() }
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = u32> + use<> {
        // More nodes than that do not fit into memory.
        0..u32::try_from(self.seats.len()).unwrap_or(u32::MAX)
    }

    pub(crate) fn find(&self, node: &str) -> Option<u32> {
        let at = self.seats.binary_search_by(|(n, _)| n.id.as_str().cmp(node)).ok()?;
        u32::try_from(at).ok()
    }

    pub(crate) fn get(&self, seat: u32) -> (&'a Node, &Load) {
        let (node, load) = &self.seats[seat as usize];
        (node, load)
    }

    pub(crate) fn tasks(&self, seat: u32) -> u64 {
        self.seats[seat as usize].1.tasks
    }

    /// Reads how a service is spread, once.
    pub(crate) fn know(&mut self, state: &State, service: &str) {
        if self.services.contains_key(service) {
            return;
        }
        // Both are in order of id: each search begins where the last one ended, and goes in steps that
        // double, so that neither few nodes nor all of them take long.
        let mut rest = 0..self.seats.len();
        let mut by_seat = Vec::new();
        for (node, tasks) in state.spread(service) {
            let before = |at: usize| self.seats[at].0.id.as_str() < node;
            let mut step = 1;
            while rest.start + step < rest.end && before(rest.start + step) {
                rest.start += step;
                step *= 2;
            }
            let window = &self.seats[rest.start..rest.end.min(rest.start + step + 1)];
            rest.start += window.partition_point(|(n, _)| n.id.as_str() < node);
            let found = self.seats.get(rest.start).is_some_and(|(n, _)| n.id == node);
            by_seat.extend(u32::try_from(rest.start).ok().filter(|_| found).map(|at| (at, tasks)));
        }
        let spread = Spread { by_seat: by_seat.into_iter().collect(), placed: Vec::new() };
        self.services.insert(service.to_owned(), spread);
    }

    pub(crate) fn of_service(&self, service: &str, seat: u32) -> u32 {
        let spread = self.services.get(service);
        spread.and_then(|s| s.by_seat.get(&seat)).copied().unwrap_or(0)
    }

    /// Seats with tasks of the service, and how many.
    pub(crate) fn spread(&self, service: &str) -> impl Iterator<Item = (u32, u32)> {
        let seats = self.services.get(service).into_iter().flat_map(|s| &s.by_seat);
        seats.map(|(seat, tasks)| (*seat, *tasks))
    }

    /// Seats the service's tasks were given in this call, from the `from`th on.
    pub(crate) fn placed(&self, service: &str, from: usize) -> &[u32] {
        let placed = self.services.get(service).map_or(&[][..], |s| &s.placed);
        placed.get(from..).unwrap_or_default()
    }

    /// Why the node may not take a task of the service; `None` when it may.
    pub(crate) fn refusal(&self, seat: u32, service: &str, filters: &Filters) -> Option<Refusal> {
        let (node, load) = self.get(seat);
        filters.refusal(node, load, || self.of_service(service, seat).into())
    }

    /// Whether a node of the group's order may take a task of the service.
    pub(crate) fn room(&self, seat: u32, service: &str, filters: &Filters) -> bool {
        let (node, load) = self.get(seat);
        filters.room(node, load, || self.of_service(service, seat).into())
    }

    pub(crate) fn add(&mut self, seat: u32, task: &Task) {
        self.seats[seat as usize].1.to_mut().add(task);
        let spread = match self.services.get_mut(&task.service_id) {
            Some(spread) => spread,
            None => self.services.entry(task.service_id.clone()).or_default(),
        };
        *spread.by_seat.entry(seat).or_default() += 1;
        spread.placed.push(seat);
    }
}
