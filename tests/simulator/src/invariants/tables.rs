//! What a node puts together of the differences it was told is what the state says.
use super::Verdict;
use shoal_cores::assignment;
use shoal_model::{NodeAssignment, State};

/// A node is told an assignment made from a state.
pub(super) fn told(state: &State, node: &str, told: &NodeAssignment) -> Verdict {
    let due = assignment(state, node);
    let differs = if told.tasks != due.tasks {
        "its tasks"
    } else if told.dependencies != due.dependencies {
        "what they use"
    } else if told.table != due.table {
        "its table"
    } else {
        return Ok(());
    };
    Err(format!("{node} is told by differences another thing than by the whole: {differs}"))
}
