//! What a service does by itself: updates, restarts, health checks; and what its tasks may use.

use super::Parsed;
use crate::args::{RollbackFlags, ServiceSettings, UpdateFlags};
use shoal_model::docker;

/// Docker's default of how long an updated task is watched, ns.
const MONITOR: i64 = 5_000_000_000;

/// With one flag given, the others get Docker's defaults.
pub(super) fn update_config(spec: &mut docker::ServiceSpec, f: &UpdateFlags) {
    use docker::{
        ServiceSpecUpdateConfigFailureActionEnum as Action,
        ServiceSpecUpdateConfigOrderEnum as Order,
    };
    let numbers = f.update_parallelism.or(f.update_delay).or(f.update_monitor).is_some();
    let words = f.update_failure_action.is_some() || f.update_order.is_some();
    if !numbers && !words && f.update_max_failure_ratio.is_none() {
        return;
    }
    let config = spec.update_config.get_or_insert(docker::ServiceSpecUpdateConfig {
        parallelism: Some(1),
        delay: None,
        failure_action: Some(Action::PAUSE),
        monitor: Some(MONITOR),
        max_failure_ratio: Some(0.0),
        order: Some(Order::STOP_FIRST),
    });
    config.parallelism = f.update_parallelism.or(config.parallelism);
    config.delay = f.update_delay.or(config.delay);
    config.monitor = f.update_monitor.or(config.monitor);
    config.max_failure_ratio = f.update_max_failure_ratio.or(config.max_failure_ratio);
    if let Some(action) = &f.update_failure_action {
        config.failure_action = Some(match action.as_str() {
            "continue" => Action::CONTINUE,
            "rollback" => Action::ROLLBACK,
            _ => Action::PAUSE,
        });
    }
    if let Some(order) = &f.update_order {
        let first = order == "start-first";
        config.order = Some(if first { Order::START_FIRST } else { Order::STOP_FIRST });
    }
}

/// As [`update_config`].
pub(super) fn rollback_config(spec: &mut docker::ServiceSpec, f: &RollbackFlags) {
    use docker::{
        ServiceSpecRollbackConfigFailureActionEnum as Action,
        ServiceSpecRollbackConfigOrderEnum as Order,
    };
    let numbers = f.rollback_parallelism.or(f.rollback_delay).or(f.rollback_monitor).is_some();
    let words = f.rollback_failure_action.is_some() || f.rollback_order.is_some();
    if !numbers && !words && f.rollback_max_failure_ratio.is_none() {
        return;
    }
    let config = spec.rollback_config.get_or_insert(docker::ServiceSpecRollbackConfig {
        parallelism: Some(1),
        delay: None,
        failure_action: Some(Action::PAUSE),
        monitor: Some(MONITOR),
        max_failure_ratio: Some(0.0),
        order: Some(Order::STOP_FIRST),
    });
    config.parallelism = f.rollback_parallelism.or(config.parallelism);
    config.delay = f.rollback_delay.or(config.delay);
    config.monitor = f.rollback_monitor.or(config.monitor);
    config.max_failure_ratio = f.rollback_max_failure_ratio.or(config.max_failure_ratio);
    if let Some(action) = &f.rollback_failure_action {
        let on = action == "continue";
        config.failure_action = Some(if on { Action::CONTINUE } else { Action::PAUSE });
    }
    if let Some(order) = &f.rollback_order {
        let first = order == "start-first";
        config.order = Some(if first { Order::START_FIRST } else { Order::STOP_FIRST });
    }
}

pub(super) fn health(container: &mut docker::TaskSpecContainerSpec, s: &ServiceSettings) {
    let none = || Some(vec!["NONE".to_owned()]);
    if s.no_healthcheck {
        let test = none();
        container.health_check = Some(docker::HealthConfig { test, ..Default::default() });
        return;
    }
    let times =
        [s.health_interval, s.health_timeout, s.health_start_period, s.health_start_interval];
    if s.health_cmd.is_none() && s.health_retries.is_none() && times.iter().all(Option::is_none) {
        return;
    }
    let check = container.health_check.get_or_insert_default();
    if check.test == none() {
        check.test = None; // the image's is wanted again
    }
    if let Some(command) = &s.health_cmd {
        let test = ["CMD-SHELL", command].map(str::to_owned).to_vec();
        check.test = (!command.is_empty()).then_some(test);
    }
    check.interval = s.health_interval.or(check.interval);
    check.timeout = s.health_timeout.or(check.timeout);
    check.start_period = s.health_start_period.or(check.start_period);
    check.start_interval = s.health_start_interval.or(check.start_interval);
    check.retries = s.health_retries.or(check.retries);
}

