//! The nodes in the branches of spread preferences, each branch in order of what its nodes carry.
//! Groups with the same preferences, constraints, platforms and drivers share one order.
use super::seats::Seats;
use crate::filters::{Fixed, takes_tasks};
use shoal_model::{Node, State, docker};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// A label whose values tasks are spread over.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Descriptor {
    /// Of the node, given by the user.
    Node(String),
    /// Of the node's daemon.
    Engine(String),
}

impl Descriptor {
    /// Reads `node.labels.KEY` or `engine.labels.KEY`.
    pub fn parse(text: &str) -> Option<Descriptor> {
        let after = |prefix: &str| {
            let head = text.get(..prefix.len())?;
            let key = &text[prefix.len()..];
            (head.eq_ignore_ascii_case(prefix) && !key.is_empty()).then(|| key.to_owned())
        };
        let node = after("node.labels.").map(Descriptor::Node);
        node.or_else(|| after("engine.labels.").map(Descriptor::Engine))
    }

    /// The preferences of a placement, most important first.
    pub(crate) fn all(placement: Option<&docker::TaskSpecPlacement>) -> Vec<Descriptor> {
        let preferences = placement.and_then(|p| p.preferences.as_deref()).unwrap_or_default();
        let text = |p: &docker::TaskSpecPlacementPreferences| {
            Descriptor::parse(p.spread.as_ref()?.spread_descriptor.as_deref()?)
        };
        preferences.iter().filter_map(text).collect()
    }

    /// The node's branch. Nodes without the label are one.
    pub(crate) fn value<'n>(&self, node: &'n Node) -> &'n str {
        let value = match self {
            Descriptor::Node(key) => node.labels.get(key),
            Descriptor::Engine(key) => {
                node.description.as_ref().and_then(|d| d.engine_labels.get(key))
            }
        };
        value.map_or("", String::as_str)
    }
}

/// Layouts kept from call to call. As many preferences and constraints are usual at a time; more than that are
/// made anew in each call.
const MOST_LAYOUTS: usize = 16;

/// Preferences, and what a node has to satisfy.
type Key = (Vec<Descriptor>, Arc<Fixed>);

/// The layouts of the last call's orders, for as long as no node changes.
#[derive(Debug, Default)]
pub(crate) struct Layouts {
    /// [`State::fleet`] of the nodes they are made of.
    fleet: u64,
    known: BTreeMap<Key, Arc<Layout>>,
}

/// Orders of a call, one for each list of preferences and what nodes have to satisfy.
pub(crate) struct Orders {
    orders: Vec<Order>,
    numbers: BTreeMap<Key, usize>,
    before: Layouts,
}

impl Orders {
    pub(crate) fn of(state: &State, mut before: Layouts) -> Orders {
        if before.fleet != state.fleet() {
            before = Layouts { fleet: state.fleet(), known: BTreeMap::new() };
        }
        Orders { orders: Vec::new(), numbers: BTreeMap::new(), before }
    }

    /// What the next call may use again.
    pub(crate) fn layouts(self) -> Layouts {
        let Orders { orders, numbers, before } = self;
        let known = numbers.into_iter().map(|(key, n)| (key, orders[n].layout.clone()));
        Layouts { fleet: before.fleet, known: known.take(MOST_LAYOUTS).collect() }
    }

    pub(crate) fn number(
        &mut self,
        preferences: Vec<Descriptor>,
        fixed: &Arc<Fixed>,
        seats: &Seats<'_>,
    ) -> usize {
        let Orders { orders, numbers, before } = self;
        *numbers.entry((preferences, fixed.clone())).or_insert_with_key(|key| {
            let known = before.known.remove(key);
            let layout = known.unwrap_or_else(|| Layout::of(&key.0, &key.1, seats).into());
            orders.push(Order::of(layout, seats));
            orders.len() - 1
        })
    }

    pub(crate) fn get(&mut self, number: usize) -> &mut Order {
        &mut self.orders[number]
    }
}

/// The tree of branches. Branch 0 is the root; one without children is a leaf.
#[derive(Debug)]
pub(crate) struct Layout {
    branches: Vec<Branch>,
    /// Leaf of each node, and whether it may take such tasks.
    leaves: Vec<(usize, bool)>,
    /// Nodes that may, by leaf.
    takers: Vec<(usize, u32)>,
}

#[derive(Default, Debug)]
struct Branch {
    parent: Option<usize>,
    children: Vec<usize>,
}

impl Layout {
    fn of(preferences: &[Descriptor], fixed: &Fixed, seats: &Seats<'_>) -> Layout {
        let (mut branches, mut leaves) = (vec![Branch::default()], Vec::new());
        let mut by_value: BTreeMap<(usize, &str), usize> = BTreeMap::new();
        let mut takers = Vec::new();
        for seat in seats.all() {
            let (node, _) = seats.get(seat);
            let mut at = 0;
            for preference in preferences {
                at = *by_value.entry((at, preference.value(node))).or_insert_with(|| {
                    let child = branches.len();
                    branches[at].children.push(child);
                    branches.push(Branch { parent: Some(at), ..Branch::default() });
                    child
                });
            }
            let takes = takes_tasks(node) && fixed.refusal(node).is_none();
            leaves.push((at, takes));
            takers.extend(takes.then_some((at, seat)));
        }
        takers.sort_unstable();
        Layout { branches, leaves, takers }
    }
}

/// A layout with its nodes in order.
pub(crate) struct Order {
    layout: Arc<Layout>,
    /// By leaf, its nodes that may take such tasks, by tasks and number. Those placed since are not counted
    /// until [`Order::next`] comes across them.
    nodes: Vec<BTreeSet<(u64, u32)>>,
}

impl Order {
    fn of(layout: Arc<Layout>, seats: &Seats<'_>) -> Order {
        let mut nodes = vec![BTreeSet::new(); layout.branches.len()];
        for leaf in layout.takers.chunk_by(|a, b| a.0 == b.0) {
            // A set is made of all in one go.
            nodes[leaf[0].0] = leaf.iter().map(|(_, seat)| (seats.tasks(*seat), *seat)).collect();
        }
        Order { layout, nodes }
    }

    pub(crate) fn branches(&self) -> usize {
        self.layout.branches.len()
    }

    pub(crate) fn children(&self, branch: usize) -> &[usize] {
        &self.layout.branches[branch].children
    }

    pub(crate) fn leaf(&self, seat: u32) -> usize {
        self.layout.leaves[seat as usize].0
    }

    /// Whether the node may take such tasks, if it has room.
    pub(crate) fn takes(&self, seat: u32) -> bool {
        self.layout.leaves[seat as usize].1
    }

    /// The leaf of a node and all branches above it.
    pub(crate) fn path(&self, seat: u32) -> impl Iterator<Item = usize> + '_ {
        std::iter::successors(Some(self.leaf(seat)), |at| self.layout.branches[*at].parent)
    }

    /// The first node of a leaf at or behind `from`, by tasks and number.
    pub(crate) fn next(
        &mut self,
        leaf: usize,
        from: (u64, u32),
        seats: &Seats<'_>,
    ) -> Option<(u64, u32)> {
        let nodes = &mut self.nodes[leaf];
        loop {
            let entry @ (tasks, seat) = *nodes.range(from..).next()?;
            let now = seats.tasks(seat);
            if now == tasks {
                return Some(entry);
            }
            nodes.remove(&entry);
            nodes.insert((now, seat));
        }
    }
}
