//! Whether specifications are right, in Docker's words; and refusals, by the field's name, of what this
//! version does not have: nothing is accepted and then ignored.
use crate::{
    control::dependencies::refused,
    error::{invalid, not_found},
};
use shoal_cores::{
    Constraint, PortWish, SpreadDescriptor, check_references, network_of, port_wishes,
    template::check_service, uses_vip,
};
use shoal_model::{ControlError, ObjectKind, State, docker};
use std::collections::BTreeSet;

mod network;

pub(crate) use network::network;

/// Replicas of one service.
const MOST_REPLICAS: i64 = 10_000;

/// Restarts a policy may count (they are counted in the history).
const MOST_ATTEMPTS: i64 = 1_000;

/// Docker's smallest memory reservation or limit, bytes.
const LEAST_MEMORY: i64 = 4 << 20;

/// Docker's smallest share of a processor, 10⁻⁹ cores.
const LEAST_CPUS: i64 = 1_000_000;

/// Docker's shortest time of a health check, ns.
const LEAST_HEALTH_TIME: i64 = 1_000_000;

type Verdict = Result<(), ControlError>;

/// Refuses with the name of the field when it is set.
fn absent(set: bool, field: &str) -> Verdict {
    if set { Err(invalid(format!("{field} is not supported in this version"))) } else { Ok(()) }
}

fn check(right: bool, text: impl std::fmt::Display) -> Verdict {
    if right { Ok(()) } else { Err(invalid(text)) }
}

/// A name of a service or network.
fn name(text: &str) -> Verdict {
    check(!text.is_empty(), "meta: name must be provided")?;
    // ^[a-zA-Z0-9](?:[-_]*[A-Za-z0-9]+)*$
    let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    let inner = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let valid = ends(text.chars().next()) && ends(text.chars().last()) && text.chars().all(inner);
    check(valid, format!("name must be valid as a DNS name component: {text:?}"))?;
    check(text.len() <= 63, format!("name must be 63 characters or fewer: {text:?}"))
}

/// Checks a service's specification as far as it can be seen by itself.
pub(crate) fn service(spec: &docker::ServiceSpec) -> Verdict {
    name(spec.name.as_deref().unwrap_or_default())?;
    let template = spec.task_template.as_ref();
    let template = template.ok_or_else(|| invalid("TaskSpec: missing in service spec"))?;
    // Its fields are judged as a task would have them.
    let expanded = check_service(spec).map_err(invalid)?;
    task(template, &expanded)?;
    mode(spec)?;
    endpoint(spec)?;
    if let Some(update) = &spec.update_config {
        self::update(update)?;
    }
    if let Some(rollback) = &spec.rollback_config {
        self::rollback(rollback)?;
    }
    let networks = [&template.networks, &spec.networks];
    for attachment in networks.into_iter().flatten().flatten() {
        let options = attachment.driver_opts.as_ref().is_some_and(|o| !o.is_empty());
        absent(options, "Networks.DriverOpts")?;
        for alias in attachment.aliases.iter().flatten() {
            check(!alias.is_empty() && alias.len() <= 253, format!("invalid alias {alias:?}"))?;
        }
    }
    Ok(())
}

fn task(template: &docker::TaskSpec, expanded: &docker::TaskSpecContainerSpec) -> Verdict {
    absent(template.plugin_spec.is_some(), "TaskTemplate.PluginSpec")?;
    absent(template.network_attachment_spec.is_some(), "TaskTemplate.NetworkAttachmentSpec")?;
    let runtime = template.runtime.as_deref().unwrap_or_default();
    absent(!["", "container"].contains(&runtime), &format!("TaskTemplate.Runtime {runtime:?}"))?;
    check_references(template).map_err(|refusal| refused(&refusal))?;
    check(template.container_spec.is_some(), "ContainerSpec: missing in service spec")?;
    container(expanded)?;
    if let Some(resources) = &template.resources {
        self::resources(resources)?;
    }
    if let Some(policy) = &template.restart_policy {
        check(policy.delay.unwrap_or(0) >= 0, "TaskSpec: restart-delay cannot be negative")?;
        check(policy.window.unwrap_or(0) >= 0, "TaskSpec: restart-window cannot be negative")?;
        let attempts = policy.max_attempts.unwrap_or(0);
        let text = format!("TaskSpec: restart-max-attempts must be from 0 to {MOST_ATTEMPTS}");
        check((0..=MOST_ATTEMPTS).contains(&attempts), text)?;
    }
    if let Some(placement) = &template.placement {
        for preference in placement.preferences.iter().flatten() {
            let over = preference.spread.as_ref().and_then(|s| s.spread_descriptor.as_deref());
            let over = over.unwrap_or_default();
            let text = format!(
                "Placement.Preferences: cannot spread over {over:?}: give node.labels.KEY or engine.labels.KEY"
            );
            check(SpreadDescriptor::parse(over).is_some(), text)?;
        }
        check(placement.max_replicas.unwrap_or(0) >= 0, "MaxReplicas cannot be negative")?;
        for constraint in placement.constraints.iter().flatten() {
            Constraint::parse(constraint).map_err(invalid)?;
        }
    }
    if let Some(driver) = &template.log_driver {
        let driver = driver.name.as_deref().unwrap_or_default();
        let text = format!("TaskTemplate.LogDriver {driver:?} (only json-file is)");
        absent(!["", "json-file"].contains(&driver), &text)?;
    }
    Ok(())
}

