//! Waiting tasks of one service and version, and where the next of them goes.
use super::{
    Lot,
    order::{Descriptor, Order, Orders},
    seats::{Known, Rank, Seats},
};
use crate::filters::Filters;
use shoal_model::{State, Task, Timestamp, Waiting};
use std::collections::{BTreeMap, BTreeSet, btree_set};

pub(crate) struct Group<'a> {
    pub(crate) service: &'a str,
    pub(crate) version: u64,
    pub(crate) known: Known,
    pub(crate) tasks: &'a BTreeSet<Waiting>,
    pub(crate) filters: Filters,
    /// Those without a turn yet.
    turns: btree_set::Iter<'a, Waiting>,
    /// How many had a turn and were placed.
    placed: usize,
    order: usize,
    /// Nodes the service keeps failing on.
    failing: BTreeSet<u32>,
    /// Tasks of the service, by branch.
    counts: Vec<u64>,
    /// How many of the service's placements in this call are in `counts`.
    counted: usize,
    /// Children by branch, best first; made when first asked for.
    children: BTreeMap<usize, BTreeSet<(u64, Bid, usize)>>,
    leaves: BTreeMap<usize, Leaf>,
}

/// What a branch has to offer: tasks of the service in the branches on the way to its best node, and
/// that node. Compared so, and not by the node alone, it only gets worse.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Bid {
    counts: Vec<u64>,
    rank: Rank,
}

/// A leaf as the group sees it.
#[derive(Default)]
struct Leaf {
    /// Nodes before this one, by tasks and number, are refused or in `used`.
    fresh: (u64, u32),
    /// Nodes with tasks of the service, and those it keeps failing on, of those that may take its tasks.
    used: BTreeSet<Rank>,
}

