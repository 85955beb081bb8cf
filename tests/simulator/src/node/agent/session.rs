//! The session with a manager: connecting, hearing it, losing it.

use crate::{
    event::Event,
    log::Author,
    manager::Waiter,
    node::{Conn, Down, Up},
    time::{MS, Ns, SEC},
    world::World,
};
use shoal_model::{
    Change, Object,
    bugs::{self, Bug},
};
use std::mem;

/// Pauses between attempts to connect, and patience with a manager (`control/agent/src/session.rs`).
pub(super) const FIRST_PAUSE: Ns = 100 * MS;
const LAST_PAUSE: Ns = 8 * SEC;
const CONNECT_TIMEOUT: Ns = 5 * SEC;
const WELCOME: Ns = 10 * SEC;

impl World {
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
}
