//! Sessions with the nodes' agents, as `control/manager/src/dispatcher.rs` and `statuses.rs` keep them.
use super::{ATTEMPTS, Answered, Waiter, World};
use crate::{
    event::Event,
    identity::{Tls, is_member, proof},
    invariants::Violation,
    log::Author,
    node::{Down, Up},
    stats::Count,
    time::MS,
};
use shoal_cores::{Delta, Report, Subscriber, accept};
use shoal_model::{Change, Difference, NodeDescription, NodeState, Object, Row};
use std::{mem, rc::Rc};

/// Reports of one proposal.
const BATCH: usize = 200;

impl World {
    /// An agent's connection and its hello arrive.
    pub(crate) fn hear_hello(&mut self, id: u64) {
        let Some(conn) = self.conns.get(&id) else { return };
        let (m, host) = (conn.manager, conn.agent);
        let known = is_member(&self.peers[m].state, &self.agents[host].node_id);
        let same_boot = conn.manager_boot == self.hosts[m].boot;
        if !self.shake_hands(host, m) {
            self.check_handshakes(host);
            return self.close_manager_side(id);
        }
        if !self.serves(m) || !known || !same_boot {
            return self.close_manager_side(id);
        }
        let node = self.agents[host].node_id.clone();
        self.checks.let_in(&node, self.now);
        self.begin_to_tell(id, &node);
        self.beat(m, &node);
        self.register(m, id, 1);
    }

