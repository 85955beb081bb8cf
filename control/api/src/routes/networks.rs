//! Overlay networks.
use super::{created, no_content, ok};
use crate::{
    context::ApiContext,
    convert,
    error::{Answer, ApiError},
    filters::{Filters, in_labels},
    lookup,
    params::{self, Params},
};
use axum::{
    Router,
    body::Body,
    extract::{Path, State},
    routing::{get, post},
};
use ipnetwork::IpNetwork;
use serde_json::{Value, json};
use shoal_model::{ErrorKind, Network, State as Cluster, docker};
use std::net::IpAddr;

const FILTERS: [&str; 7] = ["id", "name", "driver", "label", "scope", "type", "dangling"];

pub(super) fn routes() -> Router<ApiContext> {
    Router::new()
        .route("/networks", get(list))
        .route("/networks/create", post(create))
        .route("/networks/prune", post(prune))
        .route("/networks/{network}", get(inspect).delete(remove))
        .route("/networks/{network}/connect", post(attach))
        .route("/networks/{network}/disconnect", post(attach))
}

/// Workers know no networks by name: for them the list is empty, as Docker's has local ones only.
fn on_manager<R: Default>(
    ctx: &ApiContext,
    look: impl FnOnce(&Cluster) -> R,
) -> Result<R, ApiError> {
    match ctx.read(look) {
        Err(e) if e.kind == ErrorKind::Unavailable && !ctx.swarm.info().control_available => {
            Ok(R::default())
        }
        other => Ok(other?),
    }
}

async fn list(State(ctx): State<ApiContext>, params: Params) -> Answer {
    let filters = Filters::parse(params.get("filters"), &FILTERS)?;
    let dangling = filters.flag("dangling")?;
    for kind in filters.values("type") {
        if !["custom", "builtin"].contains(&kind) {
            return Err(ApiError::bad(format!("invalid filter: 'type'='{kind}'")));
        }
    }
    let networks: Vec<Value> = on_manager(&ctx, |state| {
        let matching = state.networks.values().filter(|n| {
            matches(&filters, n) && dangling.is_none_or(|wanted| wanted != in_use(state, n))
        });
        matching.map(convert::networks::summary).collect()
    })?;
    Ok(ok(networks.into()))
}

fn matches(filters: &Filters, network: &Network) -> bool {
    filters.any("id", |v| network.id.contains(v))
        && filters.any("name", |v| network.name().contains(v))
        && filters.exact("driver", "overlay")
        && filters.exact("scope", "swarm")
        && filters.exact("type", "custom")
        && filters.labels("label", in_labels(&network.spec.labels))
}

/// Whether a service or a task is on the network.
fn in_use(state: &Cluster, network: &Network) -> bool {
    let attached = |list: Option<&Vec<docker::NetworkAttachmentConfig>>| {
        list.into_iter()
            .flatten()
            .filter_map(|n| n.target.as_deref())
            .any(|t| t == network.id || t == network.name())
    };
    state.services.values().any(|s| {
        let template = s.spec.task_template.as_ref().and_then(|t| t.networks.as_ref());
        attached(s.spec.networks.as_ref()) || attached(template)
    }) || state.tasks.values().any(|t| {
        !t.status.state.is_terminal() && t.networks.iter().any(|a| a.network_id == network.id)
    })
}

async fn inspect(
    State(ctx): State<ApiContext>,
    Path(reference): Path<String>,
    params: Params,
) -> Answer {
    let scope = params.get("scope").unwrap_or("swarm");
    let node = ctx.swarm.info().node_id;
    let verbose = params.flag("verbose");
    let found: Option<Result<Value, ApiError>> = on_manager(&ctx, |state| {
        Some(
            lookup::network(state, &reference)
                .map(|n| convert::networks::network(state, n, &node, verbose)),
        )
    })?;
    match found.filter(|_| scope == "swarm") {
        Some(network) => Ok(ok(network?)),
        None => Err(ApiError::not_found(format!("network {reference} not found"))),
    }
}

async fn create(State(ctx): State<ApiContext>, body: Body) -> Answer {
    let request: docker::NetworkCreateRequest = params::json(body).await?;
    check(&request)?;
    let id = ctx.swarm.create_network(request).await?;
    Ok(created(json!({ "Id": id, "Warning": "" })))
}

/// Refuses what this version would have to ignore.
fn check(request: &docker::NetworkCreateRequest) -> Result<(), ApiError> {
    let name = &request.name;
    let absent = |what: &str| {
        let text = format!("network {name}: {what} is not supported in this version");
        Err(ApiError::bad(text))
    };
    let driver = request.driver.as_deref().unwrap_or_default();
    if driver != "overlay" {
        return Err(ApiError::bad(format!(
            "network {name}: the driver {:?} is not supported in this version; use --driver overlay",
            if driver.is_empty() { "bridge" } else { driver }
        )));
    }
    if let Some(scope) = request.scope.as_deref().filter(|s| !["", "swarm"].contains(s)) {
        return absent(&format!("the scope {scope:?} for an overlay network"));
    }
    if request.config_only == Some(true) {
        return absent("a configuration-only network (ConfigOnly)");
    }
    let from = request.config_from.as_ref().and_then(|c| c.network.as_deref());
    if from.is_some_and(|n| !n.is_empty()) {
        return absent("copying a configuration (ConfigFrom)");
    }
    if request.enable_ipv4 == Some(false) {
        return absent("an overlay network without IPv4 (EnableIPv4 false)");
    }
    for (key, value) in request.options.iter().flatten() {
        let off = ["0", "f", "false"].contains(&value.to_ascii_lowercase().as_str());
        match key.as_str() {
            // Every overlay is encrypted: asking for it changes nothing.
            "encrypted" if !off => {}
            "encrypted" => return absent("an overlay network without encryption"),
            other => return absent(&format!("the driver option {other:?}")),
        }
    }
    let Some(ipam) = &request.ipam else { return Ok(()) };
    let driver = ipam.driver.as_deref().unwrap_or_default();
    if !["", "default"].contains(&driver) {
        return absent(&format!("the IPAM driver {driver:?}"));
    }
    if ipam.options.as_ref().is_some_and(|o| !o.is_empty()) {
        return absent("an IPAM driver option");
    }
    for config in ipam.config.iter().flatten() {
        check_ipam(name, config)?;
    }
    Ok(())
}

