//! A cluster in memory behind the [`Swarm`] trait: objects and decisions are real, nodes are played,
//! nothing leaves the process. For tests of the server and of the command line.
//!
//! A task runs the moment it is to; one of a job ends well a short time later, one whose image begins
//! with `fail` ends badly at its start. Time passes whenever somebody looks.

mod nodes;
mod objects;
mod swarm;

use crate::seam::{LocalState, SwarmInfo};
use objects::node;
use shoal_model::{
    ApplyError, Availability, Change, ControlError, ErrorKind, Object, Role, State, Timestamp,
    docker,
};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// Docker's text for a node in no cluster.
const NO_SWARM: &str = "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to swarm and try again.";
/// Docker's text for a worker.
const WORKER: &str = "This node is not a swarm manager. Worker nodes can't be used to view or modify cluster state. Please run this command on a manager node or promote the current node to a manager.";

/// The cluster. Ids are counted, so that tests know them.
#[derive(Debug, Default)]
pub struct MemorySwarm(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    state: State,
    info: SwarmInfo,
    next: u64,
    versions: watch::Sender<u64>,
}

impl MemorySwarm {
    /// A node in no cluster.
    pub fn new() -> MemorySwarm {
        MemorySwarm::default()
    }

    /// A manager, host name `alpha`, with two workers, `beta` and `gamma`.
    pub fn three_nodes() -> MemorySwarm {
        let swarm = MemorySwarm::new();
        let mut inner = swarm.inner();
        inner.create(docker::SwarmSpec::default(), Availability::Active).expect("an empty state");
        for hostname in ["beta", "gamma"] {
            let id = inner.id("node");
            let node = node(&id, hostname, Role::Worker, Availability::Active);
            inner.apply(vec![Change::Put(Object::Node(Box::new(node)))]).expect("a new id");
        }
        drop(inner);
        swarm
    }

    /// Changes the state behind the API's back.
    pub fn edit(&self, change: impl FnOnce(&State) -> Vec<Change>) -> Result<(), ControlError> {
        let mut inner = self.inner();
        let changes = change(&inner.state);
        inner.apply(changes)
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn manager(&self) -> Result<MutexGuard<'_, Inner>, ControlError> {
        let mut inner = self.inner();
        match (inner.info.local_state, inner.info.control_available) {
            (LocalState::Active, true) => {
                inner.settle()?;
                Ok(inner)
            }
            (LocalState::Active, false) => Err(ControlError::new(ErrorKind::Unavailable, WORKER)),
            _ => Err(ControlError::new(ErrorKind::Unavailable, NO_SWARM)),
        }
    }
}

impl Inner {
    fn apply(&mut self, changes: Vec<Change>) -> Result<(), ControlError> {
        if changes.is_empty() {
            return Ok(());
        }
        let index = self.state.version + 1;
        self.state.apply(index, now(), changes).map_err(|e| match e {
            ApplyError::OutOfSequence { .. } | ApplyError::SubnetTaken { .. } | ApplyError::IngressPresent { .. } => ControlError::new(
                ErrorKind::Unknown,
                format!("rpc error: code = Unknown desc = {e}"),
            ),
            ApplyError::InUse { .. } | ApplyError::Missing { .. } => ControlError::new(
                ErrorKind::InvalidArgument,
                format!("rpc error: code = InvalidArgument desc = {e}"),
            ),
            ApplyError::NameTaken { .. } => ControlError::new(
                ErrorKind::AlreadyExists,
                format!("rpc error: code = AlreadyExists desc = name conflicts with an existing object: {e}"),
            ),
        })?;
        self.versions.send_replace(index);
        Ok(())
    }

    fn check_networks(&self, spec: &docker::ServiceSpec) -> Result<(), ControlError> {
        for wanted in shoal_cores::attachments(spec) {
            if shoal_cores::network_of(&self.state, wanted).is_none() {
                let target = wanted.target.as_deref().unwrap_or_default();
                let text = format!("network {target} not found");
                return Err(ControlError::new(ErrorKind::NotFound, text));
            }
        }
        Ok(())
    }
}

fn now() -> Timestamp {
    Timestamp(chrono::Utc::now().timestamp_nanos_opt().unwrap_or(i64::MAX))
}
