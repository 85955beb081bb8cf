//! The fields of a service's containers that are templates.
use super::{Context, TemplateError, expand};
use shoal_model::docker;
use std::collections::BTreeMap;

/// Expands what is a template in a container's specification, as SwarmKit does: the values of its
/// variables, sources and targets of its mounts with the labels and options of their volumes, and its
/// host name.
///
/// # Errors
/// When one does not expand; the specification is then half expanded.
pub fn expand_container(
    spec: &mut docker::TaskSpecContainerSpec,
    context: &Context,
) -> Result<(), TemplateError> {
    for variable in spec.env.iter_mut().flatten() {
        let Some((name, value)) = variable.split_once('=') else { continue };
        let value = expand(&format!("variable {name}"), value, context)?;
        *variable = format!("{name}={value}");
    }
    for (n, mount) in spec.mounts.iter_mut().flatten().enumerate() {
        expand_mount(mount, n + 1, context)?;
    }
    if let Some(hostname) = &mut spec.hostname {
        *hostname = expand("the host name", hostname, context)?;
    }
    Ok(())
}

fn expand_mount(
    mount: &mut docker::Mount,
    number: usize,
    context: &Context,
) -> Result<(), TemplateError> {
    let name = |what: &str| format!("{what} of mount {number}");
    if let Some(source) = &mut mount.source {
        *source = expand(&name("the source"), source, context)?;
    }
    if let Some(target) = &mut mount.target {
        *target = expand(&name("the target"), target, context)?;
    }
    let Some(volume) = &mut mount.volume_options else { return Ok(()) };
    let options = volume.driver_config.iter_mut().filter_map(|d| d.options.as_mut());
    for (key, value) in volume.labels.iter_mut().chain(options).flatten() {
        *value = expand(&name(&format!("volume label or option {key}")), value, context)?;
    }
    Ok(())
}

/// Whether a service's templates expand, for a task that is made up. Its labels are the service's own.
/// Gives the container's specification as that task would have it, for more checks.
///
/// # Errors
/// When one does not.
pub fn check_service(
    spec: &docker::ServiceSpec,
) -> Result<docker::TaskSpecContainerSpec, TemplateError> {
    let container = spec.task_template.as_ref().and_then(|t| t.container_spec.clone());
    let mut container = container.unwrap_or_default();
    let labels: BTreeMap<String, String> = spec.labels.clone().into_iter().flatten().collect();
    let made_up = Context {
        service_id: "serviceid".to_owned(),
        service_name: spec.name.clone().unwrap_or_default(),
        service_labels: labels,
        node_id: "nodeid".to_owned(),
        node_hostname: "hostname".to_owned(),
        node_os: "os".to_owned(),
        node_architecture: "architecture".to_owned(),
        task_id: "taskid".to_owned(),
        task_name: "taskname".to_owned(),
        task_slot: "1".to_owned(),
    };
    expand_container(&mut container, &made_up)?;
    Ok(container)
}
