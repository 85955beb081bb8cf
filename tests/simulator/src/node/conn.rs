//! Connections between agents and managers: streams, in order, stalled while their way is shut.
use crate::{
    event::Event,
    identity::Tls,
    time::{Ns, SEC},
    world::World,
};
use shoal_cores::Subscriber;
use shoal_model::{NodeAssignment, Role, Rows, TaskStatus};
use std::{mem, rc::Rc};

/// Keep-alive probe and how long its answer may take (`control/identity`).
const KEEPALIVE: Ns = 5 * SEC;

/// A connection.
pub(crate) struct Conn {
    pub(crate) agent: usize,
    pub(crate) manager: usize,
    pub(crate) agent_boot: u32,
    pub(crate) manager_boot: u32,
    pub(crate) agent_open: bool,
    pub(crate) manager_open: bool,
    /// Whether beats arrive, as the manager saw it last.
    pub(crate) flowing: bool,
    /// What the node knows, as the manager remembers it, and the rows that it has then.
    pub(crate) subscriber: Subscriber,
    pub(crate) rows: Rc<Rows>,
    /// What the manager has sent last, and the newest generation the agent has acknowledged.
    pub(crate) sent: Option<Rc<NodeAssignment>>,
    pub(crate) applied: u64,
    /// When the session began, and the roots it was told last.
    pub(crate) began: Option<Ns>,
    pub(crate) roots: Option<Vec<String>>,
    /// The role the node was told to have.
    pub(crate) role: Option<Role>,
    /// Arrival of the last message each way: the next one is not earlier.
    up_last: Ns,
    down_last: Ns,
    stalled_up: Vec<Up>,
    stalled_down: Vec<Down>,
    /// Since when its way has been shut.
    shut_since: Option<Ns>,
}

/// From agent to manager. Beats are left out.
pub(crate) enum Up {
    Statuses(Vec<(String, TaskStatus)>),
    Applied(u64),
    /// The node's certificate.
    Tls(Box<Tls>),
    Closed,
}

/// From manager to agent.
pub(crate) enum Down {
    /// Put together already, with the rows it was put together of: differences arrive in order, and one
    /// that is overtaken while the way is shut is in the next.
    Assignment(Rc<NodeAssignment>, Rc<Rows>),
    /// The roots to trust.
    Trust(Vec<String>),
    /// The role its certificate is to have.
    Role(Role),
    /// The root the node's certificate is to be of.
    Renew(String),
    Closed,
}

impl Up {
    pub(crate) fn digest(&self) -> u64 {
        match self {
            Up::Statuses(statuses) => {
                statuses.iter().map(|(_, s)| u64::from(s.state as u16)).sum::<u64>() << 2
            }
            Up::Applied(generation) => generation << 2 | 1,
            Up::Tls(tls) => (tls.trust.len() as u64) << 2 | 3,
            Up::Closed => 2,
        }
    }
}

impl Down {
    pub(crate) fn digest(&self) -> u64 {
        match self {
            Down::Assignment(a, _) => a.generation << 8 | a.tasks.len() as u64,
            Down::Trust(roots) => roots.len() as u64,
            Down::Role(role) => *role as u64,
            Down::Renew(_) => 3,
            Down::Closed => 0,
        }
    }
}

impl Conn {
    pub(crate) fn new(agent: usize, manager: usize, agent_boot: u32, manager_boot: u32) -> Conn {
        Conn {
            agent,
            manager,
            agent_boot,
            manager_boot,
            agent_open: true,
            manager_open: true,
            flowing: false,
            subscriber: Subscriber::new(""),
            rows: Rc::default(),
            sent: None,
            applied: 0,
            began: None,
            roots: None,
            role: None,
            up_last: 0,
            down_last: 0,
            stalled_up: Vec::new(),
            stalled_down: Vec::new(),
            shut_since: None,
        }
    }
}

impl World {
    /// Whether what the agent sends on a connection arrives before long.
    pub(crate) fn flows(&self, id: u64) -> bool {
        self.conns.get(&id).is_some_and(|c| {
            let runs = |host: usize, boot: u32| {
                let host = &self.hosts[host];
                host.up && host.boot == boot && host.paused_until <= self.now
            };
            c.agent_open
                && c.manager_open
                && self.net.clear(c.agent, c.manager)
                && runs(c.agent, c.agent_boot)
                && runs(c.manager, c.manager_boot)
        })
    }

