//! Where tasks belong, and how they stand with their services.

use shoal_model::{Availability, NodeState, Service, State, Task, TaskState, UpdateStatus, docker};
use std::collections::BTreeMap;

/// Where a task belongs: the number of its slot, or its node (global services and jobs). Its name says
/// so for ever, whatever becomes of the service.
pub(super) fn place(task: &Task) -> &str {
    task.name.split('.').nth(1).unwrap_or_default()
}

/// Tasks of a service by place, those told to go for good left out.
pub(super) fn places<'a>(state: &'a State, service: &Service) -> BTreeMap<&'a str, Vec<&'a Task>> {
    let mut places: BTreeMap<&str, Vec<&Task>> = BTreeMap::new();
    for task in state.tasks_of_service(&service.id).filter(|t| t.desired != TaskState::Remove) {
        places.entry(place(task)).or_default().push(task);
    }
    places
}

/// Whether a task of this version may be as the service wants it.
pub(super) fn may_be_current(service: &Service, task: &Task) -> bool {
    task.spec_version == service.spec_version
        || service.placement_versions.contains(&task.spec_version)
}

/// Whether nobody expects the task to go on where it is, as far as one knows who read version `read`.
pub(super) fn may_be_lost(state: &State, task: &Task, read: u64) -> bool {
    let Some(node) = &task.node_id else { return false };
    state.nodes.get(node).is_none_or(|n| {
        n.meta.version > read
            || n.status.state == NodeState::Down
            || n.availability == Availability::Drain
    })
}

/// Whether an update of the service, or its way back, starts the new task before it stops the old one.
pub(super) fn starts_first(service: &Service) -> bool {
    use docker::{
        ServiceSpecRollbackConfigOrderEnum as Back, ServiceSpecUpdateConfigOrderEnum as Forth,
    };
    match service.update_status.as_ref().is_some_and(UpdateStatus::is_rollback) {
        true => {
            let config = service.spec.rollback_config.as_ref();
            config.and_then(|c| c.order) == Some(Back::START_FIRST)
        }
        false => {
            let config = service.spec.update_config.as_ref();
            config.and_then(|c| c.order) == Some(Forth::START_FIRST)
        }
    }
}
