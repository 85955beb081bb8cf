//! Which nodes may take a task, and why the others may not.
use crate::{
    constraints::{Constraint, architecture},
    scheduler::Load,
};
use shoal_model::{Availability, Node, NodeState, Task, docker};

/// What a task asks of a node.
pub(crate) struct Filters {
    nano_cpus: i64,
    memory_bytes: i64,
    /// `None`: one cannot be read, so none is satisfied.
    constraints: Option<Vec<Constraint>>,
    platforms: Vec<docker::Platform>,
    max_replicas: Option<u64>,
}

/// Why a node may not take a task, in the order they are looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Refusal {
    NotReady,
    Resources,
    Constraint,
    Platform,
    MaxReplicas,
}

impl Filters {
    pub(crate) fn of(task: &Task) -> Filters {
        let (nano_cpus, memory_bytes) = reservations(task);
        let placement = task.spec.placement.as_ref();
        let constraints = placement.and_then(|p| p.constraints.as_deref()).unwrap_or_default();
        let max_replicas = placement.and_then(|p| p.max_replicas).filter(|max| *max > 0);
        Filters {
            nano_cpus,
            memory_bytes,
            constraints: constraints.iter().map(|c| Constraint::parse(c).ok()).collect(),
            platforms: placement.and_then(|p| p.platforms.clone()).unwrap_or_default(),
            max_replicas: max_replicas.and_then(|max| u64::try_from(max).ok()),
        }
    }

    /// Why the node may not take the task; `None` when it may.
    pub(crate) fn refusal(&self, node: &Node, load: &Load, of_service: u64) -> Option<Refusal> {
        let ready = node.status.state == NodeState::Ready
            && node.availability == Availability::Active
            && node.overlay.address.is_some();
        let cpus = node.description.as_ref().map_or(0, |d| d.nano_cpus);
        let memory = node.description.as_ref().map_or(0, |d| d.memory_bytes);
        // What is not asked for is not looked at: a node may be over-committed already.
        let fits =
            |asked: i64, used: i64, has: i64| asked == 0 || used.saturating_add(asked) <= has;
        if !ready {
            Some(Refusal::NotReady)
        } else if !fits(self.nano_cpus, load.nano_cpus, cpus)
            || !fits(self.memory_bytes, load.memory_bytes, memory)
        {
            Some(Refusal::Resources)
        } else if !self.constraints.as_ref().is_some_and(|all| all.iter().all(|c| c.admits(node))) {
            Some(Refusal::Constraint)
        } else if !self.platform_fits(node) {
            Some(Refusal::Platform)
        } else if self.max_replicas.is_some_and(|max| of_service >= max) {
            Some(Refusal::MaxReplicas)
        } else {
            None
        }
    }

    fn platform_fits(&self, node: &Node) -> bool {
        let Some(has) = node.description.as_ref() else { return self.platforms.is_empty() };
        let is = |asked: &Option<String>, present: &str| {
            asked
                .as_deref()
                .filter(|a| !a.is_empty())
                .is_none_or(|a| architecture(a) == architecture(present))
        };
        self.platforms.is_empty()
            || self
                .platforms
                .iter()
                .any(|p| is(&p.os, &has.os) && is(&p.architecture, &has.architecture))
    }
}

/// Processor time (10⁻⁹ cores) and memory (bytes) the task reserves.
pub(crate) fn reservations(task: &Task) -> (i64, i64) {
    let asked = task.spec.resources.as_ref().and_then(|r| r.reservations.as_ref());
    let of = |value: Option<i64>| value.unwrap_or(0).max(0);
    (of(asked.and_then(|r| r.nano_cpus)), of(asked.and_then(|r| r.memory_bytes)))
}

/// Docker's sentence for a task that no node may take: most frequent reason first.
pub(crate) fn explain(refusals: &[Refusal]) -> String {
    let order = [
        Refusal::NotReady,
        Refusal::Resources,
        Refusal::Constraint,
        Refusal::Platform,
        Refusal::MaxReplicas,
    ];
    let mut counts: Vec<(usize, Refusal)> = order
        .into_iter()
        .map(|r| (refusals.iter().filter(|other| **other == r).count(), r))
        .filter(|(count, _)| *count > 0)
        .collect();
    if counts.is_empty() {
        return "no suitable node".to_owned();
    }
    counts.sort_by_key(|(count, _)| std::cmp::Reverse(*count));
    let reasons: Vec<String> = counts.into_iter().map(|(count, r)| r.explain(count)).collect();
    format!("no suitable node ({})", reasons.join("; "))
}

impl Refusal {
    fn explain(self, count: usize) -> String {
        let nodes = if count == 1 { "1 node".to_owned() } else { format!("{count} nodes") };
        match self {
            Refusal::NotReady => format!("{nodes} not available for new tasks"),
            Refusal::Resources => format!("insufficient resources on {nodes}"),
            Refusal::Constraint => format!("scheduling constraints not satisfied on {nodes}"),
            Refusal::Platform => format!("unsupported platform on {nodes}"),
            Refusal::MaxReplicas => "max replicas per node limit exceed".to_owned(),
        }
    }
}
