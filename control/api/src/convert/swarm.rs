//! The cluster itself.
use super::{value, version};
use crate::{
    seam::{LocalState, SwarmInfo},
    times::rfc3339,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use shoal_model::{Cluster, Role, State, docker};
use x509_parser::pem::Pem;

/// The cluster as `GET /swarm` answers it: with its join tokens.
pub(crate) fn swarm(cluster: &Cluster) -> Value {
    let mut out = cluster_info(cluster);
    out["JoinTokens"] = json!({
        "Worker": cluster.join_tokens.worker,
        "Manager": cluster.join_tokens.manager,
    });
    out
}

/// The cluster without its tokens, as it stands in `GET /info`.
fn cluster_info(cluster: &Cluster) -> Value {
    let mut spec = cluster.spec.clone();
    if let Some(ca) = &mut spec.ca_config {
        // Docker answers the certificate and never the key.
        ca.signing_ca_key = None;
    }
    spec.labels.get_or_insert_default();
    value(&docker::Swarm {
        id: Some(cluster.id.clone()),
        version: version(&cluster.meta),
        created_at: Some(rfc3339(cluster.meta.created)),
        updated_at: Some(rfc3339(cluster.meta.updated)),
        spec: Some(spec),
        tls_info: Some(tls_info(cluster)),
        root_rotation_in_progress: Some(false),
        data_path_port: Some(cluster.data_path_port.into()),
        default_addr_pool: Some(cluster.address_pools.iter().map(ToString::to_string).collect()),
        subnet_size: Some(cluster.subnet_size.into()),
        join_tokens: None,
    })
}

/// The root certificate: PEM, and its subject and public key in base64, which the client decodes.
pub(crate) fn tls_info(cluster: &Cluster) -> docker::TlsInfo {
    let parsed = Pem::iter_from_buffer(cluster.root_certificate.as_bytes()).next();
    let (subject, key) = parsed
        .and_then(Result::ok)
        .and_then(|pem| {
            let certificate = pem.parse_x509().ok()?;
            let subject = STANDARD.encode(certificate.subject().as_raw());
            Some((subject, STANDARD.encode(certificate.public_key().raw)))
        })
        .unzip();
    docker::TlsInfo {
        trust_root: Some(cluster.root_certificate.clone()),
        cert_issuer_subject: subject,
        cert_issuer_public_key: key,
    }
}

/// The `Swarm` part of `GET /info`. `state` is there on managers.
pub(crate) fn info(info: &SwarmInfo, state: Option<&State>) -> Value {
    let managers: Vec<Value> = info
        .remote_managers
        .iter()
        .map(|(id, addr)| json!({ "NodeID": id, "Addr": addr }))
        .collect();
    let mut out = json!({
        "NodeID": info.node_id,
        "NodeAddr": info.node_addr,
        "LocalNodeState": info.local_state.as_str(),
        "ControlAvailable": info.control_available,
        "Error": info.error,
        "RemoteManagers": if managers.is_empty() { Value::Null } else { managers.into() },
    });
    if let Some(state) = state {
        let managers = state.nodes.values().filter(|n| n.role == Role::Manager).count();
        out["Nodes"] = state.nodes.len().into();
        out["Managers"] = managers.into();
        if let Some(cluster) = &state.cluster {
            out["Cluster"] = cluster_info(cluster);
        }
    }
    out
}

/// The `Swarm` header of a ping.
pub(crate) fn ping_word(info: &SwarmInfo) -> &'static str {
    match (info.local_state, info.control_available) {
        (LocalState::Active, true) => "active/manager",
        (LocalState::Active, false) => "active/worker",
        (other, _) => other.as_str(),
    }
}
