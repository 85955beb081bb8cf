//! Nodes.
use super::{done, ok};
use crate::{
    context::ApiContext,
    convert::{self, swarm::Roots},
    error::Answer,
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
use serde_json::Value;
use shoal_model::{Node, Role, docker};

const FILTERS: [&str; 6] = ["id", "name", "label", "node.label", "role", "membership"];

pub(super) fn routes() -> Router<ApiContext> {
    Router::new()
        .route("/nodes", get(list))
        .route("/nodes/{node}", get(inspect).delete(remove))
        .route("/nodes/{node}/update", post(update))
}

async fn list(State(ctx): State<ApiContext>, params: Params) -> Answer {
    let filters = Filters::parse(params.get("filters"), &FILTERS)?;
    let leader = ctx.swarm.info().leader;
    let nodes: Vec<Value> = ctx.read(|state| {
        let matching = state.nodes.values().filter(|n| matches(&filters, n));
        let roots = Roots::of(state.cluster.as_ref());
        matching.map(|n| convert::nodes::node(n, &roots, leader.as_deref())).collect()
    })?;
    Ok(ok(nodes.into()))
}

fn matches(filters: &Filters, node: &Node) -> bool {
    let role = match node.role {
        Role::Worker => "worker",
        Role::Manager => "manager",
    };
    let engine = |name: &str| {
        node.description.as_ref().and_then(|d| d.engine_labels.get(name)).map(String::as_str)
    };
    let label = |name: &str| node.labels.get(name).map(String::as_str);
    filters.prefix("id", &node.id)
        && filters.prefix("name", node.hostname())
        && filters.exact("role", role)
        // Nodes become members by their token alone: none waits for acceptance.
        && filters.exact("membership", "accepted")
        && filters.labels("label", |name| engine(name).or_else(|| label(name)))
        && filters.labels("node.label", label)
}

async fn inspect(State(ctx): State<ApiContext>, Path(reference): Path<String>) -> Answer {
    let leader = ctx.swarm.info().leader;
    let node = ctx.read(|state| {
        let roots = Roots::of(state.cluster.as_ref());
        lookup::node(state, &reference).map(|n| convert::nodes::node(n, &roots, leader.as_deref()))
    })??;
    Ok(ok(node))
}

async fn remove(
    State(ctx): State<ApiContext>,
    Path(reference): Path<String>,
    params: Params,
) -> Answer {
    let id = id(&ctx, &reference)?;
    ctx.swarm.remove_node(&id, params.flag("force")).await?;
    Ok(done())
}

async fn update(
    State(ctx): State<ApiContext>,
    Path(reference): Path<String>,
    params: Params,
    body: Body,
) -> Answer {
    let version = params.version("node")?;
    let spec: docker::NodeSpec = params::json(body).await?;
    let id = id(&ctx, &reference)?;
    ctx.swarm.update_node(&id, version, spec).await?;
    Ok(done())
}

fn id(ctx: &ApiContext, reference: &str) -> Result<String, crate::error::ApiError> {
    ctx.read(|state| lookup::node(state, reference).map(|n| n.id.clone()))?
}