fn container(spec: &docker::TaskSpecContainerSpec) -> Verdict {
    fn any<T>(list: &Option<Vec<T>>) -> bool {
        list.as_ref().is_some_and(|l| !l.is_empty())
    }
    let image = spec.image.as_deref().unwrap_or_default();
    check(!image.is_empty(), "ContainerSpec: image reference must be provided")?;
    let sound = !image.contains(|c: char| c.is_whitespace() || c.is_control());
    check(sound, format!("ContainerSpec: {image:?} is not a valid repository/tag"))?;
    check(
        spec.stop_grace_period.unwrap_or(0) >= 0,
        "ContainerSpec: stop-grace-period cannot be negative",
    )?;
    let mut configs = spec.configs.iter().flatten();
    absent(configs.any(|c| c.runtime.is_some()), "ContainerSpec.Configs.Runtime")?;
    absent(any(&spec.groups), "ContainerSpec.Groups")?;
    absent(any(&spec.ulimits), "ContainerSpec.Ulimits")?;
    absent(spec.sysctls.as_ref().is_some_and(|s| !s.is_empty()), "ContainerSpec.Sysctls")?;
    absent(spec.init == Some(true), "ContainerSpec.Init")?;
    let isolation = spec.isolation.map(|i| i.to_string()).unwrap_or_default();
    absent(!["", "default"].contains(&isolation.as_str()), "ContainerSpec.Isolation")?;
    if let Some(p) = &spec.privileges {
        absent(p.credential_spec.is_some(), "ContainerSpec.Privileges.CredentialSpec")?;
        absent(p.se_linux_context.is_some(), "ContainerSpec.Privileges.SELinuxContext")?;
        absent(p.seccomp.is_some(), "ContainerSpec.Privileges.Seccomp")?;
        absent(p.app_armor.is_some(), "ContainerSpec.Privileges.AppArmor")?;
        absent(p.no_new_privileges == Some(true), "ContainerSpec.Privileges.NoNewPrivileges")?;
    }
    if let Some(health) = &spec.health_check {
        self::health(health)?;
    }
    let servers = spec.dns_config.as_ref().is_some_and(|d| any(&d.nameservers));
    absent(servers, "ContainerSpec.DNSConfig.Nameservers (--dns)")?;
    let adjusted = spec.oom_score_adj.unwrap_or(0);
    check(
        (-1000..=1000).contains(&adjusted),
        "ContainerSpec: OomScoreAdj must be from -1000 to 1000",
    )?;
    let mut targets = BTreeSet::new();
    for mount in spec.mounts.iter().flatten() {
        self::mount(mount)?;
        let target = mount.target.clone().unwrap_or_default();
        check(
            !targets.contains(&target),
            format!("ContainerSpec: duplicate mount point: {target}"),
        )?;
        targets.insert(target);
    }
    Ok(())
}

/// Docker's bounds: what is given is at least a millisecond.
fn health(health: &docker::HealthConfig) -> Verdict {
    let kind = health.test.iter().flatten().next().map_or("NONE", String::as_str);
    let known = ["NONE", "CMD", "CMD-SHELL"].contains(&kind);
    check(known, format!("Unknown healthcheck type {kind:?} (expected \"CMD\")"))?;
    let words = health.test.as_ref().map_or(0, Vec::len);
    check(kind == "NONE" || words > 1, format!("Test in Healthcheck: {kind} names no command"))?;
    for (field, time) in [
        ("Interval", health.interval),
        ("Timeout", health.timeout),
        ("StartPeriod", health.start_period),
        ("StartInterval", health.start_interval),
    ] {
        let time = time.unwrap_or(0);
        let text = format!("{field} in Healthcheck cannot be less than 1ms");
        check(time == 0 || time >= LEAST_HEALTH_TIME, text)?;
    }
    check(health.retries.unwrap_or(0) >= 0, "Retries in Healthcheck cannot be negative")
}

