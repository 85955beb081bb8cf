//! An update replaces no more slots at a time than it may, and stops the old task first or last as it
//! was told.
use super::{Invariant, Step, Verdict, global, may_be_current, may_be_lost, place, starts_first};
use crate::log::Author;
use shoal_model::{
    Change, Mode, Object, ObjectKind, Service, State, Task, TaskState, Timestamp, UpdateStatus,
};
use std::collections::{BTreeMap, BTreeSet};

/// Slots of each service whose new task does not run yet.
#[derive(Default)]
pub(super) struct Updates {
    open: BTreeMap<String, Open>,
}

#[derive(Default)]
struct Open {
    /// Version of the specification, and when its update was begun: a change of anything cancels an
    /// update, and the next one does not count what it left.
    update: (u64, Option<Timestamp>),
    /// Place and its new task.
    slots: BTreeMap<String, String>,
}

impl Invariant for Updates {
    fn name(&self) -> &'static str {
        "updates"
    }

    fn applied(&mut self, step: &Step<'_>) -> Verdict {
        // What ends comes first: it makes room for what begins in the same transaction.
        for (change, old) in step.txn.changes.iter().zip(step.old) {
            if let (Change::Delete(ObjectKind::Task, id), Some(Object::Task(task))) = (change, old)
            {
                self.over(&task.service_id, id);
            }
        }
        for (_, task) in step.tasks_put() {
            if task.status.state >= TaskState::Running || task.desired > TaskState::Running {
                self.over(&task.service_id, &task.id);
            }
        }
        if step.txn.author != Author::Orchestrator {
            return Ok(());
        }
        for (old, task) in step.tasks_put() {
            // Changed since the orchestrator looked: then it could not know.
            let known = |s: &&Service| s.meta.version <= step.txn.read;
            let service = step.state.services.get(&task.service_id).filter(known);
            match (old, service) {
                // Every update of a job is another run.
                (_, Some(service)) if service.mode().is_job() => {}
                (None, Some(service)) => self.begun(step, service, task)?,
                (Some(old), Some(service)) => stopped(step, service, old, task)?,
                (_, None) => {}
            }
        }
        Ok(())
    }
}

impl Updates {
    fn begun(&mut self, step: &Step<'_>, service: &Service, task: &Task) -> Verdict {
        let open = self.open.entry(service.id.clone()).or_default();
        let began = service.update_status.as_ref().map(|u| u.began);
        if open.update != (service.spec_version, began) {
            *open = Open { update: (service.spec_version, began), slots: BTreeMap::new() };
        }
        let put: BTreeMap<&str, &Task> =
            step.tasks_put().filter_map(|(old, new)| Some((new.id.as_str(), old?))).collect();
        // Whether it takes the place of one that was well and of another version. (Tasks whose node is
        // lost are followed at once, and do not count as updated.)
        let replaces = step.others_of_slot(task).last().is_some_and(|other| {
            let before = put.get(other.id.as_str()).copied().unwrap_or(other);
            before.desired <= TaskState::Running
                && !before.status.state.is_terminal()
                && !may_be_current(service, before)
                && !may_be_lost(step.state, before, step.txn.read)
        });
        if task.spec_version != service.spec_version || !replaces {
            return Ok(());
        }
        open.slots.insert(place(task).to_owned(), task.id.clone());
        let most = parallelism(service);
        match most {
            Some(most) if open.slots.len() as u64 > most => Err(format!(
                "places {:?} of {} are updated at a time, not {most}",
                open.slots.keys().collect::<BTreeSet<_>>(),
                service.name()
            )),
            _ => Ok(()),
        }
    }

    fn over(&mut self, service: &str, task: &str) {
        if let Some(open) = self.open.get_mut(service) {
            open.slots.retain(|_, id| id != task);
        }
    }
}

/// `None` for any number.
fn parallelism(service: &Service) -> Option<u64> {
    let back = service.update_status.as_ref().is_some_and(UpdateStatus::is_rollback);
    let asked = match back {
        true => service.spec.rollback_config.as_ref().and_then(|c| c.parallelism),
        false => service.spec.update_config.as_ref().and_then(|c| c.parallelism),
    };
    let asked = asked.unwrap_or(1);
    u64::try_from(asked).ok().filter(|n| *n > 0)
}

/// Whether a global service gives the task's node up.
fn leaves(state: &State, service: &Service, task: &Task) -> bool {
    let node = task.node_id.as_ref().and_then(|id| state.nodes.get(id));
    service.mode() == Mode::Global && node.is_none_or(|node| !global::suits(service, node))
}

/// With `start-first` a task that is well is stopped only when a new one runs in its slot.
fn stopped(step: &Step<'_>, service: &Service, old: &Task, new: &Task) -> Verdict {
    let by_update = old.desired <= TaskState::Running
        && new.desired == TaskState::Shutdown
        && old.status.state == TaskState::Running
        && !may_be_current(service, old)
        && !may_be_lost(step.state, old, step.txn.read)
        && !leaves(step.state, service, old);
    if !by_update || !starts_first(service) {
        return Ok(());
    }
    let order = |t: &Task| step.tasks.get(&t.id).map(|f| f.order);
    // It may have ended since the orchestrator looked.
    let runs = |t: &&Task| {
        let since = t.status.state > TaskState::Running && t.meta.version > step.txn.read;
        (t.status.state == TaskState::Running || since)
            && (may_be_current(service, t) || order(t) > order(old))
    };
    match step.others_of_slot(new).iter().any(runs) {
        true => Ok(()),
        false => Err(format!("{} is stopped before a new task of its slot runs", old.id)),
    }
}