fn check_ipam(name: &str, config: &docker::IpamConfig) -> Result<(), ApiError> {
    let bad = |text: String| Err(ApiError::bad(format!("network {name}: {text}")));
    if config.ip_range.as_ref().is_some_and(|r| !r.is_empty()) {
        return bad("an address range (--ip-range) is not supported in this version".into());
    }
    if config.auxiliary_addresses.as_ref().is_some_and(|a| !a.is_empty()) {
        return bad("auxiliary addresses (--aux-address) are not supported in this version".into());
    }
    let Some(gateway) = config.gateway.as_deref().filter(|g| !g.is_empty()) else { return Ok(()) };
    let subnet = config.subnet.as_deref().unwrap_or_default();
    let (Ok(gateway), Ok(subnet)) = (gateway.parse::<IpAddr>(), subnet.parse::<IpNetwork>()) else {
        return bad(format!("invalid gateway {gateway} or subnet {subnet:?}"));
    };
    let first = match subnet {
        IpNetwork::V4(s) => s.nth(1).map(IpAddr::V4),
        IpNetwork::V6(s) => s.iter().nth(1).map(IpAddr::V6),
    };
    if first != Some(gateway) {
        return bad(format!(
            "the gateway {gateway} is not supported in this version: it is always the first address of the subnet {subnet}; leave --gateway out"
        ));
    }
    Ok(())
}

async fn remove(State(ctx): State<ApiContext>, Path(reference): Path<String>) -> Answer {
    let id = ctx.read(|state| lookup::network(state, &reference).map(|n| n.id.clone()));
    let id = match id {
        Err(e) if e.kind == ErrorKind::Unavailable && !ctx.swarm.info().control_available => {
            return Err(ApiError::not_found(format!("network {reference} not found")));
        }
        other => other??,
    };
    ctx.swarm.remove_network(&id).await?;
    Ok(no_content())
}

async fn prune(State(ctx): State<ApiContext>, params: Params) -> Answer {
    let filters = Filters::parse(params.get("filters"), &["label"])?;
    let unused: Vec<(String, String)> = on_manager(&ctx, |state| {
        let unused = state.networks.values().filter(|n| !n.ingress && !in_use(state, n));
        unused
            .filter(|n| filters.labels("label", in_labels(&n.spec.labels)))
            .map(|n| (n.id.clone(), n.name().to_owned()))
            .collect()
    })?;
    let mut deleted = Vec::new();
    for (id, name) in unused {
        match ctx.swarm.remove_network(&id).await {
            Ok(()) => deleted.push(name),
            // Somebody began to use it, or removed it, in between.
            Err(e) => tracing::debug!(network = name, error = %e, "not pruned"),
        }
    }
    Ok(ok(json!({ "NetworksDeleted": deleted })))
}

async fn attach() -> ApiError {
    ApiError::absent("connecting single containers to networks is")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(json: Value) -> String {
        check(&serde_json::from_value(json).unwrap()).unwrap_err().message
    }

    #[test]
    fn what_the_client_sends_by_default_is_accepted() {
        let request = json!({
            "Name": "app", "Driver": "overlay", "Scope": "", "EnableIPv4": true,
            "EnableIPv6": false, "IPAM": { "Driver": "default", "Options": {}, "Config": [] },
            "Internal": false, "Attachable": true, "Ingress": false, "ConfigOnly": false,
            "ConfigFrom": null, "Options": { "encrypted": "" }, "Labels": {},
        });
        check(&serde_json::from_value(request).unwrap()).unwrap();
    }

    #[test]
    fn fields_that_would_be_ignored_are_refused_by_name() {
        assert!(refusal(json!({ "Name": "a" })).contains("\"bridge\""));
        for (field, value, words) in [
            ("ConfigOnly", json!(true), "ConfigOnly"),
            ("Options", json!({ "encrypted": "false" }), "without encryption"),
            ("Scope", json!("local"), "scope"),
            ("Options", json!({ "com.docker.network.driver.mtu": "1400" }), "driver.mtu"),
            ("IPAM", json!({ "Driver": "x" }), "IPAM driver"),
            ("IPAM", json!({ "Config": [{ "IPRange": "10.1.0.0/25" }] }), "--ip-range"),
            (
                "IPAM",
                json!({ "Config": [{ "Subnet": "10.1.0.0/24", "Gateway": "10.1.0.9" }] }),
                "10.1.0.9",
            ),
        ] {
            let mut request = json!({ "Name": "a", "Driver": "overlay" });
            request[field] = value;
            let text = refusal(request);
            assert!(text.contains(words), "{field}: {text}");
        }
    }
}