fn mount(mount: &docker::Mount) -> Verdict {
    let target = mount.target.as_deref().unwrap_or_default();
    let source = mount.source.as_deref().unwrap_or_default();
    check(
        target.starts_with('/'),
        format!("invalid mount target, must be an absolute path: {target}"),
    )?;
    match mount.typ {
        Some(docker::MountType::BIND) => {
            check(
                source.starts_with('/'),
                format!("invalid bind mount source, must be an absolute path: {source}"),
            )?;
            let options = mount.bind_options.clone().unwrap_or_default();
            absent(options != docker::MountBindOptions::default(), "Mounts.BindOptions")
        }
        Some(docker::MountType::TMPFS) => {
            check(
                source.is_empty(),
                format!("the tmpfs mount at {target} must not name a source"),
            )?;
            let options = mount.tmpfs_options.clone().unwrap_or_default();
            absent(options.options.is_some_and(|o| !o.is_empty()), "Mounts.TmpfsOptions.Options")?;
            check(
                options.size_bytes.unwrap_or(0) >= 0,
                "Mounts.TmpfsOptions.SizeBytes cannot be negative",
            )
        }
        _ => absent(
            true,
            &format!("the type of the mount at {target} (only bind and tmpfs are); it"),
        ),
    }
}

fn resources(resources: &docker::TaskSpecResources) -> Verdict {
    absent(resources.swap_bytes.is_some_and(|n| n != 0), "Resources.SwapBytes")?;
    absent(resources.memory_swappiness.is_some(), "Resources.MemorySwappiness")?;
    let (mut cpus, mut memory) = (Vec::new(), Vec::new());
    if let Some(limits) = &resources.limits {
        cpus.push(limits.nano_cpus.unwrap_or(0));
        memory.push(limits.memory_bytes.unwrap_or(0));
        check(limits.pids.unwrap_or(0) >= 0, "Resources.Limits.Pids cannot be negative")?;
    }
    if let Some(reserved) = &resources.reservations {
        cpus.push(reserved.nano_cpus.unwrap_or(0));
        memory.push(reserved.memory_bytes.unwrap_or(0));
        reserved.generic_resources.iter().flatten().try_for_each(generic)?;
    }
    for cpus in cpus.into_iter().filter(|c| *c != 0) {
        let cores = cpus as f64 / 1e9;
        check(cpus >= LEAST_CPUS, format!("invalid cpu value {cores}: Must be at least 0.001"))?;
    }
    for bytes in memory.into_iter().filter(|b| *b != 0) {
        check(
            bytes >= LEAST_MEMORY,
            format!("invalid memory value {bytes}: Must be at least 4MiB"),
        )?;
    }
    Ok(())
}

/// One can ask for a number of a kind, not for names.
fn generic(resource: &docker::GenericResourcesInner) -> Verdict {
    let named = resource.named_resource_spec.as_ref().and_then(|n| n.kind.as_deref());
    let Some(asked) = &resource.discrete_resource_spec else {
        let kind = named.unwrap_or_default();
        return Err(invalid(format!(
            "invalid argument for resource {kind}: generic resources are asked for by number, not by name"
        )));
    };
    let kind = asked.kind.as_deref().unwrap_or_default();
    check(!kind.is_empty(), "GenericResources: a kind must be provided")?;
    let value = asked.value.unwrap_or(0);
    check(
        value > 0,
        format!("invalid argument for resource {kind}: {value} is not a positive number"),
    )
}

fn mode(spec: &docker::ServiceSpec) -> Verdict {
    let Some(mode) = &spec.mode else { return Ok(()) };
    let given = [
        mode.replicated.is_some(),
        mode.global.is_some(),
        mode.replicated_job.is_some(),
        mode.global_job.is_some(),
    ];
    let given = given.into_iter().filter(|given| *given).count();
    check(given <= 1, "must specify only one service mode")?;
    let job = mode.replicated_job.as_ref();
    for (number, negative, name) in [
        (
            mode.replicated.as_ref().and_then(|r| r.replicas),
            "Number of replicas must be non-negative",
            "Number of replicas",
        ),
        (
            job.and_then(|j| j.max_concurrent),
            "Maximum concurrent jobs must not be negative",
            "Maximum concurrent jobs",
        ),
        (
            job.and_then(|j| j.total_completions),
            "Total completed jobs must not be negative",
            "Total completed jobs",
        ),
    ] {
        let number = number.unwrap_or(0);
        check(number >= 0, negative)?;
        check(number <= MOST_REPLICAS, format!("{name} must be at most {MOST_REPLICAS}"))?;
    }
    if mode.replicated_job.is_some() || mode.global_job.is_some() {
        check(spec.update_config.is_none(), "Jobs may not have an update config")?;
        check(spec.rollback_config.is_none(), "Jobs may not have a rollback config")?;
    }
    Ok(())
}

