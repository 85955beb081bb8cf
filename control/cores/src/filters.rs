//! Which nodes may take a task, and why the others may not.
use crate::{
    constraints::{Constraint, architecture},
    generic::Generic,
    spec::host_ports,
};
use shoal_model::{
    Availability, HostPort, Load, Node, NodeState, Plugin, PluginKind, State, Task,
    bugs::{self, Bug},
    docker,
};
use std::{fmt, sync::Arc};

/// What the tasks of one template ask of a node.
pub(crate) struct Filters {
    nano_cpus: i64,
    memory_bytes: i64,
    pub(crate) generic: Generic,
    pub(crate) fixed: Arc<Fixed>,
    pub(crate) host_ports: Vec<HostPort>,
    max_replicas: Option<u64>,
}

/// What a node satisfies or not, whatever it carries.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Fixed {
    plugins: Vec<Plugin>,
    /// `None`: one cannot be read, so none is satisfied.
    constraints: Option<Vec<Constraint>>,
    /// System and machine; `None` for any.
    platforms: Vec<(Option<String>, Option<String>)>,
}

/// Why a node may not take a task, in the order they are looked at.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Refusal {
    NotReady,
    Resources,
    Plugin,
    Constraint,
    Platform,
    HostPort,
    MaxReplicas,
}

impl Filters {
    pub(crate) fn of(state: &State, task: &Task) -> Filters {
        let (nano_cpus, memory_bytes) = task.reservations();
        let placement = task.spec.placement.as_ref();
        let constraints = placement.and_then(|p| p.constraints.as_deref()).unwrap_or_default();
        let max_replicas = placement.and_then(|p| p.max_replicas).filter(|max| *max > 0);
        let service = state.services.get(&task.service_id);
        Filters {
            nano_cpus,
            memory_bytes,
            generic: Generic::of(&task.spec),
            fixed: Arc::new(Fixed {
                plugins: plugins(state, task),
                constraints: constraints.iter().map(|c| Constraint::parse(c).ok()).collect(),
                platforms: placement
                    .and_then(|p| p.platforms.as_deref())
                    .map_or_else(Vec::new, platforms),
            }),
            host_ports: service.map(|s| host_ports(&s.spec)).unwrap_or_default(),
            max_replicas: max_replicas
                .and_then(|max| u64::try_from(max).ok())
                .filter(|_| !bugs::active(Bug::ForgetMaxReplicas)),
        }
    }

    /// Why the node may not take the task; `None` when it may. `of_service`: tasks of the service
    /// that it carries.
    pub(crate) fn refusal(
        &self,
        node: &Node,
        load: &Load,
        of_service: impl FnOnce() -> u64,
    ) -> Option<Refusal> {
        let taken = |port: &HostPort| is_taken(load, port);
        if !takes_tasks(node) {
            Some(Refusal::NotReady)
        } else if !self.resources_fit(node, load) {
            Some(Refusal::Resources)
        } else if let Some(refusal) = self.fixed.refusal(node) {
            Some(refusal)
        } else if self.host_ports.iter().any(taken) {
            Some(Refusal::HostPort)
        } else if self.max_replicas.is_some_and(|max| of_service() >= max) {
            Some(Refusal::MaxReplicas)
        } else {
            None
        }
    }

    /// Whether a node that takes tasks and is let through by what is [`Fixed`] may take this one too.
    pub(crate) fn room(&self, node: &Node, load: &Load, of_service: impl FnOnce() -> u64) -> bool {
        self.resources_fit(node, load)
            && !self.host_ports.iter().any(|port| is_taken(load, port))
            && self.max_replicas.is_none_or(|max| of_service() < max)
    }

    fn resources_fit(&self, node: &Node, load: &Load) -> bool {
        let cpus = node.description.as_ref().map_or(0, |d| d.nano_cpus);
        let memory = node.description.as_ref().map_or(0, |d| d.memory_bytes);
        // What is not asked for is not looked at: a node may be over-committed already.
        let fits = |asked: i64, used: i128, has: i64| {
            asked == 0 || used + i128::from(asked) <= i128::from(has)
        };
        fits(self.nano_cpus, load.nano_cpus, cpus)
            && fits(self.memory_bytes, load.memory_bytes, memory)
            && self.generic.fits(node, load)
    }
}

fn is_taken(load: &Load, port: &HostPort) -> bool {
    load.host_ports.contains_key(port) && !bugs::active(Bug::ShareHostPort)
}

impl Fixed {
    pub(crate) fn refusal(&self, node: &Node) -> Option<Refusal> {
        if !self.plugins_present(node) {
            Some(Refusal::Plugin)
        } else if bugs::active(Bug::SkipConstraints) {
            None
        } else if !self.constraints.as_ref().is_some_and(|all| all.iter().all(|c| c.admits(node))) {
            Some(Refusal::Constraint)
        } else if !one_of(&self.platforms, node) {
            Some(Refusal::Platform)
        } else {
            None
        }
    }

    /// A node that tells nothing of its drivers is taken to have them: it is of an older version.
    fn plugins_present(&self, node: &Node) -> bool {
        let Some(has) = node.description.as_ref().map(|d| &d.plugins) else { return true };
        has.is_empty() || self.plugins.iter().all(|p| has.contains(p))
    }
}

