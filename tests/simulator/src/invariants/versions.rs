//! A transaction is applied exactly if every object it replaces has the version it was made from, no name
//! is taken, no secret or config is removed that a service refers to, and none is referred to newly that
//! is gone; versions rise by one.
use super::{Invariant, Step, Verdict, secrets};
use shoal_model::{Change, Object, State};

/// What is due to a transaction.
pub(super) fn due(state: &State, changes: &[Change]) -> Result<(), &'static str> {
    for change in changes {
        let Change::Put(object) = change else {
            secrets::may_go(state, change)?;
            continue;
        };
        let present = state.version_of(object.kind(), object.id()).unwrap_or(0);
        if object.meta().version != present {
            return Err("refused: made from another version");
        }
        let taken = match object {
            Object::Service(s) => {
                secrets::may_refer(state, s)?;
                state.services.values().any(|o| o.spec.name == s.spec.name && o.id != s.id)
            }
            Object::Network(n) => {
                state.networks.values().any(|o| o.spec.name == n.spec.name && o.id != n.id)
            }
            Object::Secret(d) => {
                state.secrets.values().any(|other| other.name == d.name && other.id != d.id)
            }
            Object::Config(d) => {
                state.configs.values().any(|other| other.name == d.name && other.id != d.id)
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
