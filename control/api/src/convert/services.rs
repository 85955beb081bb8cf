//! Services.
use super::{value, version};
use crate::times::rfc3339;
use serde_json::Value;
use shoal_model::{
    EndpointState, JobStatus, PublishedPort, Service, ServiceTally, State, UpdateState,
    UpdateStatus, docker,
};

/// Protocol numbers of IP.
const TCP: u8 = 6;
const UDP: u8 = 17;

/// A service as `GET /services/{id}` answers it.
pub(crate) fn service(state: &State, service: &Service, defaults: bool, status: bool) -> Value {
    let mut spec = service.spec.clone();
    complete(&mut spec);
    if defaults {
        insert_defaults(&mut spec);
    }
    let mut out = value(&docker::Service {
        id: Some(service.id.clone()),
        version: version(&service.meta),
        created_at: Some(rfc3339(service.meta.created)),
        updated_at: Some(rfc3339(service.meta.updated)),
        spec: Some(spec),
        endpoint: Some(endpoint(state, service)),
        update_status: service.update_status.as_ref().map(update_status),
        service_status: status.then(|| counts(state, service)),
        job_status: service.job_status.as_ref().map(job_status),
    });
    if let Some(previous) = &service.previous_spec {
        let mut previous = previous.clone();
        complete(&mut previous);
        if defaults {
            insert_defaults(&mut previous);
        }
        out["PreviousSpec"] = value(&previous);
    }
    out
}

/// Fills what Docker always answers: clients read it without asking whether it is there.
fn complete(spec: &mut docker::ServiceSpec) {
    spec.labels.get_or_insert_default();
    let template = spec.task_template.get_or_insert_default();
    template.force_update.get_or_insert(0);
    template.runtime.get_or_insert_with(|| "container".to_owned());
    let mode = spec.mode.get_or_insert_default();
    if let Some(job) = &mut mode.replicated_job {
        let concurrent = *job.max_concurrent.get_or_insert(1);
        job.total_completions.get_or_insert(concurrent);
    } else if mode.global.is_none() && mode.global_job.is_none() {
        mode.replicated.get_or_insert_default().replicas.get_or_insert(1);
    }
}

/// Docker's defaults, for `insertDefaults=true`.
fn insert_defaults(spec: &mut docker::ServiceSpec) {
    const SECOND: i64 = 1_000_000_000;
    let template = spec.task_template.get_or_insert_default();
    if let Some(container) = &mut template.container_spec {
        container.stop_grace_period.get_or_insert(10 * SECOND);
        container.dns_config.get_or_insert_default();
    }
    template.resources.get_or_insert_default();
    template.placement.get_or_insert_default();
    let restart = template.restart_policy.get_or_insert_default();
    restart.condition.get_or_insert(docker::TaskSpecRestartPolicyConditionEnum::ANY);
    restart.delay.get_or_insert(5 * SECOND);
    restart.max_attempts.get_or_insert(0);
    let endpoint = spec.endpoint_spec.get_or_insert_default();
    endpoint.mode.get_or_insert(docker::EndpointSpecModeEnum::VIP);
    if spec.mode.as_ref().is_some_and(|m| m.replicated_job.is_some() || m.global_job.is_some()) {
        return; // jobs have none, and would be refused with them
    }
    spec.update_config.get_or_insert(docker::ServiceSpecUpdateConfig {
        parallelism: Some(1),
        failure_action: Some(docker::ServiceSpecUpdateConfigFailureActionEnum::PAUSE),
        monitor: Some(5 * SECOND),
        max_failure_ratio: Some(0.0),
        order: Some(docker::ServiceSpecUpdateConfigOrderEnum::STOP_FIRST),
        delay: None,
    });
    spec.rollback_config.get_or_insert(docker::ServiceSpecRollbackConfig {
        parallelism: Some(1),
        failure_action: Some(docker::ServiceSpecRollbackConfigFailureActionEnum::PAUSE),
        monitor: Some(5 * SECOND),
        max_failure_ratio: Some(0.0),
        order: Some(docker::ServiceSpecRollbackConfigOrderEnum::STOP_FIRST),
        delay: None,
    });
}

