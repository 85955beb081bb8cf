//! What clients ask for.
mod dependencies;
mod spec;
mod updates;

use crate::{config::Config, dice::Dice, manager::Ask, node::Image};
use shoal_model::{Availability, Role, Service, State, docker};
use spec::{change, new_service, republish, scale, set_image, set_rebalance};

const SECOND: i64 = 1_000_000_000;

/// Something to do, from what the client sees.
pub(crate) fn think(config: &Config, state: &State, dice: &mut Dice) -> Option<Ask> {
    if config.certificates.is_some() && dice.chance(80) {
        return rotate(state, dice);
    }
    if config.roles && dice.chance(100) {
        let nodes: Vec<_> = state.nodes.values().collect();
        let node = dice.pick(&nodes)?;
        let role = if node.role == Role::Worker { Role::Manager } else { Role::Worker };
        return Some(Ask::SetRole { id: node.id.clone(), version: node.meta.version, role });
    }
    if let Some(config) = &config.dependencies
        && dice.chance(config.share)
    {
        return dependencies::think(config, state, dice);
    }
    let services: Vec<&Service> = state.services.values().collect();
    if services.len() < config.services && dice.chance(400) || services.is_empty() {
        return Some(Ask::CreateService(Box::new(new_service(config, state, dice))));
    }
    match dice.weighted(&[30, 20, 5, 6, 6, 4, 14, 3]) {
        0 => {
            let service = dice.pick(&services)?;
            Some(update(service, |spec| match config.rebalance {
                Some(_) if dice.chance(200) => set_rebalance(spec, dice),
                _ if config.republishes && dice.chance(300) => republish(config, spec, dice),
                _ => change(config, spec, dice),
            }))
        }
        1 => {
            let service = dice.pick(&services)?;
            Some(update(service, |spec| scale(config, spec, dice)))
        }
        2 => {
            let service = dice.pick(&services)?;
            Some(Ask::RollBackService { id: service.id.clone(), version: service.meta.version })
        }
        3 => Some(Ask::RemoveService { id: dice.pick(&services)?.id.clone() }),
        4 => Some(Ask::CreateNetwork {
            name: format!("n{}", dice.below(4)),
            ipv6: dice.chance(300),
            subnet: dice
                .chance(300)
                .then(|| format!("10.{}.{}.0/28", dice.below(2), dice.below(3))),
        }),
        5 if config.rebalance.is_some() && dice.chance(300) => {
            let version = state.cluster.as_ref()?.meta.version;
            Some(Ask::Rebalance { version, everywhere: dice.chance(600) })
        }
        5 => {
            let networks: Vec<_> = state.networks.values().collect();
            Some(Ask::RemoveNetwork { id: dice.pick(&networks)?.id.clone() })
        }
        6 => {
            let nodes: Vec<_> = state.nodes.values().collect();
            let node = dice.pick(&nodes)?;
            let choice = [Availability::Active, Availability::Drain, Availability::Pause];
            Some(Ask::UpdateNode {
                id: node.id.clone(),
                version: node.meta.version,
                availability: choice[dice.weighted(&[4, 2, 1])],
                zone: if dice.chance(700) { "east" } else { "west" },
            })
        }
        _ => {
            let nodes: Vec<_> = state.nodes.values().collect();
            let id = dice.pick(&nodes)?.id.clone();
            let force = config.certificates.is_some() && dice.chance(500);
            Some(Ask::RemoveNode { id, force })
        }
    }
}

/// Another root; now and then back to the one before, which may be too late.
fn rotate(state: &State, dice: &mut Dice) -> Option<Ask> {
    let cluster = state.cluster.as_ref()?;
    let back = cluster.root_rotation.is_some() && dice.chance(400);
    Some(Ask::RotateRoot { version: cluster.meta.version, back })
}

/// The same thing again, for what is there now; `None` when there is nothing to do it to.
pub(crate) fn renewed(state: &State, ask: Ask) -> Option<Ask> {
    match ask {
        Ask::UpdateService { id, spec, .. } => {
            let version = state.services.get(&id)?.meta.version;
            Some(Ask::UpdateService { id, version, spec })
        }
        Ask::RollBackService { id, .. } => {
            let version = state.services.get(&id)?.meta.version;
            Some(Ask::RollBackService { id, version })
        }
        Ask::UpdateNode { id, availability, zone, .. } => {
            let version = state.nodes.get(&id)?.meta.version;
            Some(Ask::UpdateNode { id, version, availability, zone })
        }
        Ask::SetRole { id, role, .. } => {
            let version = state.nodes.get(&id)?.meta.version;
            Some(Ask::SetRole { id, version, role })
        }
        Ask::LabelDependency { kind, id, label, .. } => {
            let version = state.dependencies(kind).get(&id)?.meta.version;
            Some(Ask::LabelDependency { kind, id, version, label })
        }
        Ask::RotateRoot { back, .. } => {
            let version = state.cluster.as_ref()?.meta.version;
            Some(Ask::RotateRoot { version, back })
        }
        Ask::Rebalance { everywhere, .. } => {
            let version = state.cluster.as_ref()?.meta.version;
            Some(Ask::Rebalance { version, everywhere })
        }
        other => Some(other),
    }
}

/// The update that makes a service whole again after the faults: an image that runs, and nothing that is
/// not there.
pub(crate) fn repair(state: &State, service: &Service) -> Ask {
    let image = if service.mode().is_job() { Image::Task } else { Image::Stable };
    update(service, |spec| {
        let template = spec.task_template.get_or_insert_default();
        let force = template.force_update.unwrap_or(0) + 1;
        template.force_update = Some(force);
        dependencies::let_go(state, template);
        let container = template.container_spec.get_or_insert_default();
        container.image = Some(format!("{}:last", image.word()));
        if let Some(update) = &mut spec.update_config {
            // An update that never stops is what is wanted here.
            update.failure_action =
                Some(docker::ServiceSpecUpdateConfigFailureActionEnum::CONTINUE);
        }
    })
}

fn update(service: &Service, edit: impl FnOnce(&mut docker::ServiceSpec)) -> Ask {
    let mut spec = service.spec.clone();
    edit(&mut spec);
    let spec = Box::new(spec);
    Ask::UpdateService { id: service.id.clone(), version: service.meta.version, spec }
}
