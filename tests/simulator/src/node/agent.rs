//! The agent: session, orders to the runners, the data plane's table.
use super::{
    conn::{Conn, Down, Up},
    runner::{Order, Runner},
    runtime::Container,
};
use crate::{
    event::Event,
    log::Author,
    manager::Waiter,
    time::{MS, Ns, SEC},
    world::World,
};
use shoal_model::{
    Change, NodeAssignment, Object, Payload, Rows, TaskState, TaskStatus,
    bugs::{self, Bug},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    rc::Rc,
    sync::Arc,
};

/// Pauses between attempts to connect, and patience with a manager (`control/agent/src/session.rs`).
const FIRST_PAUSE: Ns = 100 * MS;
const LAST_PAUSE: Ns = 8 * SEC;
const CONNECT_TIMEOUT: Ns = 5 * SEC;
const WELCOME: Ns = 10 * SEC;

pub(crate) struct Agent {
    /// The node's id; another one when the host joined anew.
    pub(crate) node_id: String,
    /// Whether the cluster does not know this node yet.
    joining: bool,
    /// Connection of its session, or of its attempt at one.
    conn: Option<u64>,
    /// Whether the manager has answered in this session.
    connected: bool,
    pause: Ns,
    /// Attempts so far: managers are tried in turn.
    attempts: usize,
    reports: BTreeMap<String, TaskStatus>,
    unsent: BTreeSet<String>,
    sending: bool,
    assignment: Option<Rc<NodeAssignment>>,
    /// The one before it.
    overtaken: Option<Rc<NodeAssignment>>,
    /// The newest on disk, without secrets and configs.
    kept: Option<Rc<NodeAssignment>>,
    /// Rows of the assignment it was told last.
    pub(crate) rows: Rc<Rows>,
    /// Whether its assignment is one it was told since it started: then it has all there is of what its
    /// tasks refer to.
    pub(super) told: bool,
    pub(crate) plane: Plane,
    pub(crate) runners: BTreeMap<Rc<str>, Runner>,
    /// Containers by task. They outlive the daemon.
    pub(crate) containers: BTreeMap<Rc<str>, Container>,
    /// Faults that slow down the data plane.
    pub(crate) slow: u32,
}

/// The node's data plane, as far as its tables go.
#[derive(Default)]
pub(crate) struct Plane {
    wanted: Option<Rc<NodeAssignment>>,
    pub(crate) in_force: Option<Rc<NodeAssignment>>,
    busy: bool,
}

impl Agent {
    pub(crate) fn new(host: usize) -> Agent {
        Agent {
            node_id: format!("node-{host}"),
            joining: false,
            conn: None,
            connected: false,
            pause: FIRST_PAUSE,
            attempts: host,
            reports: BTreeMap::new(),
            unsent: BTreeSet::new(),
            sending: false,
            assignment: None,
            overtaken: None,
            kept: None,
            rows: Rc::default(),
            told: false,
            plane: Plane::default(),
            runners: BTreeMap::new(),
            containers: BTreeMap::new(),
            slow: 0,
        }
    }

    /// The last status of a task.
    pub(super) fn reported(&self, task: &str) -> Option<&TaskStatus> {
        self.reports.get(task)
    }

    pub(super) fn forget(&mut self, task: &str) {
        self.reports.remove(task);
        self.unsent.remove(task);
    }

    pub(crate) fn is_joining(&self) -> bool {
        self.joining
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.connected
    }

    /// The connection of its session, if it has one.
    pub(crate) fn session(&self) -> Option<u64> {
        self.conn.filter(|_| self.connected)
    }

    /// Secrets and configs it was told.
    pub(crate) fn knows(&self) -> impl Iterator<Item = &Arc<Payload>> {
        self.assignment.iter().flat_map(|a| &a.dependencies)
    }

    /// All it has of secrets and configs, also in containers' files.
    pub(crate) fn holds(&self) -> impl Iterator<Item = &Arc<Payload>> {
        self.knows().chain(self.containers.values().flat_map(|c| &c.files))
    }

    /// Whether the table the plane was told to carry out names the task as a backend.
    fn wants_backend(&self, task: &str) -> bool {
        let tables = self.plane.wanted.iter().flat_map(|a| &a.table.services);
        tables.flat_map(|s| &s.tasks).any(|t| t.id == task && t.serving)
    }

