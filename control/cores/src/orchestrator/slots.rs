//! The tasks of a service by place, newest first.
use super::plan::{Place, Plan};
use shoal_model::{Service, Task, TaskState};
use std::collections::BTreeMap;

pub(super) type Slots<'a> = BTreeMap<Place<'a>, Vec<&'a Task>>;

/// All tasks of a service but those told to go for good, which are seen on their way. Every place
/// that is there has a task.
pub(super) fn of<'a>(plan: &mut Plan<'a>, service: &Service) -> Slots<'a> {
    let mut slots: Slots<'_> = BTreeMap::new();
    let state = plan.state;
    for task in state.tasks_of_service(&service.id) {
        match task.desired {
            TaskState::Remove => plan.remove(task),
            _ => slots.entry(Place::of(service, task)).or_default().push(task),
        }
    }
    for tasks in slots.values_mut() {
        tasks.sort_by(|a, b| (b.meta.created, &b.id).cmp(&(a.meta.created, &a.id)));
    }
    slots
}

/// Tasks of a place that are wanted, newest first.
pub(super) fn live<'a>(slot: &[&'a Task]) -> impl Iterator<Item = &'a Task> {
    slot.iter().copied().filter(|t| is_live(t))
}

/// Whether the task is wanted.
pub(super) fn is_live(task: &Task) -> bool {
    task.desired <= TaskState::Running
}