fn endpoint(state: &State, service: &Service) -> docker::ServiceEndpoint {
    let Some(given) = &service.endpoint else {
        return docker::ServiceEndpoint {
            spec: Some(service.spec.endpoint_spec.clone().unwrap_or_default()),
            ..Default::default()
        };
    };
    let ports: Vec<_> = given.ports.iter().map(port).collect();
    docker::ServiceEndpoint {
        spec: Some(service.spec.endpoint_spec.clone().unwrap_or_default()),
        ports: (!ports.is_empty()).then_some(ports),
        virtual_ips: (!given.vips.is_empty()).then(|| virtual_ips(state, given)),
    }
}

/// Addresses with the prefix length of their networks. The IPv6 one comes as an entry of its own.
fn virtual_ips(state: &State, given: &EndpointState) -> Vec<docker::ServiceEndpointVirtualIps> {
    let mut out = Vec::new();
    for vip in &given.vips {
        let network = state.networks.get(&vip.network_id);
        let mut put = |addr: String| {
            out.push(docker::ServiceEndpointVirtualIps {
                network_id: Some(vip.network_id.clone()),
                addr: Some(addr),
            });
        };
        put(format!("{}/{}", vip.v4, network.map_or(32, |n| n.subnet.prefix())));
        if let Some(v6) = vip.v6 {
            let length = network.and_then(|n| n.subnet6).map_or(128, |s| s.prefix());
            put(format!("{v6}/{length}"));
        }
    }
    out
}

fn port(port: &PublishedPort) -> docker::EndpointPortConfig {
    docker::EndpointPortConfig {
        name: None,
        protocol: match port.protocol {
            TCP => Some(docker::EndpointPortConfigProtocolEnum::TCP),
            UDP => Some(docker::EndpointPortConfigProtocolEnum::UDP),
            _ => None,
        },
        target_port: Some(port.target.into()),
        published_port: Some(port.published.into()),
        publish_mode: Some(docker::EndpointPortConfigPublishModeEnum::INGRESS),
    }
}

/// Tasks wanted, tasks running and tasks done, as `service ls` shows them.
fn counts(state: &State, service: &Service) -> docker::ServiceServiceStatus {
    let tally = ServiceTally::of(state, service);
    docker::ServiceServiceStatus {
        running_tasks: Some(tally.running),
        desired_tasks: Some(tally.desired),
        completed_tasks: Some(tally.completed),
    }
}

fn update_status(status: &UpdateStatus) -> docker::ServiceUpdateStatus {
    docker::ServiceUpdateStatus {
        state: Some(update_state(status.state)),
        started_at: Some(rfc3339(status.started)),
        completed_at: status.completed.map(rfc3339),
        message: Some(status.message.clone()),
    }
}

pub(crate) fn update_state(state: UpdateState) -> docker::ServiceUpdateStatusStateEnum {
    use docker::ServiceUpdateStatusStateEnum as State;
    match state {
        UpdateState::Updating => State::UPDATING,
        UpdateState::Paused => State::PAUSED,
        UpdateState::Completed => State::COMPLETED,
        UpdateState::RollbackStarted => State::ROLLBACK_STARTED,
        UpdateState::RollbackPaused => State::ROLLBACK_PAUSED,
        UpdateState::RollbackCompleted => State::ROLLBACK_COMPLETED,
    }
}

fn job_status(status: &JobStatus) -> docker::ServiceJobStatus {
    docker::ServiceJobStatus {
        job_iteration: Some(docker::ObjectVersion { index: Some(status.iteration) }),
        last_execution: Some(rfc3339(status.last_execution)),
    }
}