fn endpoint(spec: &docker::ServiceSpec) -> Verdict {
    let Some(endpoint) = &spec.endpoint_spec else { return Ok(()) };
    let mut host_mode = false;
    for port in endpoint.ports.iter().flatten() {
        host_mode |= port.publish_mode == Some(docker::EndpointPortConfigPublishModeEnum::HOST);
        let sctp = port.protocol == Some(docker::EndpointPortConfigProtocolEnum::SCTP);
        absent(sctp, "EndpointSpec.Ports.Protocol sctp")?;
        let target = port.target_port.unwrap_or(0);
        check(
            (1..=65_535).contains(&target),
            format!("EndpointSpec: target port {target} must be from 1 to 65535"),
        )?;
        let published = port.published_port.unwrap_or(0);
        check(
            (0..=65_535).contains(&published),
            format!("EndpointSpec: published port {published} must be from 1 to 65535"),
        )?;
    }
    absent(host_mode, "EndpointSpec.Ports.PublishMode host")?;
    let wishes = port_wishes(spec);
    let text = "EndpointSpec: port published with ingress mode can't be used with dnsrr mode";
    check(wishes.is_empty() || uses_vip(spec), text)?;
    let mut taken = BTreeSet::new();
    for PortWish { protocol, published, .. } in wishes {
        let free = published == 0 || taken.insert((protocol, published));
        check(free, "EndpointSpec: duplicate published ports provided")?;
    }
    Ok(())
}

/// What an update's configuration and a rollback's have in common.
struct Pace {
    parallelism: Option<i64>,
    delay: Option<i64>,
    monitor: Option<i64>,
    max_failure_ratio: Option<f64>,
}

fn pace(kind: &str, pace: &Pace) -> Verdict {
    let text = |field: &str| format!("TaskSpec: {kind}-{field} cannot be negative");
    check(pace.parallelism.unwrap_or(0) >= 0, text("parallelism"))?;
    check(pace.delay.unwrap_or(0) >= 0, text("delay"))?;
    check(pace.monitor.unwrap_or(0) >= 0, text("monitor"))?;
    let ratio = pace.max_failure_ratio.unwrap_or(0.0);
    let text = format!("TaskSpec: {kind}-maxfailureratio cannot be less than 0 or bigger than 1");
    check((0.0..=1.0).contains(&ratio), text)
}

fn update(config: &docker::ServiceSpecUpdateConfig) -> Verdict {
    let docker::ServiceSpecUpdateConfig { parallelism, delay, monitor, max_failure_ratio, .. } =
        *config;
    pace("update", &Pace { parallelism, delay, monitor, max_failure_ratio })
}

fn rollback(config: &docker::ServiceSpecRollbackConfig) -> Verdict {
    let docker::ServiceSpecRollbackConfig {
        parallelism, delay, monitor, max_failure_ratio, ..
    } = *config;
    pace("rollback", &Pace { parallelism, delay, monitor, max_failure_ratio })
}

/// The specification with what Docker's daemon fills in.
pub(crate) fn filled(mut spec: docker::ServiceSpec) -> docker::ServiceSpec {
    let mode = spec.mode.get_or_insert_default();
    if let Some(job) = &mut mode.replicated_job {
        let concurrent = *job.max_concurrent.get_or_insert(1);
        job.total_completions.get_or_insert(concurrent);
    } else if mode.global.is_none() && mode.global_job.is_none() {
        mode.replicated.get_or_insert_default().replicas.get_or_insert(1);
    }
    let endpoint = spec.endpoint_spec.get_or_insert_default();
    if matches!(endpoint.mode, None | Some(docker::EndpointSpecModeEnum::EMPTY)) {
        endpoint.mode = Some(docker::EndpointSpecModeEnum::VIP);
    }
    for port in endpoint.ports.iter_mut().flatten() {
        use docker::{
            EndpointPortConfigProtocolEnum as Protocol,
            EndpointPortConfigPublishModeEnum as PublishMode,
        };
        if matches!(port.protocol, None | Some(Protocol::EMPTY)) {
            port.protocol = Some(Protocol::TCP);
        }
        if matches!(port.publish_mode, None | Some(PublishMode::EMPTY)) {
            port.publish_mode = Some(PublishMode::INGRESS);
        }
    }
    spec
}

/// The specification with the networks' ids for their names.
pub(crate) fn resolved(
    state: &State,
    mut spec: docker::ServiceSpec,
) -> Result<docker::ServiceSpec, ControlError> {
    let of_template = spec.task_template.as_mut().and_then(|t| t.networks.as_mut());
    for attachment in of_template.into_iter().chain(spec.networks.as_mut()).flatten() {
        let target = attachment.target.as_deref().unwrap_or_default();
        let network =
            network_of(state, attachment).ok_or_else(|| not_found(ObjectKind::Network, target))?;
        let text =
            format!("Service cannot be explicitly attached to the ingress network {target:?}");
        check(!network.ingress, text)?;
        attachment.target = Some(network.id.clone());
    }
    Ok(spec)
}
