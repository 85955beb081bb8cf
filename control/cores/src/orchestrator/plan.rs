//! What a call wants, gathered: each object is changed at most once.
use super::MOST_CHANGES;
use crate::constraints::Constraint;
use shoal_model::{
    Availability, Change, MadeBy, Meta, Node, NodeState, Object, ObjectKind, Service, State, Task,
    TaskState, TaskStatus, TaskTimes, Timestamp, docker,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// Where a task of a service belongs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Place<'a> {
    /// A numbered slot.
    Slot(u64),
    /// A node.
    Node(&'a str),
}

impl<'a> Place<'a> {
    pub(super) fn of(service: &Service, task: &'a Task) -> Place<'a> {
        match service.mode().is_global() {
            true => Place::Node(task.node_id.as_deref().unwrap_or_default()),
            false => Place::Slot(task.slot),
        }
    }
}

/// A task that is to be made.
pub(super) struct NewTask<'a> {
    pub(super) place: Place<'a>,
    /// The only node it may run on, where that is not its place already.
    pub(super) node: Option<&'a str>,
    pub(super) desired: TaskState,
    pub(super) not_before: Timestamp,
    pub(super) made_by: MadeBy,
}

pub(super) struct Plan<'a> {
    pub(super) state: &'a State,
    pub(super) now: Timestamp,
    new_id: &'a mut dyn FnMut() -> String,
    changes: Vec<Change>,
    touched: BTreeSet<String>,
    /// Services of tasks whose nodes' cores changed them: they are looked at in the next call.
    unsettled: BTreeSet<String>,
    /// When what is looked at may want something though nothing changed.
    due: Option<Timestamp>,
    /// The service that made tasks last, and the specification they share.
    template: Option<(String, Arc<docker::TaskSpec>)>,
    /// Constraints of services as they are now; `None` where one cannot be read.
    constraints: BTreeMap<&'a str, Option<Vec<Constraint>>>,
}

impl<'a> Plan<'a> {
    pub(super) fn new(
        state: &'a State,
        now: Timestamp,
        new_id: &'a mut dyn FnMut() -> String,
    ) -> Plan<'a> {
        Plan {
            state,
            now,
            new_id,
            changes: Vec::new(),
            touched: BTreeSet::new(),
            unsettled: BTreeSet::new(),
            due: None,
            template: None,
            constraints: BTreeMap::new(),
        }
    }

    pub(super) fn into_changes(self) -> Vec<Change> {
        self.changes
    }

    pub(super) fn next_due(&self) -> Option<Timestamp> {
        self.due
    }

    /// The next subject has times of its own.
    pub(super) fn forget_due(&mut self) {
        self.due = None;
    }

    pub(super) fn changes(&self) -> usize {
        self.changes.len()
    }

    /// Whether the rest had better wait for the next call.
    pub(super) fn is_full(&self) -> bool {
        self.changes.len() >= MOST_CHANGES
    }

    /// Changes there is still room for.
    pub(super) fn room(&self) -> usize {
        MOST_CHANGES.saturating_sub(self.changes.len())
    }

    /// Whether `at` has come; if not, what is looked at is due again then.
    pub(super) fn has_come(&mut self, at: Timestamp) -> bool {
        if self.now >= at {
            return true;
        }
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
        false
    }

    pub(super) fn create(&mut self, service: &Service, new: NewTask<'_>) {
        let id = (self.new_id)();
        let spec = self.template(service);
        let (slot, node, place) = match new.place {
            Place::Slot(slot) => (slot, new.node, slot.to_string()),
            Place::Node(node) => (0, Some(node), node.to_owned()),
        };
        let task = Task {
            name: format!("{}.{place}.{id}", service.name()),
            id,
            meta: Meta::default(),
            service_id: service.id.clone(),
            slot,
            node_id: node.map(str::to_owned),
            spec,
            spec_version: service.spec_version,
            desired: new.desired,
            not_before: new.not_before,
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
            made_by: new.made_by,
            job_iteration: service.iteration(),
            times: TaskTimes::default(),
        };
        self.changes.push(Change::Put(Object::Task(task.into())));
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

    /// The task is not wanted any more, but stays in the history if its node may know of it.
    pub(super) fn retire(&mut self, task: &Task) {
        if !task.is_assigned() {
            self.delete(task);
        } else if task.desired < TaskState::Shutdown {
            let now = self.now;
            self.change(task, |t| {
                t.desired = TaskState::Shutdown;
                t.times.told = t.times.ended.is_none().then_some(now);
            });
        }
    }

    /// The task goes for good: at once when nothing of it can be running, else when it has ended.
    pub(super) fn remove(&mut self, task: &Task) {
        let reachable = self.node_of(task).is_some_and(|n| n.status.state != NodeState::Down);
        if !task.is_assigned() || !reachable || task.status.state.is_terminal() {
            self.delete(task);
        } else if task.desired != TaskState::Remove {
            self.change(task, |t| t.desired = TaskState::Remove);
        }
    }

    pub(super) fn delete(&mut self, task: &Task) {
        if self.touched.insert(task.id.clone()) {
            self.changes.push(Change::Delete(ObjectKind::Task, task.id.clone()));
        }
    }

    pub(super) fn change(&mut self, task: &Task, edit: impl FnOnce(&mut Task)) {
        if self.touched.insert(task.id.clone()) {
            let mut task = task.clone();
            edit(&mut task);
            self.changes.push(Change::Put(Object::Task(task.into())));
        }
    }

    /// Whether this call changes the task.
    pub(super) fn is_touched(&self, task: &Task) -> bool {
        self.touched.contains(&task.id)
    }

    /// A change that is not the service's own.
    pub(super) fn change_from_outside(&mut self, task: &Task, edit: impl FnOnce(&mut Task)) {
        self.change(task, edit);
        self.unsettled.insert(task.service_id.clone());
    }

    pub(super) fn is_settled(&self, service: &str) -> bool {
        !self.unsettled.contains(service)
    }

    pub(super) fn put_service(&mut self, service: Service) {
        if self.touched.insert(service.id.clone()) {
            self.changes.push(Change::Put(Object::Service(Arc::new(service))));
        }
    }

    pub(super) fn node_of(&self, task: &Task) -> Option<&'a Node> {
        self.state.nodes.get(task.node_id.as_ref()?)
    }

    /// Whether the task has a node that is down, removed or drained.
    pub(super) fn is_lost(&self, task: &Task) -> bool {
        task.node_id.is_some() && self.node_of(task).is_none_or(is_invalid)
    }

    /// Whether a node satisfies the constraints its service has now.
    pub(super) fn admits(&mut self, service: &'a Service, node: &Node) -> bool {
        let read = || {
            let placement = service.spec.task_template.as_ref()?.placement.as_ref();
            let texts = placement.and_then(|p| p.constraints.as_deref()).unwrap_or_default();
            texts.iter().map(|text| Constraint::parse(text).ok()).collect()
        };
        let constraints = self.constraints.entry(&service.id).or_insert_with(read);
        constraints.as_ref().is_some_and(|all| all.iter().all(|c| c.admits(node)))
    }

    /// Whether the task is as its service wants it now.
    pub(super) fn is_current(&mut self, service: &'a Service, task: &Task) -> bool {
        task.spec_version == service.spec_version
            || service.placement_versions.contains(&task.spec_version)
                && self.node_of(task).is_some_and(|node| self.admits(service, node))
    }
}

/// Whether tasks of the node have to go elsewhere.
pub(super) fn is_invalid(node: &Node) -> bool {
    node.status.state == NodeState::Down || node.availability == Availability::Drain
}