    pub(crate) fn send_up(&mut self, id: u64, message: Up) {
        let Some(conn) = self.conns.get(&id) else { return };
        let (from, to) = (conn.agent, conn.manager);
        let open = self.net.clear(from, to) && self.hosts[to].power;
        let at = self.now + self.net.delay(from, to);
        let Some(conn) = self.conns.get_mut(&id) else { return };
        if !open || !conn.stalled_up.is_empty() {
            return conn.stalled_up.push(message);
        }
        conn.up_last = at.max(conn.up_last);
        let delay = conn.up_last - self.now;
        self.after(delay, Event::Up { conn: id, message });
    }

    pub(crate) fn send_down(&mut self, id: u64, message: Down) {
        let Some(conn) = self.conns.get(&id) else { return };
        let (from, to) = (conn.manager, conn.agent);
        let open = self.net.clear(from, to) && self.hosts[to].power;
        let at = self.now + self.net.delay(from, to);
        let Some(conn) = self.conns.get_mut(&id) else { return };
        if !open || !conn.stalled_down.is_empty() {
            if matches!(message, Down::Assignment(..)) {
                // A place of one: a slow agent gets only the newest.
                conn.stalled_down.retain(|m| !matches!(m, Down::Assignment(..)));
            }
            return conn.stalled_down.push(message);
        }
        conn.down_last = at.max(conn.down_last);
        let delay = conn.down_last - self.now;
        self.after(delay, Event::Down { conn: id, message });
    }

    /// The ways between hosts have changed: what was stalled goes on, what stalls is probed.
    pub(crate) fn ways_changed(&mut self) {
        let ids: Vec<u64> = self.conns.keys().copied().collect();
        for id in ids {
            let Some(conn) = self.conns.get(&id) else { continue };
            let (a, m) = (conn.agent, conn.manager);
            let open = self.net.clear(a, m) && self.hosts[a].power && self.hosts[m].power;
            let shut = conn.shut_since.is_some();
            if !open && !shut {
                let patience = KEEPALIVE + self.dice.below(KEEPALIVE);
                let now = self.now;
                if let Some(conn) = self.conns.get_mut(&id) {
                    conn.shut_since = Some(now);
                }
                self.after(patience, Event::Probe { conn: id });
            } else if open && shut {
                self.go_on(id);
            }
        }
        self.sessions_may_have_stalled();
        self.greet_followers();
        self.peers.iter_mut().for_each(|peer| peer.lonely = false);
        self.watch_leaders();
    }

    fn go_on(&mut self, id: u64) {
        let Some(conn) = self.conns.get(&id) else { return };
        let (host, stale_agent) = (conn.agent, self.hosts[conn.agent].boot != conn.agent_boot);
        let stale_manager = self.hosts[conn.manager].boot != conn.manager_boot;
        if stale_agent || stale_manager {
            // The next probe finds nobody who knows this connection.
            self.close_manager_side(id);
            self.agent_lost_session(host, id);
            self.conns.remove(&id);
            return;
        }
        let pause = self.net.retransmission();
        let at = self.now + pause;
        let Some(conn) = self.conns.get_mut(&id) else { return };
        conn.shut_since = None;
        (conn.up_last, conn.down_last) = (conn.up_last.max(at), conn.down_last.max(at));
        let (up, down) = (mem::take(&mut conn.stalled_up), mem::take(&mut conn.stalled_down));
        up.into_iter().for_each(|message| self.send_up(id, message));
        down.into_iter().for_each(|message| self.send_down(id, message));
    }

    /// A way has been shut for as long as keep-alive allows: both ends give the connection up.
    pub(crate) fn probe(&mut self, id: u64) {
        let Some(conn) = self.conns.get(&id) else { return };
        let Some(since) = conn.shut_since else { return };
        let left = (since + KEEPALIVE).saturating_sub(self.now);
        if left > 0 {
            return self.after(left, Event::Probe { conn: id });
        }
        let host = conn.agent;
        self.close_manager_side(id);
        self.agent_lost_session(host, id);
        self.conns.remove(&id);
    }

    /// Removes a connection both ends of which are closed.
    pub(crate) fn forget_conn(&mut self, id: u64) {
        if self.conns.get(&id).is_some_and(|c| !c.agent_open && !c.manager_open) {
            self.conns.remove(&id);
        }
    }
}