/// Whether the node is of one of the platforms; of none there are, every node is.
pub(crate) fn platform_fits(asked: &[docker::Platform], node: &Node) -> bool {
    one_of(&platforms(asked), node)
}

fn one_of(platforms: &[(Option<String>, Option<String>)], node: &Node) -> bool {
    if platforms.is_empty() {
        return true;
    }
    let Some(has) = node.description.as_ref() else { return false };
    let (os, machine) = (architecture(&has.os), architecture(&has.architecture));
    let is = |asked: &Option<String>, has: &str| asked.as_deref().is_none_or(|a| a == has);
    platforms.iter().any(|(o, m)| is(o, &os) && is(m, &machine))
}

/// Processor time (10⁻⁹ cores) and memory (bytes) a task of the template reserves.
pub(crate) fn reserved(template: Option<&docker::TaskSpec>) -> (i64, i64) {
    let asked = template.and_then(|t| t.resources.as_ref()).and_then(|r| r.reservations.as_ref());
    let of = |value: Option<i64>| value.unwrap_or(0).max(0);
    (of(asked.and_then(|r| r.nano_cpus)), of(asked.and_then(|r| r.memory_bytes)))
}

/// Platforms in one word for each system and machine.
fn platforms(all: &[docker::Platform]) -> Vec<(Option<String>, Option<String>)> {
    let word = |text: &Option<String>| text.as_deref().filter(|t| !t.is_empty()).map(architecture);
    all.iter().map(|p| (word(&p.os), word(&p.architecture))).collect()
}

/// Whether the node takes tasks at all.
pub(crate) fn takes_tasks(node: &Node) -> bool {
    node.status.state == NodeState::Ready
        && (node.availability == Availability::Active || bugs::active(Bug::IgnoreDrain))
        && node.overlay.address.is_some()
}

/// Drivers the task needs on its node: those of its networks, its volumes and its log.
fn plugins(state: &State, task: &Task) -> Vec<Plugin> {
    let mut plugins = Vec::new();
    let mut need = |kind, name: Option<&str>, default: &str| {
        let name = name.filter(|n| !n.is_empty()).unwrap_or(default);
        if !name.is_empty() {
            plugins.push(Plugin { kind, name: name.to_owned() });
        }
    };
    for network in &task.networks {
        if let Some(network) = state.networks.get(&network.network_id) {
            need(PluginKind::Network, network.spec.driver.as_deref(), "overlay");
        }
    }
    let container = task.spec.container_spec.as_ref();
    for mount in container.and_then(|c| c.mounts.as_deref()).unwrap_or_default() {
        if mount.typ == Some(docker::MountType::VOLUME) {
            let driver = mount.volume_options.as_ref().and_then(|v| v.driver_config.as_ref());
            need(PluginKind::Volume, driver.and_then(|d| d.name.as_deref()), "local");
        }
    }
    // Without a driver it is the daemon's default, which every daemon has; `none` is none.
    let log = task.spec.log_driver.as_ref().and_then(|d| d.name.as_deref());
    need(PluginKind::Log, log.filter(|name| *name != "none"), "");
    plugins
}

/// How many nodes refused a task, by reason.
#[derive(Default)]
pub(crate) struct Refusals([usize; Refusal::ALL.len()]);

impl Refusals {
    pub(crate) fn count(&mut self, refusal: Refusal) {
        self.0[refusal as usize] += 1;
    }

    /// Docker's sentence for a task that no node may take.
    pub(crate) fn no_suitable_node(&self) -> String {
        match self.to_string() {
            reasons if reasons.is_empty() => "no suitable node".to_owned(),
            reasons => format!("no suitable node ({reasons})"),
        }
    }
}

/// The most frequent reason first.
impl fmt::Display for Refusals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut counts: Vec<(usize, Refusal)> =
            self.0.into_iter().zip(Refusal::ALL).filter(|(count, _)| *count > 0).collect();
        counts.sort_by_key(|(count, _)| std::cmp::Reverse(*count));
        for (n, (count, refusal)) in counts.into_iter().enumerate() {
            write!(f, "{}{}", if n == 0 { "" } else { "; " }, refusal.explain(count))?;
        }
        Ok(())
    }
}

impl Refusal {
    const ALL: [Refusal; 7] = [
        Refusal::NotReady,
        Refusal::Resources,
        Refusal::Plugin,
        Refusal::Constraint,
        Refusal::Platform,
        Refusal::HostPort,
        Refusal::MaxReplicas,
    ];

    /// Swarm's words.
    fn explain(self, count: usize) -> String {
        let nodes = if count == 1 { "1 node".to_owned() } else { format!("{count} nodes") };
        match self {
            Refusal::NotReady => format!("{nodes} not available for new tasks"),
            Refusal::Resources => format!("insufficient resources on {nodes}"),
            Refusal::Plugin => format!("missing plugin on {nodes}"),
            Refusal::Constraint => format!("scheduling constraints not satisfied on {nodes}"),
            Refusal::Platform => format!("unsupported platform on {nodes}"),
            Refusal::HostPort => format!("host-mode port already in use on {nodes}"),
            Refusal::MaxReplicas => "max replicas per node limit exceed".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests;
