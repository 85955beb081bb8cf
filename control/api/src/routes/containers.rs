//! Containers of this node: those of tasks. Others cannot be made in this version.
use super::{created, no_content, ok};
use crate::{
    context::ApiContext,
    convert::containers as convert,
    error::{Answer, ApiError},
    filters::Filters,
    params::Params,
    stream,
};
use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Path, State},
    http::{StatusCode, header},
    response::IntoResponse,
    routing::{any, get, post},
};
use chrono::{DateTime, Utc};
use futures_util::StreamExt;
use serde_json::{Map, Value, json};
use shoal_containers::{ContainerInfo, ContainerState, LogOptions, Stream};
use shoal_model::Timestamp;
use std::{convert::Infallible, time::Duration};

const FILTERS: [&str; 6] = ["id", "name", "label", "status", "ancestor", "exited"];
const STATES: [&str; 7] =
    ["created", "running", "paused", "restarting", "removing", "exited", "dead"];

pub(super) fn routes() -> Router<ApiContext> {
    Router::new()
        .route("/containers/json", get(list))
        .route("/containers/create", post(create))
        .route("/containers/prune", post(prune))
        .route("/containers/{id}", axum::routing::delete(remove))
        .route("/containers/{id}/json", get(inspect))
        .route("/containers/{id}/logs", get(logs))
        .route("/containers/{id}/start", post(start))
        .route("/containers/{id}/stop", post(stop))
        .route("/containers/{id}/kill", post(kill))
        .route("/containers/{id}/wait", post(wait))
        .route("/containers/{id}/resize", post(resize))
        .route("/containers/{id}/{action}", any(other))
}

/// Networks of a container, where this node can ask the cluster.
fn networks(ctx: &ApiContext, container: &ContainerInfo) -> Map<String, Value> {
    ctx.read(|state| convert::networks(state, container)).unwrap_or_default()
}

async fn list(State(ctx): State<ApiContext>, params: Params) -> Answer {
    let filters = Filters::parse(params.get("filters"), &FILTERS)?;
    if params.flag("size") {
        return Err(ApiError::absent("sizes of containers (size) are"));
    }
    for status in filters.values("status") {
        if !STATES.contains(&status) {
            return Err(ApiError::bad(format!("invalid filter 'status={status}'")));
        }
    }
    for code in filters.values("exited") {
        code.parse::<i32>()
            .map_err(|_| ApiError::bad(format!("invalid filter 'exited={code}'")))?;
    }
    let limit = params.number::<i64>("limit")?.and_then(|n| usize::try_from(n).ok());
    let limit = limit.filter(|n| *n > 0);
    let all =
        params.flag("all") || limit.is_some() || filters.has("status") || filters.has("exited");
    let mut containers = ctx.runtime.list();
    containers.retain(|c| (all || c.state == ContainerState::Running) && matches(&filters, c));
    containers.sort_by_key(|c| std::cmp::Reverse(c.created));
    containers.truncate(limit.unwrap_or(usize::MAX));
    let now = Utc::now();
    let out = containers.iter().map(|c| convert::summary(c, &networks(&ctx, c), now));
    Ok(ok(out.collect()))
}

fn matches(filters: &Filters, c: &ContainerInfo) -> bool {
    let code = match &c.state {
        ContainerState::Exited(e) => e.code.to_string(),
        _ => String::new(),
    };
    filters.prefix("id", &c.id)
        && filters.any("name", |v| c.name.contains(v.trim_start_matches('/')))
        && filters.exact("status", convert::state_word(c))
        && filters.exact("exited", &code)
        && filters.any("ancestor", |v| {
            c.image == v || c.image_id == v || c.image.split(':').next() == Some(v)
        })
        && filters.labels("label", |name| c.labels.get(name).map(String::as_str))
}

async fn create() -> ApiError {
    ApiError::absent(
        "single containers (docker run, docker create) are not possible: run a service (docker service create); they are",
    )
}

async fn prune() -> ApiError {
    ApiError::absent("pruning containers is")
}

async fn inspect(State(ctx): State<ApiContext>, Path(id): Path<String>, params: Params) -> Answer {
    if params.flag("size") {
        return Err(ApiError::absent("sizes of containers (size) are"));
    }
    let container = ctx.runtime.inspect(&id)?;
    Ok(ok(convert::container(&container, &networks(&ctx, &container))))
}

