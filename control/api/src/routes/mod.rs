//! Routes, one file per kind of object.
mod absent;
mod containers;
mod dependencies;
mod events;
mod exec;
mod images;
mod networks;
mod nodes;
mod services;
mod swarm;
mod system;
mod tasks;

use crate::{context::ApiContext, error::ApiError};
use axum::{
    Json, Router,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde_json::Value;

/// All routes, without version prefix.
pub(crate) fn all() -> Router<ApiContext> {
    Router::new()
        .merge(system::routes())
        .merge(swarm::routes())
        .merge(nodes::routes())
        .merge(services::routes())
        .merge(tasks::routes())
        .merge(networks::routes())
        .merge(dependencies::routes())
        .merge(events::routes())
        .merge(images::routes())
        .merge(containers::routes())
        .merge(exec::routes())
        .merge(absent::routes())
        .fallback(page_not_found)
        .method_not_allowed_fallback(page_not_found)
}

async fn page_not_found() -> ApiError {
    ApiError::not_found("page not found")
}

fn ok(value: Value) -> Response {
    Json(value).into_response()
}

fn created(value: Value) -> Response {
    (StatusCode::CREATED, Json(value)).into_response()
}

fn done() -> Response {
    StatusCode::OK.into_response()
}

fn no_content() -> Response {
    StatusCode::NO_CONTENT.into_response()
}
