//! From a task to the container that runs it. Pure.
use crate::files::{Payloads, files};
use shoal_containers::{ContainerSpec, HealthSpec, LogLimits, Mount};
use shoal_cores::template::{Context, expand_container};
use shoal_model::{AssignedTask, GenericResource, NodeDescription, docker};
use std::{collections::BTreeMap, net::IpAddr, path::PathBuf, time::Duration};

/// Labels Docker puts on the containers of tasks.
pub(crate) const TASK_LABEL: &str = "com.docker.swarm.task.id";
const NODE_LABEL: &str = "com.docker.swarm.node.id";
const SERVICE_LABEL: &str = "com.docker.swarm.service.id";
const SERVICE_NAME_LABEL: &str = "com.docker.swarm.service.name";
const TASK_NAME_LABEL: &str = "com.docker.swarm.task.name";

/// Docker's default stop grace period of a service.
const STOP_GRACE: Duration = Duration::from_secs(10);

/// The node a container is for.
#[derive(Clone, Copy)]
pub(crate) struct On<'a> {
    pub(crate) node_id: &'a str,
    pub(crate) description: &'a NodeDescription,
    /// What it was told of secrets and configs.
    pub(crate) payloads: &'a Payloads,
}

/// The container of `assigned`; `id` is its new container id. An error is the task's rejection.
pub(crate) fn container_spec(
    assigned: &AssignedTask,
    id: String,
    on: On<'_>,
    netns: PathBuf,
) -> Result<ContainerSpec, String> {
    let On { node_id, description, payloads } = on;
    let task = &assigned.task;
    let mut spec = task.spec.container_spec.clone().unwrap_or_default();
    let platform = (description.os.as_str(), description.architecture.as_str());
    let context = Context::new(assigned, node_id, &description.hostname, platform);
    expand_container(&mut spec, &context).map_err(|e| e.to_string())?;
    let files = files(&spec, &context, payloads)?;
    let image = spec.image.unwrap_or_default();
    if image.is_empty() {
        return Err("the service names no image".to_owned());
    }
    let hostname = spec.hostname.unwrap_or_else(|| id.get(..12).unwrap_or(&id).to_owned());
    let dns = spec.dns_config.unwrap_or_default();
    let own = task.networks.iter().map(|at| (IpAddr::V4(at.v4), hostname.clone()));
    let mut hosts: Vec<_> = own.take(1).collect();
    for line in spec.hosts.unwrap_or_default() {
        hosts.push(host_line(&line)?);
    }
    let limits = task.spec.resources.as_ref().and_then(|r| r.limits.as_ref());
    let grace = spec.stop_grace_period.and_then(|ns| u64::try_from(ns).ok());
    let oom = spec.oom_score_adj.map(|n| i32::try_from(n).unwrap_or(0));
    Ok(ContainerSpec {
        name: task.name.clone(),
        image,
        entrypoint: spec.command.filter(|c| !c.is_empty()),
        command: spec.args.filter(|a| !a.is_empty()),
        env: environment(spec.env.unwrap_or_default(), &task.assigned_generic_resources),
        working_dir: spec.dir,
        user: spec.user,
        labels: labels(assigned, node_id, spec.labels.unwrap_or_default()),
        netns: Some(netns),
        resolv_conf: Some(resolv_conf(&dns)),
        hosts,
        mounts: mounts(spec.mounts.unwrap_or_default())?,
        files,
        read_only: spec.read_only.unwrap_or(false),
        tty: spec.tty.unwrap_or(false),
        open_stdin: spec.open_stdin.unwrap_or(false),
        stop_signal: spec.stop_signal,
        stop_grace: grace.map_or(STOP_GRACE, Duration::from_nanos),
        cap_add: spec.capability_add.unwrap_or_default(),
        cap_drop: spec.capability_drop.unwrap_or_default(),
        memory: limits.and_then(|l| l.memory_bytes),
        nano_cpus: limits.and_then(|l| l.nano_cpus),
        pids: limits.and_then(|l| l.pids),
        oom_score_adj: oom,
        log: log_limits(task.spec.log_driver.as_ref())?,
        health: spec.health_check.map(health),
        hostname: Some(hostname),
        id,
    })
}

/// The service's variables, and one for each kind of generic resource the task was given.
fn environment(mut env: Vec<String>, given: &[GenericResource]) -> Vec<String> {
    let mut kinds: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for resource in given {
        let value = match resource {
            GenericResource::Discrete { value, .. } => value.to_string(),
            GenericResource::Named { value, .. } => value.clone(),
        };
        let variable = format!("DOCKER_RESOURCE_{}", resource.kind()).to_uppercase();
        kinds.entry(variable).or_default().push(value);
    }
    env.extend(
        kinds.into_iter().map(|(variable, values)| format!("{variable}={}", values.join(","))),
    );
    env
}

/// Zero and nothing are both inherited.
fn health(check: docker::HealthConfig) -> HealthSpec {
    let time = |ns: Option<i64>| ns.and_then(|ns| u64::try_from(ns).ok()).map(Duration::from_nanos);
    HealthSpec {
        test: check.test.unwrap_or_default(),
        interval: time(check.interval),
        timeout: time(check.timeout),
        start_period: time(check.start_period),
        start_interval: time(check.start_interval),
        retries: check.retries.and_then(|n| u32::try_from(n).ok()),
    }
}

