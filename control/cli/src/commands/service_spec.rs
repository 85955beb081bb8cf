//! Specifications of services from flags. Pure.

mod forms;
mod policies;
#[cfg(test)]
mod tests;

use super::pairs;
use crate::args::{ServiceCreate, ServiceSettings, ServiceUpdate};
use forms::{environment, network, port, preference, words};
use policies::{generic_resources, health, resources, restart, rollback_config, update_config};
use shoal_model::docker;
use std::collections::HashMap;

type Parsed<T> = Result<T, String>;

/// What `service create` asks for.
pub(crate) fn from_create(create: &ServiceCreate) -> Parsed<docker::ServiceSpec> {
    let mode = mode(create)?;
    let mut spec = docker::ServiceSpec {
        name: create.name.clone(),
        labels: Some(pairs(&create.label)),
        mode: Some(mode),
        task_template: Some(docker::TaskSpec {
            container_spec: Some(docker::TaskSpecContainerSpec {
                image: Some(create.image.clone()),
                args: Some(create.args.clone()),
                env: Some(environment(&create.env)),
                labels: Some(pairs(&create.container_label)),
                capability_add: Some(create.cap_add.clone()),
                capability_drop: Some(create.cap_drop.clone()),
                // As docker's client says without --init: not the daemon's default, but none.
                init: Some(false),
                ..Default::default()
            }),
            networks: Some(create.network.iter().map(|n| network(n)).collect::<Parsed<_>>()?),
            ..Default::default()
        }),
        ..Default::default()
    };
    if !create.publish.is_empty() {
        let endpoint = spec.endpoint_spec.get_or_insert_default();
        endpoint.ports = Some(create.publish.iter().map(|p| port(p)).collect::<Parsed<Vec<_>>>()?);
    }
    if !create.constraint.is_empty() {
        placement(&mut spec).constraints = Some(create.constraint.clone());
    }
    if !create.placement_pref.is_empty() {
        placement(&mut spec).preferences =
            Some(create.placement_pref.iter().map(|p| preference(p)).collect::<Parsed<_>>()?);
    }
    if !create.generic_resource.is_empty() {
        generic_resources(&mut spec, &create.generic_resource, &[])?;
    }
    let settings = ServiceSettings { replicas: None, ..create.settings.clone() };
    settle(&mut spec, &settings)?;
    let job =
        spec.mode.as_ref().is_some_and(|m| m.replicated_job.is_some() || m.global_job.is_some());
    if job && (spec.update_config.is_some() || spec.rollback_config.is_some()) {
        return Err("update and rollback configuration is not supported for jobs".to_owned());
    }
    Ok(spec)
}

/// The mode, with the numbers that belong to it and no others.
fn mode(create: &ServiceCreate) -> Parsed<docker::ServiceSpecMode> {
    let (replicas, concurrent) = (create.settings.replicas, create.max_concurrent);
    let per_node = create.settings.replicas_max_per_node.is_some_and(|most| most > 0);
    let refuse = |is: bool, flag: &str, modes: &str| match is {
        true => Err(format!("{flag} can only be used with {modes} mode")),
        false => Ok(()),
    };
    let global = ["global", "global-job"].contains(&create.mode.as_str());
    refuse(global && replicas.is_some(), "replicas", "replicated or replicated-job")?;
    refuse(global && per_node, "replicas-max-per-node", "replicated or replicated-job")?;
    let job = create.mode == "replicated-job";
    refuse(!job && concurrent.is_some(), "max-concurrent", "replicated-job")?;
    let mut mode = docker::ServiceSpecMode::default();
    match create.mode.as_str() {
        "replicated" => mode.replicated = Some(docker::ServiceSpecModeReplicated { replicas }),
        "global" => mode.global = Some(HashMap::new()),
        "replicated-job" => {
            mode.replicated_job = Some(docker::ServiceSpecModeReplicatedJob {
                max_concurrent: concurrent.or(replicas),
                total_completions: replicas,
            });
        }
        "global-job" => mode.global_job = Some(HashMap::new()),
        other => {
            return Err(format!(
                "unknown mode: {other}, only replicated, global, replicated-job and global-job supported"
            ));
        }
    }
    Ok(mode)
}

