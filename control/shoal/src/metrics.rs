//! What Prometheus reads at `/metrics`. Every scrape builds the text anew from the sources: maps,
//! the `shoal net` process's last status, the agent's and the manager's state.
use crate::membership::Membership;
use prometheus::{IntCounterVec, IntGaugeVec, Opts, Registry, TextEncoder};
use shoal_agent::Agent;
use shoal_lb::{Counters, id};
use shoal_manager::Manager;
use shoal_model::{NodeAssignment, TaskState};
use std::collections::BTreeMap;

/// The text of the exposition format.
pub(crate) fn text(membership: &Membership) -> String {
    let registry = Registry::new();
    let gathered = membership.with_agent(|agent| of_agent(&registry, agent));
    let of_cluster = membership.with_manager(|manager| of_manager(&registry, manager));
    for result in [gathered, of_cluster].into_iter().flatten() {
        if let Err(error) = result {
            tracing::warn!("metrics are not complete: {error:#}");
        }
    }
    TextEncoder::new().encode_to_string(&registry.gather()).unwrap_or_else(|error| {
        tracing::warn!(%error, "metrics cannot be written");
        String::new()
    })
}

/// Families of one scrape.
struct Families<'a>(&'a Registry);

impl Families<'_> {
    fn counter(&self, name: &str, help: &str, labels: &[&str]) -> anyhow::Result<IntCounterVec> {
        let family = IntCounterVec::new(Opts::new(name, help), labels)?;
        self.0.register(Box::new(family.clone()))?;
        Ok(family)
    }

    fn gauge(&self, name: &str, help: &str, labels: &[&str]) -> anyhow::Result<IntGaugeVec> {
        let family = IntGaugeVec::new(Opts::new(name, help), labels)?;
        self.0.register(Box::new(family.clone()))?;
        Ok(family)
    }
}

/// What a task's hash stands for.
struct Backend<'a> {
    service: &'a str,
    task: &'a str,
    node: &'a str,
}

fn backends(assignment: &NodeAssignment) -> BTreeMap<u64, Backend<'_>> {
    let services = assignment.table.services.iter();
    let tasks = services.flat_map(|s| s.tasks.iter().map(move |t| (s, t)));
    tasks
        .map(|(s, t)| (id(&t.id), Backend { service: &s.name, task: &t.name, node: &t.node_id }))
        .collect()
}

fn of_agent(registry: &Registry, agent: &Agent) -> anyhow::Result<()> {
    let families = Families(registry);
    let tasks = families.gauge("shoal_node_tasks", "Tasks of this node by state.", &["state"])?;
    let by_state = agent.tasks_by_state();
    for state in TaskState::ALL {
        let count = by_state.get(&state).copied().unwrap_or(0);
        tasks.with_label_values(&[state.as_str()]).set(i64::try_from(count)?);
    }
    let assignment = agent.assignment().unwrap_or_default();
    load_balancer(&families, &agent.counters()?, &backends(&assignment))?;
    let generation = families.gauge(
        "shoal_table_generation",
        "Generation of the table the overlay works from.",
        &[],
    )?;
    let net = agent.net_status();
    generation.with_label_values::<&str>(&[]).set(i64::try_from(net.generation)?);
    let bytes = families.counter(
        "shoal_overlay_bytes_total",
        "Bytes of WireGuard datagrams by peer and direction, as UDP payload.",
        &["peer", "direction"],
    )?;
    let handshakes = families.counter(
        "shoal_overlay_handshakes_total",
        "Completed WireGuard handshakes by peer.",
        &["peer"],
    )?;
    let silent = families.gauge(
        "shoal_overlay_peer_silent",
        "Whether a peer that was sent something gives no sign of life; its tasks are avoided.",
        &["peer"],
    )?;
    for peer in &net.peers {
        silent.with_label_values(&[&peer.hostname]).set(i64::from(peer.silent));
        bytes.with_label_values(&[peer.hostname.as_str(), "rx"]).inc_by(peer.rx_bytes);
        bytes.with_label_values(&[peer.hostname.as_str(), "tx"]).inc_by(peer.tx_bytes);
        handshakes.with_label_values(&[&peer.hostname]).inc_by(peer.handshakes);
    }
    let drops = families.counter(
        "shoal_overlay_drops_total",
        "Packets the overlay engine dropped, by reason.",
        &["reason"],
    )?;
    for (reason, count) in &net.drops {
        drops.with_label_values(&[reason]).inc_by(*count);
    }
    let questions = families.counter(
        "shoal_dns_questions_total",
        "Questions of containers, by who answered: the cluster or the host's resolvers.",
        &["answered"],
    )?;
    questions.with_label_values(&["cluster"]).inc_by(net.questions.saturating_sub(net.forwarded));
    questions.with_label_values(&["host"]).inc_by(net.forwarded);
    Ok(())
}