async fn logs(State(ctx): State<ApiContext>, Path(id): Path<String>, params: Params) -> Answer {
    let tty = ctx.runtime.inspect(&id)?.spec.tty;
    let (wanted, prefix) = stream::log_options(&params)?;
    let time = |t: Timestamp| DateTime::<Utc>::from_timestamp_nanos(t.0);
    let options = LogOptions {
        stdout: wanted.stdout,
        stderr: wanted.stderr,
        since: wanted.since.map(time),
        until: stream::time_param(&params, "until")?.map(time),
        tail: wanted.tail.map(|n| usize::try_from(n).unwrap_or(usize::MAX)),
        follow: wanted.follow,
    };
    // Containers here have no log labels: there are no details to put in front.
    let details = params.flag("details").then_some("");
    let entries = ctx.runtime.logs(&id, options)?;
    let chunks = entries.map(move |entry| match entry {
        Ok(entry) => {
            let at = Timestamp(entry.time.timestamp_nanos_opt().unwrap_or(0));
            let text = prefix.put(at, details, &entry.line);
            if tty {
                Bytes::from(text)
            } else {
                stream::frame(entry.stream == Stream::Stderr, &text)
            }
        }
        Err(e) => stream::error_frame(&e.to_string()),
    });
    Ok(stream::streaming(if tty { stream::RAW } else { stream::MULTIPLEXED }, chunks))
}

async fn start(State(ctx): State<ApiContext>, Path(id): Path<String>) -> Answer {
    ctx.runtime.start(&id).await?;
    Ok(no_content())
}

async fn stop(State(ctx): State<ApiContext>, Path(id): Path<String>, params: Params) -> Answer {
    if params.get("signal").is_some() {
        return Err(ApiError::absent("stopping by another signal (signal) is"));
    }
    if ctx.runtime.inspect(&id)?.state != ContainerState::Running {
        return Ok(StatusCode::NOT_MODIFIED.into_response());
    }
    let grace = params.number::<i64>("t")?.map(|seconds| {
        // Docker waits without end for a negative number; a year is as long.
        Duration::from_secs(u64::try_from(seconds).unwrap_or(365 * 86_400))
    });
    ctx.runtime.stop(&id, grace).await?;
    Ok(no_content())
}

async fn kill(State(ctx): State<ApiContext>, Path(id): Path<String>, params: Params) -> Answer {
    let name = params.get("signal").unwrap_or("KILL");
    let signal = shoal_containers::parse_signal(name)
        .ok_or_else(|| ApiError::bad(format!("invalid signal: {name}")))?;
    if ctx.runtime.inspect(&id)?.state != ContainerState::Running {
        return Err(ApiError::conflict(format!(
            "cannot kill container: {id}: container is not running"
        )));
    }
    ctx.runtime.signal(&id, signal).await?;
    Ok(no_content())
}

/// The headers go out at once, the body when the container has ended: clients start it in between.
async fn wait(State(ctx): State<ApiContext>, Path(id): Path<String>, params: Params) -> Answer {
    let container = ctx.runtime.inspect(&id)?;
    let ended = matches!(container.state, ContainerState::Exited(_));
    match params.get("condition") {
        None | Some("not-running") => {}
        Some("next-exit") if !ended => {}
        Some(other @ ("next-exit" | "removed")) => {
            return Err(ApiError::absent(&format!("waiting for {other} of an ended container is")));
        }
        Some(other) => return Err(ApiError::bad(format!("invalid condition: \"{other}\""))),
    }
    let body = futures_util::stream::once(async move {
        let answer = match ctx.runtime.wait(&container.id).await {
            Ok(status) => json!({ "StatusCode": status.code }),
            Err(e) => json!({ "StatusCode": 255, "Error": { "Message": e.to_string() } }),
        };
        Ok::<_, Infallible>(Bytes::from(answer.to_string()))
    });
    let body = Body::from_stream(body);
    Ok((StatusCode::OK, [(header::CONTENT_TYPE, "application/json")], body).into_response())
}

async fn resize(State(ctx): State<ApiContext>, Path(id): Path<String>, params: Params) -> Answer {
    let (rows, columns) = terminal_size(&params)?;
    ctx.runtime.resize(&id, rows, columns).await?;
    Ok(super::done())
}

/// `h` and `w` of a resize.
pub(super) fn terminal_size(params: &Params) -> Result<(u16, u16), ApiError> {
    let missing = |key: &str| ApiError::bad(format!("{key} is missing: give the terminal's size"));
    let rows = params.number("h")?.ok_or_else(|| missing("h"))?;
    Ok((rows, params.number("w")?.ok_or_else(|| missing("w"))?))
}

async fn remove(State(ctx): State<ApiContext>, Path(id): Path<String>, params: Params) -> Answer {
    if params.flag("link") {
        return Err(ApiError::absent("removing links (link) is"));
    }
    ctx.runtime.remove(&id, params.flag("force")).await?;
    Ok(no_content())
}

async fn other(
    State(ctx): State<ApiContext>,
    Path((id, action)): Path<(String, String)>,
) -> Answer {
    const KNOWN: [&str; 14] = [
        "attach",
        "archive",
        "changes",
        "export",
        "pause",
        "unpause",
        "rename",
        "restart",
        "stats",
        "top",
        "update",
        "checkpoints",
        "commit",
        "exec",
    ];
    if !KNOWN.contains(&action.as_str()) {
        return Err(ApiError::not_found("page not found"));
    }
    ctx.runtime.inspect(&id)?;
    Err(ApiError::absent(&format!("{action} of a container is")))
}

/// Used by exec, which shares the path.
pub(super) fn created_id(id: &str) -> axum::response::Response {
    created(json!({ "Id": id }))
}
