//! Replicated services: as many slots as replicas, one wanted task in each.
//!
//! A slot's life: a task is made (`Running` desired); when it ends by itself the restart policy says
//! whether and when another follows (made at once with `Ready` desired, so that its node prepares
//! it, and told to run when its delay has passed); when its node is lost or drained another follows
//! at once; when the template changed it is replaced in its turn. A replacement runs only when its
//! predecessor has stopped, or [`STOP_WAIT`] has passed.
use crate::{history, restart, spec::nanos};
use shoal_model::{
    Availability, Change, Meta, Node, NodeState, Object, ObjectKind, Service, State, Task,
    TaskState, TaskStatus, Timestamp, docker,
};
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// A replacement waits at most this long for its predecessor to stop (swarmkit's value).
const STOP_WAIT: Duration = Duration::from_secs(60);

/// Changes of one call; the rest follow in the next.
const MOST_CHANGES: usize = 2_000;

/// What the services of the cluster want of its tasks.
pub fn orchestrate(
    state: &State,
    now: Timestamp,
    new_id: &mut dyn FnMut() -> String,
) -> Vec<Change> {
    let mut plan = Plan { state, now, new_id, changes: Vec::new(), template: None };
    for service in state.services.values() {
        plan.reconcile(service);
        if plan.changes.len() >= MOST_CHANGES {
            return plan.changes;
        }
    }
    let without_service = |t: &&Task| !state.services.contains_key(&t.service_id);
    for task in state.tasks.values().filter(without_service).take(MOST_CHANGES) {
        plan.remove(task);
    }
    plan.changes
}

/// The next time after `now` at which [`orchestrate`] may want something without any change.
pub fn next_due(state: &State, now: Timestamp) -> Option<Timestamp> {
    let waiting = state.tasks.values().filter(|t| t.desired == TaskState::Ready);
    let starts = waiting.flat_map(|t| [t.not_before, t.meta.created.after(STOP_WAIT)]);
    let updates = state.services.values().filter_map(|s| {
        let delay = Update::of(s).delay;
        let tasks = state.tasks_of_service(&s.id);
        let mut fresh = tasks.filter(|t| t.spec_version == s.spec_version);
        if delay.is_zero() {
            None
        } else {
            fresh.by_ref().map(|t| t.status.since.after(delay)).max()
        }
    });
    starts.chain(updates).filter(|due| *due > now).min()
}

/// A slot's tasks, newest first; without those told to go for good.
type Slots<'a> = BTreeMap<u64, Vec<&'a Task>>;

struct Plan<'a> {
    state: &'a State,
    now: Timestamp,
    new_id: &'a mut dyn FnMut() -> String,
    changes: Vec<Change>,
    /// The service that made tasks last, and the specification they share.
    template: Option<(String, Arc<docker::TaskSpec>)>,
}