impl<'a> Group<'a> {
    /// `None`: there is no such task, or its service is gone, and with it soon the tasks.
    pub(crate) fn of(
        state: &'a State,
        lot: Lot<'a>,
        seats: &mut Seats<'a>,
        orders: &mut Orders,
        now: Timestamp,
    ) -> Option<Group<'a>> {
        let Lot { service, version, tasks } = lot;
        let first = state.tasks.of_key(&tasks.first()?.id)?;
        let known = seats.know(state, service, tasks.len());
        let filters = Filters::of(state, first);
        let preferences = Descriptor::all(first.spec.placement.as_ref());
        let number = orders.number(preferences, &filters.fixed, seats);
        let order = orders.get(number);
        let failing: BTreeSet<u32> =
            state.failures.of(service, version, now).filter_map(|n| seats.find(n)).collect();
        let mut group = Group {
            service,
            version,
            known,
            tasks,
            filters,
            turns: tasks.iter(),
            placed: 0,
            order: number,
            failing,
            counts: vec![0; order.branches()],
            counted: seats.placed(known, 0).len(),
            children: BTreeMap::new(),
            leaves: BTreeMap::new(),
        };
        let mut used: BTreeMap<usize, Vec<Rank>> = BTreeMap::new();
        let failing = group.failing.iter().map(|seat| (*seat, 0));
        for (seat, tasks) in seats.spread(known).chain(failing) {
            order.path(seat).for_each(|branch| group.counts[branch] += u64::from(tasks));
            if order.takes(seat) {
                used.entry(order.leaf(seat)).or_default().push(group.rank(seat, seats));
            }
        }
        for (leaf, ranks) in used {
            let used = ranks.into_iter().collect();
            group.leaves.insert(leaf, Leaf { used, ..Leaf::default() });
        }
        Some(group)
    }

    pub(crate) fn next_task(&mut self, state: &'a State) -> Option<&'a Task> {
        self.turns.find_map(|waiting| state.tasks.of_key(&waiting.id))
    }

    /// The task of this turn was placed.
    pub(crate) fn took(&mut self) {
        self.placed += 1;
    }

    /// Tasks that were not placed.
    pub(crate) fn rest(&self, state: &'a State) -> impl Iterator<Item = &'a Task> + use<'a> {
        let tasks = self.tasks.iter().skip(self.placed);
        tasks.filter_map(|waiting| state.tasks.of_key(&waiting.id))
    }

    /// The best node for the next task. `None`: there is none, and will be none in this call.
    pub(crate) fn pick(&mut self, seats: &Seats<'a>, orders: &mut Orders) -> Option<u32> {
        let order = orders.get(self.order);
        // Groups of other versions of the service may have had turns meanwhile.
        let placed = seats.placed(self.known, self.counted);
        self.counted += placed.len();
        for seat in placed {
            order.path(*seat).for_each(|branch| self.counts[branch] += 1);
            // A version with other constraints may have been placed there.
            if order.takes(*seat) {
                self.use_again(*seat, order, seats);
            }
        }
        self.best(0, order, seats).map(|bid| bid.rank.seat)
    }

    fn rank(&self, seat: u32, seats: &Seats<'_>) -> Rank {
        Rank {
            failing: self.failing.contains(&seat),
            of_service: seats.of_service(self.known, seat),
            tasks: seats.tasks(seat),
            seat,
        }
    }

    fn use_again(&mut self, seat: u32, order: &Order, seats: &Seats<'_>) {
        let rank = self.rank(seat, seats);
        self.leaves.entry(order.leaf(seat)).or_default().used.insert(rank);
    }

    /// The best node of a branch: that of the child with the fewest tasks of the service; among
    /// those, of the one that offers most.
    fn best(&mut self, branch: usize, order: &mut Order, seats: &Seats<'_>) -> Option<Bid> {
        if order.children(branch).is_empty() {
            let rank = self.best_of_leaf(branch, order, seats)?;
            return Some(Bid { counts: Vec::new(), rank });
        }
        if !self.children.contains_key(&branch) {
            let unseen = Bid { counts: Vec::new(), rank: Rank::FIRST };
            let all = order.children(branch).iter();
            let all = all.map(|child| (self.counts[*child], unseen.clone(), *child)).collect();
            self.children.insert(branch, all);
        }
        loop {
            let child = self.children.get(&branch)?.first()?.2;
            let count = self.counts[child];
            let now = self.best(child, order, seats);
            let children = self.children.get_mut(&branch)?;
            let first = children.pop_first()?;
            let Some(bid) = now else { continue };
            let same = (first.0, &first.1) == (count, &bid);
            if same {
                let counts = std::iter::once(count).chain(bid.counts.iter().copied()).collect();
                let offer = Bid { counts, rank: bid.rank };
                children.insert((count, bid, child));
                return Some(offer);
            }
            children.insert((count, bid, child));
        }
    }

    fn best_of_leaf(&mut self, leaf: usize, order: &mut Order, seats: &Seats<'_>) -> Option<Rank> {
        let mut at = self.leaves.entry(leaf).or_default().fresh;
        let fresh = loop {
            let Some((tasks, seat)) = order.next(leaf, at, seats) else { break None };
            let rank = self.rank(seat, seats);
            // Those with tasks of the service, or where it fails, are in `used`.
            let used = rank.failing || rank.of_service > 0;
            if !used && seats.room(seat, self.known, &self.filters) {
                at = (tasks, seat);
                break Some(rank);
            }
            at = (tasks, seat + 1);
        };
        self.leaves.entry(leaf).or_default().fresh = at;
        fresh.or_else(|| self.best_used(leaf, seats))
    }

    fn best_used(&mut self, leaf: usize, seats: &Seats<'_>) -> Option<Rank> {
        loop {
            let first = *self.leaves.get(&leaf)?.used.first()?;
            let now = self.rank(first.seat, seats);
            let refused = !seats.room(first.seat, self.known, &self.filters);
            if now == first && !refused {
                return Some(first);
            }
            let used = &mut self.leaves.get_mut(&leaf)?.used;
            used.remove(&first);
            if !refused {
                used.insert(now);
            }
        }
    }
}
