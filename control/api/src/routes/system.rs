//! Ping, version, info.
use super::ok;
use crate::{
    context::{ApiContext, EngineInfo},
    convert::{self, generic_resources},
    entry::{API_VERSION, MIN_API_VERSION},
    error::Answer,
};
use axum::{
    Router,
    extract::State,
    http::{Method, header},
    response::IntoResponse,
    routing::get,
};
use serde_json::{Map, Value, json};
use shoal_model::{PluginKind, Timestamp};

pub(super) fn routes() -> Router<ApiContext> {
    Router::new()
        .route("/_ping", get(ping))
        .route("/version", get(version))
        .route("/info", get(info))
}

async fn ping(State(ctx): State<ApiContext>, method: Method) -> impl IntoResponse {
    let headers = [
        (header::CACHE_CONTROL, "no-cache, no-store, must-revalidate"),
        (header::PRAGMA, "no-cache"),
        (header::CONTENT_TYPE, "text/plain; charset=utf-8"),
    ];
    let swarm = [("Swarm", convert::swarm::ping_word(&ctx.swarm.info()))];
    (headers, swarm, if method == Method::HEAD { "" } else { "OK" })
}

async fn version(State(ctx): State<ApiContext>) -> Answer {
    let e = &ctx.engine;
    let (api, min) = (API_VERSION.to_string(), MIN_API_VERSION.to_string());
    Ok(ok(json!({
        "Platform": { "Name": "Shoal" },
        "Version": e.version,
        "ApiVersion": api,
        "MinAPIVersion": min,
        "GitCommit": e.git_commit,
        "GoVersion": "",
        "Os": "linux",
        "Arch": go_arch(&e.architecture),
        "KernelVersion": e.kernel_version,
        "Components": [{
            "Name": "Engine",
            "Version": e.version,
            "Details": {
                "ApiVersion": api,
                "MinAPIVersion": min,
                "GitCommit": e.git_commit,
                "Os": "linux",
                "Arch": go_arch(&e.architecture),
                "KernelVersion": e.kernel_version,
                "Experimental": "false",
            },
        }],
    })))
}

/// Go's word for a machine.
pub(super) fn go_arch(machine: &str) -> &str {
    match machine {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

async fn info(State(ctx): State<ApiContext>) -> Answer {
    let e = ctx.engine.clone();
    let containers = ctx.runtime.list();
    let count = |state: &str| {
        containers.iter().filter(|c| convert::containers::state_word(c) == state).count()
    };
    let images = ctx.images.clone();
    let images = tokio::task::spawn_blocking(move || images.list()).await??;
    let membership = ctx.swarm.info();
    let swarm = match membership.control_available {
        true => {
            ctx.read(|state| convert::swarm::info(&membership, Some(state))).unwrap_or_else(|e| {
                let mut without = convert::swarm::info(&membership, None);
                without["Error"] = Value::String(e.message);
                without
            })
        }
        false => convert::swarm::info(&membership, None),
    };
    let labels: Vec<String> = e.labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
    let mut out = host(&e, labels);
    out.extend(abilities());
    out.extend(object(json!({
        "Containers": containers.len(),
        "ContainersRunning": count("running"),
        "ContainersPaused": count("paused"),
        "ContainersStopped": containers.len() - count("running") - count("paused"),
        "Images": images.len(),
        "SystemTime": crate::times::rfc3339(now()),
        "Swarm": swarm,
        "Warnings": null,
    })));
    Ok(ok(Value::Object(out)))
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

fn host(e: &EngineInfo, labels: Vec<String>) -> Map<String, Value> {
    object(json!({
        "ID": e.id,
        "Name": e.hostname,
        "ServerVersion": e.version,
        "KernelVersion": e.kernel_version,
        "OperatingSystem": e.operating_system,
        "OSType": "linux",
        "Architecture": e.architecture,
        "NCPU": e.cpus,
        "MemTotal": e.memory_bytes,
        "DockerRootDir": e.data_root.to_string_lossy(),
        "Labels": labels,
        "Plugins": {
            "Volume": plugins(e, PluginKind::Volume),
            "Network": plugins(e, PluginKind::Network),
            "Authorization": null,
            "Log": plugins(e, PluginKind::Log),
        },
        "GenericResources": generic_resources(&e.generic_resources),
        "Debug": e.debug,
        "HttpProxy": "",
        "HttpsProxy": "",
        "NoProxy": "",
    }))
}

fn plugins(e: &EngineInfo, kind: PluginKind) -> Vec<&str> {
    e.plugins.iter().filter(|p| p.kind == kind).map(|p| p.name.as_str()).collect()
}

/// What holds for every node of this version.
fn abilities() -> Map<String, Value> {
    object(json!({
        "Driver": "overlay2",
        "DriverStatus": [],
        "LoggingDriver": "json-file",
        "CgroupDriver": "cgroupfs",
        "MemoryLimit": true,
        "SwapLimit": false,
        "CpuCfsPeriod": true,
        "CpuCfsQuota": true,
        "PidsLimit": true,
        "IPv4Forwarding": true,
        "IndexServerAddress": "",
        "RegistryConfig": null,
        "ExperimentalBuild": false,
        "Runtimes": { "shoal": { "path": "shoal" } },
        "DefaultRuntime": "shoal",
        "LiveRestoreEnabled": true,
        "Isolation": "",
        "InitBinary": "",
        "ContainerdCommit": { "ID": "" },
        "RuncCommit": { "ID": "" },
        "InitCommit": { "ID": "" },
        "SecurityOptions": ["name=seccomp,profile=builtin"],
    }))
}

/// The shell's clock.
pub(super) fn now() -> Timestamp {
    Timestamp(chrono::Utc::now().timestamp_nanos_opt().unwrap_or(i64::MAX))
}