    /// The node is a new one, with nothing of the old.
    pub(crate) fn join_anew(&mut self, node_id: String) {
        *self = Agent {
            node_id,
            joining: true,
            attempts: self.attempts,
            slow: self.slow,
            ..Agent::new(0)
        };
    }

    /// What a daemon that ends leaves: files, containers, maps.
    pub(crate) fn stop(&mut self, power: bool) {
        if power {
            for container in self.containers.values_mut() {
                container.lose_power();
            }
            self.plane.in_force = None;
        }
        let plane = Plane { in_force: self.plane.in_force.take(), ..Plane::default() };
        *self = Agent {
            node_id: mem::take(&mut self.node_id),
            joining: self.joining,
            attempts: self.attempts,
            kept: self.kept.take(),
            containers: mem::take(&mut self.containers),
            slow: self.slow,
            plane,
            ..Agent::new(0)
        };
    }

    /// The disk is empty, but for what says who the node is.
    pub(crate) fn lose_files(&mut self) {
        self.kept = None;
        self.containers.clear();
    }
}

/// What is written of an assignment: secrets and configs are kept in memory alone.
fn to_keep(assignment: Rc<NodeAssignment>) -> Rc<NodeAssignment> {
    if assignment.dependencies.is_empty() || bugs::active(Bug::WriteSecrets) {
        return assignment;
    }
    Rc::new(NodeAssignment { dependencies: Vec::new(), ..(*assignment).clone() })
}

impl World {
    pub(crate) fn start_agent(&mut self, host: usize) {
        let agent = &mut self.agents[host];
        agent.assignment = agent.kept.clone();
        self.start_keeper(host);
        self.dispatch(host);
        self.connect(host);
    }

    /// Connects to the next manager.
    pub(crate) fn connect(&mut self, host: usize) {
        let m = self.agents[host].attempts % self.peers.len();
        self.agents[host].attempts += 1;
        let id = self.next_serial();
        let conn = Conn::new(host, m, self.hosts[host].boot, self.hosts[m].boot);
        self.conns.insert(id, conn);
        let agent = &mut self.agents[host];
        (agent.conn, agent.connected) = (Some(id), false);
        let open = self.net.clear(host, m) && self.hosts[m].power;
        if !open {
            if let Some(conn) = self.conns.get_mut(&id) {
                conn.manager_open = false;
            }
            self.after(CONNECT_TIMEOUT, Event::Impatient { conn: id });
        } else if !self.hosts[m].up {
            if let Some(conn) = self.conns.get_mut(&id) {
                conn.manager_open = false;
            }
            let delay = self.net.delay(host, m);
            self.after(delay, Event::Down { conn: id, message: Down::Closed });
        } else {
            self.join(host, m);
            // TCP and TLS take three ways before the first message.
            let delay = (0..4).map(|_| self.net.delay(host, m)).sum();
            self.after(delay, Event::Hello { conn: id });
            self.after(WELCOME, Event::Impatient { conn: id });
        }
    }

    /// A host that is no node yet asks for a certificate before anything else.
    fn join(&mut self, host: usize, m: usize) {
        if !self.agents[host].joining || !self.serves(m) {
            return;
        }
        let id = self.agents[host].node_id.clone();
        if self.peers[m].state.nodes.contains_key(&id) {
            self.agents[host].joining = false;
        } else {
            let removed = self.peers[m].state.cluster.as_ref();
            if removed.is_some_and(|c| c.removed_nodes.contains_key(&id)) {
                // Removed before it had come. Every attempt to join is another node in the product.
                let conn = self.agents[host].conn;
                self.join_anew(host);
                self.agents[host].conn = conn; // it is refused here, and tries again
                return;
            }
            if self.identities.is_some() && !self.let_join(host, m) {
                return;
            }
            self.expect_node(m, &id);
            let node = Change::Put(Object::Node(Box::new(self.new_node(host, id))));
            self.propose(m, Author::Manager, vec![node], Waiter::Nobody);
        }
    }

    /// The daemon is gone and its kernel closes its connections.
    pub(crate) fn close_connections(&mut self, host: usize) {
        let of = |c: &&u64, agent: bool| {
            let conn = &self.conns[c];
            if agent { conn.agent == host } else { conn.manager == host }
        };
        let as_agent: Vec<u64> = self.conns.keys().filter(|c| of(c, true)).copied().collect();
        let as_manager: Vec<u64> = self.conns.keys().filter(|c| of(c, false)).copied().collect();
        for id in as_agent {
            self.agent_closes(host, id);
        }
        for id in as_manager {
            self.close_manager_side(id);
        }
    }