    /// What the node has of an earlier session need not be told again.
    fn begin_to_tell(&mut self, id: u64, node: &str) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        conn.rows = self.agents[conn.agent].rows.clone();
        conn.subscriber = Subscriber::new(node);
        let known = conn.rows.sections().into_iter();
        conn.subscriber.has(known.map(|(section, digest)| (section.to_owned(), digest)).collect());
    }

    fn register(&mut self, m: usize, id: u64, attempt: u32) {
        let Some(conn) = self.conns.get(&id) else { return };
        let host = conn.agent;
        let Some(present) = self.peers[m].state.nodes.get(&self.agents[host].node_id) else {
            return self.close_manager_side(id);
        };
        let (nano_cpus, memory_bytes) = self.config.sizes[host];
        let mut node = present.clone();
        node.description = Some(NodeDescription {
            hostname: format!("host-{host}"),
            os: "linux".to_owned(),
            architecture: "x86_64".to_owned(),
            nano_cpus,
            memory_bytes,
            generic_resources: self
                .config
                .broad
                .as_ref()
                .map_or_else(Vec::new, |b| b.generic[host].clone()),
            ..NodeDescription::default()
        });
        node.overlay.public_key = Some(format!("key-{}", node.id));
        node.overlay.endpoint = format!("192.0.2.{}:51820", host + 1).parse().ok();
        node.status.state = NodeState::Ready;
        node.status.message = String::new();
        node.status.addr = format!("192.0.2.{}", host + 1);
        if let (Some(tls), Some(cluster)) = (self.tls(host), &self.peers[m].state.cluster) {
            node.tls = Some(proof(cluster, tls));
        }
        if node == *present {
            return self.begin_session(m, id);
        }
        let waiter = Waiter::Registration { conn: id, attempt };
        self.propose(m, Author::Manager, vec![Change::Put(Object::Node(Box::new(node)))], waiter);
    }

    pub(super) fn registered(&mut self, m: usize, conn: u64, attempt: u32, answered: Answered) {
        match answered {
            Ok(_) => self.begin_session(m, conn),
            Err(_) if attempt < ATTEMPTS => self.register(m, conn, attempt + 1),
            Err(_) => self.close_manager_side(conn),
        }
    }

    /// The node's session from now on; one it had ends.
    fn begin_session(&mut self, m: usize, id: u64) {
        let Some(conn) = self.conns.get(&id).filter(|c| c.manager_open) else { return };
        let node = self.agents[conn.agent].node_id.clone();
        let flows = self.flows(id);
        if let Some(conn) = self.conns.get_mut(&id) {
            conn.flowing = flows;
            conn.began = Some(self.now);
        }
        self.stats.add(Count::Sessions);
        self.beat(m, &node);
        let Some(lead) = &mut self.leads[m] else { return };
        if let Some(old) = lead.sessions.insert(node, id)
            && old != id
        {
            self.close_manager_side(old);
        }
        self.follow_state(m);
        self.tell(m, id);
        self.sessions_may_have_stalled();
    }

    /// The manager's end of a connection is gone.
    pub(crate) fn close_manager_side(&mut self, id: u64) {
        let now = self.uptime();
        let Some(conn) = self.conns.get_mut(&id) else { return };
        if !mem::replace(&mut conn.manager_open, false) {
            return;
        }
        let (m, host, flowed) = (conn.manager, conn.agent, conn.flowing);
        conn.flowing = false;
        let node = self.agents[host].node_id.clone();
        if let Some(lead) = self.leads.get_mut(m).and_then(Option::as_mut)
            && lead.sessions.get(&node) == Some(&id)
        {
            lead.sessions.remove(&node);
            if flowed {
                lead.beats.insert(node, now);
            }
        }
        self.send_down(id, Down::Closed);
        self.sessions_may_have_stalled();
    }

    pub(crate) fn hear_agent(&mut self, id: u64, message: Up) {
        let Some(conn) = self.conns.get(&id) else { return };
        let (m, host) = (conn.manager, conn.agent);
        if !conn.manager_open || conn.manager_boot != self.hosts[m].boot {
            return self.forget_conn(id);
        }
        let node = self.agents[host].node_id.clone();
        match message {
            Up::Closed => self.close_manager_side(id),
            Up::Applied(generation) => {
                if let Some(conn) = self.conns.get_mut(&id) {
                    conn.applied = conn.applied.max(generation);
                }
            }
            Up::Tls(tls) => self.certified(m, id, tls, 1),
            Up::Statuses(statuses) => {
                let Some(lead) = &mut self.leads[m] else { return };
                let report = |(task, status)| Report { node: node.clone(), task, status };
                lead.reports.extend(statuses.into_iter().map(report));
                if !mem::replace(&mut lead.gathering, true) {
                    let event = Event::Gather { m, lead: lead.id };
                    self.after(20 * MS, event);
                }
            }
        }
    }

    /// What a node says of its certificate is noted.
    pub(super) fn certified(&mut self, m: usize, conn: u64, tls: Box<Tls>, attempt: u32) {
        let state = &self.peers[m].state;
        let present = state.nodes.get(&tls.certificate.node);
        let (Some(present), Some(cluster)) = (present, &state.cluster) else { return };
        let mut node = present.clone();
        node.tls = Some(proof(cluster, &tls));
        if node != *present {
            let waiter = Waiter::Certified { conn, tls, attempt };
            self.propose(
                m,
                Author::Manager,
                vec![Change::Put(Object::Node(Box::new(node)))],
                waiter,
            );
        }
    }

    pub(super) fn certificate_noted(
        &mut self,
        m: usize,
        conn: u64,
        tls: Box<Tls>,
        attempt: u32,
        answered: Answered,
    ) {
        match answered {
            Ok(_) => {}
            Err(_) if attempt < ATTEMPTS => self.certified(m, conn, tls, attempt + 1),
            Err(_) => self.close_manager_side(conn),
        }
    }

    pub(crate) fn write_reports(&mut self, m: usize, id: u64) {
        let Some(lead) = self.lead(m, id) else { return };
        lead.gathering = false;
        let reports = mem::take(&mut lead.reports);
        for batch in reports.chunks(BATCH) {
            self.accept_reports(m, Rc::new(batch.to_vec()), 1);
        }
    }

    fn accept_reports(&mut self, m: usize, reports: Rc<Vec<Report>>, attempt: u32) {
        let changes = accept(&self.peers[m].state, &reports);
        if !changes.is_empty() {
            let author = Author::Nodes(reports.clone());
            self.propose(m, author, changes, Waiter::Reports(reports, attempt));
        }
    }

    pub(super) fn reports_written(
        &mut self,
        m: usize,
        reports: Rc<Vec<Report>>,
        attempt: u32,
        answered: Answered,
    ) {
        if answered.is_err() {
            if attempt < ATTEMPTS {
                return self.accept_reports(m, reports, attempt + 1);
            }
            // They report everything again when they come back.
            for report in reports.iter() {
                let conn = self.leads[m].as_ref().and_then(|l| l.sessions.get(&report.node));
                if let Some(conn) = conn.copied() {
                    self.close_manager_side(conn);
                }
            }
        }
    }

    fn follow_state(&mut self, m: usize) {
        let most = self.config.reading;
        if let Some(lead) = &mut self.leads[m] {
            lead.tables.follow(&self.peers[m].state, most);
            if !lead.tables.is_complete() {
                self.tell_soon(m);
            }
        }
    }

    /// Every session is told what is new for it.
    pub(crate) fn tell_all(&mut self, m: usize, id: u64) {
        let Some(lead) = self.lead(m, id) else { return };
        lead.telling = false;
        let sessions: Vec<u64> = lead.sessions.values().copied().collect();
        self.follow_state(m);
        for conn in sessions {
            self.tell(m, conn);
        }
    }

    /// Sends a node what is new for it, if anything is.
    fn tell(&mut self, m: usize, id: u64) {
        let Some(conn) = self.conns.get(&id) else { return };
        let state = &self.peers[m].state;
        let node = &self.agents[conn.agent].node_id;
        // Gone, or marked down at the moment it registered: then it has to register again.
        if state.nodes.get(node).is_none_or(|n| n.status.state == NodeState::Down) {
            return self.close_manager_side(id);
        }
        self.tell_roots(m, id);
        self.tell_role(m, id);
        let Some(conn) = self.conns.get(&id) else { return };
        let state = &self.peers[m].state;
        let node = &self.agents[conn.agent].node_id;
        let tables = self.leads[m].as_ref().map(|lead| &lead.tables);
        let Some((tables, conn)) = tables.zip(self.conns.get_mut(&id)) else { return };
        let Some(delta) = tables.difference(state, &mut conn.subscriber) else { return };
        let applied = Rc::make_mut(&mut conn.rows).apply(read(delta));
        if let Err(wrong) = applied {
            return self.checks.fail(Violation { invariant: "tables", text: wrong.to_string() });
        }
        let rows = conn.rows.clone();
        let newest = rows.assignment();
        self.checks.told(state, node, &newest);
        // Rows of a service that is gone may change and mean nothing. The product sends them; here they are
        // left out, so that seeds of before there were differences go on as they did.
        let same = conn.sent.as_ref().is_some_and(|sent| {
            (&sent.tasks, &sent.dependencies, &sent.table)
                == (&newest.tasks, &newest.dependencies, &newest.table)
        });
        if same {
            return;
        }
        let newest = Rc::new(newest);
        conn.sent = Some(newest.clone());
        self.stats.add(Count::Assignments);
        self.send_down(id, Down::Assignment(newest, rows));
    }
}

/// A difference as its node reads it.
fn read(delta: Delta) -> Difference {
    let Delta { base, generation, kept, gone, rows } = delta;
    let rows = rows.iter().flat_map(|rows| Row::read_all(rows));
    let rows = rows.map(|row| row.expect("it was written from a row"));
    Difference { base, generation, kept, gone, rows: rows.collect() }
}
