//! `service create|ls|ps|inspect|scale|update|rollback|rm|logs`.
use super::{
    container::{copy, log_query, put},
    each, filters, inspect, progress, references, service_spec,
    task::{self, Names, slot},
};
use crate::{
    args::{Listing, LogLines, ServiceCommand, ServiceCreate, ServiceUpdate, Wait},
    client::Client,
    demux::Origin,
    error::{CliError, CliResult},
    table::Table,
    text::{at, escape, id, image, list, natural, number},
};
use serde_json::Value;
use shoal_model::docker;
use std::collections::BTreeMap;

pub(crate) async fn run(client: &Client, command: ServiceCommand) -> CliResult<()> {
    match command {
        ServiceCommand::Create(create) => self::create(client, create).await,
        ServiceCommand::Ls(listing) => ls(client, listing).await,
        ServiceCommand::Ps { services, listing } => {
            let mut ids = Vec::new();
            let mut missing = Vec::new();
            for name in &services {
                match get(client, name).await {
                    Ok(service) => ids.push(at(&service, "/ID").to_owned()),
                    Err(e) if e.is_not_found() => missing.push(format!("no such service: {name}")),
                    Err(e) => return Err(e),
                }
            }
            if !ids.is_empty() {
                task::list(client, "service", &ids, &listing).await?;
            }
            if missing.is_empty() { Ok(()) } else { Err(CliError::usage(missing.join("\n"))) }
        }
        ServiceCommand::Inspect { services } => {
            inspect::several(client, &services, |s| {
                format!("/services/{}?insertDefaults=true", escape(s))
            })
            .await
        }
        ServiceCommand::Scale { scales, detach } => scale(client, &scales, detach).await,
        ServiceCommand::Update(update) => self::update(client, update).await,
        ServiceCommand::Rollback { service, wait } => rollback(client, &service, wait).await,
        ServiceCommand::Rm { services } => {
            each(&services, async |service| {
                client.delete(&format!("/services/{}", escape(service))).await?;
                println!("{service}");
                Ok(())
            })
            .await
        }
        ServiceCommand::Logs { reference, lines, no_resolve, no_task_ids, no_trunc, raw } => {
            let shape = Shape { no_resolve, no_task_ids, no_trunc, raw };
            logs(client, &reference, &lines, shape).await
        }
    }
}

async fn get(client: &Client, name: &str) -> CliResult<Value> {
    client.get(&format!("/services/{}", escape(name))).await
}

async fn create(client: &Client, create: ServiceCreate) -> CliResult<()> {
    let mut spec = service_spec::from_create(&create).map_err(CliError::usage)?;
    references::create(client, &mut spec, &create).await?;
    let answer: Value = client.post_json("/services/create", &spec).await?;
    warn(&answer);
    println!("{}", at(&answer, "/ID"));
    if create.wait.detach {
        return Ok(());
    }
    progress::wait(client, at(&answer, "/ID"), create.wait.quiet).await
}

fn warn(answer: &Value) {
    for warning in list(answer, "/Warnings") {
        eprintln!("{}", warning.as_str().unwrap_or_default());
    }
}

/// Sends back a specification, changed.
async fn change(
    client: &Client,
    name: &str,
    query: &str,
    edit: impl FnOnce(&mut docker::ServiceSpec) -> Result<(), String>,
) -> CliResult<String> {
    let service = get(client, name).await?;
    let spec = serde_json::from_value(service["Spec"].clone());
    let mut spec: docker::ServiceSpec =
        spec.map_err(|e| CliError::io("cannot read the daemon's answer", e))?;
    edit(&mut spec).map_err(CliError::usage)?;
    let (id, version) = (at(&service, "/ID"), &service["Version"]["Index"]);
    let path = format!("/services/{id}/update?version={version}{query}");
    warn(&client.post_json(&path, &spec).await?);
    Ok(id.to_owned())
}

async fn update(client: &Client, update: ServiceUpdate) -> CliResult<()> {
    if update.back {
        return rollback(client, &update.service, update.wait).await;
    }
    let added = references::added(client, &update).await?;
    let change_spec = |spec: &mut docker::ServiceSpec| {
        references::update(spec, &update, &added);
        service_spec::update(spec, &update)
    };
    let id = change(client, &update.service, "", change_spec).await?;
    finish(client, &update.service, &id, update.wait).await
}

