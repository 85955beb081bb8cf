//! Overlay networks.
use crate::times::rfc3339;
use serde_json::{Map, Value, json};
use shoal_model::{Network, State};

/// A network as `GET /networks/{id}` answers it. `node` is this node's id: its containers on the
/// network are listed. `verbose` adds the services of the whole cluster.
pub(crate) fn network(state: &State, network: &Network, node: &str, verbose: bool) -> Value {
    let mut out = summary(network);
    out["Containers"] = Value::Object(containers(state, network, node));
    if verbose {
        out["Services"] = Value::Object(services(state, network));
    }
    out
}

/// A network as `GET /networks` lists it.
pub(crate) fn summary(network: &Network) -> Value {
    let spec = &network.spec;
    json!({
        "Name": network.name(),
        "Id": network.id,
        "Created": rfc3339(network.meta.created),
        "Scope": "swarm",
        "Driver": "overlay",
        "EnableIPv4": true,
        "EnableIPv6": network.subnet6.is_some(),
        "IPAM": { "Driver": "default", "Options": null, "Config": ipam(network) },
        "Internal": spec.internal.unwrap_or(false),
        "Attachable": spec.attachable.unwrap_or(false),
        "Ingress": network.ingress,
        "ConfigFrom": { "Network": "" },
        "ConfigOnly": false,
        "Containers": null,
        "Options": spec.options.clone().unwrap_or_default(),
        "Labels": spec.labels.clone().unwrap_or_default(),
    })
}

/// A network in the form tasks refer to it.
pub(crate) fn cluster_object(network: &Network) -> Value {
    let spec = &network.spec;
    json!({
        "ID": network.id,
        "Version": { "Index": network.meta.version },
        "CreatedAt": rfc3339(network.meta.created),
        "UpdatedAt": rfc3339(network.meta.updated),
        "Spec": {
            "Name": network.name(),
            "Labels": spec.labels.clone().unwrap_or_default(),
            "DriverConfiguration": { "Name": "overlay" },
            "Ingress": network.ingress,
            "IPAMOptions": { "Driver": { "Name": "default" } },
            "Scope": "swarm",
        },
        "DriverState": { "Name": "overlay" },
        "IPAMOptions": { "Driver": { "Name": "default" }, "Configs": ipam(network) },
    })
}

fn ipam(network: &Network) -> Vec<Value> {
    let mut out = Vec::new();
    if let Some(gateway) = network.subnet.nth(1) {
        let subnet = network.subnet.to_string();
        out.push(json!({ "Subnet": subnet, "Gateway": gateway.to_string() }));
    }
    if let Some(subnet) = network.subnet6
        && let Some(gateway) = subnet.iter().nth(1)
    {
        out.push(json!({ "Subnet": subnet.to_string(), "Gateway": gateway.to_string() }));
    }
    out
}

fn containers(state: &State, network: &Network, node: &str) -> Map<String, Value> {
    let mut out = Map::new();
    for task in state.tasks_of_node(node).filter(|t| !t.status.state.is_terminal()) {
        let addresses = task.networks.iter().find(|a| a.network_id == network.id);
        if let (Some(a), Some(container)) = (addresses, &task.status.container) {
            let v6 = a.v6.zip(network.subnet6).map(|(v6, s)| format!("{v6}/{}", s.prefix()));
            out.insert(
                container.id.clone(),
                json!({
                    "Name": task.name,
                    "EndpointID": task.id,
                    "MacAddress": "",
                    "IPv4Address": format!("{}/{}", a.v4, network.subnet.prefix()),
                    "IPv6Address": v6.unwrap_or_default(),
                }),
            );
        }
    }
    out
}

fn services(state: &State, network: &Network) -> Map<String, Value> {
    let mut out = Map::new();
    for service in state.services.values() {
        let vip = service
            .endpoint
            .iter()
            .flat_map(|e| &e.vips)
            .find(|v| v.network_id == network.id)
            .map(|v| v.v4.to_string());
        let tasks: Vec<Value> = state
            .tasks_of_service(&service.id)
            .filter(|t| !t.status.state.is_terminal())
            .filter_map(|t| {
                let a = t.networks.iter().find(|a| a.network_id == network.id)?;
                let node = t.node_id.as_ref().and_then(|id| state.nodes.get(id));
                Some(json!({
                    "Name": t.name,
                    "EndpointID": t.id,
                    "EndpointIP": a.v4.to_string(),
                    "Info": { "Host IP": node.map_or("", |n| n.status.addr.as_str()) },
                }))
            })
            .collect();
        if vip.is_none() && tasks.is_empty() {
            continue;
        }
        let ports: Vec<String> = service
            .endpoint
            .iter()
            .filter(|_| network.ingress)
            .flat_map(|e| &e.ports)
            .map(|p| format!("Target: {}, Publish: {}", p.target, p.published))
            .collect();
        out.insert(
            service.name().to_owned(),
            json!({
                "VIP": vip.unwrap_or_default(),
                "Ports": ports,
                "LocalLBIndex": 0,
                "Tasks": tasks,
            }),
        );
    }
    out
}
