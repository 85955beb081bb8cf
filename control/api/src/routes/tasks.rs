//! Tasks, and the logs of tasks and services.
use super::ok;
use crate::{
    context::ApiContext,
    convert,
    error::{Answer, ApiError},
    filters::{Filters, in_labels},
    lookup,
    params::Params,
    stream,
};
use axum::{
    Router,
    body::Bytes,
    extract::{Path, State},
    routing::get,
};
use futures_util::StreamExt;
use serde_json::Value;
use shoal_model::{State as Cluster, Task, TaskState, docker};
use std::collections::{BTreeMap, BTreeSet};

const FILTERS: [&str; 8] =
    ["id", "name", "label", "service", "node", "desired-state", "runtime", "_up-to-date"];

pub(super) fn routes() -> Router<ApiContext> {
    Router::new()
        .route("/tasks", get(list))
        .route("/tasks/{task}", get(inspect))
        .route("/tasks/{task}/logs", get(logs))
}

/// Filters with names replaced by ids.
struct Wanted {
    filters: Filters,
    services: Option<BTreeSet<String>>,
    nodes: Option<BTreeSet<String>>,
    current: Option<bool>,
}

impl Wanted {
    fn new(state: &Cluster, filters: Filters, this_node: &str) -> Result<Wanted, ApiError> {
        let services: Result<BTreeSet<String>, ApiError> = filters
            .values("service")
            .map(|r| lookup::service(state, r).map(|s| s.id.clone()))
            .collect();
        let nodes: Result<BTreeSet<String>, ApiError> = filters
            .values("node")
            .map(|r| match r {
                "self" => Ok(this_node.to_owned()),
                _ => lookup::node(state, r).map(|n| n.id.clone()),
            })
            .collect();
        for state in filters.values("desired-state") {
            if !TaskState::ALL.iter().any(|s| s.as_str() == state) {
                return Err(ApiError::bad(format!("invalid filter 'desired-state={state}'")));
            }
        }
        Ok(Wanted {
            services: Some(services?).filter(|s| !s.is_empty()),
            nodes: Some(nodes?).filter(|n| !n.is_empty()),
            current: filters.flag("_up-to-date")?,
            filters,
        })
    }

    fn matches(&self, state: &Cluster, task: &Task) -> bool {
        let f = &self.filters;
        let service = state.services.get(&task.service_id);
        let current = service.is_some_and(|s| {
            s.spec_version == task.spec_version || s.placement_versions.contains(&task.spec_version)
        });
        let node =
            |nodes: &BTreeSet<String>| task.node_id.as_ref().is_some_and(|n| nodes.contains(n));
        f.prefix("id", &task.id)
            && f.prefix("name", &task.name)
            && f.exact("desired-state", task.shown_desired().as_str())
            && f.exact("runtime", "container")
            && self.services.as_ref().is_none_or(|s| s.contains(&task.service_id))
            && self.nodes.as_ref().is_none_or(node)
            && self.current.is_none_or(|wanted| wanted == current)
            && match service {
                Some(s) => f.labels("label", in_labels(&s.spec.labels)),
                None => !f.has("label"),
            }
    }
}

async fn list(State(ctx): State<ApiContext>, params: Params) -> Answer {
    let filters = Filters::parse(params.get("filters"), &FILTERS)?;
    let this_node = ctx.swarm.info().node_id;
    let tasks: Vec<Value> = ctx.read(|state| {
        let wanted = Wanted::new(state, filters, &this_node)?;
        let matching = state.tasks.values().filter(|t| wanted.matches(state, t));
        Ok::<_, ApiError>(matching.map(|t| convert::tasks::task(state, t)).collect())
    })??;
    Ok(ok(tasks.into()))
}

async fn inspect(State(ctx): State<ApiContext>, Path(reference): Path<String>) -> Answer {
    let task =
        ctx.read(|state| lookup::task(state, &reference).map(|t| convert::tasks::task(state, t)))??;
    Ok(ok(task))
}

async fn logs(
    State(ctx): State<ApiContext>,
    Path(reference): Path<String>,
    params: Params,
) -> Answer {
    let (tty, owners) = ctx.read(|state| {
        lookup::task(state, &reference).map(|task| {
            let owner = (task.id.clone(), task.service_id.clone());
            (has_terminal(Some(&*task.spec)), BTreeMap::from([owner]))
        })
    })??;
    log_answer(&ctx, &params, tty, owners).await
}

/// Whether containers of a template have a terminal: their logs are not framed.
pub(super) fn has_terminal(template: Option<&docker::TaskSpec>) -> bool {
    let container = template.and_then(|t| t.container_spec.as_ref());
    container.and_then(|c| c.tty).unwrap_or(false)
}

/// The logs of tasks; `owners` maps them to their services.
pub(super) async fn log_answer(
    ctx: &ApiContext,
    params: &Params,
    tty: bool,
    owners: BTreeMap<String, String>,
) -> Answer {
    let (options, prefix) = stream::log_options(params)?;
    let details = params.flag("details");
    let lines = ctx.swarm.service_logs(owners.keys().cloned().collect(), options).await?;
    let chunks = lines.map(move |line| {
        let details = details.then(|| {
            // Ids are letters and digits: nothing in them needs escaping.
            format!(
                "com.docker.swarm.node.id={},com.docker.swarm.service.id={},com.docker.swarm.task.id={}",
                line.node_id,
                owners.get(&line.task_id).map_or("", String::as_str),
                line.task_id
            )
        });
        let text = prefix.put(line.time, details.as_deref(), &line.line);
        if tty { Bytes::from(text) } else { stream::frame(line.stderr, &text) }
    });
    let content_type = if tty { stream::RAW } else { stream::MULTIPLEXED };
    Ok(stream::streaming(content_type, chunks))
}
