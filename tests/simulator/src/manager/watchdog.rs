//! Marks nodes down that are no longer heard of, as `control/manager/src/watchdog.rs` does.
//!
//! Beats are not sent one by one. A node whose session works has just beaten; when it stops working
//! that moment is its last beat, and the watchdog looks again when three of them are missed.
use super::{Waiter, World};
use crate::{
    event::Event,
    log::Author,
    time::{Ns, SEC, ns},
};
use shoal_cores::{MISSED_BEATS, heartbeat_period, silent_nodes};
use shoal_model::{Change, NodeState, Object, Timestamp};

/// How long a node may take to come back to a new leader before its beats are missed.
const GRACE: Ns = 5 * SEC;

impl World {
    pub(super) fn expect_nodes(&mut self, m: usize) {
        let until = Timestamp(self.uptime().0 + GRACE as i64);
        let nodes: Vec<String> = self.peers[m].state.nodes.keys().cloned().collect();
        let Some(lead) = &mut self.leads[m] else { return };
        lead.beats = nodes.into_iter().map(|n| (n, until)).collect();
        self.watch_soon(m);
    }

    /// A node has just joined and is to be heard of soon.
    pub(crate) fn expect_node(&mut self, m: usize, node: &str) {
        let until = Timestamp(self.uptime().0 + GRACE as i64);
        let period = heartbeat_period(&self.peers[m].state);
        let Some(lead) = &mut self.leads[m] else { return };
        lead.beats.insert(node.to_owned(), until);
        // It is not in the state yet, so that nothing else would look.
        let event = Event::Watch { m, lead: lead.id };
        let late = self.dice.below(ns(period) / 2);
        self.after(GRACE + ns(period * MISSED_BEATS) + late, event);
    }

    pub(super) fn beat(&mut self, m: usize, node: &str) {
        let now = self.uptime();
        if let Some(lead) = &mut self.leads[m] {
            lead.beats.insert(node.to_owned(), now);
        }
    }

    /// After anything that may stop a session from working, or the other way round. Sessions that
    /// have worked until now have beaten until now.
    pub(crate) fn sessions_may_have_stalled(&mut self) {
        let now = self.uptime();
        for m in 0..self.leads.len() {
            let Some(lead) = &self.leads[m] else { continue };
            let sessions: Vec<(String, u64)> =
                lead.sessions.iter().map(|(n, c)| (n.clone(), *c)).collect();
            for (node, id) in sessions {
                let flows = self.flows(id);
                let Some(conn) = self.conns.get_mut(&id) else { continue };
                if conn.flowing && !flows {
                    if let Some(lead) = &mut self.leads[m] {
                        lead.beats.insert(node, now);
                    }
                    let Some(conn) = self.conns.get_mut(&id) else { continue };
                    conn.flowing = false;
                } else if flows {
                    conn.flowing = true;
                }
            }
            self.watch_soon(m);
        }
    }

    /// The manager itself did not run: nobody is to blame for silence up to now.
    pub(crate) fn excuse(&mut self, m: usize) {
        let now = self.uptime();
        if let Some(lead) = self.leads.get_mut(m).and_then(Option::as_mut) {
            lead.beats.values_mut().for_each(|at| *at = (*at).max(now));
            lead.since = self.now;
        }
    }

    fn watch_soon(&mut self, m: usize) {
        let period = heartbeat_period(&self.peers[m].state);
        let Some(lead) = &self.leads[m] else { return };
        let state = &self.peers[m].state;
        let silent = lead.beats.iter().filter(|(node, _)| {
            let down = state.nodes.get(*node).is_none_or(|n| n.status.state == NodeState::Down);
            let flows = lead.sessions.get(*node).is_some_and(|conn| self.flows(*conn));
            !down && !flows && !lead.falling.contains(*node)
        });
        let Some(first) = silent.map(|(_, at)| at.0).min() else { return };
        let due = first + ns(period * MISSED_BEATS) as i64 - self.uptime().0;
        let due = Ns::try_from(due).unwrap_or(0);
        // It looks twice a period.
        let event = Event::Watch { m, lead: lead.id };
        let late = self.dice.below(ns(period) / 2);
        self.after(due + late, event);
    }

    pub(crate) fn watch_nodes(&mut self, m: usize, id: u64) {
        if self.lead(m, id).is_none() {
            return;
        }
        let now = self.uptime();
        let Some(lead) = &self.leads[m] else { return };
        let mut beats = lead.beats.clone();
        for (node, conn) in &lead.sessions {
            if self.flows(*conn) {
                beats.insert(node.clone(), now);
            }
        }
        let state = &self.peers[m].state;
        for node in silent_nodes(state, &beats, heartbeat_period(state), now) {
            self.mark_down(m, &node, "heartbeat failure", 1);
        }
        self.watch_soon(m);
    }

    pub(super) fn mark_down(&mut self, m: usize, node: &str, why: &'static str, attempt: u32) {
        let Some(lead) = &mut self.leads[m] else { return };
        if let Some(conn) = lead.sessions.remove(node) {
            self.close_manager_side(conn);
        }
        let Some(present) = self.peers[m].state.nodes.get(node) else { return };
        let Some(lead) = &mut self.leads[m] else { return };
        if present.status.state == NodeState::Down || lead.falling.contains(node) {
            return;
        }
        let mut down = present.clone();
        down.status.state = NodeState::Down;
        down.status.message = why.to_owned();
        lead.falling.insert(node.to_owned());
        let waiter = Waiter::Down { node: node.to_owned(), why, attempt };
        self.propose(m, Author::Manager, vec![Change::Put(Object::Node(Box::new(down)))], waiter);
    }
}
