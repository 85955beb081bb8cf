//! A node that is gone for long is known to be.
use super::Verdict;
use shoal_model::{NodeState, State};

/// The leader has led, and the node has been without a daemon, for long.
pub(super) fn must_be_down(state: &State, node: &str) -> Verdict {
    match state.nodes.get(node).map(|n| n.status.state) {
        Some(state @ (NodeState::Ready | NodeState::Unknown)) => {
            Err(format!("{node} was gone for half a minute and is still {state:?}"))
        }
        _ => Ok(()),
    }
}
