//! Containers of this node.
use crate::times;
use chrono::{DateTime, Utc};
use serde_json::{Map, Value, json};
use shoal_containers::{ContainerInfo, ContainerState, Health, HealthCheck, HealthStatus};
use shoal_model::{State, Timestamp};
use std::time::Duration;

/// Docker's word for a container's state.
pub(crate) fn state_word(container: &ContainerInfo) -> &'static str {
    match container.state {
        ContainerState::Created => "created",
        ContainerState::Running => "running",
        ContainerState::Exited(_) => "exited",
    }
}

/// A container as `GET /containers/json` lists it.
pub(crate) fn summary(
    c: &ContainerInfo,
    networks: &Map<String, Value>,
    now: DateTime<Utc>,
) -> Value {
    json!({
        "Id": c.id,
        "Names": [format!("/{}", c.name)],
        "Image": c.image,
        "ImageID": c.image_id,
        "Command": c.command.join(" "),
        "Created": c.created.timestamp(),
        "Ports": [],
        "Labels": c.labels,
        "State": state_word(c),
        "Status": status(c, now),
        "HostConfig": { "NetworkMode": "default" },
        "NetworkSettings": { "Networks": networks },
        "Mounts": [],
    })
}

/// A container as `GET /containers/{id}/json` answers it.
pub(crate) fn container(c: &ContainerInfo, networks: &Map<String, Value>) -> Value {
    let (code, oom, error) = match &c.state {
        ContainerState::Exited(e) => (e.code, e.oom, e.error.clone().unwrap_or_default()),
        _ => (0, false, String::new()),
    };
    let spec = &c.spec;
    let mut answer = json!({
        "Id": c.id,
        "Created": time(Some(c.created)),
        "Path": c.command.first(),
        "Args": c.command.get(1..).unwrap_or_default(),
        "State": {
            "Status": state_word(c),
            "Running": c.state == ContainerState::Running,
            "Paused": false,
            "Restarting": false,
            "OOMKilled": oom,
            "Dead": false,
            "Pid": c.pid.unwrap_or(0),
            "ExitCode": code,
            "Error": error,
            "StartedAt": time(c.started_at),
            "FinishedAt": time(c.finished_at),
        },
        "Image": c.image_id,
        "LogPath": c.log_path,
        "Name": format!("/{}", c.name),
        "RestartCount": 0,
        "Driver": "overlay2",
        "Platform": "linux",
        "Mounts": [],
        "HostConfig": {
            "Memory": spec.memory.unwrap_or(0),
            "NanoCpus": spec.nano_cpus.unwrap_or(0),
            "PidsLimit": spec.pids,
            "ReadonlyRootfs": spec.read_only,
            "CapAdd": spec.cap_add,
            "CapDrop": spec.cap_drop,
            "LogConfig": { "Type": "json-file", "Config": {} },
            "NetworkMode": "default",
            "RestartPolicy": { "Name": "no", "MaximumRetryCount": 0 },
        },
        "Config": {
            "Hostname": spec.hostname.clone().unwrap_or_else(|| c.id.chars().take(12).collect()),
            "User": spec.user.clone().unwrap_or_default(),
            "AttachStdin": false,
            "AttachStdout": false,
            "AttachStderr": false,
            "Tty": spec.tty,
            "OpenStdin": spec.open_stdin,
            "StdinOnce": false,
            "Env": spec.env,
            "Cmd": spec.command,
            "Entrypoint": spec.entrypoint,
            "Image": c.image,
            "WorkingDir": spec.working_dir.clone().unwrap_or_default(),
            "Labels": c.labels,
            "StopSignal": spec.stop_signal,
        },
        "NetworkSettings": { "Networks": networks },
    });
    if let Some(check) = &c.health_check {
        answer["Config"]["Healthcheck"] = health_check(check);
    }
    if let Some(health) = &c.health {
        answer["State"]["Health"] = self::health(health);
    }
    answer
}

