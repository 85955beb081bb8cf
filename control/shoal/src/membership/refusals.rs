//! What is refused for want of a membership or because of one, in Docker's words.

use shoal_identity::IdentityError;
use shoal_manager::ManagerError;
use shoal_model::{ControlError, ErrorKind};

pub(super) const NO_SWARM: &str = "\
     This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to \
     connect this node to swarm and try again.";
pub(super) const WORKER: &str = "\
     This node is not a swarm manager. Worker nodes can't be used to view or modify cluster \
     state. Please run this command on a manager node or promote the current node to a manager.";
pub(super) const LOCKED: &str = "\
     Swarm is encrypted and needs to be unlocked before it can be used. Please use \"docker swarm \
     unlock\" to unlock it.";
pub(super) const MEMBER_ALREADY: &str = "\
     This node is already part of a swarm. Use \"docker swarm leave\" to leave this swarm and \
     join another one.";
pub(super) const NO_MEMBER: &str = "This node is not part of a swarm";
pub(super) const PREPARED: &str = "\
     This node is not a swarm manager. Manager is being prepared or has trouble connecting to the \
     cluster.";
pub(super) const STILL_JOINING: &str = "\
     Timeout was reached before node joined. The attempt to join the swarm will continue in the \
     background. Use the \"docker info\" command to see the current swarm status of your node.";

/// Whether only the unlock key is missing.
pub(super) fn is_locked(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(IdentityError::Locked))
        || error.downcast_ref().is_some_and(ManagerError::is_locked)
}

pub(super) fn is_wrong_key(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(IdentityError::WrongKey))
        || error.downcast_ref().is_some_and(ManagerError::is_wrong_key)
}

pub(super) fn unavailable(message: &str) -> ControlError {
    ControlError::new(ErrorKind::Unavailable, message)
}

pub(super) fn unknown(error: anyhow::Error) -> ControlError {
    ControlError::new(ErrorKind::Unknown, format!("{error:#}"))
}
