//! Marks nodes down that are no longer heard of.
use crate::{clock::Uptime, edit, error::chain, manager::Inner};
use shoal_cores::{heartbeat_period, silent_nodes};
use shoal_model::{NodeState, Timestamp};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// How long a node may take to say hello after it got its certificate, before its beats are missed.
const GRACE: Duration = Duration::from_secs(5);

/// A beat goes through two tasks, the connection's and the session's, and each may be as late as the
/// watchdog; one more for the wire.
const TASKS: u32 = 3;

/// How late this manager's tasks run when there is too much for its processors. Nodes are not silent
/// because it does not come to listen. Pure.
#[derive(Clone, Copy, Debug, Default)]
struct Lag(Duration);

impl Lag {
    /// Takes down how late the watchdog itself was; a lag that was seen is forgotten by and by. Gives
    /// how much longer a node may be silent.
    fn note(&mut self, late: Duration) -> Duration {
        self.0 = late.max(self.0 / 2);
        self.0 * TASKS
    }
}

/// When each node was last heard of, on the manager's own clock.
pub(crate) struct Beats {
    uptime: Uptime,
    last: Mutex<BTreeMap<String, Timestamp>>,
    /// Until when nodes come back to a manager that has just begun to lead.
    back_by: Timestamp,
}

impl Beats {
    /// Nodes come back within this time.
    pub(crate) fn new(uptime: Uptime, within: Duration) -> Beats {
        let back_by = uptime.now().after(within);
        Beats { uptime, last: Mutex::default(), back_by }
    }

    /// The node was heard of.
    pub(crate) fn beat(&self, node: &str) {
        self.put(node, self.uptime.now());
    }

    /// The node is to be heard of soon.
    pub(crate) fn expect(&self, node: &str) {
        self.put(node, self.uptime.now().after(GRACE));
    }

    /// The node was last heard of so long ago, by what others know.
    pub(crate) fn silent_for(&self, node: &str, silence: Duration) {
        self.put(node, earlier(self.uptime.now(), silence));
    }

    /// The manager has just begun to lead: the node is to come back.
    pub(crate) fn await_return(&self, node: &str) {
        self.put(node, self.back_by);
    }

    /// The node's session has ended. While all come back its next attempt may be refused for as long as others'.
    pub(crate) fn left(&self, node: &str) {
        if self.uptime.now() < self.back_by {
            self.put(node, self.back_by);
        }
    }

    fn put(&self, node: &str, at: Timestamp) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match last.get_mut(node) {
            Some(present) => *present = at,
            None => drop(last.insert(node.to_owned(), at)),
        }
    }

    /// The manager itself did not run: nobody is to blame for silence up to now.
    fn excuse(&self) {
        let now = self.uptime.now();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.values_mut().for_each(|at| *at = (*at).max(now));
    }
}

/// Runs until the manager stops.
pub(crate) async fn run(inner: Arc<Inner>) {
    let beats = &inner.beats;
    let mut lag = Lag::default();
    loop {
        let period = inner.store.read(heartbeat_period);
        let before = beats.uptime.now();
        tokio::select! {
            () = inner.stop.cancelled() => return,
            () = tokio::time::sleep(period / 2) => {}
        }
        let now = beats.uptime.now();
        let more = lag.note(now.since(before).saturating_sub(period / 2));
        if now.since(before) > period * 2 {
            beats.excuse();
            continue;
        }
        let silent = inner.store.read(|state| {
            let mut last = beats.last.lock().unwrap_or_else(PoisonError::into_inner);
            last.retain(|id, _| state.nodes.contains_key(id));
            silent_nodes(state, &last, period, earlier(now, more))
        });
        for node in silent {
            tracing::warn!(node, "no heartbeat: the node is down");
            down(&inner, &node, "heartbeat failure").await;
        }
    }
}

fn earlier(now: Timestamp, by: Duration) -> Timestamp {
    Timestamp(now.0.saturating_sub(i64::try_from(by.as_nanos()).unwrap_or(i64::MAX)))
}

/// Marks a node down and ends its session.
pub(crate) async fn down(inner: &Inner, node: &str, why: &str) {
    inner.sessions.end(node);
    let marked = edit::node(&inner.store, node, |n| {
        n.status.state = NodeState::Down;
        n.status.message = why.to_owned();
    });
    if let Err(error) = marked.await {
        tracing::error!(node, error = %chain(&error), "cannot mark the node down");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manager_that_is_slow_is_patient_and_soon_strict_again() {
        let ms = Duration::from_millis;
        let mut lag = Lag::default();
        assert_eq!(lag.note(ms(0)), ms(0));
        assert_eq!(lag.note(ms(800)), ms(2_400));
        assert_eq!(lag.note(ms(100)), ms(1_200), "half of what it was");
        assert_eq!(lag.note(ms(600)), ms(1_800));
        for _ in 0..10 {
            lag.note(ms(0));
        }
        assert!(lag.note(ms(0)) < ms(1));
    }

    #[test]
    fn a_node_that_loses_its_session_while_all_come_back_has_as_long_as_the_others() {
        let beats = |within| Beats::new(Uptime::start(), within);
        let last = |beats: &Beats| beats.last.lock().unwrap()["n"];
        let during = beats(Duration::from_secs(60));
        during.await_return("n");
        during.beat("n");
        assert!(last(&during) < during.back_by, "it is there, and would be missed at once");
        during.left("n");
        assert_eq!(last(&during), during.back_by);
        let after = beats(Duration::ZERO);
        after.beat("n");
        let beat = last(&after);
        after.left("n");
        assert_eq!(last(&after), beat);
    }

    #[test]
    fn a_time_before_the_beginning_is_the_beginning_of_all() {
        assert_eq!(earlier(Timestamp(5), Duration::from_nanos(3)), Timestamp(2));
        assert_eq!(earlier(Timestamp(i64::MIN + 1), Duration::from_secs(9)), Timestamp(i64::MIN));
    }
}
