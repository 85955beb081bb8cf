//! The cluster itself.
use super::{value, version};
use crate::{
    seam::{LocalState, SwarmInfo},
    times::rfc3339,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use shoal_model::{Cluster, NodeTls, Role, State, docker};
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
    spec.labels.get_or_insert_default();
    value(&docker::Swarm {
        id: Some(cluster.id.clone()),
        version: version(&cluster.meta),
        created_at: Some(rfc3339(cluster.meta.created)),
        updated_at: Some(rfc3339(cluster.meta.updated)),
        spec: Some(spec),
        tls_info: Some(tls_info(cluster)),
        root_rotation_in_progress: Some(cluster.root_rotation.is_some()),
        data_path_port: Some(cluster.data_path_port.into()),
        default_addr_pool: Some(cluster.address_pools.iter().map(ToString::to_string).collect()),
        subnet_size: Some(cluster.subnet_size.into()),
        join_tokens: None,
    })
}

/// The root in force, and who is to sign every node's certificate: while the root is rotated, the next.
fn tls_info(cluster: &Cluster) -> docker::TlsInfo {
    let next = cluster.root_rotation.as_ref().map(|rotation| rotation.certificate.as_str());
    let issuer = issuer(next.unwrap_or(&cluster.root_certificate));
    docker::TlsInfo { trust_root: Some(cluster.root_certificate.clone()), ..issuer }
}

/// Subject and public key of a root, in base64, which the client decodes.
fn issuer(root: &str) -> docker::TlsInfo {
    let parsed = Pem::iter_from_buffer(root.as_bytes()).next();
    let (subject, key) = parsed
        .and_then(Result::ok)
        .and_then(|pem| {
            let certificate = pem.parse_x509().ok()?;
            let subject = STANDARD.encode(certificate.subject().as_raw());
            Some((subject, STANDARD.encode(certificate.public_key().raw)))
        })
        .unzip();
    docker::TlsInfo { trust_root: None, cert_issuer_subject: subject, cert_issuer_public_key: key }
}

/// What nodes may have told of their certificates, in Docker's form: made once for a whole list.
pub(crate) struct Roots {
    /// Digest, certificate, and what a certificate of it shows.
    known: Vec<(String, String, docker::TlsInfo)>,
}

impl Roots {
    /// The roots a cluster knows: the one in force, and the next.
    pub(crate) fn of(cluster: Option<&Cluster>) -> Roots {
        // Join tokens carry the digest of the root in force.
        let digest = |c: &Cluster| c.join_tokens.worker.split('-').nth(2).map(str::to_owned);
        let present = cluster.and_then(|c| Some((digest(c)?, c.root_certificate.clone())));
        let next = cluster.and_then(|c| c.root_rotation.as_ref());
        let next = next.map(|r| (r.digest.clone(), r.certificate.clone()));
        let known = present.into_iter().chain(next);
        let known = known.map(|(digest, pem)| (digest, pem.clone(), issuer(&pem)));
        Roots { known: known.collect() }
    }

    /// What a node trusts and who has signed its certificate; of roots that are gone, nothing.
    pub(crate) fn tls_info(&self, node: &NodeTls) -> docker::TlsInfo {
        let find = |digest: &String| self.known.iter().find(|(known, ..)| known == digest);
        let trust: String =
            node.trust.iter().filter_map(find).map(|(_, pem, _)| pem.as_str()).collect();
        let signer = node.root.as_ref().and_then(find).map(|(.., issuer)| issuer.clone());
        docker::TlsInfo { trust_root: Some(trust), ..signer.unwrap_or_default() }
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

#[cfg(test)]
mod tests {
    use super::*;
    use shoal_model::{JoinTokens, Meta, RootRotation};

    #[test]
    fn nodes_show_the_roots_they_told_of_as_far_as_the_cluster_knows_them() {
        let token = |secret: &str| format!("SWMTKN-1-{:a<50}-{secret}", "old");
        let cluster = Cluster {
            id: String::new(),
            meta: Meta::default(),
            spec: docker::SwarmSpec::default(),
            root_certificate: "old root".to_owned(),
            root_key: "a secret".to_owned(),
            join_tokens: JoinTokens { worker: token("w"), manager: token("m") },
            address_pools: Vec::new(),
            subnet_size: 24,
            ipv6_pool: "fd00::/48".parse().unwrap(),
            data_path_port: 1,
            removed_nodes: std::collections::BTreeMap::new(),
            unlock_key: None,
            root_rotation: Some(RootRotation {
                certificate: "new root".to_owned(),
                digest: "new".to_owned(),
                key: "another secret".to_owned(),
                cross_signed: String::new(),
            }),
        };
        let roots = Roots::of(Some(&cluster));
        let old = format!("{:a<50}", "old");
        let table = [
            (vec![old.as_str()], "old root"),
            (vec![old.as_str(), "new"], "old rootnew root"),
            (vec!["new"], "new root"),
            (vec!["gone"], ""),
        ];
        for (trust, shown) in table {
            let trust = trust.into_iter().map(str::to_owned).collect();
            let told = roots.tls_info(&NodeTls { root: None, trust });
            assert_eq!(told.trust_root.as_deref(), Some(shown));
        }
        let answer = swarm(&cluster);
        assert_eq!(answer["RootRotationInProgress"], true);
        assert_eq!(answer["TLSInfo"]["TrustRoot"], "old root");
        assert!(!answer.to_string().contains("secret"), "{answer}");
    }
}
