//! Specifications of services from flags. Pure.
use super::pairs;
use crate::args::{RollbackFlags, ServiceCreate, ServiceSettings, ServiceUpdate, UpdateFlags};
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

/// Docker's default of how long an updated task is watched, ns.
const MONITOR: i64 = 5_000_000_000;

/// With one flag given, the others get Docker's defaults.
fn update_config(spec: &mut docker::ServiceSpec, f: &UpdateFlags) {
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
fn rollback_config(spec: &mut docker::ServiceSpec, f: &RollbackFlags) {
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

fn health(container: &mut docker::TaskSpecContainerSpec, s: &ServiceSettings) {
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

fn resources(template: &mut docker::TaskSpec, s: &ServiceSettings) {
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

/// Docker's default delay of a restart, ns.
const RESTART_DELAY: i64 = 5_000_000_000;

fn restart(template: &mut docker::TaskSpec, s: &ServiceSettings) {
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

fn placement(spec: &mut docker::ServiceSpec) -> &mut docker::TaskSpecPlacement {
    spec.task_template.get_or_insert_default().placement.get_or_insert_default()
}

/// `spread=node.labels.zone`.
fn preference(text: &str) -> Parsed<docker::TaskSpecPlacementPreferences> {
    let fields: Vec<&str> = text.split('=').collect();
    let &[strategy, over] = &fields[..] else {
        return Err("placement preference must be of the format \"<strategy>=<arg>\"".to_owned());
    };
    if strategy != "spread" {
        return Err(format!(
            "unsupported placement preference {strategy} (only spread is supported)"
        ));
    }
    let spread = docker::TaskSpecPlacementSpread { spread_descriptor: Some(over.to_owned()) };
    Ok(docker::TaskSpecPlacementPreferences { spread: Some(spread) })
}

/// Adds kinds (`gpu=2`, one a flag or several with commas) to the reservation, and removes others
/// (`gpu`, or `gpu=2`). One added takes the place of the same kind.
fn generic_resources(
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

/// `KEY` alone takes its value from our own environment, and is left out without one.
fn environment(given: &[String]) -> Vec<String> {
    given
        .iter()
        .filter_map(|e| match e.contains('=') {
            true => Some(e.clone()),
            false => std::env::var(e).ok().map(|value| format!("{e}={value}")),
        })
        .collect()
}

/// `app` or `name=app,alias=a,alias=b`.
fn network(text: &str) -> Parsed<docker::NetworkAttachmentConfig> {
    if !text.contains('=') {
        let target = Some(text.to_owned());
        return Ok(docker::NetworkAttachmentConfig { target, ..Default::default() });
    }
    let mut out = docker::NetworkAttachmentConfig::default();
    for field in text.split(',') {
        match field.split_once('=') {
            Some(("name", name)) => out.target = Some(name.to_owned()),
            Some(("alias", alias)) => out.aliases.get_or_insert_default().push(alias.to_owned()),
            _ => {
                return Err(format!(
                    "invalid field {field:?} of network {text:?}: name= and alias= are known"
                ));
            }
        }
    }
    match out.target {
        Some(_) => Ok(out),
        None => Err(format!("network {text:?} has no name=")),
    }
}

/// `8080:80/tcp`, `80`, or `published=8080,target=80,protocol=tcp,mode=ingress`.
fn port(text: &str) -> Parsed<docker::EndpointPortConfig> {
    let bad = || {
        format!(
            "invalid port {text:?}: give [PUBLISHED:]TARGET[/tcp|udp] or published=…,target=…,protocol=…,mode=…"
        )
    };
    let number = |t: &str| t.parse::<u16>().map(i64::from).map_err(|_| bad());
    let (mut published, mut target, mut protocol, mut mode) = (None, None, "tcp", "ingress");
    if text.contains('=') {
        for field in text.split(',') {
            match field.split_once('=') {
                Some(("published", n)) => published = Some(number(n)?),
                Some(("target", n)) => target = Some(number(n)?),
                Some(("protocol", p)) => protocol = p,
                Some(("mode", m)) => mode = m,
                _ => return Err(bad()),
            }
        }
    } else {
        let (ports, named) = text.split_once('/').unwrap_or((text, "tcp"));
        protocol = named;
        match ports.split_once(':') {
            Some((p, t)) => (published, target) = (Some(number(p)?), Some(number(t)?)),
            None => target = Some(number(ports)?),
        }
    }
    Ok(docker::EndpointPortConfig {
        name: None,
        protocol: Some(match protocol {
            "tcp" => docker::EndpointPortConfigProtocolEnum::TCP,
            "udp" => docker::EndpointPortConfigProtocolEnum::UDP,
            "sctp" => docker::EndpointPortConfigProtocolEnum::SCTP,
            _ => return Err(bad()),
        }),
        target_port: Some(target.filter(|t| *t > 0).ok_or_else(bad)?),
        published_port: published,
        publish_mode: Some(match mode {
            "ingress" => docker::EndpointPortConfigPublishModeEnum::INGRESS,
            "host" => docker::EndpointPortConfigPublishModeEnum::HOST,
            _ => return Err(bad()),
        }),
    })
}

/// Splits a command as a shell does: blanks, quotes, backslashes.
fn words(text: &str) -> Parsed<Vec<String>> {
    let mut out = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None | Some('"'), '\\') => {
                let next = chars.next().ok_or_else(|| format!("{text:?} ends in a backslash"))?;
                word.get_or_insert_default().push(next);
            }
            (None, c) if c.is_whitespace() => out.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    if quote.is_some() {
        return Err(format!("{text:?} has a quote that is not closed"));
    }
    out.extend(word);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Create {
        #[command(flatten)]
        create: ServiceCreate,
    }

    #[derive(Parser)]
    struct Update {
        #[command(flatten)]
        update: ServiceUpdate,
    }

    #[test]
    fn health_flags_change_only_what_they_name() {
        let create = |flags: &[&str]| Create::try_parse_from([&["x"], flags, &["image"]].concat());
        let flags = ["--health-cmd", "wget -q localhost", "--health-interval", "2s"];
        let mut spec = from_create(&create(&flags).ok().unwrap().create).unwrap();
        let check = |spec: &docker::ServiceSpec| {
            let template = spec.task_template.as_ref().unwrap();
            template.container_spec.as_ref().unwrap().health_check.clone()
        };
        let words = |words: &[&str]| Some(words.iter().map(|w| (*w).to_owned()).collect());
        let first = check(&spec).unwrap();
        assert_eq!(first.test, words(&["CMD-SHELL", "wget -q localhost"]));
        assert_eq!((first.interval, first.retries), (Some(2_000_000_000), None));
        let mut change = |flags: &[&str]| {
            let flags = Update::try_parse_from([&["x"], flags, &["web"]].concat()).ok().unwrap();
            update(&mut spec, &flags.update).unwrap();
            check(&spec).unwrap()
        };
        let second = change(&["--health-retries", "5"]);
        assert_eq!((&second.test, second.retries), (&first.test, Some(5)));
        assert_eq!(change(&["--no-healthcheck"]).test, words(&["NONE"]));
        let last = change(&["--health-timeout", "1s"]);
        assert_eq!((last.test, last.timeout), (None, Some(1_000_000_000)), "the image's again");
        assert!(create(&["--no-healthcheck", "--health-cmd", "true"]).is_err());
    }

    #[test]
    fn ports_are_read_in_both_forms() {
        let short = port("8080:80/udp").unwrap();
        assert_eq!((short.published_port, short.target_port), (Some(8080), Some(80)));
        assert_eq!(short.protocol, Some(docker::EndpointPortConfigProtocolEnum::UDP));
        assert_eq!(port("published=8080,target=80,protocol=udp").unwrap(), short);
        assert_eq!(port("80").unwrap().published_port, None);
        for bad in ["", "x", "80:", "1:2:3", "80/icmp", "target=80,color=red", "70000", "8080:0"] {
            assert!(port(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn preferences_and_generic_resources_are_read_in_dockers_words() {
        let over = |text| preference(text).map(|p| p.spread.unwrap().spread_descriptor.unwrap());
        assert_eq!(over("spread=node.labels.zone").unwrap(), "node.labels.zone");
        assert_eq!(
            over("pack=x").unwrap_err(),
            "unsupported placement preference pack (only spread is supported)"
        );
        assert!(over("spread").is_err());
        let mut spec = docker::ServiceSpec::default();
        let mut kinds = |added: &[&str], removed: &[&str]| {
            let own = |all: &[&str]| all.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>();
            generic_resources(&mut spec, &own(added), &own(removed))?;
            let held = spec.task_template.clone().unwrap().resources.unwrap().reservations.unwrap();
            let one = |g: docker::GenericResourcesInner| {
                let discrete = g.discrete_resource_spec.unwrap();
                format!("{}={}", discrete.kind.unwrap(), discrete.value.unwrap())
            };
            Parsed::Ok(held.generic_resources.unwrap().into_iter().map(one).collect::<Vec<_>>())
        };
        assert_eq!(kinds(&["gpu=2,ssd=1"], &[]).unwrap(), ["gpu=2", "ssd=1"]);
        assert_eq!(kinds(&["gpu=3"], &["ssd"]).unwrap(), ["gpu=3"]);
        assert!(kinds(&["gpu=UUID"], &[]).unwrap_err().contains("Named Generic Resources"));
        assert!(kinds(&["gpu"], &[]).is_err());
    }

    #[test]
    fn commands_split_as_in_a_shell() {
        assert_eq!(
            words(r#"sh -c 'a b' "c \" d" e\ f ''"#).unwrap(),
            ["sh", "-c", "a b", "c \" d", "e f", ""]
        );
        assert!(words("'open").is_err());
        assert!(words("end\\").is_err());
    }

    #[test]
    fn networks_carry_their_aliases() {
        let n = network("name=app,alias=a,alias=b").unwrap();
        assert_eq!(n.target.as_deref(), Some("app"));
        assert_eq!(n.aliases, Some(vec!["a".to_owned(), "b".to_owned()]));
        assert!(network("alias=a").is_err());
        assert!(network("name=a,speed=9").is_err());
    }
}