fn load_balancer(
    families: &Families<'_>,
    counters: &Counters,
    backends: &BTreeMap<u64, Backend<'_>>,
) -> anyhow::Result<()> {
    const LABELS: [&str; 3] = ["service", "backend", "node"];
    let connections = families.counter(
        "shoal_lb_connections_total",
        "Connections this node's load balancer gave to a backend (TCP, UDP flows).",
        &LABELS,
    )?;
    let active = families.gauge(
        "shoal_lb_active_connections",
        "Connections of this node's containers open to a backend through a VIP.",
        &LABELS,
    )?;
    for (task, stats) in &counters.backends {
        let Some(backend) = backends.get(task) else { continue };
        let labels = [backend.service, backend.task, backend.node];
        connections.with_label_values(&labels).inc_by(stats.connections);
        active.with_label_values(&labels).set(stats.active.max(0));
    }
    let labels = ["service", "backend", "direction"];
    let bytes = families.counter(
        "shoal_lb_bytes_total",
        "Bytes of a backend on this node, from the IP header on; rx is towards it.",
        &labels,
    )?;
    let packets = families.counter(
        "shoal_lb_packets_total",
        "Packets of a backend on this node; rx is towards it.",
        &labels,
    )?;
    for (task, traffic) in &counters.traffic {
        let Some(backend) = backends.get(task) else { continue };
        let directions = [
            ("rx", traffic.rx_bytes, traffic.rx_packets),
            ("tx", traffic.tx_bytes, traffic.tx_packets),
        ];
        for (direction, count, number) in directions {
            let labels = [backend.service, backend.task, direction];
            bytes.with_label_values(&labels).inc_by(count);
            packets.with_label_values(&labels).inc_by(number);
        }
    }
    let drops = families.counter(
        "shoal_lb_drops_total",
        "Packets this node's programs dropped, by reason.",
        &["reason"],
    )?;
    for (reason, count) in &counters.drops {
        drops.with_label_values(&[reason]).inc_by(*count);
    }
    let entries =
        families.gauge("shoal_lb_table_entries", "Entries in use of a table.", &["table"])?;
    let limits =
        families.gauge("shoal_lb_table_max_entries", "Entries a table can hold.", &["table"])?;
    for (table, (used, max)) in &counters.tables {
        entries.with_label_values(&[table]).set(i64::try_from(*used)?);
        limits.with_label_values(&[table]).set(i64::try_from(*max)?);
    }
    Ok(())
}

fn of_manager(registry: &Registry, manager: &Manager) -> anyhow::Result<()> {
    let families = Families(registry);
    let (mut tasks, mut nodes, objects) = manager.store().read(|state| {
        let mut tasks: BTreeMap<TaskState, i64> = BTreeMap::new();
        for task in state.tasks.values() {
            *tasks.entry(task.status.state).or_default() += 1;
        }
        let mut nodes: BTreeMap<String, i64> = BTreeMap::new();
        for node in state.nodes.values() {
            *nodes.entry(format!("{:?}", node.status.state).to_lowercase()).or_default() += 1;
        }
        let objects = [
            ("service", state.services.len()),
            ("network", state.networks.len()),
            ("secret", state.secrets.len()),
            ("config", state.configs.len()),
        ];
        (tasks, nodes, objects)
    });
    let by_state =
        families.gauge("shoal_manager_tasks", "Tasks of the cluster by state.", &["state"])?;
    for state in TaskState::ALL {
        by_state.with_label_values(&[state.as_str()]).set(tasks.remove(&state).unwrap_or(0));
    }
    let by_state =
        families.gauge("shoal_manager_nodes", "Nodes of the cluster by state.", &["state"])?;
    for state in ["unknown", "down", "ready", "disconnected"] {
        by_state.with_label_values(&[state]).set(nodes.remove(state).unwrap_or(0));
    }
    let by_kind =
        families.gauge("shoal_manager_objects", "Objects of the cluster by kind.", &["kind"])?;
    for (kind, count) in objects {
        by_kind.with_label_values(&[kind]).set(i64::try_from(count)?);
    }
    Ok(())
}
