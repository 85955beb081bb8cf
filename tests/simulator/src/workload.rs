//! What clients ask for.
mod dependencies;

use crate::{
    config::{Config, KIND},
    dice::Dice,
    manager::Ask,
    node::Image,
};
use shoal_cores::REBALANCE_LABEL;
use shoal_model::{Availability, Mode, Service, State, docker};

const SECOND: i64 = 1_000_000_000;

/// Something to do, from what the client sees.
pub(crate) fn think(config: &Config, state: &State, dice: &mut Dice) -> Option<Ask> {
    if config.certificates.is_some() && dice.chance(80) {
        return rotate(state, dice);
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

/// Another number of tasks; of a global service the constraints decide how many there are.
fn scale(config: &Config, spec: &mut docker::ServiceSpec, dice: &mut Dice) {
    match Mode::of(spec) {
        Mode::Replicated { .. } => set_replicas(spec, dice.between(0, config.replicas) as i64),
        Mode::ReplicatedJob { .. } => set_job(config, spec, dice),
        Mode::Global | Mode::GlobalJob => place(spec, dice),
    }
}

/// A job of so many ends, so many at a time; now and then fewer ends than tasks at a time.
fn set_job(config: &Config, spec: &mut docker::ServiceSpec, dice: &mut Dice) {
    let job = docker::ServiceSpecModeReplicatedJob {
        max_concurrent: Some(dice.between(1, 3) as i64),
        total_completions: dice.chance(800).then(|| dice.between(0, config.replicas) as i64),
    };
    spec.mode.get_or_insert_default().replicated_job = Some(job);
}

fn place(spec: &mut docker::ServiceSpec, dice: &mut Dice) {
    let global = Mode::of(spec).is_global();
    let placement = placement(global, dice);
    spec.task_template.get_or_insert_default().placement = Some(placement);
}

fn set_replicas(spec: &mut docker::ServiceSpec, replicas: i64) {
    let mode = spec.mode.get_or_insert_default();
    mode.replicated = Some(docker::ServiceSpecModeReplicated { replicas: Some(replicas) });
}

fn image(dice: &mut Dice) -> String {
    let image = Image::ALL[dice.weighted(&[60, 20, 5, 5, 10])];
    format!("{}:{}", image.word(), dice.below(1_000))
}

fn job_image(dice: &mut Dice) -> String {
    let images = [Image::Task, Image::Moody, Image::Flaky, Image::Broken, Image::Stable];
    let image = images[dice.weighted(&[50, 30, 10, 5, 5])];
    format!("{}:{}", image.word(), dice.below(1_000))
}

fn set_image(spec: &mut docker::ServiceSpec, dice: &mut Dice) {
    let image = if Mode::of(spec).is_job() { job_image(dice) } else { image(dice) };
    let template = spec.task_template.get_or_insert_default();
    template.container_spec.get_or_insert_default().image = Some(image);
}

/// Changes one thing of a specification. A job has no update settings: its every update is another run.
fn change(config: &Config, spec: &mut docker::ServiceSpec, dice: &mut Dice) {
    if Mode::of(spec).is_job() {
        match dice.weighted(&[30, 10, 10, 20]) {
            0 => set_image(spec, dice),
            1 => place(spec, dice),
            2 => {
                let template = spec.task_template.get_or_insert_default();
                template.resources = Some(resources(config, dice));
            }
            // The same again.
            _ => {}
        }
        return;
    }
    match dice.weighted(&[50, 15, 10, 10, 15]) {
        0 => set_image(spec, dice),
        1 => set_update(config, spec, dice),
        2 => place(spec, dice),
        3 => {
            let template = spec.task_template.get_or_insert_default();
            template.resources = Some(resources(config, dice));
        }
        _ => {
            // Both at once: how, and what.
            set_update(config, spec, dice);
            set_image(spec, dice);
            if let Mode::Replicated { .. } = Mode::of(spec) {
                set_replicas(spec, dice.between(1, config.replicas) as i64);
            }
        }
    }
}

fn new_service(config: &Config, state: &State, dice: &mut Dice) -> docker::ServiceSpec {
    let networks: Vec<_> = state.networks.values().filter(|n| !n.ingress).collect();
    let attached = if dice.chance(700) { dice.pick(&networks) } else { None };
    let attachments = attached.map(|network| {
        vec![docker::NetworkAttachmentConfig {
            target: Some(network.spec.name.clone()),
            ..Default::default()
        }]
    });
    let mode = config.broad.as_ref().map_or(0, |broad| dice.weighted(&broad.modes));
    let (global, job) = (mode % 2 == 1, mode >= 2);
    let mut spec = docker::ServiceSpec {
        name: Some(format!("s{}", dice.below(config.services as u64 + 1))),
        task_template: Some(docker::TaskSpec {
            container_spec: Some(docker::TaskSpecContainerSpec {
                image: Some(if job { job_image(dice) } else { image(dice) }),
                ..Default::default()
            }),
            networks: attachments,
            placement: dice.chance(400).then(|| placement(global, dice)),
            resources: dice.chance(500).then(|| resources(config, dice)),
            restart_policy: dice.chance(700).then(|| restart_policy(config, dice)),
            ..Default::default()
        }),
        update_config: (!job && dice.chance(800)).then(|| update_config(config, dice)),
        rollback_config: (!job && config.broad.is_some() && dice.chance(600))
            .then(|| rollback_config(dice)),
        endpoint_spec: dice.chance(500).then(|| endpoint(config, dice)),
        ..Default::default()
    };
    if config.rebalance.is_some() {
        if dice.chance(600) {
            set_rebalance(&mut spec, dice);
        }
        if dice.chance(300) {
            prefer_zones(&mut spec);
        }
    }
    if config.dependencies.is_some() && dice.chance(700) {
        dependencies::refer(state, &mut spec, dice);
    }
    match mode {
        0 => set_replicas(&mut spec, dice.between(1, config.replicas) as i64),
        1 => spec.mode.get_or_insert_default().global = Some(Default::default()),
        2 => set_job(config, &mut spec, dice),
        _ => spec.mode.get_or_insert_default().global_job = Some(Default::default()),
    }
    spec
}

/// Asks to be spread anew: always, once, no more.
fn set_rebalance(spec: &mut docker::ServiceSpec, dice: &mut Dice) {
    let labels = spec.labels.get_or_insert_default();
    match dice.weighted(&[5, 3, 2]) {
        0 => labels.insert(REBALANCE_LABEL.to_owned(), "true".to_owned()),
        1 => labels.insert(REBALANCE_LABEL.to_owned(), "once".to_owned()),
        _ => labels.remove(REBALANCE_LABEL),
    };
}

/// As many tasks in each zone.
fn prefer_zones(spec: &mut docker::ServiceSpec) {
    let template = spec.task_template.get_or_insert_default();
    let descriptor = Some("node.labels.zone".to_owned());
    let spread = docker::TaskSpecPlacementSpread { spread_descriptor: descriptor };
    let preference = docker::TaskSpecPlacementPreferences { spread: Some(spread) };
    template.placement.get_or_insert_default().preferences = Some(vec![preference]);
}

/// Global services have no most replicas: clients refuse that.
fn placement(global: bool, dice: &mut Dice) -> docker::TaskSpecPlacement {
    let constraint = [
        "node.labels.zone==east",
        "node.labels.zone!=east",
        "node.role==worker",
        "node.hostname!=host-0",
    ];
    docker::TaskSpecPlacement {
        constraints: dice
            .chance(600)
            .then(|| dice.pick(&constraint).into_iter().map(|c| (*c).to_owned()).collect()),
        max_replicas: (!global && dice.chance(500)).then(|| dice.between(1, 2) as i64),
        ..Default::default()
    }
}

fn resources(config: &Config, dice: &mut Dice) -> docker::TaskSpecResources {
    let cpus = [0, 250_000_000, 500_000_000, 1_000_000_000];
    let memory = [0, 64 << 20, 256 << 20, 512 << 20];
    let generic = |dice: &mut Dice| docker::GenericResourcesInner {
        discrete_resource_spec: Some(docker::GenericResourcesInnerDiscreteResourceSpec {
            kind: Some(KIND.to_owned()),
            value: Some(dice.between(1, 2) as i64),
        }),
        ..Default::default()
    };
    docker::TaskSpecResources {
        reservations: Some(docker::ResourceObject {
            nano_cpus: dice.pick(&cpus).copied(),
            memory_bytes: dice.pick(&memory).copied(),
            generic_resources: (config.broad.is_some() && dice.chance(300))
                .then(|| vec![generic(dice)]),
        }),
        ..Default::default()
    }
}

fn restart_policy(config: &Config, dice: &mut Dice) -> docker::TaskSpecRestartPolicy {
    use docker::TaskSpecRestartPolicyConditionEnum as Condition;
    let conditions = [Condition::ANY, Condition::ON_FAILURE, Condition::NONE];
    // Where little happens tasks fail seldom, too: or failing would be all that happens.
    let quiet = config.fault_gap as i64 > 60 * SECOND;
    // Well below what a calm cluster is given to come to rest.
    let gap = (config.fault_gap as i64).min(300 * SECOND);
    let delays = if quiet {
        [20 * SECOND, 60 * SECOND, gap, gap]
    } else {
        [0, SECOND, 5 * SECOND, 20 * SECOND]
    };
    docker::TaskSpecRestartPolicy {
        condition: Some(conditions[dice.weighted(&[6, 3, 1])]),
        delay: dice.chance(700).then(|| delays[dice.index(4)]),
        max_attempts: dice.chance(200).then(|| dice.between(1, 5) as i64),
        window: dice.chance(200).then(|| dice.between(10, 300) as i64 * SECOND),
    }
}

/// How the service is updated; in seeds that are not plain also what follows on failures, and the way back.
fn set_update(config: &Config, spec: &mut docker::ServiceSpec, dice: &mut Dice) {
    spec.update_config = Some(update_config(config, dice));
    if config.broad.is_some() {
        spec.rollback_config = dice.chance(600).then(|| rollback_config(dice));
    }
}

fn ratio(dice: &mut Dice) -> Option<f64> {
    [None, Some(0.0), Some(0.3), Some(0.5), Some(1.0)][dice.index(5)]
}

fn monitor(dice: &mut Dice) -> Option<i64> {
    dice.chance(500).then(|| dice.between(0, 30) as i64 * SECOND)
}

fn rollback_config(dice: &mut Dice) -> docker::ServiceSpecRollbackConfig {
    use docker::{
        ServiceSpecRollbackConfigFailureActionEnum as Action,
        ServiceSpecRollbackConfigOrderEnum as Order,
    };
    docker::ServiceSpecRollbackConfig {
        parallelism: dice.chance(800).then(|| dice.between(0, 3) as i64),
        delay: dice.chance(300).then(|| dice.between(1, 10) as i64 * SECOND),
        failure_action: Some(if dice.chance(500) { Action::CONTINUE } else { Action::PAUSE }),
        monitor: monitor(dice),
        max_failure_ratio: ratio(dice),
        order: Some(if dice.chance(400) { Order::START_FIRST } else { Order::STOP_FIRST }),
    }
}

fn update_config(config: &Config, dice: &mut Dice) -> docker::ServiceSpecUpdateConfig {
    use docker::{
        ServiceSpecUpdateConfigFailureActionEnum as Action,
        ServiceSpecUpdateConfigOrderEnum as Order,
    };
    let mut update = docker::ServiceSpecUpdateConfig {
        parallelism: Some(dice.between(0, 3) as i64),
        delay: dice.chance(300).then(|| dice.between(1, 10) as i64 * SECOND),
        failure_action: Some(if dice.chance(500) { Action::CONTINUE } else { Action::PAUSE }),
        max_failure_ratio: dice.chance(300).then_some(0.3),
        order: Some(if dice.chance(400) { Order::START_FIRST } else { Order::STOP_FIRST }),
        ..Default::default()
    };
    if config.broad.is_some() {
        if dice.chance(400) {
            update.failure_action = Some(Action::ROLLBACK);
        }
        update.max_failure_ratio = ratio(dice);
        update.monitor = monitor(dice);
    }
    update
}

fn endpoint(config: &Config, dice: &mut Dice) -> docker::EndpointSpec {
    if config.broad.is_some() && dice.chance(200) {
        return docker::EndpointSpec {
            ports: Some(vec![docker::EndpointPortConfig {
                target_port: Some(80),
                // Few, so that services want the same.
                published_port: Some(9_000 + dice.below(2) as i64),
                publish_mode: Some(docker::EndpointPortConfigPublishModeEnum::HOST),
                ..Default::default()
            }]),
            ..Default::default()
        };
    }
    let few = if config.broad.is_some() { 2 } else { 6 };
    let port = |dice: &mut Dice| docker::EndpointPortConfig {
        target_port: Some(80),
        // Few, so that services want the same.
        published_port: Some(if dice.chance(500) { 0 } else { 8_000 + dice.below(few) as i64 }),
        ..Default::default()
    };
    let published = dice.chance(700);
    docker::EndpointSpec {
        mode: (!published && dice.chance(500)).then_some(docker::EndpointSpecModeEnum::DNSRR),
        ports: published.then(|| vec![port(dice)]),
    }
}
