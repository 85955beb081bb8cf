//! Secrets and configs.
use super::Refusal;
use shoal_cores::{dependency_object, new_dependency, relabelled};
use shoal_model::{Change, DependencyKind, DependencySpec, Object, ObjectKind, State};
use std::{collections::BTreeMap, sync::Arc};

pub(super) fn create(
    state: &State,
    kind: DependencyKind,
    spec: &DependencySpec,
    id: String,
) -> Result<Object, Refusal> {
    let new = new_dependency(state, kind, id, spec.clone()).map_err(|_| Refusal::Other)?;
    Ok(dependency_object(kind, Arc::new(new)))
}

pub(super) fn label(
    state: &State,
    kind: DependencyKind,
    id: &str,
    version: u64,
    label: &str,
) -> Result<Object, Refusal> {
    let present = state.dependencies(kind).get(id).ok_or(Refusal::Other)?;
    if present.meta.version != version {
        return Err(Refusal::OutOfSequence);
    }
    let labels = BTreeMap::from([("purpose".to_owned(), label.to_owned())]);
    let spec =
        DependencySpec { name: present.name.clone(), labels: Some(labels), ..Default::default() };
    let new = relabelled(present, spec).map_err(|_| Refusal::Other)?;
    Ok(dependency_object(kind, Arc::new(new)))
}

/// Whether a service refers to it is the state's to say.
pub(super) fn remove(state: &State, kind: DependencyKind, id: &str) -> Result<Change, Refusal> {
    state.dependencies(kind).get(id).ok_or(Refusal::Other)?;
    Ok(Change::Delete(ObjectKind::from(kind), id.to_owned()))
}