impl Plan<'_> {
    fn reconcile(&mut self, service: &Service) {
        let state = self.state;
        let mut slots: Slots<'_> = BTreeMap::new();
        for task in state.tasks_of_service(&service.id) {
            match task.desired {
                TaskState::Remove => self.remove(task),
                TaskState::Shutdown if self.is_orphan(task) => {
                    self.retire(task);
                    slots.entry(task.slot).or_default().push(task);
                }
                _ => slots.entry(task.slot).or_default().push(task),
            }
        }
        for tasks in slots.values_mut() {
            tasks.sort_by(|a, b| (b.meta.created, &b.id).cmp(&(a.meta.created, &a.id)));
        }
        let replicas = usize::try_from(service.replicas()).unwrap_or(usize::MAX);
        for slot in surplus(&slots, replicas) {
            for task in slots.remove(&slot).into_iter().flatten() {
                self.remove(task);
            }
        }
        let mut dirty = Vec::new();
        for tasks in slots.values() {
            if let Some(task) = self.tend(service, tasks) {
                dirty.push(task);
            }
        }
        self.update(service, &slots, dirty);
        let limit = history::limit(state.cluster.as_ref());
        for tasks in slots.values() {
            self.changes.extend(history::reap(tasks, limit));
        }
        let missing = replicas.saturating_sub(slots.len()).min(MOST_CHANGES);
        let free = (1..).filter(|slot| !slots.contains_key(slot));
        for slot in free.take(missing) {
            self.create(service, slot, TaskState::Running, self.now);
        }
    }

    /// Keeps one wanted task in a slot. Returns it when it is of an older template.
    fn tend<'t>(&mut self, service: &Service, slot: &[&'t Task]) -> Option<&'t Task> {
        let mut wanted = slot.iter().copied().filter(|t| t.desired <= TaskState::Running);
        let Some(task) = wanted.next() else {
            let last = slot.first()?;
            let given_up = last.spec_version == service.spec_version
                && restart::ended_by_itself(last)
                && !restart::wanted(last, slot);
            if !given_up {
                self.create(service, last.slot, TaskState::Ready, self.restart_at(last));
            }
            return None;
        };
        // With `start-first` the older one goes on until the newer one runs.
        let overlap = Update::of(service).start_first && task.status.state != TaskState::Running;
        for older in wanted {
            if !overlap || older.status.state.is_terminal() || self.lost(older) {
                self.retire(older);
            }
        }
        let fresh = task.spec_version == service.spec_version;
        if task.status.state.is_terminal() {
            // Rejected before its own delay was over: without waiting for that, a service whose image
            // is missing would try as fast as nodes answer.
            if fresh && restart::ended_by_itself(task) && self.now < task.not_before {
                return None;
            }
            self.retire(task);
            if !fresh || restart::wanted(task, slot) {
                self.create(service, task.slot, TaskState::Ready, self.restart_at(task));
            }
        } else if self.lost(task) {
            self.retire(task);
            self.create(service, task.slot, TaskState::Ready, self.now);
        } else if !fresh {
            return Some(task);
        } else if task.desired == TaskState::Ready && self.may_start(task, slot) {
            self.change(task, |t| t.desired = TaskState::Running);
        }
        None
    }

    /// Replaces tasks of an older template, as many at a time as the update configuration allows.
    fn update(&mut self, service: &Service, slots: &Slots<'_>, dirty: Vec<&Task>) {
        if dirty.is_empty() {
            return;
        }
        let how = Update::of(service);
        let fresh = |t: &&&Task| t.spec_version == service.spec_version;
        let failed = |t: &&Task| matches!(t.status.state, TaskState::Failed | TaskState::Rejected);
        let failures = slots.values().filter(|s| s.iter().filter(fresh).any(failed)).count();
        if how.pauses && failures as f64 / slots.len() as f64 > how.max_failure_ratio {
            return;
        }
        let current = |s: &Vec<&Task>| {
            s.iter()
                .filter(fresh)
                .find(|t| t.desired <= TaskState::Running)
                .map(|t| t.status.clone())
        };
        let under_way: Vec<TaskStatus> = slots.values().filter_map(current).collect();
        let done_at = under_way.iter().filter(|s| s.state == TaskState::Running).map(|s| s.since);
        if done_at.max().is_some_and(|at| self.now < at.after(how.delay)) {
            return;
        }
        let starting = under_way.iter().filter(|s| s.state != TaskState::Running).count();
        for task in dirty.into_iter().take(how.parallelism.saturating_sub(starting)) {
            if how.start_first {
                self.create(service, task.slot, TaskState::Running, self.now);
            } else {
                self.retire(task);
                self.create(service, task.slot, TaskState::Ready, self.now);
            }
        }
    }

    fn create(&mut self, service: &Service, slot: u64, desired: TaskState, not_before: Timestamp) {
        let id = (self.new_id)();
        let spec = self.template(service);
        self.changes.push(Change::Put(Object::Task(Task {
            name: format!("{}.{slot}.{id}", service.name()),
            id,
            meta: Meta::default(),
            service_id: service.id.clone(),
            slot,
            node_id: None,
            spec,
            spec_version: service.spec_version,
            desired,
            not_before,
            status: TaskStatus {
                state: TaskState::New,
                since: self.now,
                message: "created".to_owned(),
                err: String::new(),
                container: None,
            },
            networks: Vec::new(),
            assigned_generic_resources: Vec::new(),
            host_ports: Vec::new(),
        })));
    }

    /// The service's template, the same for all its tasks.
    fn template(&mut self, service: &Service) -> Arc<docker::TaskSpec> {
        if let Some(shared) = self.state.template(&service.id, service.spec_version) {
            return shared.clone();
        }
        match &self.template {
            Some((id, template)) if *id == service.id => template.clone(),
            _ => {
                let template = Arc::new(service.spec.task_template.clone().unwrap_or_default());
                self.template = Some((service.id.clone(), template.clone()));
                template
            }
        }
    }

    /// The task is not wanted any more, but stays in the history.
    fn retire(&mut self, task: &Task) {
        if task.node_id.is_none() {
            return self.delete(task);
        }
        let (orphaned, now) = (self.is_orphan(task), self.now);
        self.change(task, |t| {
            t.desired = TaskState::Shutdown;
            if orphaned {
                t.status.state = TaskState::Orphaned;
                t.status.since = now;
                t.status.message = "node removed".to_owned();
            }
        });
    }

    /// The task goes for good: at once when nothing of it can be running, else when it has ended.
    fn remove(&mut self, task: &Task) {
        let reachable = self.node_of(task).is_some_and(|n| n.status.state != NodeState::Down);
        if !reachable || task.status.state.is_terminal() {
            self.delete(task);
        } else if task.desired != TaskState::Remove {
            self.change(task, |t| t.desired = TaskState::Remove);
        }
    }

    fn delete(&mut self, task: &Task) {
        self.changes.push(Change::Delete(ObjectKind::Task, task.id.clone()));
    }

    fn change(&mut self, task: &Task, edit: impl FnOnce(&mut Task)) {
        let mut task = task.clone();
        edit(&mut task);
        self.changes.push(Change::Put(Object::Task(task)));
    }

    fn node_of(&self, task: &Task) -> Option<&Node> {
        self.state.nodes.get(task.node_id.as_ref()?)
    }

    /// Whether the task has a node that is down, removed or drained.
    fn lost(&self, task: &Task) -> bool {
        task.node_id.is_some()
            && self.node_of(task).is_none_or(|n| {
                n.status.state == NodeState::Down || n.availability == Availability::Drain
            })
    }

    /// Whether nobody is left to say how the task ended.
    fn is_orphan(&self, task: &Task) -> bool {
        task.node_id.is_some() && self.node_of(task).is_none() && !task.status.state.is_terminal()
    }

    fn restart_at(&self, dead: &Task) -> Timestamp {
        let by_itself = restart::ended_by_itself(dead);
        if by_itself { self.now.after(restart::delay(dead)) } else { self.now }
    }

    fn may_start(&self, task: &Task, slot: &[&Task]) -> bool {
        let stopping = |t: &&Task| {
            t.desired > TaskState::Running
                && !t.status.state.is_terminal()
                && self.node_of(t).is_some_and(|n| n.status.state != NodeState::Down)
        };
        self.now >= task.not_before
            && (self.now >= task.meta.created.after(STOP_WAIT) || !slot.iter().any(stopping))
    }
}

