//! A port of a node (publish mode `host`) is taken by one task that has not ended, and every task has
//! those its service asks for.
use super::{Invariant, Step, Verdict};
use shoal_model::{State, Task, TaskState, docker};
use std::collections::BTreeMap;

pub(super) struct HostPorts;

impl Invariant for HostPorts {
    fn name(&self) -> &'static str {
        "host_ports"
    }

    fn applied(&mut self, step: &Step<'_>) -> Verdict {
        for (old, task) in step.tasks_put() {
            let assigned = old.is_some_and(|o| o.status.state < TaskState::Assigned)
                && task.status.state == TaskState::Assigned;
            let Some(node) = task.node_id.as_deref().filter(|_| assigned) else { continue };
            // A service that changed since the scheduler looked may ask for others now.
            let known = step.state.services.get(&task.service_id);
            if known.is_some_and(|s| s.meta.version <= step.txn.read) {
                let given: Vec<u16> = task.host_ports.iter().map(|p| p.port).collect();
                if given != asked(step.state, task) {
                    return Err(format!("{} was given the ports {given:?}", task.id));
                }
            }
            let mut holders: BTreeMap<_, &str> = BTreeMap::new();
            for other in step.state.tasks_of_node(node).filter(|t| is_seated(t)) {
                for port in &other.host_ports {
                    if let Some(first) = holders.insert(*port, &other.id) {
                        return Err(format!(
                            "port {} of {node} is taken by {first} and by {}",
                            port.port, other.id
                        ));
                    }
                }
            }
        }
        Ok(())
    }
}

/// Whether it holds what it was given on its node.
pub(super) fn is_seated(task: &Task) -> bool {
    task.status.state >= TaskState::Assigned && !task.status.state.is_terminal()
}

/// Ports of its node the task's service asks for; the workload has one protocol.
pub(super) fn asked(state: &State, task: &Task) -> Vec<u16> {
    let service = state.services.get(&task.service_id);
    let endpoint = service.and_then(|s| s.spec.endpoint_spec.as_ref());
    let ports = endpoint.and_then(|e| e.ports.as_deref()).unwrap_or_default();
    let host = ports
        .iter()
        .filter(|p| p.publish_mode == Some(docker::EndpointPortConfigPublishModeEnum::HOST));
    host.filter_map(|p| p.published_port.and_then(|port| u16::try_from(port).ok())).collect()
}
