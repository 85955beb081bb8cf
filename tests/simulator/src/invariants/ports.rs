//! A published port belongs to one service.
use super::{Invariant, Step, Verdict};
use shoal_model::{Change, Object};
use std::collections::BTreeMap;

pub(super) struct Ports;

impl Invariant for Ports {
    fn name(&self) -> &'static str {
        "ports"
    }

    fn applied(&mut self, step: &Step<'_>) -> Verdict {
        let concerned =
            step.txn.changes.iter().any(|c| matches!(c, Change::Put(Object::Service(_))));
        if !concerned {
            return Ok(());
        }
        let mut owners = BTreeMap::new();
        for service in step.state.services.values() {
            for port in service.endpoint.iter().flat_map(|e| &e.ports) {
                let key = (port.protocol, port.published);
                if let Some(other) = owners.insert(key, &service.id) {
                    return Err(format!(
                        "port {} belongs to {other} and to {}",
                        port.published, service.id
                    ));
                }
            }
        }
        Ok(())
    }
}