fn labels(
    assigned: &AssignedTask,
    node_id: &str,
    own: impl IntoIterator<Item = (String, String)>,
) -> BTreeMap<String, String> {
    let task = &assigned.task;
    let mut labels: BTreeMap<String, String> = own.into_iter().collect();
    let fixed = [
        (TASK_LABEL, task.id.as_str()),
        (NODE_LABEL, node_id),
        (SERVICE_LABEL, &task.service_id),
        (SERVICE_NAME_LABEL, &assigned.service_name),
        (TASK_NAME_LABEL, &task.name),
        ("com.docker.swarm.task", ""),
    ];
    labels.extend(fixed.map(|(k, v)| (k.to_owned(), v.to_owned())));
    labels
}

/// What the container asks is always the node's own server, which knows the cluster's names; a
/// service's `--dns` servers are refused by the manager.
fn resolv_conf(dns: &docker::TaskSpecContainerSpecDnsConfig) -> String {
    let mut text = String::new();
    let join = |words: &Option<Vec<String>>| words.clone().unwrap_or_default().join(" ");
    let (search, options) = (join(&dns.search), join(&dns.options));
    if !search.is_empty() {
        text += &format!("search {search}\n");
    }
    text += "nameserver 127.0.0.11\n";
    text += &format!("options {} ndots:0\n", options).replace("  ", " ");
    text
}

/// A service's `--host` is stored as `address name…`.
fn host_line(line: &str) -> Result<(IpAddr, String), String> {
    let mut words = line.split_whitespace();
    let address = words.next().and_then(|a| a.parse().ok());
    let names = words.collect::<Vec<_>>().join(" ");
    match address {
        Some(address) if !names.is_empty() => Ok((address, names)),
        _ => Err(format!("invalid host entry {line:?}: want an address and a name")),
    }
}

fn mounts(mounts: Vec<docker::Mount>) -> Result<Vec<Mount>, String> {
    mounts.into_iter().map(mount).collect()
}

fn mount(mount: docker::Mount) -> Result<Mount, String> {
    let target = PathBuf::from(mount.target.unwrap_or_default());
    match mount.typ {
        Some(docker::MountType::BIND) => Ok(Mount::Bind {
            source: PathBuf::from(mount.source.unwrap_or_default()),
            target,
            read_only: mount.read_only.unwrap_or(false),
        }),
        Some(docker::MountType::TMPFS) => {
            let options = mount.tmpfs_options.unwrap_or_default();
            Ok(Mount::Tmpfs {
                target,
                size: options.size_bytes.and_then(|n| u64::try_from(n).ok()),
                mode: options.mode.and_then(|n| u32::try_from(n).ok()),
            })
        }
        other => Err(format!(
            "mount at {}: type {other:?} is not supported, use bind or tmpfs",
            target.display()
        )),
    }
}

fn log_limits(driver: Option<&docker::TaskSpecLogDriver>) -> Result<LogLimits, String> {
    let mut limits = LogLimits::default();
    let Some(driver) = driver else { return Ok(limits) };
    match driver.name.as_deref() {
        None | Some("" | "json-file") => {}
        Some(other) => return Err(format!("log driver {other:?} is not supported, use json-file")),
    }
    for (key, value) in driver.options.iter().flatten() {
        let bad = || format!("log option {key}={value}: not a number or size such as 10m");
        match key.as_str() {
            "max-size" => limits.max_size = Some(size(value).ok_or_else(bad)?),
            "max-file" => {
                limits.max_file = value.parse().ok().filter(|n| *n > 0).ok_or_else(bad)?
            }
            _ => return Err(format!("unknown log option {key:?} for json-file")),
        }
    }
    Ok(limits)
}

fn size(text: &str) -> Option<u64> {
    let text = text.to_ascii_lowercase();
    let text = text.strip_suffix('b').unwrap_or(&text);
    let unit = match text.chars().last()? {
        'k' => 1 << 10,
        'm' => 1 << 20,
        'g' => 1 << 30,
        _ => 1_u64,
    };
    let digits = text.trim_end_matches(['k', 'm', 'g']);
    digits.parse::<u64>().ok()?.checked_mul(unit).filter(|n| *n > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_docker_does() {
        assert_eq!(size("10m"), Some(10 << 20));
        assert_eq!(size("5kb"), Some(5 << 10));
        assert_eq!(size("7"), Some(7));
        assert_eq!(size("0"), None);
        assert_eq!(size("m"), None);
    }

    #[test]
    fn generic_resources_are_variables_one_for_each_kind() {
        let named = |value: &str| GenericResource::Named {
            kind: "gpu".to_owned(),
            value: value.to_owned(),
        };
        let given = [
            named("UUID1"),
            GenericResource::Discrete { kind: "ssd".to_owned(), value: 2 },
            named("UUID2"),
        ];
        assert_eq!(
            environment(vec!["A=b".to_owned()], &given),
            ["A=b", "DOCKER_RESOURCE_GPU=UUID1,UUID2", "DOCKER_RESOURCE_SSD=2"]
        );
        assert_eq!(environment(Vec::new(), &[]), Vec::<String>::new());
    }

    #[test]
    fn a_container_asks_the_node_for_names() {
        let dns = docker::TaskSpecContainerSpecDnsConfig {
            search: Some(vec!["example.org".into()]),
            ..Default::default()
        };
        assert_eq!(
            resolv_conf(&dns),
            "search example.org\nnameserver 127.0.0.11\noptions ndots:0\n"
        );
    }

    #[test]
    fn host_entries_need_an_address_and_a_name() {
        assert_eq!(host_line("10.1.1.1 db").unwrap(), ([10, 1, 1, 1].into(), "db".to_owned()));
        assert!(host_line("db").unwrap_err().contains("\"db\""));
    }
}
