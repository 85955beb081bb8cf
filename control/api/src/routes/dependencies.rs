//! Secrets and configs, which differ in whether their content is shown.
use super::{created, done, no_content, ok};
use crate::{
    context::ApiContext,
    convert::dependencies::dependency,
    error::{Answer, ApiError},
    filters::Filters,
    lookup,
    params::{self, Params},
};
use axum::{
    Router,
    body::Body,
    extract::{Path, State},
    routing::{get, post},
};
use serde_json::{Value, json};
use shoal_model::{Dependency, DependencyKind, DependencySpec};

/// Docker knows `names` for secrets only.
fn filters(kind: DependencyKind) -> &'static [&'static str] {
    match kind {
        DependencyKind::Secret => &["id", "name", "label", "names"],
        DependencyKind::Config => &["id", "name", "label"],
    }
}

pub(super) fn routes() -> Router<ApiContext> {
    of("/secrets", DependencyKind::Secret).merge(of("/configs", DependencyKind::Config))
}

fn of(path: &str, kind: DependencyKind) -> Router<ApiContext> {
    let list = move |ctx, params| list(kind, ctx, params);
    let create = move |ctx, body| create(kind, ctx, body);
    let inspect = move |ctx, reference| inspect(kind, ctx, reference);
    let remove = move |ctx, reference| remove(kind, ctx, reference);
    let update = move |ctx, reference, params, body| update(kind, ctx, reference, params, body);
    Router::new()
        .route(path, get(list))
        .route(&format!("{path}/create"), post(create))
        .route(&format!("{path}/{{id}}"), get(inspect).delete(remove))
        .route(&format!("{path}/{{id}}/update"), post(update))
}

async fn list(kind: DependencyKind, State(ctx): State<ApiContext>, params: Params) -> Answer {
    let filters = Filters::parse(params.get("filters"), filters(kind))?;
    let all: Vec<Value> = ctx.read(|state| {
        let all = state.dependencies(kind).values().filter(|one| matches(&filters, one));
        all.map(|one| dependency(kind, one)).collect()
    })?;
    Ok(ok(all.into()))
}

fn matches(filters: &Filters, one: &Dependency) -> bool {
    filters.prefix("id", &one.id)
        && filters.prefix("name", &one.name)
        && filters.exact("names", &one.name)
        && filters.labels("label", |name| one.labels.get(name).map(String::as_str))
}

async fn create(kind: DependencyKind, State(ctx): State<ApiContext>, body: Body) -> Answer {
    let spec: DependencySpec = params::json(body).await?;
    let id = ctx.swarm.create_dependency(kind, spec).await?;
    Ok(created(json!({ "ID": id })))
}

/// The id of what a user calls `reference`.
fn id_of(ctx: &ApiContext, kind: DependencyKind, reference: &str) -> Result<String, ApiError> {
    ctx.read(|state| lookup::dependency(state, kind, reference).map(|one| one.id.clone()))?
}

async fn inspect(
    kind: DependencyKind,
    State(ctx): State<ApiContext>,
    Path(reference): Path<String>,
) -> Answer {
    let found = ctx.read(|state| {
        lookup::dependency(state, kind, &reference).map(|one| dependency(kind, one))
    })?;
    Ok(ok(found?))
}

async fn remove(
    kind: DependencyKind,
    State(ctx): State<ApiContext>,
    Path(reference): Path<String>,
) -> Answer {
    let id = id_of(&ctx, kind, &reference)?;
    ctx.swarm.remove_dependency(kind, &id).await?;
    Ok(no_content())
}

async fn update(
    kind: DependencyKind,
    State(ctx): State<ApiContext>,
    Path(reference): Path<String>,
    params: Params,
    body: Body,
) -> Answer {
    let version = params.version(kind.as_str())?;
    let spec: DependencySpec = params::json(body).await?;
    let id = id_of(&ctx, kind, &reference)?;
    ctx.swarm.update_dependency(kind, &id, version, spec).await?;
    Ok(done())
}
