//! One file per kind of object.
mod ca;
mod container;
mod dependency;
mod exec;
mod image;
mod inspect;
mod network;
mod node;
mod progress;
mod references;
mod service;
mod service_spec;
mod swarm;
mod system;
mod task;

use crate::{
    args::{Command, Connection, ImageCommand},
    client::Client,
    error::{CliError, CliResult},
    text,
};
use serde_json::{Value, json};
use shoal_model::DependencyKind;
use std::collections::{BTreeMap, HashMap};

/// Runs a command; gives its exit code.
pub(crate) async fn run(connection: Connection, command: Command) -> CliResult<u8> {
    let client = &Client::new(connection.host)?;
    match command {
        Command::Version => system::version(client).await?,
        Command::Info => system::info(client).await?,
        Command::Swarm(command) => swarm::run(client, command).await?,
        Command::Node(command) => node::run(client, command).await?,
        Command::Service(command) => service::run(client, *command).await?,
        Command::Network(command) => network::run(client, command).await?,
        Command::Secret(command) => {
            dependency::run(client, DependencyKind::Secret, command).await?
        }
        Command::Config(command) => {
            dependency::run(client, DependencyKind::Config, command).await?
        }
        Command::Image(command) => image::run(client, command).await?,
        Command::Images(list) => image::run(client, ImageCommand::Ls(list)).await?,
        Command::Load(load) => image::run(client, ImageCommand::Load(load)).await?,
        Command::Ps(list) => container::list(client, list).await?,
        Command::Logs(logs) => container::logs(client, logs).await?,
        Command::Exec(exec) => return exec::run(client, exec).await,
        Command::Inspect(names) => inspect::any(client, names).await?,
    }
    Ok(0)
}

/// `key=value` filters as the API's parameter, with its leading `name=`; nothing for none.
fn filters(given: &[String]) -> CliResult<String> {
    let mut map: BTreeMap<&str, BTreeMap<&str, bool>> = BTreeMap::new();
    for filter in given {
        let (key, value) = filter.split_once('=').ok_or_else(|| {
            CliError::usage(format!("invalid argument {filter:?} for \"-f, --filter\" flag: bad format of filter (expected name=value)"))
        })?;
        map.entry(key.trim()).or_default().insert(value.trim(), true);
    }
    Ok(if map.is_empty() { String::new() } else { query(&json!(map)) })
}

fn query(filters: &Value) -> String {
    format!("filters={}", text::escape(&filters.to_string()))
}

/// `key=value` or `key` pairs.
fn pairs(given: &[String]) -> HashMap<String, String> {
    given
        .iter()
        .map(|p| p.split_once('=').unwrap_or((p, "")))
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .collect()
}

/// Does something with each object; goes on after a refusal and fails in the end.
async fn each<'a>(
    names: &'a [String],
    mut act: impl AsyncFnMut(&'a str) -> CliResult<()>,
) -> CliResult<()> {
    let mut failed = None;
    for name in names {
        if let Err(e) = act(name).await {
            eprintln!("{e}");
            failed = Some(CliError::Silent(e.code()));
        }
    }
    failed.map_or(Ok(()), Err)
}
