//! Services.
use super::Refusal;
use shoal_cores::{
    Revision, check_existence, check_ports, check_references, network_of, revise, roll_back,
    take_rebalance_once,
};
use shoal_model::{Service, State, Timestamp, docker};

/// The specification with the networks' ids for their names.
fn resolved(state: &State, spec: &docker::ServiceSpec) -> Result<docker::ServiceSpec, Refusal> {
    let mut spec = spec.clone();
    let template = spec.task_template.as_mut().and_then(|t| t.networks.as_mut());
    for attachment in template.into_iter().flatten() {
        let network = network_of(state, attachment).ok_or(Refusal::Other)?;
        attachment.target = Some(network.id.clone());
    }
    Ok(spec)
}

pub(super) fn create(
    state: &State,
    spec: &docker::ServiceSpec,
    id: String,
    now: Timestamp,
) -> Result<Service, Refusal> {
    let mut spec = resolved(state, spec)?;
    let rebalance = take_rebalance_once(&mut spec);
    if state.service_named(spec.name.as_deref().unwrap_or_default()).is_some() {
        return Err(Refusal::Other);
    }
    check_ports(state, None, &spec).map_err(|_| Refusal::Other)?;
    check_dependencies(state, &spec)?;
    Ok(Service { rebalance, ..Service::new(id, spec, now) })
}

/// `None` for the specification: the one before.
pub(super) fn update(
    state: &State,
    id: &str,
    version: u64,
    spec: Option<&docker::ServiceSpec>,
    now: Timestamp,
) -> Result<Service, Refusal> {
    let present = state.services.get(id).ok_or(Refusal::Other)?;
    if present.meta.version != version {
        return Err(Refusal::OutOfSequence);
    }
    let service = match spec {
        Some(spec) => {
            let mut spec = resolved(state, spec)?;
            let rebalance = take_rebalance_once(&mut spec) || present.rebalance;
            let revision = revision(&present.spec, &spec);
            Service { rebalance, ..revise(present, spec, revision, now) }
        }
        None => roll_back(present, now).ok_or(Refusal::Other)?,
    };
    check_ports(state, Some(id), &service.spec).map_err(|_| Refusal::Other)?;
    check_dependencies(state, &service.spec)?;
    Ok(service)
}

/// What it refers to is there, and each reference has a file of its own.
fn check_dependencies(state: &State, spec: &docker::ServiceSpec) -> Result<(), Refusal> {
    let mut template = spec.task_template.iter();
    let check = |t| check_references(t).and_then(|()| check_existence(state, t));
    template.try_for_each(check).map_err(|_| Refusal::Other)
}

/// What a new specification changes for the tasks.
fn revision(old: &docker::ServiceSpec, new: &docker::ServiceSpec) -> Revision {
    let without_placement = |spec: &docker::ServiceSpec| {
        let template = spec.task_template.clone();
        template.map(|t| docker::TaskSpec { placement: None, ..t })
    };
    let same_placement = old.task_template.as_ref().map(|t| &t.placement)
        == new.task_template.as_ref().map(|t| &t.placement);
    if without_placement(old) != without_placement(new) || old.endpoint_spec != new.endpoint_spec {
        Revision::Tasks
    } else if same_placement {
        Revision::None
    } else {
        Revision::Placement
    }
}
