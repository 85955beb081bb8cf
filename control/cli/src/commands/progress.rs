//! Waiting until a service is what was asked for.
use super::query;
use crate::{
    client::Client,
    error::{CliError, CliResult},
    text::{at, number},
};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

/// Between two looks, as Docker's client.
const POLL: Duration = Duration::from_millis(200);
/// How long all tasks must have run where the update configuration does not say.
const MONITOR: Duration = Duration::from_secs(5);

/// Waits until a service has converged, its update has ended, or its job is done; Ctrl-C ends the wait
/// and not the update.
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

/// What is said already, so that it is said once.
struct Speaker {
    quiet: bool,
    said: BTreeMap<String, String>,
}

impl Speaker {
    fn say(&mut self, what: &str, text: String) {
        if self.quiet || self.said.get(what) == Some(&text) {
            return;
        }
        println!("{what}: {text}");
        self.said.insert(what.to_owned(), text);
    }
}

async fn watch(client: &Client, id: &str, quiet: bool) -> CliResult<()> {
    let mut speaker = Speaker { quiet, said: BTreeMap::new() };
    let tasks = query(&json!({ "service": { id: true }, "_up-to-date": { "true": true } }));
    let mut stable: Option<Instant> = None;
    let mut first_nodes: Option<BTreeSet<String>> = None;
    loop {
        let service: Value = client.get(&format!("/services/{id}")).await?;
        let monitor = number(&service, "/Spec/UpdateConfig/Monitor");
        let monitor = u64::try_from(monitor).ok().filter(|n| *n > 0);
        let monitor = monitor.map_or(MONITOR, Duration::from_nanos);
        let message = at(&service, "/UpdateStatus/Message");
        let state = at(&service, "/UpdateStatus/State");
        match state {
            "paused" => return Err(CliError::usage(format!("service update paused: {message}"))),
            "rollback_paused" => {
                return Err(CliError::usage(format!("service rollback paused: {message}")));
            }
            "rollback_started" => speaker.say("rollback", message.to_owned()),
            "completed" if stable.is_none() => return Ok(()),
            _ => {}
        }
        if stable.is_some_and(|since| since.elapsed() >= monitor) {
            speaker.say("verify", format!("Service {id} converged"));
            if state == "rollback_completed" {
                speaker.say("rollback", message.to_owned());
            }
            return Ok(());
        }
        let tasks: Vec<Value> = client.get(&format!("/tasks?{tasks}")).await?;
        let nodes: Vec<Value> = client.get("/nodes").await?;
        let view = View::of(&service, &tasks, &nodes, &mut first_nodes)?;
        for (what, text) in view.lines {
            speaker.say(what, text);
        }
        for task in tasks.iter().filter(|t| !at(t, "/Status/Err").is_empty()) {
            speaker.say(&place(&service, task), at(task, "/Status/Err").to_owned());
        }
        if !view.converged {
            if stable.take().is_some() {
                speaker.say("verify", "Detected task failure".to_owned());
            }
        } else if service.get("JobStatus").is_some() {
            println!("job complete");
            return Ok(());
        } else {
            let since = *stable.get_or_insert_with(Instant::now);
            let seconds = monitor.saturating_sub(since.elapsed()).as_secs() + 1;
            let text = format!("Waiting {seconds} seconds to verify that tasks are stable...");
            speaker.say("verify", text);
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Where a task belongs, as Docker's client numbers it: `2/3`, or the node.
fn place(service: &Value, task: &Value) -> String {
    let slot = number(task, "/Slot");
    let total = |pointer: &str| service.pointer(pointer).and_then(Value::as_i64);
    if let Some(replicas) = total("/Spec/Mode/Replicated/Replicas") {
        format!("{slot}/{replicas}")
    } else if let Some(ends) = total("/Spec/Mode/ReplicatedJob/TotalCompletions") {
        format!("{}/{ends}", slot + 1)
    } else {
        at(task, "/NodeID").to_owned()
    }
}

/// How far a service is.
struct View {
    converged: bool,
    lines: Vec<(&'static str, String)>,
}

impl View {
    /// `first_nodes` are those a global job had tasks on when it was looked at first: nodes that come
    /// later are not waited for.
    fn of(
        service: &Value,
        tasks: &[Value],
        nodes: &[Value],
        first_nodes: &mut Option<BTreeSet<String>>,
    ) -> CliResult<View> {
        let mode = |name: &str| service.pointer(&format!("/Spec/Mode/{name}"));
        let down = |id: &str| {
            let node = nodes.iter().find(|n| at(n, "/ID") == id);
            node.is_none_or(|n| at(n, "/Status/State") == "down")
        };
        let runs = |task: &&Value| {
            let running = |field| at(task, field) == "running";
            running("/Status/State") && running("/DesiredState") && !down(at(task, "/NodeID"))
        };
        if let Some(replicated) = mode("Replicated") {
            let running = tasks.iter().filter(runs).map(|t| number(t, "/Slot"));
            let running = running.collect::<BTreeSet<_>>().len();
            return Ok(View::overall(service, running, number(replicated, "/Replicas")));
        }
        if mode("Global").is_some() {
            let wanted = |t: &&Value| at(t, "/DesiredState") != "shutdown";
            let on: BTreeSet<&str> =
                tasks.iter().filter(wanted).map(|t| at(t, "/NodeID")).collect();
            if on.is_empty() {
                let lines = vec![("overall progress", "waiting for new tasks".to_owned())];
                return Ok(View { converged: false, lines });
            }
            let running = tasks.iter().filter(runs).map(|t| at(t, "/NodeID"));
            let running = running.collect::<BTreeSet<_>>().len();
            let all = i64::try_from(on.len()).unwrap_or(i64::MAX);
            return Ok(View::overall(service, running, all));
        }
        let iteration = service.pointer("/JobStatus/JobIteration/Index");
        let current = |t: &&Value| t.pointer("/JobIteration/Index") == iteration;
        let complete = |t: &&Value| at(t, "/Status/State") == "complete";
        if let Some(job) = mode("ReplicatedJob") {
            let total = number(job, "/TotalCompletions");
            let done = tasks.iter().filter(current).filter(complete).count();
            let done = i64::try_from(done).unwrap_or(i64::MAX);
            let active = |t: &&Value| {
                !["complete", "shutdown", "failed", "rejected", "orphaned", "remove"]
                    .contains(&at(t, "/Status/State"))
            };
            let active = tasks.iter().filter(current).filter(active).count();
            let most = number(job, "/MaxConcurrent").min(total - done);
            let lines = vec![
                ("job progress", format!("{done} out of {total} complete")),
                ("active tasks", format!("{active} out of {most} tasks")),
            ];
            return Ok(View { converged: done == total, lines });
        }
        if mode("GlobalJob").is_none() {
            return Err(CliError::usage("unrecognized service mode"));
        }
        let on = |t: &Value| at(t, "/NodeID").to_owned();
        if first_nodes.is_none() && (!tasks.is_empty() || nodes.is_empty()) {
            *first_nodes = Some(tasks.iter().filter(current).map(on).collect());
        }
        let Some(first) = first_nodes else {
            let lines = vec![("job progress", "waiting for tasks".to_owned())];
            return Ok(View { converged: false, lines });
        };
        let done = tasks.iter().filter(current).filter(complete).map(on);
        let done = done.filter(|n| first.contains(n)).collect::<BTreeSet<_>>().len();
        let lines = vec![("job progress", format!("{done} out of {} complete", first.len()))];
        Ok(View { converged: done == first.len(), lines })
    }

    fn overall(service: &Value, running: usize, wanted: i64) -> View {
        let back = at(service, "/UpdateStatus/State").starts_with("rollback");
        let what = if back { "rolling back update: " } else { "" };
        let converged = i64::try_from(running) == Ok(wanted);
        let text = format!("{what}{running} out of {wanted} tasks");
        View { converged, lines: vec![("overall progress", text)] }
    }
}
