//! One specification for all tasks of a template: a million tasks hold one, not a million.
use crate::{
    docker::TaskSpec,
    shared::{ById, Tasks},
    task::Task,
};
use serde::Deserializer;
use std::{collections::BTreeMap, marker::PhantomData, sync::Arc};

/// Specifications in use, by service and [`Task::spec_version`], with how many tasks hold each.
#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct Templates(BTreeMap<String, BTreeMap<u64, Held>>);

#[derive(Clone, PartialEq, Debug)]
struct Held {
    spec: Arc<TaskSpec>,
    tasks: usize,
}

impl Templates {
    pub(crate) fn get(&self, service: &str, version: u64) -> Option<&Arc<TaskSpec>> {
        self.0.get(service)?.get(&version).map(|held| &held.spec)
    }

    /// Makes the task share the specification that others of its template hold. One that differs
    /// (it should not) keeps its own.
    pub(crate) fn share(&self, task: &mut Task) {
        if let Some(held) = self.get(&task.service_id, task.spec_version)
            && !Arc::ptr_eq(held, &task.spec)
            && *held == task.spec
        {
            task.spec = held.clone();
        }
    }

    pub(crate) fn hold(&mut self, task: &Task) {
        if let Some(held) =
            self.0.get_mut(&task.service_id).and_then(|all| all.get_mut(&task.spec_version))
        {
            held.tasks += 1;
            return;
        }
        let held = Held { spec: task.spec.clone(), tasks: 1 };
        self.0.entry(task.service_id.clone()).or_default().insert(task.spec_version, held);
    }

    pub(crate) fn release(&mut self, task: &Task) {
        let Some(all) = self.0.get_mut(&task.service_id) else { return };
        let Some(held) = all.get_mut(&task.spec_version) else { return };
        held.tasks = held.tasks.saturating_sub(1);
        if held.tasks == 0 {
            all.remove(&task.spec_version);
            if all.is_empty() {
                self.0.remove(&task.service_id);
            }
        }
    }
}

/// Reads tasks by id, sharing as they come: a snapshot has every specification written out, and all
/// of them at once would not fit.
pub(crate) fn shared_tasks<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Tasks, D::Error> {
    let mut templates = Templates::default();
    let share = |task: &mut Task| {
        templates.share(task);
        templates.hold(task);
    };
    deserializer.deserialize_map(ById(share, PhantomData))
}
