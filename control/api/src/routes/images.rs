//! Images of this node.
use super::{created, ok, system::go_arch};
use crate::{
    context::ApiContext,
    error::{Answer, ApiError},
    filters::Filters,
    params::{self, Params},
    times,
};
use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Path, State},
    http::{StatusCode, header},
    response::IntoResponse,
    routing::{any, get, post},
};
use futures_util::StreamExt;
use serde_json::{Value, json};
use shoal_images::{Image, ImageStore, Removed};
use std::io::{self, Read};
use tokio::sync::mpsc;

const FILTERS: [&str; 3] = ["reference", "dangling", "label"];
/// Chunks of an uploaded archive between the network and the disk.
const UPLOAD_QUEUE: usize = 16;

pub(super) fn routes() -> Router<ApiContext> {
    Router::new()
        .route("/images/json", get(list))
        .route("/images/load", post(load))
        .route("/images/create", post(pull))
        .route("/images/get", get(save))
        .route("/images/prune", post(prune))
        // Names have slashes in them: what is asked of an image stands after its name.
        .route("/images/{*rest}", any(one))
        .route("/distribution/{*rest}", get(distribution))
}

/// Runs work on the store where it may block.
async fn blocking<R: Send + 'static>(
    ctx: &ApiContext,
    work: impl FnOnce(&ImageStore) -> Result<R, shoal_images::ImageError> + Send + 'static,
) -> Result<R, ApiError> {
    let images = ctx.images.clone();
    Ok(tokio::task::spawn_blocking(move || work(&images)).await??)
}

async fn list(State(ctx): State<ApiContext>, params: Params) -> Answer {
    let filters = Filters::parse(params.get("filters"), &FILTERS)?;
    let dangling = filters.flag("dangling")?;
    let images = blocking(&ctx, ImageStore::list).await?;
    let mut out: Vec<(i64, Value)> = images
        .iter()
        .filter(|i| dangling.is_none_or(|wanted| wanted == i.repo_tags.is_empty()))
        .filter(|i| {
            filters.labels("label", |name| i.config_json["config"]["Labels"][name].as_str())
        })
        .filter_map(|i| {
            let tags: Vec<&String> = i
                .repo_tags
                .iter()
                .filter(|tag| filters.any("reference", |pattern| names(pattern, tag)))
                .collect();
            (!tags.is_empty() || !filters.has("reference"))
                .then(|| (created_at(i), summary(i, &tags)))
        })
        .collect();
    out.sort_by_key(|(created, _)| std::cmp::Reverse(*created));
    Ok(ok(out.into_iter().map(|(_, image)| image).collect()))
}

fn summary(image: &Image, tags: &[&String]) -> Value {
    json!({
        "Id": image.id,
        "ParentId": "",
        "RepoTags": tags,
        "RepoDigests": image.repo_digests,
        "Created": created_at(image),
        "Size": image.size,
        "SharedSize": -1,
        "Labels": image.config_json["config"]["Labels"],
        "Containers": -1,
    })
}

/// Seconds since the epoch; 0 where the image does not say.
fn created_at(image: &Image) -> i64 {
    let time = image.created.as_deref().and_then(times::parse);
    time.map_or(0, |t| t.0.div_euclid(1_000_000_000))
}

/// Whether a `reference` pattern fits a name: with its tag, or without.
fn names(pattern: &str, name: &str) -> bool {
    let bare = name.rsplit_once(':').map_or(name, |(bare, _)| bare);
    glob(pattern.as_bytes(), name.as_bytes()) || glob(pattern.as_bytes(), bare.as_bytes())
}

/// `*` stands for any characters but `/`, `?` for one of them.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern, text) {
        ([], []) => true,
        ([b'*', rest @ ..], _) => {
            let reach = text.iter().position(|b| *b == b'/').unwrap_or(text.len());
            (0..=reach).any(|n| glob(rest, &text[n..]))
        }
        ([b'?', rest @ ..], [b, more @ ..]) => *b != b'/' && glob(rest, more),
        ([p, rest @ ..], [b, more @ ..]) => p == b && glob(rest, more),
        _ => false,
    }
}

async fn load(State(ctx): State<ApiContext>, params: Params, body: Body) -> Answer {
    if params.get("platform").is_some() {
        drop(params::whole(body).await);
        return Err(ApiError::absent("loading one platform of an image (platform) is"));
    }
    let (sender, receiver) = mpsc::channel(UPLOAD_QUEUE);
    let images = ctx.images.clone();
    let work = tokio::task::spawn_blocking(move || {
        images.load(Upload { chunks: receiver, rest: Bytes::new() })
    });
    let mut chunks = body.into_data_stream();
    // On an error the rest is still read: a client that is writing would not see the answer.
    while let Some(chunk) = chunks.next().await {
        let failed = chunk.is_err();
        // The receiver is gone when the work has ended; its result tells why.
        let _ = sender.send(chunk.map_err(io::Error::other)).await;
        if failed {
            break;
        }
    }
    drop(sender);
    let mut lines = String::new();
    for image in work.await?? {
        let mut put = |text: String| {
            lines.push_str(&json!({ "stream": text }).to_string());
            lines.push_str("\r\n");
        };
        if image.repo_tags.is_empty() {
            put(format!("Loaded image ID: {}\n", image.id));
        }
        for tag in &image.repo_tags {
            put(format!("Loaded image: {tag}\n"));
        }
    }
    Ok((StatusCode::OK, [(header::CONTENT_TYPE, "application/json")], lines).into_response())
}

/// An upload as the store reads it, on a thread that may block.
struct Upload {
    chunks: mpsc::Receiver<io::Result<Bytes>>,
    rest: Bytes,
}

