//! Which nodes are no longer heard of.
use crate::spec::nanos;
use shoal_model::{
    NodeState, State, Timestamp,
    bugs::{self, Bug},
};
use std::{collections::BTreeMap, time::Duration};

/// How often an agent beats when the cluster's specification has Docker's default of 5 s.
pub const HEARTBEAT: Duration = Duration::from_secs(1);

/// A node is down after so many missed beats.
pub const MISSED_BEATS: u32 = 3;

/// Docker's default `HeartbeatPeriod` is this many times our [`HEARTBEAT`]: a node that is down is
/// noticed after 3 s instead of 15.
const DOCKER_RATIO: u32 = 5;

/// Shortest period, whatever the specification says.
const SHORTEST: Duration = Duration::from_millis(200);

/// How often agents are to beat: a fifth of the specification's `HeartbeatPeriod`.
pub fn heartbeat_period(state: &State) -> Duration {
    let asked = state.cluster.as_ref().and_then(|c| c.spec.dispatcher.as_ref());
    match asked.and_then(|d| d.heartbeat_period).filter(|p| *p > 0) {
        Some(period) => (nanos(period) / DOCKER_RATIO).max(SHORTEST),
        None => HEARTBEAT,
    }
}

/// Nodes that are not yet `Down` and whose last beat is [`MISSED_BEATS`] periods ago. A node without
/// an entry has a beat to come: the shell enters one for every node when it starts.
pub fn silent_nodes(
    state: &State,
    beats: &BTreeMap<String, Timestamp>,
    period: Duration,
    now: Timestamp,
) -> Vec<String> {
    let silent = |id: &str| {
        beats.get(id).is_some_and(|b| now.since(*b) >= period * MISSED_BEATS)
            && !bugs::active(Bug::DeafToSilence)
    };
    let nodes = state.nodes.values().filter(|n| n.status.state != NodeState::Down);
    nodes.filter(|n| silent(&n.id)).map(|n| n.id.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::World;

    #[test]
    fn a_node_is_silent_after_three_missed_beats_and_named_once() {
        let mut world = World::new();
        world.node("n1");
        world.node("n2");
        let at = |ms: i64| Timestamp(ms * 1_000_000);
        let beats = BTreeMap::from([("n1".to_owned(), at(0)), ("n2".to_owned(), at(2_500))]);
        assert!(silent_nodes(&world.state, &beats, HEARTBEAT, at(2_999)).is_empty());
        assert_eq!(silent_nodes(&world.state, &beats, HEARTBEAT, at(3_000)), ["n1"]);
        world.set_node("n1", |n| n.status.state = NodeState::Down);
        assert!(silent_nodes(&world.state, &beats, HEARTBEAT, at(3_000)).is_empty());
    }

    #[test]
    fn the_period_follows_the_specification() {
        let mut world = World::new();
        assert_eq!(heartbeat_period(&world.state), HEARTBEAT);
        world.set_cluster(|c| {
            c.spec.dispatcher = Some(shoal_model::docker::SwarmSpecDispatcher {
                heartbeat_period: Some(10_000_000_000),
            });
        });
        assert_eq!(heartbeat_period(&world.state), Duration::from_secs(2));
    }
}
