//! Nodes for tasks.
//!
//! Waiting tasks form groups, one for each service and version of its template. Groups take turns, the
//! one that waits longest first, one task a turn, so that neither a large one nor one that no node
//! takes holds up the others. Each task gets the best node among those its [`Filters`] let through: by
//! the spread preferences, then [`Rank`]. Nobody looks at all nodes for each task; see `design/scheduler.md`.
//!
//! Within one call tasks are only added to nodes: what was refused stays refused and what was ranked
//! only gets worse. All orders here rest on that: an entry is a lower bound, and is set right when it
//! comes first.
mod group;
mod order;
mod seats;

use crate::filters::{Filters, Refusals};
use group::Group;
use order::{Layouts, Orders};
use seats::{Known, Seats};
use shoal_model::{Change, Object, State, Task, TaskState, TaskStatus, Timestamp, Waiting};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

pub use order::Descriptor;

/// Changes of one call; the rest follow in the next. A call with as many takes about 20 ms, in which
/// the state cannot be changed.
pub const MOST_PLACED: usize = 10_000;

/// Gives each waiting task a node, or says why there is none.
pub fn schedule(state: &State, now: Timestamp) -> Vec<Change> {
    Scheduler::default().schedule(state, now)
}

/// The scheduler with a memory: what no node took is not looked at again before something has changed
/// that may make room for it. Its explanation may say what was true then.
#[derive(Debug, Default)]
pub struct Scheduler {
    stuck: BTreeMap<(String, u64), Stuck>,
    /// Preassigned tasks by id, and [`State::room`] when their node was asked.
    refused: BTreeMap<String, u64>,
    layouts: Layouts,
}

/// A group that was told all there is to tell.
#[derive(PartialEq, Debug)]
struct Stuck {
    room: u64,
    tasks: usize,
    first: Option<Waiting>,
    last: Option<Waiting>,
}

impl Stuck {
    fn of(state: &State, tasks: &BTreeSet<Waiting>) -> Stuck {
        let (first, last) = (tasks.first().cloned(), tasks.last().cloned());
        Stuck { room: state.room(), tasks: tasks.len(), first, last }
    }
}

impl Scheduler {
    /// As [`schedule`], at most [`MOST_PLACED`] changes. When nothing waits that may be placed, the cost
    /// is one look at each waiting group.
    pub fn schedule(&mut self, state: &State, now: Timestamp) -> Vec<Change> {
        self.at_most(MOST_PLACED, state, now)
    }

    fn at_most(&mut self, most: usize, state: &State, now: Timestamp) -> Vec<Change> {
        let mut preassigned = self.preassigned(state);
        let groups = self.groups(state);
        if preassigned.is_empty() && groups.is_empty() {
            return Vec::new();
        }
        let mut call = Call {
            state,
            now,
            most,
            seats: Seats::of(state),
            orders: Orders::of(state, std::mem::take(&mut self.layouts)),
            changes: Vec::new(),
        };
        preassigned.retain(|task| !call.confirm(task));
        let unplaced = call.place(groups);
        for task in preassigned {
            if call.explain_preassigned(task) {
                self.refused.insert(task.id.clone(), state.room());
            }
        }
        for group in &unplaced {
            if call.explain(group) {
                let key = (group.service.to_owned(), group.version);
                self.stuck.insert(key, Stuck::of(state, group.tasks));
            }
        }
        self.layouts = call.orders.layouts();
        call.changes
    }

    fn preassigned<'a>(&mut self, state: &'a State) -> Vec<&'a Task> {
        let waiting = state.preassigned();
        let tasks: Vec<&Task> = waiting.iter().filter_map(|w| state.tasks.of_key(&w.id)).collect();
        let room = state.room();
        let known: BTreeSet<&str> = tasks.iter().map(|t| t.id.as_str()).collect();
        self.refused.retain(|id, at| *at == room && known.contains(id.as_str()));
        tasks.into_iter().filter(|t| !self.refused.contains_key(&t.id)).collect()
    }

    /// Groups worth a look, longest waiting first.
    fn groups<'a>(&mut self, state: &'a State) -> Vec<Lot<'a>> {
        let mut old = std::mem::take(&mut self.stuck);
        let mut lots = Vec::new();
        for (service, version, tasks) in state.waiting() {
            let key = (service.to_owned(), version);
            match old.remove(&key) {
                Some(stuck) if stuck == Stuck::of(state, tasks) => {
                    self.stuck.insert(key, stuck);
                }
                _ => lots.push(Lot { service, version, tasks }),
            }
        }
        lots.sort_by_key(|lot| (lot.tasks.first().map(|w| w.created), lot.service, lot.version));
        lots
    }
}

