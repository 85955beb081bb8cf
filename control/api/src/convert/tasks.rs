//! Tasks.
use super::{generic_resources, networks, value, version};
use crate::times::rfc3339;
use serde_json::{Value, json};
use shoal_model::{NetAddresses, State, Task, TaskState, TaskStatus, docker};

/// A task as `GET /tasks/{id}` answers it.
pub(crate) fn task(state: &State, task: &Task) -> Value {
    let mut spec = docker::TaskSpec::clone(&task.spec);
    spec.force_update.get_or_insert(0);
    spec.runtime.get_or_insert_with(|| "container".to_owned());
    let labels = state.services.get(&task.service_id).and_then(|s| s.spec.labels.clone());
    let mut out = value(&docker::Task {
        id: Some(task.id.clone()),
        version: version(&task.meta),
        created_at: Some(rfc3339(task.meta.created)),
        updated_at: Some(rfc3339(task.meta.updated)),
        name: None,
        labels: Some(labels.unwrap_or_default()),
        spec: Some(spec),
        service_id: Some(task.service_id.clone()),
        // Left out where it means nothing, and so also for a job's first slot, as Docker does.
        slot: i64::try_from(task.slot).ok().filter(|slot| *slot != 0),
        node_id: task.node_id.clone(),
        assigned_generic_resources: generic_resources(&task.assigned_generic_resources),
        status: Some(status(&task.status)),
        desired_state: Some(task_state(task.shown_desired())),
        job_iteration: task.job_iteration.map(|index| docker::ObjectVersion { index: Some(index) }),
    });
    let attachments: Vec<Value> = task.networks.iter().map(|a| attachment(state, a)).collect();
    if !attachments.is_empty() {
        out["NetworksAttachments"] = attachments.into();
    }
    out
}

fn status(status: &TaskStatus) -> docker::TaskStatus {
    docker::TaskStatus {
        timestamp: Some(rfc3339(status.since)),
        state: Some(task_state(status.state)),
        message: Some(status.message.clone()),
        err: (!status.err.is_empty()).then(|| status.err.clone()),
        container_status: status.container.as_ref().map(|c| docker::ContainerStatus {
            container_id: Some(c.id.clone()),
            pid: Some(c.pid),
            exit_code: Some(c.exit_code.unwrap_or(0)),
        }),
        port_status: Some(docker::PortStatus::default()),
    }
}

fn attachment(state: &State, addresses: &NetAddresses) -> Value {
    let network = state.networks.get(&addresses.network_id);
    let mut list = vec![format!("{}/{}", addresses.v4, network.map_or(32, |n| n.subnet.prefix()))];
    if let Some(v6) = addresses.v6 {
        let length = network.and_then(|n| n.subnet6).map_or(128, |s| s.prefix());
        list.push(format!("{v6}/{length}"));
    }
    match network {
        Some(n) => json!({ "Network": networks::cluster_object(n), "Addresses": list }),
        None => json!({ "Network": { "ID": addresses.network_id }, "Addresses": list }),
    }
}

/// Docker's word for a state.
pub(crate) fn task_state(state: TaskState) -> docker::TaskState {
    match state {
        TaskState::New => docker::TaskState::NEW,
        TaskState::Pending => docker::TaskState::PENDING,
        TaskState::Assigned => docker::TaskState::ASSIGNED,
        TaskState::Accepted => docker::TaskState::ACCEPTED,
        TaskState::Preparing => docker::TaskState::PREPARING,
        TaskState::Ready => docker::TaskState::READY,
        TaskState::Starting => docker::TaskState::STARTING,
        TaskState::Running => docker::TaskState::RUNNING,
        TaskState::Complete => docker::TaskState::COMPLETE,
        TaskState::Shutdown => docker::TaskState::SHUTDOWN,
        TaskState::Failed => docker::TaskState::FAILED,
        TaskState::Rejected => docker::TaskState::REJECTED,
        TaskState::Remove => docker::TaskState::REMOVE,
        TaskState::Orphaned => docker::TaskState::ORPHANED,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_have_the_same_words_on_the_wire_as_in_the_model() {
        for state in TaskState::ALL {
            assert_eq!(task_state(state).to_string(), state.as_str());
        }
    }
}
