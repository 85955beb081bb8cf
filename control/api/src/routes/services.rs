//! Services.
use super::{created, done, ok, tasks};
use crate::{
    context::ApiContext,
    convert::{self, canonical::canonical},
    error::{Answer, ApiError},
    filters::{Filters, in_labels},
    lookup,
    params::{self, Params},
};
use axum::{
    Router,
    body::Body,
    extract::{Path, State},
    http::HeaderMap,
    routing::{get, post},
};
use serde_json::{Value, json};
use shoal_model::{Service, docker};

const FILTERS: [&str; 5] = ["id", "name", "label", "mode", "runtime"];

pub(super) fn routes() -> Router<ApiContext> {
    Router::new()
        .route("/services", get(list))
        .route("/services/create", post(create))
        .route("/services/{service}", get(inspect).delete(remove))
        .route("/services/{service}/update", post(update))
        .route("/services/{service}/logs", get(logs))
}

async fn list(State(ctx): State<ApiContext>, params: Params) -> Answer {
    let filters = Filters::parse(params.get("filters"), &FILTERS)?;
    let (status, defaults) = (params.flag("status"), params.flag("insertDefaults"));
    let services: Vec<Value> = ctx.read(|state| {
        let matching = state.services.values().filter(|s| matches(&filters, s));
        matching.map(|s| convert::services::service(state, s, defaults, status)).collect()
    })?;
    Ok(ok(services.into()))
}

fn matches(filters: &Filters, service: &Service) -> bool {
    let mode = service.mode().as_str();
    filters.prefix("id", &service.id)
        && filters.prefix("name", service.name())
        && filters.exact("mode", mode)
        && filters.exact("runtime", "container")
        && filters.labels("label", in_labels(&service.spec.labels))
}

async fn create(State(ctx): State<ApiContext>, headers: HeaderMap, body: Body) -> Answer {
    refuse_credentials(&headers)?;
    let spec = specification(body).await?;
    let id = ctx.swarm.create_service(spec).await?;
    Ok(created(json!({ "ID": id, "Warnings": null })))
}

/// A specification in its one form.
async fn specification(body: Body) -> Result<docker::ServiceSpec, ApiError> {
    let value = canonical(params::json(body).await?);
    serde_json::from_value(value).map_err(|e| ApiError::bad(format!("invalid JSON: {e}")))
}

/// Nodes run loaded images only: credentials for a registry would be ignored.
fn refuse_credentials(headers: &HeaderMap) -> Result<(), ApiError> {
    // base64 of `{}`, which clients send without credentials.
    const NONE: [&[u8]; 3] = [b"", b"e30=", b"e30"];
    match headers.get("X-Registry-Auth") {
        Some(auth) if !NONE.contains(&auth.as_bytes()) => {
            Err(ApiError::absent("registry credentials (--with-registry-auth) are"))
        }
        _ => Ok(()),
    }
}

async fn inspect(
    State(ctx): State<ApiContext>,
    Path(reference): Path<String>,
    params: Params,
) -> Answer {
    let defaults = params.flag("insertDefaults");
    let service = ctx.read(|state| {
        lookup::service(state, &reference)
            .map(|s| convert::services::service(state, s, defaults, false))
    })??;
    Ok(ok(service))
}

async fn update(
    State(ctx): State<ApiContext>,
    Path(reference): Path<String>,
    params: Params,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let version = params.version("service")?;
    let rollback = match params.get("rollback") {
        None | Some("none") => false,
        Some("previous") => true,
        Some(other) => {
            return Err(ApiError::bad(format!(
                "unrecognized rollback option {other}: use previous or none"
            )));
        }
    };
    if let Some(from) = params.get("registryAuthFrom")
        && !["spec", "previous-spec"].contains(&from)
    {
        return Err(ApiError::bad(format!("unsupported registryAuthFrom value: {from:?}")));
    }
    refuse_credentials(&headers)?;
    let spec = specification(body).await?;
    let id = id(&ctx, &reference)?;
    ctx.swarm.update_service(&id, version, spec, rollback).await?;
    Ok(ok(json!({ "Warnings": null })))
}

async fn remove(State(ctx): State<ApiContext>, Path(reference): Path<String>) -> Answer {
    let id = id(&ctx, &reference)?;
    ctx.swarm.remove_service(&id).await?;
    Ok(done())
}

fn id(ctx: &ApiContext, reference: &str) -> Result<String, ApiError> {
    ctx.read(|state| lookup::service(state, reference).map(|s| s.id.clone()))?
}

async fn logs(
    State(ctx): State<ApiContext>,
    Path(reference): Path<String>,
    params: Params,
) -> Answer {
    let (tty, tasks) = ctx.read(|state| {
        lookup::service(state, &reference).map(|service| {
            let template = service.spec.task_template.as_ref();
            let tasks = state.tasks_of_service(&service.id).filter(|t| t.node_id.is_some());
            let owners = tasks.map(|t| (t.id.clone(), service.id.clone())).collect();
            (tasks::has_terminal(template), owners)
        })
    })??;
    tasks::log_answer(&ctx, &params, tty, tasks).await
}