/// Waiting tasks of one service and version.
#[derive(Clone, Copy)]
struct Lot<'a> {
    service: &'a str,
    version: u64,
    tasks: &'a BTreeSet<Waiting>,
}

struct Call<'a> {
    state: &'a State,
    now: Timestamp,
    most: usize,
    seats: Seats<'a>,
    orders: Orders,
    changes: Vec<Change>,
}

impl<'a> Call<'a> {
    fn full(&self) -> bool {
        self.changes.len() >= self.most
    }

    /// Lets a task that has a node run there. `false`: the node may not take it.
    fn confirm(&mut self, task: &Task) -> bool {
        if self.full() {
            return false;
        }
        let Some(seat) = task.node_id.as_deref().and_then(|n| self.seats.find(n)) else {
            return false;
        };
        let filters = Filters::of(self.state, task);
        let service = self.seats.know(self.state, &task.service_id, 1);
        if self.seats.refusal(seat, service, &filters).is_some() {
            return false;
        }
        self.seat(
            task,
            seat,
            service,
            &filters,
            "scheduler confirmed task can run on preassigned node",
        );
        true
    }

    /// Places what can be placed, in turns. Returns groups with a task that no node takes.
    fn place(&mut self, lots: Vec<Lot<'a>>) -> Vec<Group<'a>> {
        let mut turns: VecDeque<Group<'a>> = VecDeque::new();
        let mut unplaced = Vec::new();
        let mut lots = lots.into_iter();
        while !self.full() {
            // The first turn of each comes before the second of any.
            let group = match lots.next() {
                Some(lot) => {
                    Group::of(self.state, lot, &mut self.seats, &mut self.orders, self.now)
                }
                None if turns.is_empty() => break,
                None => turns.pop_front(),
            };
            let Some(mut group) = group else { continue };
            let Some(task) = group.next_task(self.state) else { continue };
            match group.pick(&self.seats, &mut self.orders) {
                Some(seat) => {
                    self.seat(
                        task,
                        seat,
                        group.known,
                        &group.filters,
                        "scheduler assigned task to node",
                    );
                    group.took();
                    turns.push_back(group);
                }
                None => unplaced.push(group),
            }
        }
        unplaced
    }

    fn seat(&mut self, task: &Task, seat: u32, service: Known, filters: &Filters, message: &str) {
        let (node, load) = self.seats.get(seat);
        let task = Task {
            id: task.id.clone(),
            service_id: task.service_id.clone(),
            node_id: Some(node.id.clone()),
            spec: task.spec.clone(),
            name: task.name.clone(),
            status: TaskStatus {
                state: TaskState::Assigned,
                since: self.now,
                message: message.to_owned(),
                err: String::new(),
                container: None,
            },
            networks: task.networks.clone(),
            assigned_generic_resources: filters.generic.claim(node, load),
            host_ports: filters.host_ports.clone(),
            ..*task
        };
        self.seats.add(seat, service, &task);
        self.changes.push(Change::Put(Object::Task(task.into())));
    }

    /// Says why the node of a preassigned task may not take it. Whether the state has it already.
    fn explain_preassigned(&mut self, task: &Task) -> bool {
        // Without its node it is the orchestrator's, not the scheduler's.
        let Some(seat) = task.node_id.as_deref().and_then(|n| self.seats.find(n)) else {
            return true;
        };
        let filters = Filters::of(self.state, task);
        let service = self.seats.know(self.state, &task.service_id, 1);
        let mut refusals = Refusals::default();
        match self.seats.refusal(seat, service, &filters) {
            Some(refusal) => refusals.count(refusal),
            // There was no room left in this call.
            None => return false,
        }
        self.tell(task, &refusals.to_string())
    }

    /// Says why no node takes the group's remaining tasks. Whether the state has it for all of them.
    fn explain(&mut self, group: &Group<'a>) -> bool {
        let mut refusals = Refusals::default();
        for seat in self.seats.all() {
            if let Some(refusal) = self.seats.refusal(seat, group.known, &group.filters) {
                refusals.count(refusal);
            }
        }
        let err = refusals.no_suitable_node();
        let mut known = true;
        for task in group.rest(self.state) {
            known &= self.tell(task, &err);
            if self.full() {
                break;
            }
        }
        known
    }

    /// Whether the state has the explanation already; else it is among the changes now, if there is
    /// room for it.
    fn tell(&mut self, task: &Task, err: &str) -> bool {
        if task.status.err == err {
            return true;
        }
        if !self.full() {
            let mut task = task.clone();
            err.clone_into(&mut task.status.err);
            self.changes.push(Change::Put(Object::Task(task.into())));
        }
        false
    }
}

#[cfg(test)]
mod naive;
#[cfg(test)]
mod tests;
