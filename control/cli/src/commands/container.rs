//! `ps` and `logs`.
use super::filters;
use crate::{
    args::{ContainerList, LogLines, Logs},
    client::Client,
    demux::{Demux, Origin},
    durations,
    error::{CliError, CliResult},
    table::Table,
    text::{ago, at, ellipsis, escape, id, list as items, number},
};
use chrono::{DateTime, Utc};
use http_body_util::BodyExt;
use hyper::{Response, body::Incoming};
use serde_json::Value;
use std::io::Write;

/// Width of the command column.
const COMMAND_WIDTH: usize = 20;

pub(crate) async fn list(client: &Client, args: ContainerList) -> CliResult<()> {
    let mut path = format!("/containers/json?{}", filters(&args.listing.filter)?);
    if args.all {
        path.push_str("&all=1");
    }
    if let Some(n) = args.last.or(args.latest.then_some(1)) {
        path.push_str(&format!("&limit={n}"));
    }
    let containers: Vec<Value> = client.get(&path).await?;
    let full = args.no_trunc;
    if args.listing.quiet {
        containers.iter().for_each(|c| println!("{}", id(at(c, "/Id"), full)));
        return Ok(());
    }
    let mut table =
        Table::new(&["CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"]);
    for c in &containers {
        let created = DateTime::<Utc>::from_timestamp(number(c, "/Created"), 0);
        let command = at(c, "/Command");
        let command = if full { command.to_owned() } else { ellipsis(command, COMMAND_WIDTH) };
        let names = items(c, "/Names").iter().filter_map(Value::as_str);
        table.row(vec![
            id(at(c, "/Id"), full),
            at(c, "/Image").to_owned(),
            format!("\"{command}\""),
            created.map(|t| ago(&t.to_rfc3339(), Utc::now())).unwrap_or_default(),
            at(c, "/Status").to_owned(),
            String::new(),
            names.map(|n| n.trim_start_matches('/')).collect::<Vec<_>>().join(","),
        ]);
    }
    table.print();
    Ok(())
}

/// The query of a logs request.
pub(crate) fn log_query(lines: &LogLines, until: Option<&str>) -> CliResult<String> {
    let mut out = format!("stdout=1&stderr=1&tail={}", escape(&lines.tail));
    for (flag, name) in [(lines.follow, "follow"), (lines.timestamps, "timestamps")] {
        if flag {
            out.push_str(&format!("&{name}=1"));
        }
    }
    for (name, text) in [("since", lines.since.as_deref()), ("until", until)] {
        if let Some(text) = text {
            out.push_str(&format!("&{name}={}", escape(&moment(text)?)));
        }
    }
    Ok(out)
}

/// A point in time as the API takes it; `42m` is that long ago.
fn moment(text: &str) -> CliResult<String> {
    if text.parse::<f64>().is_ok() || DateTime::parse_from_rfc3339(text).is_ok() {
        return Ok(text.to_owned());
    }
    let span = durations::parse(text).map_err(|_| {
        CliError::usage(format!(
            "invalid value for \"since\" or \"until\": {text:?}: give a time like 2013-01-02T13:23:37Z or a span like 42m"
        ))
    })?;
    let then = Utc::now() - chrono::Duration::nanoseconds(span);
    Ok(format!("{}.{:09}", then.timestamp(), then.timestamp_subsec_nanos()))
}

pub(crate) async fn logs(client: &Client, logs: Logs) -> CliResult<()> {
    let name = escape(&logs.container);
    let container: Value = client.get(&format!("/containers/{name}/json")).await?;
    let tty = container.pointer("/Config/Tty").and_then(Value::as_bool).unwrap_or(false);
    let mut query = log_query(&logs.lines, logs.until.as_deref())?;
    if logs.lines.details {
        query.push_str("&details=1");
    }
    let answer = client.stream(&format!("/containers/{name}/logs?{query}")).await?;
    copy(answer, tty, put).await
}

/// Hands the payloads of a log to `put` as they come.
pub(crate) async fn copy(
    answer: Response<Incoming>,
    raw: bool,
    mut put: impl FnMut(Origin, &[u8]) -> CliResult<()>,
) -> CliResult<()> {
    let mut body = answer.into_body();
    let mut demux = Demux::default();
    let broken = |e: &dyn std::fmt::Display| CliError::io("the daemon's answer broke off", e);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| broken(&e))?;
        let Ok(data) = frame.into_data() else { continue };
        if raw {
            put(Origin::Out, &data)?;
            continue;
        }
        demux.push(&data);
        while let Some((origin, payload)) = demux.next().map_err(|e| broken(&e))? {
            put(origin, &payload)?;
        }
    }
    Ok(())
}

/// Writes to the stream the bytes came from.
pub(crate) fn put(origin: Origin, bytes: &[u8]) -> CliResult<()> {
    let failed = |e| CliError::io("cannot write", e);
    match origin {
        Origin::Out => {
            let mut out = std::io::stdout().lock();
            out.write_all(bytes).and_then(|()| out.flush()).map_err(failed)
        }
        Origin::Err => std::io::stderr().write_all(bytes).map_err(failed),
        Origin::System => {
            Err(CliError::io("error from daemon in stream", String::from_utf8_lossy(bytes)))
        }
    }
}
