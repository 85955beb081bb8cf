//! Nodes with what they carry, in the course of one call.
use crate::filters::{Filters, Refusal};
use shoal_model::{IdKey, Load, Node, State, Task};
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
    /// Their ids.
    ids: Vec<IdKey>,
    spreads: Vec<Spread>,
    services: BTreeMap<IdKey, Known>,
}

/// A service whose spread is known in this call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Known(usize);

/// Tasks of one service.
pub(crate) struct Spread {
    by_seat: BySeat,
    /// Where tasks were placed in this call, one after the other.
    placed: Vec<u32>,
}

/// How many tasks each seat has.
enum BySeat {
    /// Of those that have any.
    Few(BTreeMap<u32, u32>),
    /// Of all.
    Many(Vec<u32>),
}

/// A service whose tasks are on more than one of so many nodes has them counted for all.
const FEW: usize = 16;

impl BySeat {
    fn of(counts: Vec<(u32, u32)>, expected: usize, seats: usize) -> BySeat {
        if counts.len().max(expected) <= seats / FEW {
            return BySeat::Few(counts.into_iter().collect());
        }
        let mut all = vec![0; seats];
        counts.into_iter().for_each(|(seat, tasks)| all[seat as usize] = tasks);
        BySeat::Many(all)
    }

    fn get(&self, seat: u32) -> u32 {
        match self {
            BySeat::Few(counts) => counts.get(&seat).copied().unwrap_or(0),
            BySeat::Many(all) => all.get(seat as usize).copied().unwrap_or(0),
        }
    }

    fn add(&mut self, seat: u32) {
        match self {
            BySeat::Few(counts) => *counts.entry(seat).or_default() += 1,
            BySeat::Many(all) => all[seat as usize] += 1,
        }
    }

    fn seats(&self) -> Box<dyn Iterator<Item = (u32, u32)> + '_> {
        match self {
            BySeat::Few(counts) => Box::new(counts.iter().map(|(seat, tasks)| (*seat, *tasks))),
            BySeat::Many(all) => {
                Box::new((0..).zip(all.iter().copied()).filter(|(_, tasks)| *tasks > 0))
            }
        }
    }
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
        let ids = state.nodes.keys().map(IdKey::from).collect();
        Seats { seats, ids, spreads: Vec::new(), services: BTreeMap::new() }
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = u32> + use<> {
        // More nodes than that do not fit into memory.
        0..u32::try_from(self.seats.len()).unwrap_or(u32::MAX)
    }

    pub(crate) fn find(&self, node: &str) -> Option<u32> {
        u32::try_from(self.ids.binary_search(&node.into()).ok()?).ok()
    }

    pub(crate) fn get(&self, seat: u32) -> (&'a Node, &Load) {
        let (node, load) = &self.seats[seat as usize];
        (node, load)
    }

    pub(crate) fn tasks(&self, seat: u32) -> u64 {
        self.seats[seat as usize].1.tasks
    }

    /// Reads how a service is spread, once. `expected`: how many tasks of it may be placed.
    pub(crate) fn know(&mut self, state: &State, service: &str, expected: usize) -> Known {
        let service = IdKey::from(service);
        if let Some(known) = self.services.get(&service) {
            return *known;
        }
        // Both are in order of id: each search begins where the last one ended, and goes in steps that
        // double, so that neither few nodes nor all of them take long.
        let mut rest = &self.ids[..];
        let mut by_seat = Vec::new();
        for (node, tasks) in state.spread(&service) {
            let mut step = 1;
            while rest.get(step).is_some_and(|id| id < node) {
                rest = &rest[step..];
                step *= 2;
            }
            let window = &rest[..rest.len().min(step + 1)];
            rest = &rest[window.partition_point(|id| id < node)..];
            let at = self.ids.len() - rest.len();
            let found = rest.first() == Some(node);
            by_seat.extend(u32::try_from(at).ok().filter(|_| found).map(|at| (at, tasks)));
        }
        let by_seat = BySeat::of(by_seat, expected, self.seats.len());
        let known = Known(self.spreads.len());
        self.spreads.push(Spread { by_seat, placed: Vec::new() });
        self.services.insert(service, known);
        known
    }

    pub(crate) fn of_service(&self, service: Known, seat: u32) -> u32 {
        self.spreads[service.0].by_seat.get(seat)
    }

    /// Seats with tasks of the service, and how many.
    pub(crate) fn spread(&self, service: Known) -> impl Iterator<Item = (u32, u32)> {
        self.spreads[service.0].by_seat.seats()
    }

    /// Seats the service's tasks were given in this call, from the `from`th on.
    pub(crate) fn placed(&self, service: Known, from: usize) -> &[u32] {
        self.spreads[service.0].placed.get(from..).unwrap_or_default()
    }

    /// Why the node may not take a task of the service; `None` when it may.
    pub(crate) fn refusal(&self, seat: u32, service: Known, filters: &Filters) -> Option<Refusal> {
        let (node, load) = self.get(seat);
        filters.refusal(node, load, || self.of_service(service, seat).into())
    }

    /// Whether a node of the group's order may take a task of the service.
    pub(crate) fn room(&self, seat: u32, service: Known, filters: &Filters) -> bool {
        let (node, load) = self.get(seat);
        filters.room(node, load, || self.of_service(service, seat).into())
    }

    pub(crate) fn add(&mut self, seat: u32, service: Known, task: &Task) {
        self.seats[seat as usize].1.to_mut().add(task);
        let spread = &mut self.spreads[service.0];
        spread.by_seat.add(seat);
        spread.placed.push(seat);
    }
}
