//! No acknowledged version is lost.
use super::Verdict;
use crate::{
    log::{Author, Txn},
    manager::Ask,
};
use shoal_model::{Change, ObjectKind, State};
use std::collections::BTreeMap;

/// What clients were told, and what became of their transactions.
#[derive(Default)]
pub(super) struct Acknowledged {
    /// Version each client's transaction made; `None`: refused.
    done: BTreeMap<u64, Done>,
    /// Told, and not yet seen in the log: only a bug lets a client hear first.
    told: BTreeMap<u64, String>,
}

struct Done {
    version: Option<u64>,
    changes: Vec<Change>,
}

impl Acknowledged {
    /// A transaction was applied, or refused.
    pub(super) fn happened(&mut self, txn: &Txn, version: Option<u64>) {
        if matches!(txn.author, Author::Client(_)) {
            self.told.remove(&txn.id);
            self.done.insert(txn.id, Done { version, changes: txn.changes.clone() });
        }
    }

    /// A client was told that its transaction made a version.
    pub(super) fn told(&mut self, ask: &Ask, version: u64, txn: u64) -> Verdict {
        match self.done.get(&txn) {
            Some(done) if done.version == Some(version) => Ok(()),
            Some(done) => Err(format!(
                "acknowledged as version {version}, and it made {:?}: {}",
                done.version,
                words(ask)
            )),
            None => {
                self.told.insert(txn, words(ask));
                Ok(())
            }
        }
    }

    /// In the end every acknowledged change is there, or was changed again.
    pub(super) fn finally(&self, state: &State) -> Verdict {
        if let Some(lost) = self.told.values().next() {
            return Err(format!("acknowledged and in no manager's log: {lost}"));
        }
        for done in self.done.values() {
            let Some(version) = done.version else { continue };
            for change in &done.changes {
                let lost = match change {
                    Change::Put(object) => state
                        .version_of(object.kind(), object.id())
                        .is_some_and(|present| present < version),
                    // Ids are never given again, but for a node's that joins while it is removed.
                    Change::Delete(ObjectKind::Node, _) => false,
                    Change::Delete(kind, id) => state.version_of(*kind, id).is_some(),
                };
                if lost {
                    return Err(format!("version {version} was acknowledged and is not there"));
                }
            }
        }
        Ok(())
    }
}

fn words(ask: &Ask) -> String {
    match ask {
        Ask::CreateService(spec) => {
            format!("service {} created", spec.name.as_deref().unwrap_or_default())
        }
        Ask::UpdateService { id, .. } => format!("service {id} updated"),
        Ask::RollBackService { id, .. } => format!("service {id} rolled back"),
        Ask::RemoveService { id } => format!("service {id} removed"),
        Ask::CreateNetwork { name, .. } => format!("network {name} created"),
        Ask::RemoveNetwork { id } => format!("network {id} removed"),
        Ask::CreateDependency { kind, spec } => format!("{kind} {} created", spec.name),
        Ask::LabelDependency { kind, id, .. } => format!("{kind} {id} labelled"),
        Ask::RemoveDependency { kind, id } => format!("{kind} {id} removed"),
        Ask::UpdateNode { id, .. } => format!("node {id} updated"),
        Ask::SetRole { id, role, .. } => format!("node {id} made a {role:?}"),
        Ask::RemoveNode { id, .. } => format!("node {id} removed"),
        Ask::RotateRoot { back, .. } => format!("the root rotated (back: {back})"),
        Ask::Rebalance { everywhere, .. } => format!("services spread anew: {everywhere}"),
    }
}