async fn rollback(client: &Client, service: &str, wait: Wait) -> CliResult<()> {
    let id = change(client, service, "&rollback=previous", |_| Ok(())).await?;
    finish(client, service, &id, wait).await
}

async fn finish(client: &Client, name: &str, id: &str, wait: Wait) -> CliResult<()> {
    println!("{name}");
    if wait.detach { Ok(()) } else { progress::wait(client, id, wait.quiet).await }
}

async fn scale(client: &Client, scales: &[String], detach: bool) -> CliResult<()> {
    let mut ids = Vec::new();
    let result = each(scales, async |text| {
        let (name, count) = text.split_once('=').ok_or_else(|| {
            CliError::usage(format!("invalid scale specifier '{text}': expected NAME=REPLICAS"))
        })?;
        let count: u32 = count.parse().map_err(|_| {
            CliError::usage(format!(
                "invalid replicas value {count} for service {name}: it must be a number"
            ))
        })?;
        let id = change(client, name, "", |spec| {
            let mode = spec.mode.get_or_insert_default();
            let number = match (&mut mode.replicated, &mut mode.replicated_job) {
                (Some(replicated), _) => &mut replicated.replicas,
                (None, Some(job)) => &mut job.total_completions,
                (None, None) => {
                    let text = "scale can only be used with replicated or replicated-job mode";
                    return Err(text.to_owned());
                }
            };
            *number = Some(i64::from(count));
            Ok(())
        })
        .await
        .map_err(|e| match e {
            CliError::Usage(text) => CliError::usage(format!("{name}: {text}")),
            other => other,
        })?;
        println!("{name} scaled to {count}");
        ids.push(id);
        Ok(())
    })
    .await;
    if !detach {
        for id in ids {
            progress::wait(client, &id, false).await?;
        }
    }
    result
}

async fn ls(client: &Client, listing: Listing) -> CliResult<()> {
    let path = format!("/services?status=true&{}", filters(&listing.filter)?);
    let mut services: Vec<Value> = client.get(&path).await?;
    services.sort_by(|a, b| natural(at(a, "/Spec/Name"), at(b, "/Spec/Name")));
    if listing.quiet {
        services.iter().for_each(|s| println!("{}", id(at(s, "/ID"), false)));
        return Ok(());
    }
    let mut table = Table::new(&["ID", "NAME", "MODE", "REPLICAS", "IMAGE", "PORTS"]);
    for s in &services {
        let mode = [
            ("/Spec/Mode/Global", "global"),
            ("/Spec/Mode/ReplicatedJob", "replicated job"),
            ("/Spec/Mode/GlobalJob", "global job"),
        ];
        let mode = mode.iter().find(|(p, _)| s.pointer(p).is_some()).map_or("replicated", |m| m.1);
        let replicas = replicas(s, mode);
        table.row(vec![
            id(at(s, "/ID"), false),
            at(s, "/Spec/Name").to_owned(),
            mode.to_owned(),
            replicas,
            image(at(s, "/Spec/TaskTemplate/ContainerSpec/Image")).to_owned(),
            ports(s),
        ]);
    }
    table.print();
    Ok(())
}

/// `3/3`, `3/3 (max 1 per node)`, `0/3 (1/3 completed)`.
fn replicas(service: &Value, mode: &str) -> String {
    let count = |key: &str| number(service, &format!("/ServiceStatus/{key}"));
    let (desired, completed) = (count("DesiredTasks"), count("CompletedTasks"));
    let replicas = format!("{}/{desired}", count("RunningTasks"));
    let most = number(service, "/Spec/TaskTemplate/Placement/MaxReplicas");
    match mode {
        "replicated job" => {
            let total = number(service, "/Spec/Mode/ReplicatedJob/TotalCompletions");
            format!("{replicas} ({completed}/{total} completed)")
        }
        "global job" => format!("{replicas} ({completed}/{} completed)", desired + completed),
        "replicated" if most > 0 => format!("{replicas} (max {most} per node)"),
        _ => replicas,
    }
}

/// `*:8080->80/tcp, …`.
fn ports(service: &Value) -> String {
    let mut ports: Vec<(i64, i64, &str)> = list(service, "/Endpoint/Ports")
        .iter()
        .map(|p| (number(p, "/PublishedPort"), number(p, "/TargetPort"), at(p, "/Protocol")))
        .collect();
    ports.sort_unstable();
    let texts = ports.iter().map(|(p, t, protocol)| format!("*:{p}->{t}/{protocol}"));
    texts.collect::<Vec<_>>().join(", ")
}

