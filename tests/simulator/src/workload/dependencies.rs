//! What clients ask for of secrets and configs.
use crate::{config::Dependencies, dice::Dice, manager::Ask};
use shoal_model::{
    Content, Dependency, DependencyKind, DependencySpec, Service, State, docker, references,
};
use std::sync::Arc;

/// Most of a kind that a service refers to.
const MOST: u64 = 2;

/// Something to do to them, or to who uses them.
pub(super) fn think(config: &Dependencies, state: &State, dice: &mut Dice) -> Option<Ask> {
    let kind = if dice.chance(600) { DependencyKind::Secret } else { DependencyKind::Config };
    let all: Vec<&Arc<Dependency>> = state.dependencies(kind).values().collect();
    let services: Vec<&Service> = state.services.values().collect();
    match dice.weighted(&[4, 1, 3, 6]) {
        1 if !all.is_empty() => {
            let one = dice.pick(&all)?;
            let (id, version) = (one.id.clone(), one.meta.version);
            Some(Ask::LabelDependency { kind, id, version, label: format!("l{}", dice.below(9)) })
        }
        2 if !all.is_empty() => {
            // Most often one that nobody refers to any more.
            let free = |one: &&&Arc<Dependency>| state.users_of(kind, &one.id).next().is_none();
            let unused: Vec<_> = all.iter().filter(free).copied().collect();
            let from = if dice.chance(800) && !unused.is_empty() { &unused } else { &all };
            Some(Ask::RemoveDependency { kind, id: dice.pick(from)?.id.clone() })
        }
        3 if !services.is_empty() => {
            let service = dice.pick(&services)?;
            Some(super::update(service, |spec| {
                refer(state, spec, dice);
                if dice.chance(500) {
                    super::set_image(spec, dice);
                }
            }))
        }
        _ => {
            let data = Content::from(dice.next().to_be_bytes().to_vec());
            let name = format!("{kind}-{}", dice.below(config.names));
            let spec = DependencySpec { name, data: Some(data), ..Default::default() };
            Some(Ask::CreateDependency { kind, spec })
        }
    }
}

/// Refers to other secrets and configs than before, one of them now and then by two files.
pub(super) fn refer(state: &State, spec: &mut docker::ServiceSpec, dice: &mut Dice) {
    let secrets = some(state, DependencyKind::Secret, dice);
    let secrets = secrets.into_iter().map(|(file, id, name)| {
        let file = docker::TaskSpecContainerSpecFile { name: Some(file), ..Default::default() };
        docker::TaskSpecContainerSpecSecrets {
            file: Some(file),
            secret_id: Some(id),
            secret_name: Some(name),
        }
    });
    let configs = some(state, DependencyKind::Config, dice);
    let configs = configs.into_iter().map(|(file, id, name)| {
        let file = docker::TaskSpecContainerSpecFile1 { name: Some(file), ..Default::default() };
        docker::TaskSpecContainerSpecConfigs {
            file: Some(file),
            config_id: Some(id),
            config_name: Some(name),
            ..Default::default()
        }
    });
    let template = spec.task_template.get_or_insert_default();
    let container = template.container_spec.get_or_insert_default();
    container.secrets = Some(secrets.collect());
    container.configs = Some(configs.collect());
}

/// Some of a kind: name of the file, id, name.
fn some(state: &State, kind: DependencyKind, dice: &mut Dice) -> Vec<(String, String, String)> {
    let all: Vec<&Arc<Dependency>> = state.dependencies(kind).values().collect();
    let picked = (0..dice.between(0, MOST)).filter_map(|n| {
        let one = dice.pick(&all)?;
        Some((format!("{n}"), one.id.clone(), one.name.clone()))
    });
    picked.collect()
}

/// Refers no more to what is not there.
pub(super) fn let_go(state: &State, template: &mut docker::TaskSpec) {
    let missing = |kind: DependencyKind, id: Option<&String>| {
        id.is_none_or(|id| !state.dependencies(kind).contains_key(id))
    };
    if references(template).all(|(kind, id)| state.dependencies(kind).contains_key(id)) {
        return;
    }
    let Some(container) = &mut template.container_spec else { return };
    let secrets = container.secrets.iter_mut();
    secrets.for_each(|all| {
        all.retain(|s| !missing(DependencyKind::Secret, s.secret_id.as_ref()));
    });
    let configs = container.configs.iter_mut();
    configs.for_each(|all| {
        all.retain(|c| !missing(DependencyKind::Config, c.config_id.as_ref()));
    });
}
