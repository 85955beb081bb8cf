//! A transaction is applied exactly if every object it replaces has the version it was made from, and
//! no name is taken; versions rise by one.
use super::{Invariant, Step, Verdict};
use shoal_model::{Change, Object, State};

/// What is due to a transaction.
pub(super) fn due(state: &State, changes: &[Change]) -> Result<(), &'static str> {
    for change in changes {
        let Change::Put(object) = change else { continue };
        let present = state.version_of(object.kind(), object.id()).unwrap_or(0);
        if object.meta().version != present {
            return Err("refused: made from another version");
        }
        let taken = match object {
            Object::Service(s) => {
                state.services.values().any(|o| o.spec.name == s.spec.name && o.id != s.id)
            }
            Object::Network(n) => {
                state.networks.values().any(|o| o.spec.name == n.spec.name && o.id != n.id)
            }
            _ => false,
        };
        if taken {
            return Err("refused: the name is taken");
        }
        if let Object::Network(own) = object
            && state.networks.values().any(|o| o.id != own.id && o.meets(own))
        {
            return Err("refused: the subnet is taken");
        }
    }
    Ok(())
}

pub(super) struct Versions;

impl Invariant for Versions {
    fn name(&self) -> &'static str {
        "versions"
    }

    fn applied(&mut self, step: &Step<'_>) -> Verdict {
        for change in &step.txn.changes {
            let Change::Put(object) = change else { continue };
            let is = step.state.version_of(object.kind(), object.id());
            // A later change of the same transaction may have removed it.
            if is.is_some_and(|is| is != step.state.version) {
                return Err(format!("{} did not get its transaction's version", object.id()));
            }
        }
        Ok(())
    }
}
