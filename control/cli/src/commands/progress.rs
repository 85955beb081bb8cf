//! Waiting until a service is what was asked for.
use super::query;
use crate::{
    client::Client,
    error::{CliError, CliResult},
    text::{at, number},
};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// Between two looks, as Docker's client.
const POLL: Duration = Duration::from_millis(200);
/// How long all tasks must have run where the update configuration does not say.
const MONITOR: Duration = Duration::from_secs(5);

/// Waits until a service has converged; Ctrl-C ends the wait and not the update.
pub(crate) async fn wait(client: &Client, id: &str, quiet: bool) -> CliResult<()> {
    tokio::select! {
        result = watch(client, id, quiet) => result,
        _ = tokio::signal::ctrl_c() => {
            println!("Operation continuing in background.");
            println!("Use `shoal service ps {id}` to check progress.");
            Ok(())
        }
    }
}

async fn watch(client: &Client, id: &str, quiet: bool) -> CliResult<()> {
    let say = |text: String| {
        if !quiet {
            println!("{text}");
        }
    };
    let tasks = query(&json!({ "service": { id: true }, "_up-to-date": { "true": true } }));
    let mut shown = (-1, -1);
    let mut errors: BTreeMap<i64, String> = BTreeMap::new();
    let mut stable: Option<Instant> = None;
    let mut left = u64::MAX;
    loop {
        let service: Value = client.get(&format!("/services/{id}")).await?;
        let Some(wanted) = service.pointer("/Spec/Mode/Replicated/Replicas") else {
            return Err(CliError::usage("unrecognized service mode"));
        };
        let wanted = wanted.as_i64().unwrap_or(0);
        let monitor = number(&service, "/Spec/UpdateConfig/Monitor");
        let monitor = u64::try_from(monitor).ok().filter(|n| *n > 0);
        let monitor = monitor.map_or(MONITOR, Duration::from_nanos);
        let tasks: Vec<Value> = client.get(&format!("/tasks?{tasks}")).await?;
        let nodes: Vec<Value> = client.get("/nodes").await?;
        let up = |task: &&Value| {
            at(task, "/Status/State") == "running"
                && at(task, "/DesiredState") == "running"
                && nodes.iter().any(|n| {
                    at(n, "/ID") == at(task, "/NodeID") && at(n, "/Status/State") != "down"
                })
        };
        let running = i64::try_from(tasks.iter().filter(up).count()).unwrap_or(i64::MAX);
        if shown != (running, wanted) {
            shown = (running, wanted);
            say(format!("overall progress: {running} out of {wanted} tasks"));
        }
        for task in tasks.iter().filter(|t| !at(t, "/Status/Err").is_empty()) {
            let (slot, error) = (number(task, "/Slot"), at(task, "/Status/Err"));
            if errors.insert(slot, error.to_owned()).as_deref() != Some(error) {
                say(format!("{slot}/{wanted}: {error}"));
            }
        }
        if running == wanted {
            let since = *stable.get_or_insert_with(Instant::now);
            let rest = monitor.saturating_sub(since.elapsed());
            if rest.is_zero() {
                say(format!("verify: Service {id} converged"));
                return Ok(());
            }
            let seconds = rest.as_secs() + 1;
            if seconds < left {
                left = seconds;
                say(format!(
                    "verify: Waiting {seconds} seconds to verify that tasks are stable..."
                ));
            }
        } else {
            stable = None;
            left = u64::MAX;
        }
        tokio::time::sleep(POLL).await;
    }
}
