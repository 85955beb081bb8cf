//! How a node leaves a cluster.

use super::{
    Membership,
    refusals::{LOCKED, NO_MEMBER, unavailable, unknown},
};
use crate::{record::Record, role};
use anyhow::Result;
use shoal_identity::CertificateDir;
use shoal_model::{ControlError, Node, NodeState, Role, State};
use std::{sync::PoisonError, time::Duration};

/// How long a manager that leaves waits until the others have taken its vote back.
const RETIRE_WAIT: Duration = Duration::from_secs(10);

const LEAVING: &str = "You are attempting to leave the swarm on a node that is participating as a \
     manager. ";
const LAST_MANAGER: &str = "Removing the last manager erases all current state of the swarm. Use \
     `--force` to ignore this message. ";
const NO_WAY_BACK: &str = "The only way to restore a swarm that has lost consensus is to reinitialize \
     it with `--force-new-cluster`. Use `--force` to suppress this message.";

impl Membership {
    /// Leaves the cluster. A manager does so only by force.
    pub(super) async fn leave_cluster(&self, force: bool) -> Result<(), ControlError> {
        let _changing = self.changing.lock().await;
        if force && self.locked().take().is_some() {
            return self.forget().map_err(unknown);
        }
        let member = self.member().ok_or_else(|| match self.locked().is_some() {
            true => unavailable(LOCKED),
            false => unavailable(NO_MEMBER),
        })?;
        if let Some(manager) = member.manager() {
            if !force {
                return Err(unavailable(&manager.store().read(|s| warning(s, manager.node_id()))));
            }
            member.settle();
            // The others must not count on a vote that is never given again.
            let retired = tokio::time::timeout(RETIRE_WAIT, manager.control().retire()).await;
            if !matches!(retired, Ok(Ok(()))) {
                tracing::warn!(?retired, "the other managers still count on this one");
            }
        }
        member.settle();
        self.member.write().unwrap_or_else(PoisonError::into_inner).take();
        member.agent.leave().await;
        if let Some(manager) = member.manager() {
            manager.shutdown().await;
        }
        self.forget().map_err(unknown)
    }

    /// Removes the cluster's state from this node.
    pub(super) fn forget(&self) -> Result<()> {
        Record::remove(&self.host.state_dir)?;
        CertificateDir::new(&self.host.data_root).remove()?;
        role::remove_store(&self.host.state_dir)
    }
}

/// What a manager is told that leaves without force, in Docker's words.
fn warning(state: &State, own: &str) -> String {
    let managers = state.nodes.values().filter(|n| n.role == Role::Manager);
    let all = managers.clone().count();
    let answers = |n: &&Node| n.id == own || n.status.state == NodeState::Ready;
    let reachable = managers.filter(answers).count();
    let unreachable = all - reachable;
    if all <= 1 {
        return format!("{LEAVING}{LAST_MANAGER}");
    }
    let lost = reachable <= unreachable + 2;
    let warning = match lost {
        true => format!(
            "Removing this node leaves {} managers out of {all}. Without a Raft quorum your swarm \
             will be inaccessible. ",
            reachable - 1
        ),
        false => String::new(),
    };
    format!("{LEAVING}{warning}{NO_WAY_BACK}")
}