impl Read for Upload {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            match self.chunks.blocking_recv() {
                Some(chunk) => self.rest = chunk?,
                None => return Ok(0),
            }
        }
        let n = out.len().min(self.rest.len());
        out[..n].copy_from_slice(&self.rest.split_to(n));
        Ok(n)
    }
}

async fn one(
    State(ctx): State<ApiContext>,
    Path(rest): Path<String>,
    method: axum::http::Method,
    params: Params,
) -> Answer {
    match (method.as_str(), rest.rsplit_once('/')) {
        ("GET" | "HEAD", Some((name, "json"))) => inspect(&ctx, name).await,
        ("GET" | "HEAD", Some((name, "history"))) => history(&ctx, name).await,
        ("POST", Some((name, "tag"))) => tag(&ctx, name, &params).await,
        ("DELETE", _) => remove(&ctx, rest).await,
        ("POST", Some((_, "push"))) => Err(ApiError::absent("pushing to a registry is")),
        _ => Err(ApiError::not_found("page not found")),
    }
}

async fn inspect(ctx: &ApiContext, name: &str) -> Answer {
    let name = name.to_owned();
    let image = blocking(ctx, move |images| images.resolve(&name)).await?;
    let config = &image.config_json;
    Ok(ok(json!({
        "Id": image.id,
        "RepoTags": image.repo_tags,
        "RepoDigests": image.repo_digests,
        "Parent": "",
        "Comment": "",
        "Created": image.created.clone().unwrap_or_else(|| times::ZERO.to_owned()),
        "DockerVersion": config["docker_version"].as_str().unwrap_or_default(),
        "Author": config["author"].as_str().unwrap_or_default(),
        "Config": config["config"],
        "Architecture": config["architecture"].as_str().unwrap_or_default(),
        "Variant": config["variant"].as_str().unwrap_or_default(),
        "Os": config["os"].as_str().unwrap_or_default(),
        "Size": image.size,
        "GraphDriver": { "Name": "overlay2", "Data": null },
        "RootFS": { "Type": "layers", "Layers": image.layers },
        "Metadata": { "LastTagTime": times::ZERO },
    })))
}

async fn history(ctx: &ApiContext, name: &str) -> Answer {
    let name = name.to_owned();
    let image = blocking(ctx, move |images| images.resolve(&name)).await?;
    let mut steps: Vec<Value> = Vec::new();
    for step in image.config_json["history"].as_array().into_iter().flatten() {
        let created = step["created"].as_str().and_then(times::parse);
        steps.push(json!({
            "Id": "<missing>",
            "Created": created.map_or(0, |t| t.0.div_euclid(1_000_000_000)),
            "CreatedBy": step["created_by"].as_str().unwrap_or_default(),
            "Tags": null,
            "Size": 0,
            "Comment": step["comment"].as_str().unwrap_or_default(),
        }));
    }
    steps.reverse();
    if let Some(top) = steps.first_mut() {
        top["Id"] = image.id.clone().into();
        top["Tags"] = json!(image.repo_tags);
    }
    Ok(ok(steps.into()))
}

async fn tag(ctx: &ApiContext, name: &str, params: &Params) -> Answer {
    let name = name.to_owned();
    let repo = params.get("repo").unwrap_or_default().to_owned();
    let reference = match params.get("tag") {
        Some(tag) => format!("{repo}:{tag}"),
        None => repo,
    };
    blocking(ctx, move |images| images.tag(&name, &reference)).await?;
    Ok(created(Value::Null))
}

async fn remove(ctx: &ApiContext, name: String) -> Answer {
    let removed = blocking(ctx, move |images| images.remove(&name)).await?;
    let lines = removed.into_iter().map(|r| match r {
        Removed::Untagged(name) => json!({ "Untagged": name }),
        Removed::Deleted(id) => json!({ "Deleted": id }),
    });
    Ok(ok(lines.collect()))
}

/// Clients ask this before they create a service, to pin the image. Only what an archive told of
/// its manifest is known here; otherwise the client warns and goes on.
async fn distribution(State(ctx): State<ApiContext>, Path(rest): Path<String>) -> Answer {
    let Some(name) = rest.strip_suffix("/json") else {
        return Err(ApiError::not_found("page not found"));
    };
    let asked = name.to_owned();
    let image = blocking(&ctx, move |images| images.resolve(&asked)).await?;
    let digest = image.repo_digests.iter().find_map(|d| d.split_once('@')).map(|(_, d)| d);
    let Some(digest) = digest else {
        return Err(ApiError::not_found(format!(
            "no manifest digest is known for {name}: it was loaded from an archive without one"
        )));
    };
    let platform = json!({
        "architecture": image.config_json["architecture"].as_str()
            .unwrap_or_else(|| go_arch(&ctx.engine.architecture)),
        "os": image.config_json["os"].as_str().unwrap_or("linux"),
    });
    Ok(ok(json!({ "Descriptor": { "digest": digest }, "Platforms": [platform] })))
}

async fn pull(params: Params) -> ApiError {
    let image = params.get("fromImage").unwrap_or("image").to_owned();
    ApiError::absent(&format!(
        "pulling from a registry ({image}) is not possible: load the image from an archive (docker load); registries are"
    ))
}

async fn save() -> ApiError {
    ApiError::absent("saving images is")
}

async fn prune() -> ApiError {
    ApiError::absent("pruning images is")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_of_names_work_as_docker_s() {
        assert!(names("busybox", "busybox:latest"));
        assert!(names("busybox:latest", "busybox:latest"));
        assert!(names("busy*", "busybox:1"));
        assert!(names("*:1", "busybox:1"));
        assert!(names("a/?", "a/b:1"));
        assert!(!names("busybox:2", "busybox:1"));
        assert!(!names("*", "a/b:1"));
        assert!(!names("box", "busybox:1"));
    }
}
