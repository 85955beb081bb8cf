//! A cluster to measure, and looking at it often.

use anyhow::{Context as _, bail, ensure};
use serde_json::{Value, json};
use shoal_tests::{Cluster, WEB_IMAGE, patiently, wait_for, web_image};
use std::{
    thread,
    time::{Duration, Instant},
};

/// Between two looks: small against what is measured, and no load worth the name.
const LOOK: Duration = Duration::from_millis(10);
/// The longest anything here may take before the benchmark gives up.
const BOUND: Duration = Duration::from_secs(120);

/// Managers and workers on a network called `bench`, with the image, and a host outside.
pub(super) fn cluster(managers: usize, workers: usize) -> anyhow::Result<Cluster> {
    let cluster = Cluster::builder().nodes(managers + workers).clients(1).start()?;
    let first = cluster.node(0);
    let addr = first.addr().to_string();
    first.docker(&["swarm", "init", "--advertise-addr", &addr])?.ok()?;
    for (index, node) in cluster.nodes().iter().enumerate().skip(1) {
        let role = if index < managers { "manager" } else { "worker" };
        let token = first.docker(&["swarm", "join-token", "-q", role])?.ok()?;
        node.docker(&["swarm", "join", "--token", &token, &format!("{addr}:2377")])?.ok()?;
    }
    cluster.load_image(&web_image()?)?;
    whole(&cluster, managers)?;
    first.docker(&["network", "create", "-d", "overlay", "bench"])?.ok()?;
    Ok(cluster)
}

/// Waits until all nodes are ready and all managers reachable, as the first one sees them.
pub(super) fn whole(cluster: &Cluster, managers: usize) -> anyhow::Result<()> {
    let format = "{{.Status}}|{{.ManagerStatus}}";
    wait_for("a whole cluster", patiently(), || {
        let listing = cluster.node(0).docker(&["node", "ls", "--format", format])?.ok()?;
        let count = |what: &dyn Fn(&str) -> bool| listing.lines().filter(|line| what(line)).count();
        ensure!(count(&|line| line.starts_with("Ready|")) == cluster.nodes().len(), "{listing}");
        let managing = count(&|line| line.ends_with("|Leader") || line.ends_with("|Reachable"));
        ensure!(managing == managers, "{listing}");
        Ok(())
    })
}

/// The leader's index.
pub(super) fn leader(cluster: &Cluster, seen_by: usize) -> anyhow::Result<usize> {
    let args = ["node", "ls", "--format", "{{.Hostname}}|{{.ManagerStatus}}"];
    let listing = cluster.node(seen_by).docker(&args)?.ok()?;
    let name = listing.lines().find_map(|line| line.strip_suffix("|Leader"));
    let name = name.with_context(|| format!("nobody leads: {listing}"))?;
    cluster.nodes().iter().position(|n| n.name() == name).context("a leader of another cluster")
}

/// A node's id, as another knows it.
pub(super) fn node_id(cluster: &Cluster, by: usize, of: usize) -> anyhow::Result<String> {
    let name = cluster.node(of).name();
    cluster.node(by).docker(&["node", "inspect", "--format", "{{.ID}}", name])?.ok()
}

/// Looks until it is so, and says how long that took from `start`.
pub(super) fn until(
    what: &str,
    start: Instant,
    mut so: impl FnMut() -> anyhow::Result<()>,
) -> anyhow::Result<f64> {
    loop {
        match so() {
            Ok(()) => return Ok(start.elapsed().as_secs_f64()),
            Err(error) if start.elapsed() > BOUND => {
                return Err(error.context(format!("not within {BOUND:?}: {what}")));
            }
            Err(_) => thread::sleep(LOOK),
        }
    }
}

/// `POST`, which must succeed.
pub(super) fn post(cluster: &Cluster, node: usize, path: &str, body: &Value) -> anyhow::Result<()> {
    let answer = cluster.node(node).api("POST", path, &body.to_string())?;
    match answer.status {
        200 | 201 => Ok(()),
        other => bail!("POST {path} answers {other}: {}", answer.body),
    }
}

/// A service on the network, its tasks started anew for each `version`.
pub(super) fn spec(name: &str, replicas: u64, version: u64) -> Value {
    json!({
        "Name": name,
        "TaskTemplate": {
            "ContainerSpec": { "Image": WEB_IMAGE, "Env": [format!("VERSION={version}")] },
            "Networks": [{ "Target": "bench" }],
        },
        "Mode": { "Replicated": { "Replicas": replicas } },
        "UpdateConfig": { "Parallelism": 1, "Order": "stop-first" },
        "EndpointSpec": { "Ports": [{ "TargetPort": 80, "PublishedPort": PORT }] },
    })
}

/// Where the service is published.
pub(super) const PORT: u16 = 8080;

/// Changes a service.
pub(super) fn update(cluster: &Cluster, spec: &Value) -> anyhow::Result<()> {
    let name = spec["Name"].as_str().context("a service has a name")?;
    let service = cluster.object(&format!("/services/{name}"))?;
    let version = service.pointer("/Version/Index").and_then(Value::as_u64);
    let version = version.context("a service has a version")?;
    post(cluster, 0, &format!("/services/{name}/update?version={version}"), spec)
}

/// A task that runs and shall run: its node's id, and the version of its specification.
pub(super) struct Running {
    pub(super) node: String,
    pub(super) version: String,
}

/// What runs of a service, as a node sees it.
pub(super) fn running(cluster: &Cluster, by: usize, name: &str) -> anyhow::Result<Vec<Running>> {
    let filters = format!(
        "%7B%22service%22%3A%7B%22{name}%22%3Atrue%7D%2C%22desired-state%22%3A%7B%22running%22%3Atrue\
         %7D%7D"
    );
    let answer = cluster.node(by).api("GET", &format!("/tasks?filters={filters}"), "")?;
    ensure!(answer.status == 200, "GET /tasks answers {}: {}", answer.status, answer.body);
    let tasks: Vec<Value> = serde_json::from_str(&answer.body)?;
    let text = |task: &Value, path: &str| {
        task.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    Ok(tasks
        .iter()
        .filter(|task| text(task, "/Status/State") == "running")
        .map(|task| Running {
            node: text(task, "/NodeID"),
            version: text(task, "/Spec/ContainerSpec/Env/0"),
        })
        .collect())
}

/// Removes a service and waits until nothing of it is left.
pub(super) fn remove(cluster: &Cluster, name: &str) -> anyhow::Result<()> {
    cluster.node(0).docker(&["service", "rm", name])?.ok()?;
    wait_for("its tasks to be gone", patiently(), || {
        for node in cluster.nodes() {
            let filter = format!("label=com.docker.swarm.service.name={name}");
            let left = node.docker(&["ps", "-a", "-q", "--filter", &filter])?.ok()?;
            ensure!(left.is_empty(), "left on {}: {left}", node.name());
        }
        Ok(())
    })
}