/// Docker's default delay of a restart, ns.
const RESTART_DELAY: i64 = 5_000_000_000;

pub(super) fn restart(template: &mut docker::TaskSpec, s: &ServiceSettings) {
    let numbers = s.restart_delay.or(s.restart_max_attempts).or(s.restart_window);
    if s.restart_condition.is_none() && numbers.is_none() {
        return;
    }
    let policy = template.restart_policy.get_or_insert(docker::TaskSpecRestartPolicy {
        condition: Some(docker::TaskSpecRestartPolicyConditionEnum::ANY),
        delay: Some(RESTART_DELAY),
        max_attempts: Some(0),
        window: None,
    });
    if let Some(condition) = &s.restart_condition {
        policy.condition = Some(match condition.as_str() {
            "none" => docker::TaskSpecRestartPolicyConditionEnum::NONE,
            "on-failure" => docker::TaskSpecRestartPolicyConditionEnum::ON_FAILURE,
            _ => docker::TaskSpecRestartPolicyConditionEnum::ANY,
        });
    }
    policy.delay = s.restart_delay.or(policy.delay);
    policy.max_attempts = s.restart_max_attempts.or(policy.max_attempts);
    policy.window = s.restart_window.or(policy.window);
}

pub(super) fn resources(template: &mut docker::TaskSpec, s: &ServiceSettings) {
    if s.limit_cpu.or(s.limit_memory).or(s.limit_pids).is_some() {
        let limits = template.resources.get_or_insert_default().limits.get_or_insert_default();
        limits.nano_cpus = s.limit_cpu.or(limits.nano_cpus);
        limits.memory_bytes = s.limit_memory.or(limits.memory_bytes);
        limits.pids = s.limit_pids.or(limits.pids);
    }
    if s.reserve_cpu.or(s.reserve_memory).is_some() {
        let held = template.resources.get_or_insert_default().reservations.get_or_insert_default();
        held.nano_cpus = s.reserve_cpu.or(held.nano_cpus);
        held.memory_bytes = s.reserve_memory.or(held.memory_bytes);
    }
}

/// Adds kinds (`gpu=2`, one a flag or several with commas) to the reservation, and removes others
/// (`gpu`, or `gpu=2`). One added takes the place of the same kind.
pub(super) fn generic_resources(
    spec: &mut docker::ServiceSpec,
    added: &[String],
    removed: &[String],
) -> Parsed<()> {
    let template = spec.task_template.get_or_insert_default();
    let held = template.resources.get_or_insert_default().reservations.get_or_insert_default();
    let kinds = held.generic_resources.get_or_insert_default();
    let of = |k: &docker::GenericResourcesInner| {
        k.discrete_resource_spec.as_ref().and_then(|d| d.kind.clone()).unwrap_or_default()
    };
    for text in removed.iter().flat_map(|flag| flag.split(',')) {
        let kind = text.split('=').next().unwrap_or_default().trim();
        kinds.retain(|k| of(k) != kind);
    }
    for text in added.iter().flat_map(|flag| flag.split(',')) {
        let (kind, value) = text
            .split_once('=')
            .map(|(k, v)| (k.trim(), v.trim()))
            .ok_or_else(|| format!("incorrect term {text}, missing '=' or malformed expression"))?;
        let value: i64 = value.parse().map_err(|_| {
            format!(
                "invalid generic-resource request `{text}`, Named Generic Resources is not supported for service create or update"
            )
        })?;
        kinds.retain(|k| of(k) != kind);
        kinds.push(docker::GenericResourcesInner {
            discrete_resource_spec: Some(docker::GenericResourcesInnerDiscreteResourceSpec {
                kind: Some(kind.to_owned()),
                value: Some(value),
            }),
            ..Default::default()
        });
    }
    Ok(())
}
