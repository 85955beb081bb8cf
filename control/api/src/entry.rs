//! The way in: API versions, headers of every answer, and what no route matches.
use crate::{context::ApiContext, error::ApiError, params, routes};
use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::{HeaderValue, Uri, header, uri::PathAndQuery},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use std::sync::Arc;
use tower::ServiceExt;

/// The API's newest version: the one Docker 28 speaks.
pub(crate) const API_VERSION: ApiVersion = ApiVersion(1, 50);
/// The oldest version accepted, for docker-py and Ansible's modules.
pub(crate) const MIN_API_VERSION: ApiVersion = ApiVersion(1, 24);

/// Version a request is made in; in the extensions of every request.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct ApiVersion(pub(crate) u16, pub(crate) u16);

impl std::fmt::Display for ApiVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

/// All routes, with and without version prefix.
pub fn router(ctx: ApiContext) -> Router {
    let server: Arc<str> = format!("Shoal/{} (linux)", ctx.engine.version).into();
    let newest = middleware::from_fn_with_state(ctx.clone(), newest);
    let routes = routes::all().layer(newest).with_state(ctx);
    Router::new().fallback(move |request: Request| answer(routes.clone(), server.clone(), request))
}

/// Kinds of objects that are looked up in the cluster's state.
const OF_THE_CLUSTER: [&str; 6] = ["nodes", "services", "tasks", "networks", "secrets", "configs"];

/// On a manager, requests about the cluster's objects see everything that was acknowledged before them,
/// by whichever manager.
async fn newest(State(ctx): State<ApiContext>, request: Request, next: Next) -> Response {
    let path = request.uri().path().trim_start_matches('/');
    let kind = path.split('/').next().unwrap_or_default();
    // Creation looks nothing up here.
    let of_cluster = !path.ends_with("/create") && OF_THE_CLUSTER.contains(&kind)
        || matches!(path, "swarm" | "swarm/update" | "swarm/unlockkey");
    if of_cluster
        && ctx.swarm.info().control_available
        && let Err(refusal) = ctx.swarm.catch_up().await
    {
        return ApiError::from(refusal).into_response();
    }
    next.run(request).await
}

async fn answer(routes: Router, server: Arc<str>, mut request: Request) -> Response {
    let entered = enter(&mut request);
    // An answer before the body was read would reach the client as a broken connection. The one
    // body without bound is read by its handler.
    if request.uri().path() != "/images/load" {
        let (parts, body) = request.into_parts();
        request = Request::from_parts(parts, params::whole(body).await);
    }
    let mut response = match entered {
        Ok(()) => match routes.oneshot(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        },
        Err(e) => e.into_response(),
    };
    let headers = response.headers_mut();
    headers.insert("Api-Version", HeaderValue::from_static("1.50"));
    headers.insert("Docker-Experimental", HeaderValue::from_static("false"));
    headers.insert("Ostype", HeaderValue::from_static("linux"));
    if let Ok(server) = HeaderValue::from_str(&server) {
        headers.insert(header::SERVER, server);
    }
    response
}

/// Takes the version off the path and checks it.
fn enter(request: &mut Request<Body>) -> Result<(), ApiError> {
    let path = request.uri().path();
    let (version, bare) = match split(path) {
        Some((version, bare)) => (check(version)?, bare.to_owned()),
        None => (API_VERSION, path.to_owned()),
    };
    let rest = match request.uri().query() {
        Some(query) => format!("{bare}?{query}"),
        None => bare,
    };
    let mut parts = request.uri().clone().into_parts();
    parts.path_and_query =
        Some(PathAndQuery::try_from(rest).map_err(|_| ApiError::not_found("page not found"))?);
    *request.uri_mut() = Uri::from_parts(parts).map_err(|e| ApiError::bad(e.to_string()))?;
    request.extensions_mut().insert(version);
    Ok(())
}

/// `/v1.50/x` → (`1.50`, `/x`).
fn split(path: &str) -> Option<(&str, &str)> {
    let rest = path.strip_prefix("/v")?;
    let (version, _) = rest.split_once('/')?;
    let digits = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit());
    let (major, minor) = version.split_once('.')?;
    (digits(major) && digits(minor)).then(|| (version, &rest[version.len()..]))
}

fn check(text: &str) -> Result<ApiVersion, ApiError> {
    let number = |t: &str| t.parse().unwrap_or(u16::MAX);
    let (major, minor) = text.split_once('.').unwrap_or((text, "0"));
    let version = ApiVersion(number(major), number(minor));
    if version < MIN_API_VERSION {
        return Err(ApiError::bad(format!(
            "client version {text} is too old. Minimum supported API version is {MIN_API_VERSION}, please upgrade your client to a newer version"
        )));
    }
    if version > API_VERSION {
        return Err(ApiError::bad(format!(
            "client version {text} is too new. Maximum supported API version is {API_VERSION}"
        )));
    }
    Ok(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_version_is_taken_off_the_path() {
        assert_eq!(split("/v1.50/info"), Some(("1.50", "/info")));
        assert_eq!(split("/v1.24/a/v1.2/b"), Some(("1.24", "/a/v1.2/b")));
        for path in ["/info", "/v1/info", "/v1.50", "/v1.x/info", "/volumes", "/v./x"] {
            assert_eq!(split(path), None, "{path}");
        }
    }

    #[test]
    fn versions_outside_the_range_are_refused_in_docker_s_words() {
        assert_eq!(check("1.44"), Ok(ApiVersion(1, 44)));
        assert_eq!(
            check("1.10").unwrap_err().message,
            "client version 1.10 is too old. Minimum supported API version is 1.24, please upgrade your client to a newer version"
        );
        assert_eq!(
            check("9.99").unwrap_err().message,
            "client version 9.99 is too new. Maximum supported API version is 1.50"
        );
        assert!(check("1.99999999").is_err());
    }

    #[test]
    fn the_header_names_the_newest_version() {
        assert_eq!(API_VERSION.to_string(), "1.50");
    }
}