/// How lines of service logs are shown.
#[derive(Clone, Copy)]
struct Shape {
    no_resolve: bool,
    no_task_ids: bool,
    no_trunc: bool,
    raw: bool,
}

async fn logs(client: &Client, name: &str, lines: &LogLines, shape: Shape) -> CliResult<()> {
    let query = log_query(lines, None)?;
    let (kind, object, template) = match get(client, name).await {
        Ok(service) => ("services", service, "/Spec/TaskTemplate/ContainerSpec/TTY"),
        Err(e) if e.is_not_found() => {
            let task = client.get(&format!("/tasks/{}", escape(name))).await;
            let task: Value = task.map_err(|e| match e.is_not_found() {
                true => CliError::usage(format!("no such task or service: {name}")),
                false => e,
            })?;
            ("tasks", task, "/Spec/ContainerSpec/TTY")
        }
        Err(e) => return Err(e),
    };
    let tty = object.pointer(template).and_then(Value::as_bool).unwrap_or(false);
    if tty && !shape.raw {
        return Err(CliError::usage("tty service logs only supported with --raw"));
    }
    let width = number(&object, "/Spec/Mode/Replicated/Replicas").max(1).to_string().len();
    let path = format!("/{kind}/{}/logs?details=1&{query}", at(&object, "/ID"));
    let answer = client.stream(&path).await?;
    let mut sources =
        Sources { client: client.clone(), names: Names::default(), tasks: BTreeMap::new() };
    if !shape.raw {
        sources.load(!shape.no_resolve).await?;
    }
    copy(answer, tty, |origin, bytes| {
        if tty || origin == Origin::System {
            return put(origin, bytes);
        }
        put(origin, &line(&sources, lines, shape, width, bytes)?)
    })
    .await
}

/// `[time ][details ]service.slot.task@node    | text`.
fn line(
    sources: &Sources,
    lines: &LogLines,
    shape: Shape,
    width: usize,
    bytes: &[u8],
) -> CliResult<Vec<u8>> {
    let invalid = || CliError::usage("invalid context in log message: no details in front of it");
    let mut rest = bytes;
    let mut part = || {
        let blank = rest.iter().position(|b| *b == b' ').ok_or_else(invalid)?;
        let part = String::from_utf8_lossy(&rest[..blank]).into_owned();
        rest = &rest[blank + 1..];
        Ok::<_, CliError>(part)
    };
    let time = if lines.timestamps { format!("{} ", part()?) } else { String::new() };
    let details = part()?;
    let get = |key: &str| {
        let found = details.split(',').filter_map(|d| d.split_once('=')).find(|(k, _)| *k == key);
        found.map(|(_, value)| value).ok_or_else(invalid)
    };
    let mut out = time.into_bytes();
    if !shape.raw {
        let (task, node) = (get("com.docker.swarm.task.id")?, get("com.docker.swarm.node.id")?);
        let shown = sources.describe(task, node, shape, width);
        out.extend_from_slice(format!("{shown}    | ").as_bytes());
    }
    if lines.details {
        let own = details.split(',').filter(|d| !d.starts_with("com.docker.swarm."));
        out.extend_from_slice(format!("{} ", own.collect::<Vec<_>>().join(",")).as_bytes());
    }
    out.extend_from_slice(rest);
    Ok(out)
}

/// Names behind the ids in log lines.
struct Sources {
    client: Client,
    names: Names,
    /// Name and slot by task.
    tasks: BTreeMap<String, (String, String)>,
}

impl Sources {
    /// Without `resolve`, ids stand for services and nodes.
    async fn load(&mut self, resolve: bool) -> CliResult<()> {
        if resolve {
            self.names = Names::load(&self.client).await?;
        }
        let tasks: Vec<Value> = self.client.get("/tasks").await?;
        for task in tasks {
            let entry = (self.names.task(&task), slot(&task));
            self.tasks.insert(at(&task, "/ID").to_owned(), entry);
        }
        Ok(())
    }

    fn describe(&self, task: &str, node: &str, shape: Shape, width: usize) -> String {
        let (mut out, slot) = self.tasks.get(task).cloned().unwrap_or_default();
        if !shape.no_task_ids {
            out = format!("{out}.{}", id(task, shape.no_trunc));
        }
        let node = self.names.nodes.get(node).map_or(node, String::as_str);
        format!("{out}@{node}{}", " ".repeat(width.saturating_sub(slot.len())))
    }
}