/// Slots beyond the replicas: first those that do not run, then from the nodes that have most, then
/// the highest.
fn surplus(slots: &Slots<'_>, replicas: usize) -> Vec<u64> {
    if slots.len() <= replicas {
        return Vec::new();
    }
    fn wanted<'a>(slot: &[&'a Task]) -> Option<&'a Task> {
        slot.iter().copied().find(|t| t.desired <= TaskState::Running)
    }
    let idle = |t: Option<&Task>| t.is_none_or(|t| t.status.state != TaskState::Running);
    let mut order: Vec<(bool, u64, Option<&str>)> = slots
        .iter()
        .map(|(slot, tasks)| {
            let task = wanted(tasks);
            (idle(task), *slot, task.and_then(|t| t.node_id.as_deref()))
        })
        .collect();
    order.sort();
    let mut on_node: BTreeMap<Option<&str>, usize> = BTreeMap::new();
    let mut ranked: Vec<(bool, usize, u64)> = order
        .into_iter()
        .map(|(idle, slot, node)| {
            let rank = on_node.entry(node).or_default();
            *rank += 1;
            (idle, *rank, slot)
        })
        .collect();
    ranked.sort();
    ranked.into_iter().skip(replicas).map(|(_, _, slot)| slot).collect()
}

/// How a service is updated.
struct Update {
    /// Slots at a time.
    parallelism: usize,
    /// Between one replacement that runs and the next.
    delay: Duration,
    start_first: bool,
    /// Whether failures stop the update.
    pauses: bool,
    /// Part of the slots that may fail before they do.
    max_failure_ratio: f64,
}

impl Update {
    fn of(service: &Service) -> Update {
        let config = service.spec.update_config.as_ref();
        let parallelism = match config.and_then(|c| c.parallelism) {
            Some(0) => usize::MAX,
            Some(n) => usize::try_from(n).unwrap_or(1),
            None => 1,
        };
        let action = config.and_then(|c| c.failure_action);
        Update {
            parallelism,
            delay: config.and_then(|c| c.delay).map_or(Duration::ZERO, nanos),
            start_first: config.and_then(|c| c.order)
                == Some(docker::ServiceSpecUpdateConfigOrderEnum::START_FIRST),
            pauses: action != Some(docker::ServiceSpecUpdateConfigFailureActionEnum::CONTINUE),
            max_failure_ratio: config.and_then(|c| c.max_failure_ratio).unwrap_or(0.0),
        }
    }
}

#[cfg(test)]
mod tests;