fn health_check(check: &HealthCheck) -> Value {
    let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    json!({
        "Test": check.test,
        "Interval": nanos(check.interval),
        "Timeout": nanos(check.timeout),
        "StartPeriod": nanos(check.start_period),
        "StartInterval": nanos(check.start_interval),
        "Retries": check.retries,
    })
}

fn health(health: &Health) -> Value {
    let results = health.log.iter().map(|result| {
        json!({
            "Start": time(Some(result.start)),
            "End": time(Some(result.end)),
            "ExitCode": result.exit_code,
            "Output": result.output,
        })
    });
    json!({
        "Status": health.status.as_str(),
        "FailingStreak": health.failing_streak,
        "Log": results.collect::<Vec<_>>(),
    })
}

/// Networks of a task's container, by name, as the cluster knows them.
pub(crate) fn networks(state: &State, container: &ContainerInfo) -> Map<String, Value> {
    let task = container.labels.get("com.docker.swarm.task.id").and_then(|id| state.tasks.get(id));
    let mut out = Map::new();
    for addresses in task.iter().flat_map(|t| &t.networks) {
        let Some(network) = state.networks.get(&addresses.network_id) else { continue };
        let v6 = addresses.v6.zip(network.subnet6);
        out.insert(
            network.name().to_owned(),
            json!({
                "NetworkID": network.id,
                "IPAddress": addresses.v4.to_string(),
                "IPPrefixLen": network.subnet.prefix(),
                "Gateway": network.subnet.nth(1).map(|g| g.to_string()).unwrap_or_default(),
                "GlobalIPv6Address": v6.map(|(a, _)| a.to_string()).unwrap_or_default(),
                "GlobalIPv6PrefixLen": v6.map_or(0, |(_, s)| s.prefix()),
                "Aliases": addresses.aliases,
            }),
        );
    }
    out
}

fn time(t: Option<DateTime<Utc>>) -> String {
    let nanos = t.and_then(|t| t.timestamp_nanos_opt());
    nanos.map_or_else(|| times::ZERO.to_owned(), |n| times::rfc3339(Timestamp(n)))
}

/// `Up 5 minutes (healthy)`, `Exited (0) 2 seconds ago`, `Created`.
fn status(c: &ContainerInfo, now: DateTime<Utc>) -> String {
    let since = |t: Option<DateTime<Utc>>| {
        let span = t.map(|t| now.signed_duration_since(t)).and_then(|d| d.to_std().ok());
        words(span.unwrap_or_default())
    };
    match &c.state {
        ContainerState::Created => "Created".to_owned(),
        ContainerState::Running => {
            let health = match c.health.as_ref().map(|h| h.status) {
                None => "",
                Some(HealthStatus::Starting) => " (health: starting)",
                Some(HealthStatus::Healthy) => " (healthy)",
                Some(HealthStatus::Unhealthy) => " (unhealthy)",
            };
            format!("Up {}{health}", since(c.started_at))
        }
        ContainerState::Exited(e) => {
            format!("Exited ({}) {} ago", e.code, since(Some(e.finished_at)))
        }
    }
}

/// Docker's words for a span of time.
fn words(span: Duration) -> String {
    let seconds = span.as_secs();
    let hours = (span.as_secs_f64() / 3600.0).round() as u64;
    match seconds {
        0 => "Less than a second".to_owned(),
        1 => "1 second".to_owned(),
        2..60 => format!("{seconds} seconds"),
        60..120 => "About a minute".to_owned(),
        120..3600 => format!("{} minutes", seconds / 60),
        _ => match hours {
            ..=1 => "About an hour".to_owned(),
            2..48 => format!("{hours} hours"),
            48..336 => format!("{} days", hours / 24),
            336..1440 => format!("{} weeks", hours / 24 / 7),
            1440..17520 => format!("{} months", hours / 24 / 30),
            _ => format!("{} years", hours / 24 / 365),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_have_docker_s_words() {
        for (seconds, text) in [
            (0, "Less than a second"),
            (61, "About a minute"),
            (7200, "2 hours"),
            (172_800, "2 days"),
        ] {
            assert_eq!(words(Duration::from_secs(seconds)), text);
        }
    }
}
