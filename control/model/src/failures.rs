//! Where a service kept failing of late. Ended tasks are forgotten sooner than that matters.
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, time::Duration};

/// So many failures make a node the last choice (swarmkit's `maxFailures`); no more are remembered.
pub const MOST_FAILURES: usize = 5;

/// Failures older than this are forgotten (swarmkit's `monitorFailures`).
pub const FAILURE_WINDOW: Duration = Duration::from_secs(300);

/// Failures by service and node.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Failures(BTreeMap<String, BTreeMap<String, Recent>>);

/// The newest failures of one version of a service on one node, oldest first.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
struct Recent {
    spec_version: u64,
    times: Vec<Timestamp>,
}

impl Recent {
    fn live(&self, now: Timestamp) -> usize {
        self.times.iter().filter(|at| now.since(**at) < FAILURE_WINDOW).count()
    }
}

impl Failures {
    /// Nodes where this version of the service has failed [`MOST_FAILURES`] times within
    /// [`FAILURE_WINDOW`].
    pub fn of<'a>(
        &'a self,
        service: &str,
        spec_version: u64,
        now: Timestamp,
    ) -> impl Iterator<Item = &'a str> + 'a {
        let nodes = self.0.get(service).into_iter().flatten();
        nodes
            .filter(move |(_, r)| r.spec_version == spec_version && r.live(now) >= MOST_FAILURES)
            .map(|(node, _)| node.as_str())
    }

    pub(crate) fn record(&mut self, service: &str, spec_version: u64, node: &str, now: Timestamp) {
        let nodes = self.0.entry(service.to_owned()).or_default();
        nodes.retain(|_, recent| recent.live(now) > 0);
        let fresh = || Recent { spec_version, times: Vec::new() };
        let recent = nodes.entry(node.to_owned()).or_insert_with(fresh);
        if spec_version < recent.spec_version {
            return;
        }
        if spec_version > recent.spec_version {
            *recent = fresh();
        }
        if recent.times.len() == MOST_FAILURES {
            recent.times.remove(0);
        }
        recent.times.push(now);
    }

    pub(crate) fn forget_service(&mut self, service: &str) {
        self.0.remove(service);
    }

    pub(crate) fn forget_node(&mut self, node: &str) {
        self.0.retain(|_, nodes| {
            nodes.remove(node);
            !nodes.is_empty()
        });
    }
}
