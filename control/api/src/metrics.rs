//! The route Prometheus reads.
use axum::{Router, http::header, routing::get};

/// A router with `GET /metrics`; `gather` gives the text of Prometheus' exposition format.
pub fn metrics_router(gather: impl Fn() -> String + Clone + Send + Sync + 'static) -> Router {
    let answer = move || {
        let text = gather();
        std::future::ready(([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text))
    };
    Router::new().route("/metrics", get(answer))
}
