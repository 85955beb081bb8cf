//! The nodes in the branches of spread preferences, each branch in order of what its nodes carry.
//! Groups with the same preferences, constraints, platforms and drivers share one order.
use super::seats::Seats;
use crate::filters::{Fixed, takes_tasks};
use shoal_model::{Node, docker};
use std::collections::{BTreeMap, BTreeSet};

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

/// Orders of a call, one for each list of preferences and what nodes have to satisfy.
#[derive(Default)]
pub(crate) struct Orders {
    orders: Vec<Order>,
    numbers: BTreeMap<(Vec<Descriptor>, Fixed), usize>,
}

impl Orders {
    pub(crate) fn number(
        &mut self,
        preferences: Vec<Descriptor>,
        fixed: &Fixed,
        seats: &Seats<'_>,
    ) -> usize {
        let Orders { orders, numbers } = self;
        *numbers.entry((preferences, fixed.clone())).or_insert_with_key(|(preferences, fixed)| {
            orders.push(Order::of(preferences, fixed, seats));
            orders.len() - 1
        })
    }

    pub(crate) fn get(&mut self, number: usize) -> &mut Order {
        &mut self.orders[number]
    }
}

/// The tree of branches. Branch 0 is the root; one without children is a leaf.
pub(crate) struct Order {
    branches: Vec<Branch>,
    /// Leaf of each node.
    leaves: Vec<usize>,
}

#[derive(Default)]
struct Branch {
    parent: Option<usize>,
    children: Vec<usize>,
    /// A leaf's nodes that may take such tasks, by tasks and number. Those placed since are not counted until
    /// [`Order::next`] comes across them.
    nodes: BTreeSet<(u64, u32)>,
}

impl Order {
    fn of(preferences: &[Descriptor], fixed: &Fixed, seats: &Seats<'_>) -> Order {
        let mut order = Order { branches: vec![Branch::default()], leaves: Vec::new() };
        let mut by_value: BTreeMap<(usize, &str), usize> = BTreeMap::new();
        let mut nodes = Vec::new();
        for seat in seats.all() {
            let (node, load) = seats.get(seat);
            let mut at = 0;
            for preference in preferences {
                let branches = &mut order.branches;
                at = *by_value.entry((at, preference.value(node))).or_insert_with(|| {
                    let child = branches.len();
                    branches[at].children.push(child);
                    branches.push(Branch { parent: Some(at), ..Branch::default() });
                    child
                });
            }
            order.leaves.push(at);
            if takes_tasks(node) && fixed.refusal(node).is_none() {
                nodes.push((at, load.tasks, seat));
            }
        }
        // Sorted first, the sets are made in one go.
        nodes.sort_unstable();
        for leaf in nodes.chunk_by(|a, b| a.0 == b.0) {
            let set = leaf.iter().map(|(_, tasks, seat)| (*tasks, *seat)).collect();
            order.branches[leaf[0].0].nodes = set;
        }
        order
    }

    pub(crate) fn branches(&self) -> usize {
        self.branches.len()
    }

    pub(crate) fn children(&self, branch: usize) -> &[usize] {
        &self.branches[branch].children
    }

    pub(crate) fn leaf(&self, seat: u32) -> usize {
        self.leaves[seat as usize]
    }

    /// The leaf of a node and all branches above it.
    pub(crate) fn path(&self, seat: u32) -> impl Iterator<Item = usize> + '_ {
        std::iter::successors(Some(self.leaf(seat)), |at| self.branches[*at].parent)
    }

    /// The first node of a leaf at or behind `from`, by tasks and number.
    pub(crate) fn next(
        &mut self,
        leaf: usize,
        from: (u64, u32),
        seats: &Seats<'_>,
    ) -> Option<(u64, u32)> {
        let nodes = &mut self.branches[leaf].nodes;
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