    pub(crate) fn impatient(&mut self, id: u64) {
        let Some(conn) = self.conns.get(&id) else { return };
        let host = conn.agent;
        if self.agents[host].conn == Some(id) && !self.agents[host].connected {
            self.agent_closes(host, id);
        }
    }

    /// The agent gives a connection up and tells the manager so, if that can be told.
    fn agent_closes(&mut self, host: usize, id: u64) {
        self.send_up(id, Up::Closed);
        self.agent_lost_session(host, id);
    }

    /// The agent's end of a connection is gone; it tries again after a pause.
    pub(crate) fn agent_lost_session(&mut self, host: usize, id: u64) {
        if let Some(conn) = self.conns.get_mut(&id) {
            conn.agent_open = false;
            let current = conn.agent_boot == self.hosts[host].boot && self.hosts[host].up;
            self.forget_conn(id);
            if !current {
                return;
            }
        }
        let agent = &mut self.agents[host];
        if agent.conn != Some(id) {
            return;
        }
        agent.conn = None;
        let was_connected = mem::take(&mut agent.connected);
        let doubled = (agent.pause * 2).min(LAST_PAUSE);
        agent.pause = if was_connected { FIRST_PAUSE } else { doubled };
        let (pause, boot) = (agent.pause, self.hosts[host].boot);
        self.after(pause, Event::Connect { host, boot });
        self.sessions_may_have_stalled();
    }

    pub(crate) fn hear_manager(&mut self, id: u64, message: Down) {
        let Some(conn) = self.conns.get(&id) else { return };
        let host = conn.agent;
        if conn.agent_boot != self.hosts[host].boot || !self.hosts[host].up {
            return self.close_manager_side(id);
        }
        if self.agents[host].conn != Some(id) {
            return self.forget_conn(id);
        }
        match message {
            Down::Closed => self.agent_lost_session(host, id),
            Down::Trust(roots) => self.told_to_trust(host, roots),
            Down::Role(role) => self.told_to_be(host, role),
            Down::Renew(root) => self.told_to_renew(host, &root),
            Down::Assignment(assignment, rows) => {
                let agent = &mut self.agents[host];
                agent.rows = rows;
                if !mem::replace(&mut agent.connected, true) {
                    if !bugs::active(Bug::DropReport) {
                        agent.unsent = agent.reports.keys().cloned().collect();
                    }
                    self.report_soon(host);
                    self.applied(host);
                }
                self.assigned(host, assignment);
            }
        }
    }

    fn assigned(&mut self, host: usize, assignment: Rc<NodeAssignment>) {
        let agent = &mut self.agents[host];
        let newer = agent.assignment.as_ref().map_or(0, |a| a.generation);
        if assignment.generation >= newer || bugs::active(Bug::TakeOldTable) {
            agent.overtaken = agent.assignment.replace(assignment.clone());
            agent.told = true;
            let kept = to_keep(assignment);
            agent.kept = Some(kept.clone());
            self.checks.written(host, &kept);
            self.dispatch(host);
        }
    }

    /// Gives the table to the data plane and the orders to the runners.
    fn dispatch(&mut self, host: usize) {
        let agent = &mut self.agents[host];
        let Some(assignment) = agent.assignment.clone() else { return };
        let older =
            agent.plane.wanted.as_ref().is_some_and(|a| a.generation > assignment.generation);
        if !older || bugs::active(Bug::TakeOldTable) {
            agent.plane.wanted = Some(assignment.clone());
        }
        let mut orders: BTreeMap<Rc<str>, Order> = BTreeMap::new();
        if !bugs::active(Bug::LeaveContainer) {
            for gone in agent.containers.keys().chain(agent.runners.keys()) {
                orders.insert(gone.clone(), Order::Gone);
            }
        }
        for (at, task) in assignment.tasks.iter().enumerate() {
            orders.insert(task.task.id.as_str().into(), Order::Assigned(assignment.clone(), at));
        }
        self.carry_out_soon(host);
        for (task, order) in orders {
            self.order(host, &task, order);
        }
    }

    // ── the data plane ───────────────────────────────────────────────────────────────────────────