/// Changes a specification as `service update` asks.
pub(crate) fn update(spec: &mut docker::ServiceSpec, update: &ServiceUpdate) -> Parsed<()> {
    let labels = spec.labels.get_or_insert_default();
    labels.extend(pairs(&update.label_add));
    labels.retain(|key, _| !update.label_rm.contains(key));
    if update.rebalance {
        // Taken off by the manager, which then does it.
        labels.insert("shoal.rebalance".to_owned(), "once".to_owned());
    }
    let template = spec.task_template.get_or_insert_default();
    if update.force {
        template.force_update = Some(template.force_update.unwrap_or(0) + 1);
    }
    let container = template.container_spec.get_or_insert_default();
    if let Some(image) = &update.image {
        container.image = Some(image.clone());
    }
    if let Some(args) = &update.args {
        container.args = Some(words(args)?);
    }
    if !update.container_label_add.is_empty() || !update.container_label_rm.is_empty() {
        let labels = container.labels.get_or_insert_default();
        labels.extend(pairs(&update.container_label_add));
        labels.retain(|key, _| !update.container_label_rm.contains(key));
    }
    if !update.env_add.is_empty() || !update.env_rm.is_empty() {
        let key = |e: &str| e.split('=').next().unwrap_or_default().to_owned();
        let added = environment(&update.env_add);
        let env = container.env.get_or_insert_default();
        env.retain(|e| !update.env_rm.contains(&key(e)) && !added.iter().any(|a| key(a) == key(e)));
        env.extend(added);
    }
    for name in &update.network_add {
        let added = network(name)?;
        template.networks.get_or_insert_default().push(added);
    }
    if let Some(networks) = &mut template.networks {
        networks.retain(|n| n.target.as_ref().is_none_or(|t| !update.network_rm.contains(t)));
    }
    if !update.constraint_add.is_empty() || !update.constraint_rm.is_empty() {
        let constraints = placement(spec).constraints.get_or_insert_default();
        constraints.retain(|c| !update.constraint_rm.contains(c));
        constraints.extend(update.constraint_add.iter().cloned());
    }
    if !update.placement_pref_add.is_empty() || !update.placement_pref_rm.is_empty() {
        let removed: Vec<_> =
            update.placement_pref_rm.iter().map(|p| preference(p)).collect::<Parsed<_>>()?;
        let added: Vec<_> =
            update.placement_pref_add.iter().map(|p| preference(p)).collect::<Parsed<_>>()?;
        let preferences = placement(spec).preferences.get_or_insert_default();
        preferences.retain(|p| !removed.contains(p));
        preferences.extend(added);
    }
    if !update.generic_resource_add.is_empty() || !update.generic_resource_rm.is_empty() {
        generic_resources(spec, &update.generic_resource_add, &update.generic_resource_rm)?;
    }
    ports(spec, update)?;
    settle(spec, &update.settings)
}

fn ports(spec: &mut docker::ServiceSpec, update: &ServiceUpdate) -> Parsed<()> {
    if update.publish_add.is_empty() && update.publish_rm.is_empty() {
        return Ok(());
    }
    let ports = spec.endpoint_spec.get_or_insert_default().ports.get_or_insert_default();
    for gone in &update.publish_rm {
        let target = gone.split('/').next().unwrap_or_default();
        let target: i64 =
            target.parse().map_err(|_| format!("invalid target port {gone:?} for --publish-rm"))?;
        ports.retain(|p| p.target_port != Some(target));
    }
    for added in &update.publish_add {
        let added = port(added)?;
        ports.retain(|p| p.target_port != added.target_port || p.protocol != added.protocol);
        ports.push(added);
    }
    Ok(())
}

/// Settings both commands have.
fn settle(spec: &mut docker::ServiceSpec, s: &ServiceSettings) -> Parsed<()> {
    if let Some(replicas) = s.replicas {
        let mode = spec.mode.get_or_insert_default();
        let Some(replicated) = &mut mode.replicated else {
            return Err("replicas can only be used with replicated mode".to_owned());
        };
        replicated.replicas = Some(replicas);
    }
    if let Some(most) = s.replicas_max_per_node {
        placement(spec).max_replicas = Some(most);
    }
    if let Some(mode) = &s.endpoint_mode {
        spec.endpoint_spec.get_or_insert_default().mode = Some(match mode.as_str() {
            "dnsrr" => docker::EndpointSpecModeEnum::DNSRR,
            _ => docker::EndpointSpecModeEnum::VIP,
        });
    }
    update_config(spec, &s.update);
    rollback_config(spec, &s.rollback);
    let template = spec.task_template.get_or_insert_default();
    resources(template, s);
    restart(template, s);
    let container = template.container_spec.get_or_insert_default();
    if let Some(entrypoint) = &s.entrypoint {
        container.command = Some(words(entrypoint)?);
    }
    let put = |field: &mut Option<String>, value: &Option<String>| {
        if value.is_some() {
            field.clone_from(value);
        }
    };
    put(&mut container.hostname, &s.hostname);
    put(&mut container.user, &s.user);
    put(&mut container.dir, &s.workdir);
    put(&mut container.stop_signal, &s.stop_signal);
    container.read_only = s.read_only.or(container.read_only);
    container.tty = s.tty.or(container.tty);
    container.stop_grace_period = s.stop_grace_period.or(container.stop_grace_period);
    health(container, s);
    Ok(())
}

fn placement(spec: &mut docker::ServiceSpec) -> &mut docker::TaskSpecPlacement {
    spec.task_template.get_or_insert_default().placement.get_or_insert_default()
}
