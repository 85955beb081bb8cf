//! What Docker has and this version has not: empty lists, honest 404s and clear refusals.
use super::ok;
use crate::{
    context::ApiContext,
    error::{Answer, ApiError},
};
use axum::{
    Router,
    extract::Path,
    routing::{any, get, post},
};
use serde_json::json;

pub(super) fn routes() -> Router<ApiContext> {
    Router::new()
        .route("/volumes", get(volume_list))
        .route("/volumes/create", post(volumes))
        .route("/volumes/prune", post(volumes))
        .route("/volumes/{name}", get(volume).delete(volume).put(volume))
        .route("/plugins", get(plugin_list))
        .route("/plugins/{*rest}", any(plugin))
        .route("/system/df", get(usage))
        .route("/auth", post(registry))
        .route("/images/search", get(registry))
        .route("/build", post(build))
        .route("/commit", post(build))
}

async fn volume_list() -> Answer {
    Ok(ok(json!({ "Volumes": [], "Warnings": null })))
}

async fn volume(Path(name): Path<String>) -> ApiError {
    ApiError::not_found(format!("get {name}: no such volume"))
}

async fn volumes() -> ApiError {
    ApiError::absent("volumes are")
}

async fn plugin_list() -> Answer {
    Ok(ok(json!([])))
}

async fn plugin(Path(rest): Path<String>) -> ApiError {
    let name = rest.strip_suffix("/json").unwrap_or(&rest);
    ApiError::not_found(format!("plugin \"{name}\" not found"))
}

async fn usage() -> ApiError {
    ApiError::absent("the summary of disk usage is")
}

async fn registry() -> ApiError {
    ApiError::absent("registries are")
}

async fn build() -> ApiError {
    ApiError::absent("building images is")
}
