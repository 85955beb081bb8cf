//! Making, joining, changing and leaving a cluster.
use super::{done, ok};
use crate::{
    context::ApiContext,
    convert,
    error::{Answer, ApiError},
    params::{self, Params},
};
use axum::{
    Router,
    body::Body,
    extract::State,
    routing::{get, post},
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};
use shoal_model::{Availability, ControlError, ErrorKind, Rotations, docker};

pub(super) fn routes() -> Router<ApiContext> {
    Router::new()
        .route("/swarm", get(inspect))
        .route("/swarm/init", post(init))
        .route("/swarm/join", post(join))
        .route("/swarm/leave", post(leave))
        .route("/swarm/update", post(update))
        .route("/swarm/unlockkey", get(unlock_key))
        .route("/swarm/unlock", post(unlock))
}

/// What clients send beside the fields of Docker's published models.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Beside {
    availability: Option<String>,
}

/// A body and what stands beside its model.
async fn request<T: DeserializeOwned>(body: Body) -> Result<(T, Availability), ApiError> {
    let mut value: Value = params::json(body).await?;
    let beside = Beside::deserialize(&value).map_err(not_understood)?;
    if let Some(spec) = value.get_mut("Spec") {
        check_protocols(spec)?;
    }
    let availability = match beside.availability.as_deref().unwrap_or_default() {
        "" | "active" => Availability::Active,
        "pause" => Availability::Pause,
        "drain" => Availability::Drain,
        other => return Err(ApiError::bad(format!("invalid Availability: {other:?}"))),
    };
    Ok((serde_json::from_value(value).map_err(not_understood)?, availability))
}

fn not_understood(error: serde_json::Error) -> ApiError {
    ApiError::bad(format!("invalid JSON: {error}"))
}

/// The protocols of external CAs, in whatever case; of others Docker's words, not the parser's.
fn check_protocols(spec: &mut Value) -> Result<(), ApiError> {
    let all = spec.pointer_mut("/CAConfig/ExternalCAs").and_then(Value::as_array_mut);
    for protocol in all.into_iter().flatten().filter_map(|ca| ca.get_mut("Protocol")) {
        match protocol.as_str() {
            Some(text) if text.eq_ignore_ascii_case("cfssl") => *protocol = "cfssl".into(),
            _ => return Err(ApiError::bad(format!("invalid protocol: {protocol}"))),
        }
    }
    Ok(())
}

async fn inspect(State(ctx): State<ApiContext>) -> Answer {
    let cluster = ctx.read(|state| state.cluster.as_ref().map(convert::swarm::swarm))?;
    cluster.map(ok).ok_or_else(no_cluster)
}

fn no_cluster() -> ApiError {
    ControlError::new(ErrorKind::Unavailable, "the cluster is not there yet; try again").into()
}

async fn init(State(ctx): State<ApiContext>, body: Body) -> Answer {
    let (request, availability): (docker::SwarmInitRequest, _) = request(body).await?;
    if let Some(spec) = &request.spec {
        check(spec)?;
    }
    Ok(ok(json!(ctx.swarm.init(request, availability).await?)))
}

async fn join(State(ctx): State<ApiContext>, body: Body) -> Answer {
    let (request, availability): (docker::SwarmJoinRequest, _) = request(body).await?;
    ctx.swarm.join(request, availability).await?;
    Ok(done())
}

async fn leave(State(ctx): State<ApiContext>, params: Params) -> Answer {
    ctx.swarm.leave(params.flag("force")).await?;
    Ok(done())
}

async fn update(State(ctx): State<ApiContext>, params: Params, body: Body) -> Answer {
    let version = params.version("swarm")?;
    let mut spec: Value = params::json(body).await?;
    check_protocols(&mut spec)?;
    let spec: docker::SwarmSpec = serde_json::from_value(spec).map_err(not_understood)?;
    check(&spec)?;
    let rotate = Rotations {
        worker_token: params.flag("rotateWorkerToken"),
        manager_token: params.flag("rotateManagerToken"),
        unlock_key: params.flag("rotateManagerUnlockKey"),
    };
    ctx.swarm.update_swarm(version, spec, rotate).await?;
    Ok(done())
}

fn is_set(text: &Option<String>) -> bool {
    text.as_ref().is_some_and(|text| !text.is_empty())
}

/// Refuses settings this version would have to ignore.
fn check(spec: &docker::SwarmSpec) -> Result<(), ApiError> {
    let log_driver = spec.task_defaults.as_ref().and_then(|d| d.log_driver.as_ref());
    if log_driver.is_some_and(|d| is_set(&d.name)) {
        return Err(ApiError::absent("a default log driver (TaskDefaults.LogDriver) is"));
    }
    Ok(())
}

/// The key that unlocks managers; empty while they lock nothing.
async fn unlock_key(State(ctx): State<ApiContext>) -> Answer {
    let key = ctx.read(|state| state.cluster.as_ref().and_then(|c| c.unlock_key.clone()))?;
    Ok(ok(json!({ "UnlockKey": key.unwrap_or_default() })))
}

async fn unlock(State(ctx): State<ApiContext>, body: Body) -> Answer {
    let request: docker::SwarmUnlockRequest = params::json(body).await?;
    ctx.swarm.unlock(request.unlock_key.as_deref().unwrap_or_default()).await?;
    Ok(done())
}
