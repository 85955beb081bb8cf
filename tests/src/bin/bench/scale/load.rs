//! The services: fifty tasks each, four of them on an overlay network of their own.

use super::Size;
use anyhow::bail;
use serde_json::{Value, json};
use shoal_tests::{Agents, Cluster, WEB_IMAGE, patiently, wait_for};

/// Tasks of a service.
const REPLICAS: usize = 50;
/// Services on a network: with their virtual addresses they fit into a /24.
const ON_A_NETWORK: usize = 4;
/// Tasks that are asked for and do not run yet, at most. All nodes are played by one process: with more on
/// their way it is seconds behind, heartbeats too, and what is measured is how nodes are lost.
const ON_THE_WAY: u64 = 1_000;

/// What is to run.
pub(super) struct Load {
    pub(super) services: usize,
}

impl Load {
    pub(super) fn of(size: Size) -> Load {
        Load { services: size.tasks.div_ceil(REPLICAS) }
    }

    pub(super) fn tasks(&self) -> usize {
        self.services * REPLICAS
    }

    /// Creates it all, one service after another, as fast as the tasks begin.
    pub(super) fn create(&self, cluster: &Cluster, agents: &Agents) -> anyhow::Result<()> {
        for index in 0..self.services {
            let asked = (index * REPLICAS) as u64;
            let room = || match asked.saturating_sub(agents.progress().running) {
                waiting if waiting <= ON_THE_WAY => Ok(()),
                waiting => bail!("{waiting} of {asked} do not run"),
            };
            wait_for("tasks to run", patiently(), room)?;
            let number = index / ON_A_NETWORK;
            let network = format!("net{number}");
            if index % ON_A_NETWORK == 0 {
                // Behind the routing mesh's subnet.
                let subnet = format!("10.{}.{}.0/24", 1 + number / 256, number % 256);
                let spec = json!({
                    "Name": network, "Driver": "overlay",
                    "IPAM": { "Config": [{ "Subnet": subnet }] },
                });
                post(cluster, 0, "/networks/create", &spec)?;
            }
            let spec = service(&format!("s{index}"), REPLICAS, Some(&network));
            post(cluster, 0, "/services/create", &spec)?;
        }
        Ok(())
    }
}

/// A service such as people have: some words on what to run.
pub(super) fn service(name: &str, replicas: usize, network: Option<&str>) -> Value {
    let networks: Vec<Value> = network.iter().map(|name| json!({ "Target": name })).collect();
    json!({
        "Name": name,
        "Labels": { "team": "shop", "tier": "backend" },
        "TaskTemplate": {
            "ContainerSpec": {
                "Image": WEB_IMAGE,
                "Env": ["MODE=production", "LOG_LEVEL=info", format!("NAME={name}")],
                "Labels": { "version": "1.2.3" },
            },
            "Resources": {
                "Limits": { "MemoryBytes": 256 << 20 },
                "Reservations": { "NanoCPUs": 10_000_000, "MemoryBytes": 16 << 20 },
            },
            "Networks": networks,
        },
        "Mode": { "Replicated": { "Replicas": replicas } },
    })
}

/// `POST`, which must succeed.
pub(super) fn post(cluster: &Cluster, node: usize, path: &str, body: &Value) -> anyhow::Result<()> {
    let answer = cluster.node(node).api("POST", path, &body.to_string())?;
    match answer.status {
        200 | 201 => Ok(()),
        other => bail!("POST {path} answers {other}: {}", answer.body),
    }
}
