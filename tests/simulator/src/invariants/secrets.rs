//! Secrets and configs: names are unique, contents never change, what a service refers to is there; and a
//! node is told exactly those that its tasks use and that are there.
use super::{Invariant, Step, Verdict};
use shoal_model::{
    Change, Content, Dependency, DependencyKind, NodeAssignment, Object, ObjectKind, Payload,
    Service, State, Task, references,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// A secret or a config by its id.
type Id = (DependencyKind, String);

/// All there ever were: name and content.
#[derive(Default)]
pub(super) struct Secrets {
    made: BTreeMap<Id, (String, Content)>,
}

/// The service's specification refers to it.
fn refers(service: &Service, kind: DependencyKind, id: &str) -> bool {
    service.spec.task_template.iter().flat_map(references).any(|one| one == (kind, id))
}

fn kind_of(kind: ObjectKind) -> Option<DependencyKind> {
    match kind {
        ObjectKind::Secret => Some(DependencyKind::Secret),
        ObjectKind::Config => Some(DependencyKind::Config),
        _ => None,
    }
}

/// What a service refers to is not removed.
pub(super) fn may_go(state: &State, change: &Change) -> Result<(), &'static str> {
    let Change::Delete(kind, id) = change else { return Ok(()) };
    let Some(kind) = kind_of(*kind) else { return Ok(()) };
    let there = state.dependencies(kind).contains_key(id);
    match there && state.services.values().any(|s| refers(s, kind, id)) {
        true => Err("refused: a service refers to it"),
        false => Ok(()),
    }
}

/// A service refers to what is there. What it, or the specification it may go back to, referred to before
/// may be gone: an update goes back by itself whatever was removed meanwhile.
pub(super) fn may_refer(state: &State, service: &Service) -> Result<(), &'static str> {
    let present = state.services.get(&service.id);
    let back =
        present.and_then(|s| s.previous_spec.as_ref()).and_then(|s| s.task_template.as_ref());
    let had = |kind, id: &str| {
        present.is_some_and(|s| refers(s, kind, id))
            || back.into_iter().flat_map(references).any(|one| one == (kind, id))
    };
    let mut all = service.spec.task_template.iter().flat_map(references);
    match all.any(|(kind, id)| !state.dependencies(kind).contains_key(id) && !had(kind, id)) {
        true => Err("refused: it refers to what is not there"),
        false => Ok(()),
    }
}

/// What a service refers to is gone, as it went back to an earlier specification by itself.
pub(super) fn misses(state: &State, service: &Service) -> bool {
    let mut all = service.spec.task_template.iter().flat_map(references);
    all.any(|(kind, id)| !state.dependencies(kind).contains_key(id))
}

/// What a node's tasks use that have not ended, looked up anew.
pub(super) fn used(state: &State, node: &str) -> BTreeSet<Id> {
    let here = |t: &&Task| {
        t.node_id.as_deref() == Some(node) && t.is_assigned() && !t.status.state.is_terminal()
    };
    let here = state.tasks.values().filter(here);
    here.flat_map(|t| references(&t.spec)).map(|(kind, id)| (kind, id.to_owned())).collect()
}

impl Secrets {
    /// A node is told an assignment made from a state.
    pub(super) fn told(&self, state: &State, node: &str, told: &NodeAssignment) -> Verdict {
        let used = used(state, node);
        let mut seen = BTreeSet::new();
        for payload in &told.dependencies {
            let Payload { kind, id, name, .. } = &**payload;
            if !used.contains(&(*kind, id.clone())) {
                return Err(format!("{node} is told of {kind} {name}, and no task there uses it"));
            }
            self.is_true(payload)?;
            if !seen.insert((*kind, id.clone())) {
                return Err(format!("{node} is told of {kind} {name} twice"));
            }
        }
        let there = |(kind, id): &&Id| state.dependencies(*kind).contains_key(id);
        match used.difference(&seen).find(there) {
            Some((kind, id)) => {
                Err(format!("{node} is not told of {kind} {id}, and a task uses it"))
            }
            None => Ok(()),
        }
    }

    /// Name and content are those it was made with.
    fn is_true(&self, payload: &Payload) -> Verdict {
        let Payload { kind, id, name, content, .. } = payload;
        match self.made.get(&(*kind, id.clone())) {
            Some((was, made)) if was == name && made == content => Ok(()),
            Some(_) => Err(format!("{kind} {id} is told with another name or content")),
            None => Err(format!("{kind} {id} is told and was never made")),
        }
    }

    /// A container starts with these contents.
    pub(super) fn supplied(&self, task: &Task, files: &[Arc<Payload>]) -> Verdict {
        for (kind, id) in references(&task.spec) {
            let file = files.iter().find(|file| file.kind == kind && file.id == id);
            let file = file.ok_or_else(|| format!("{} runs without {kind} {id}", task.id))?;
            self.is_true(file)?;
        }
        Ok(())
    }
}

impl Invariant for Secrets {
    fn name(&self) -> &'static str {
        "secrets"
    }

    fn applied(&mut self, step: &Step<'_>) -> Verdict {
        for change in &step.txn.changes {
            let (kind, new) = match change {
                Change::Put(Object::Secret(new)) => (DependencyKind::Secret, new),
                Change::Put(Object::Config(new)) => (DependencyKind::Config, new),
                Change::Delete(kind, id) => {
                    let Some(kind) = kind_of(*kind) else { continue };
                    let user = step.state.services.values().find(|s| refers(s, kind, id));
                    if let Some(user) = user {
                        return Err(format!("{kind} {id} is gone, and {} uses it", user.name()));
                    }
                    continue;
                }
                Change::Put(_) => continue,
            };
            let named = |other: &&Arc<Dependency>| other.name == new.name && other.id != new.id;
            if step.state.dependencies(kind).values().any(|other| named(&other)) {
                return Err(format!("two {kind}s are called {}", new.name));
            }
            let made = (new.name.clone(), new.content.clone());
            let known = self.made.entry((kind, new.id.clone())).or_insert_with(|| made.clone());
            if *known != made {
                return Err(format!("{kind} {} is another one now", new.name));
            }
        }
        Ok(())
    }
}