    pub(super) fn carry_out_soon(&mut self, host: usize) {
        let plane = &mut self.agents[host].plane;
        let generation = |a: &Option<Rc<NodeAssignment>>| a.as_ref().map(|a| a.generation);
        if plane.busy || generation(&plane.wanted) == generation(&plane.in_force) {
            return;
        }
        plane.busy = true;
        let slow = self.agents[host].slow > 0;
        let takes =
            if slow { self.dice.between(MS, 3 * SEC) } else { self.dice.between(MS, 30 * MS) };
        let boot = self.hosts[host].boot;
        self.after(takes, Event::Plane { host, boot });
    }

    pub(crate) fn plane_done(&mut self, host: usize) {
        self.agents[host].plane.busy = false;
        if self.dice.chance(self.config.runtime.plane_fails) {
            // Again after a second.
            self.agents[host].plane.busy = true;
            let boot = self.hosts[host].boot;
            return self.after(SEC, Event::Plane { host, boot });
        }
        let plane = &mut self.agents[host].plane;
        plane.in_force = plane.wanted.clone();
        let generation = plane.in_force.as_ref().map_or(0, |a| a.generation);
        self.checks.in_force(host, self.hosts[host].boot, generation);
        self.applied(host);
        self.carry_out_soon(host);
    }

    fn applied(&mut self, host: usize) {
        let agent = &self.agents[host];
        let generation = agent.plane.in_force.as_ref().map_or(0, |a| a.generation);
        if let (Some(conn), true) = (agent.conn, agent.connected) {
            self.send_up(conn, Up::Applied(generation));
        }
    }

    pub(super) fn told_to_stop(&mut self, host: usize, task: &str) {
        let listed = self.agents[host].wants_backend(task);
        self.checks.signalled(host, task, listed);
    }

    // ── reports ──────────────────────────────────────────────────────────────────────────────────

    /// Notes a status, to be sent. A state never goes back.
    pub(super) fn report(
        &mut self,
        host: usize,
        task: &str,
        state: TaskState,
        message: &str,
        err: &str,
    ) {
        let since = self.wall(host);
        let agent = &mut self.agents[host];
        if agent.reports.get(task).is_some_and(|s| s.state > state) {
            return;
        }
        let (message, err) = (message.to_owned(), err.to_owned());
        let status = TaskStatus { state, since, message, err, container: None };
        agent.reports.insert(task.to_owned(), status);
        agent.unsent.insert(task.to_owned());
        self.report_soon(host);
    }

    /// Says of a task what is not so.
    pub(crate) fn report_anything(&mut self, host: usize, task: &str, state: TaskState) {
        let since = self.wall(host);
        let (Some(conn), true) = (self.agents[host].conn, self.agents[host].connected) else {
            return;
        };
        let (message, err) = ("stray".to_owned(), String::new());
        let status = TaskStatus { state, since, message, err, container: None };
        self.send_up(conn, Up::Statuses(vec![(task.to_owned(), status)]));
    }

    /// The manager says again what it said before the newest.
    pub(crate) fn repeat_overtaken(&mut self, host: usize) {
        let agent = &self.agents[host];
        let (Some(conn), true) = (agent.conn, agent.connected) else { return };
        if let Some(overtaken) = agent.overtaken.clone().filter(|_| self.flows(conn)) {
            let rows = agent.rows.clone();
            self.send_down(conn, Down::Assignment(overtaken, rows));
        }
    }

    fn report_soon(&mut self, host: usize) {
        let agent = &mut self.agents[host];
        if !agent.connected || agent.unsent.is_empty() || mem::replace(&mut agent.sending, true) {
            return;
        }
        let boot = self.hosts[host].boot;
        self.after(MS / 10, Event::Report { host, boot });
    }

    pub(crate) fn send_reports(&mut self, host: usize) {
        let agent = &mut self.agents[host];
        agent.sending = false;
        let (Some(conn), true) = (agent.conn, agent.connected) else { return };
        let unsent = mem::take(&mut agent.unsent);
        let known = unsent.into_iter().filter_map(|task| {
            let status = agent.reports.get(&task)?.clone();
            Some((task, status))
        });
        let statuses: Vec<_> = known.collect();
        if !statuses.is_empty() {
            self.send_up(conn, Up::Statuses(statuses));
        }
    }
}
