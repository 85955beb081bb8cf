//! The agent: what it has in memory and on disk.
mod assignment;
mod reports;
mod session;

use super::{runner::Runner, runtime::Container};
use crate::{time::Ns, world::World};
use session::FIRST_PAUSE;
use shoal_model::{NodeAssignment, Payload, Rows, TaskStatus};
use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    rc::Rc,
    sync::Arc,
};

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

impl World {
    pub(crate) fn start_agent(&mut self, host: usize) {
        let agent = &mut self.agents[host];
        agent.assignment = agent.kept.clone();
        self.start_keeper(host);
        self.dispatch(host);
        self.connect(host);
    }
}
