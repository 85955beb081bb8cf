//! Specifications of services: new ones, and what changes in them.
use super::{
    SECOND, dependencies,
    updates::{rollback_config, set_update, update_config},
};
use crate::{
    config::{Config, KIND},
    dice::Dice,
    node::Image,
};
use shoal_cores::REBALANCE_LABEL;
use shoal_model::{Mode, State, docker};

/// Another number of tasks; of a global service the constraints decide how many there are.
pub(super) fn scale(config: &Config, spec: &mut docker::ServiceSpec, dice: &mut Dice) {
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

pub(super) fn set_image(spec: &mut docker::ServiceSpec, dice: &mut Dice) {
    let image = if Mode::of(spec).is_job() { job_image(dice) } else { image(dice) };
    let template = spec.task_template.get_or_insert_default();
    template.container_spec.get_or_insert_default().image = Some(image);
}

/// Changes one thing of a specification. A job has no update settings: its every update is another run.
pub(super) fn change(config: &Config, spec: &mut docker::ServiceSpec, dice: &mut Dice) {
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

pub(super) fn new_service(config: &Config, state: &State, dice: &mut Dice) -> docker::ServiceSpec {
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
pub(super) fn set_rebalance(spec: &mut docker::ServiceSpec, dice: &mut Dice) {
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

/// Publishes something else, or nothing; now and then two ports.
pub(super) fn republish(config: &Config, spec: &mut docker::ServiceSpec, dice: &mut Dice) {
    spec.endpoint_spec = dice.chance(850).then(|| endpoint(config, dice));
    let ports = spec.endpoint_spec.as_mut().and_then(|e| e.ports.as_mut());
    if let Some(ports) = ports.filter(|_| dice.chance(400)) {
        ports.push(docker::EndpointPortConfig {
            target_port: Some(81),
            published_port: Some(if dice.chance(500) { 0 } else { 8_100 + dice.below(2) as i64 }),
            ..Default::default()
        });
    }
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
