//! Secrets and configs.
use crate::{
    Manager,
    error::{from_store, not_found, out_of_sequence, refuse},
};
use shoal_cores::{DependencyError, dependency_object, new_dependency, relabelled};
use shoal_identity::id;
use shoal_model::{ApplyError, Change, ControlError, DependencyKind, DependencySpec, ObjectKind};
use shoal_store::StoreError;
use std::sync::Arc;

impl Manager {
    /// Keeps a secret or a config and returns its id.
    pub async fn create_dependency(
        &self,
        kind: DependencyKind,
        spec: DependencySpec,
    ) -> Result<String, ControlError> {
        let name = spec.name.clone();
        let new = self.store().read(|state| new_dependency(state, kind, id::new(), spec));
        let new = new.map_err(|refusal| refused(&refusal))?;
        let id = new.id.clone();
        let change = Change::Put(dependency_object(kind, Arc::new(new)));
        match self.store().propose(vec![change]).await {
            Ok(_) => Ok(id),
            // Another of this name was made at the same moment.
            Err(StoreError::Refused(ApplyError::NameTaken { .. })) => {
                Err(refused(&DependencyError::Taken { kind, name }))
            }
            Err(error) => Err(from_store(error)),
        }
    }

    /// Changes the labels of a secret or a config. `version` is the one the user read.
    pub async fn update_dependency(
        &self,
        kind: DependencyKind,
        id: &str,
        version: u64,
        spec: DependencySpec,
    ) -> Result<(), ControlError> {
        let new = self.store().read(|state| {
            let present = state.dependencies(kind).get(id);
            let present = present.ok_or_else(|| not_found(ObjectKind::from(kind), id))?;
            if present.meta.version != version {
                return Err(out_of_sequence());
            }
            relabelled(present, spec).map_err(|refusal| refused(&refusal))
        })?;
        let change = Change::Put(dependency_object(kind, Arc::new(new)));
        self.store().propose(vec![change]).await.map_err(from_store).map(drop)
    }

    /// Removes a secret or a config that no service refers to; the store sees to that.
    pub async fn remove_dependency(
        &self,
        kind: DependencyKind,
        id: &str,
    ) -> Result<(), ControlError> {
        let kind_of = ObjectKind::from(kind);
        if !self.store().read(|state| state.dependencies(kind).contains_key(id)) {
            return Err(not_found(kind_of, id));
        }
        let change = Change::Delete(kind_of, id.to_owned());
        self.store().propose(vec![change]).await.map_err(from_store).map(drop)
    }
}

/// The refusal of a core.
pub(crate) fn refused(refusal: &DependencyError) -> ControlError {
    refuse(refusal.kind(), refusal)
}
