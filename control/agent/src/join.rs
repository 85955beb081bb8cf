//! How a host becomes a node: with a join token, a key made here, and a certificate from the manager;
//! and how a node gets its next certificate.
use anyhow::{Context, Result, bail};
use shoal_identity::{
    JoinToken, NodeCertificate, NodeKey, Trust, chain, client_config, connect, fetch_root,
};
use shoal_model::Availability;
use shoal_rpc::{IssueRequest, certificates_client::CertificatesClient};
use std::{net::SocketAddr, time::Duration};
use tokio::time::timeout;

/// How long the manager may take to sign.
const PATIENCE: Duration = Duration::from_secs(20);

/// A host that has been let into a cluster.
#[derive(Debug)]
pub struct Joined {
    /// Its certificate, key and the cluster's root.
    pub certificate: NodeCertificate,
    /// The manager that let it in.
    pub manager: SocketAddr,
    /// UDP port of the cluster's overlay.
    pub data_path_port: u16,
}

/// Asks the managers at `addrs`, in turn, to let this host in. The key never leaves the host.
///
/// # Errors
/// When the token is not one, the root is not the token's, the manager refuses, or none answers; the
/// last reason is given.
pub async fn join(addrs: &[SocketAddr], token: &str, availability: Availability) -> Result<Joined> {
    let parsed = JoinToken::parse(token)?;
    let mut last = None;
    for manager in addrs {
        match ask(*manager, token, &parsed, availability).await {
            Ok((certificate, data_path_port)) => {
                return Ok(Joined { certificate, manager: *manager, data_path_port });
            }
            Err(error) => last = Some(error),
        }
    }
    match last {
        Some(error) => Err(error),
        None => bail!("at least 1 RemoteAddr must be provided"),
    }
}

async fn ask(
    manager: SocketAddr,
    token: &str,
    parsed: &JoinToken,
    availability: Availability,
) -> Result<(NodeCertificate, u16)> {
    let root = fetch_root(manager, parsed.digest()).await?;
    let key = NodeKey::create()?;
    let channel = connect(manager, client_config(&root.clone().into(), None)?).await?;
    let availability = match availability {
        Availability::Active => "active",
        Availability::Pause => "pause",
        Availability::Drain => "drain",
    };
    let request = IssueRequest {
        csr: key.csr_pem()?,
        token: token.to_owned(),
        availability: availability.to_owned(),
    };
    let reply = timeout(PATIENCE, CertificatesClient::new(channel).issue(request)).await;
    let reply = reply.with_context(|| format!("{manager} did not sign within {PATIENCE:?}"))?;
    // The manager's words are for the user: a wrong token, a role it does not give.
    let reply = reply.map_err(|status| said(&status))?.into_inner();
    let trust = Trust::from_pem(&reply.root)
        .ok()
        .filter(|given| given.present().digest() == root.digest())
        .with_context(|| format!("{manager} answered with another root than it had shown"))?;
    let port = u16::try_from(reply.data_path_port).ok().filter(|port| *port != 0);
    let port = port.with_context(|| format!("{manager} named no UDP port of the overlay"))?;
    Ok((NodeCertificate::new(key, &reply.certificate, trust)?, port))
}

/// The manager's own words, or what became of the connection.
fn said(status: &tonic::Status) -> anyhow::Error {
    match std::error::Error::source(status) {
        Some(_) => anyhow::anyhow!("{}", chain(status)),
        None => anyhow::anyhow!("{}", status.message()),
    }
}

/// Asks the managers at `addrs`, in turn, for a new certificate with the role the cluster gives this
/// node now, for a new key.
///
/// # Errors
/// When none answers, or one refuses; the last reason is given.
pub async fn renew(addrs: &[SocketAddr], present: &NodeCertificate) -> Result<NodeCertificate> {
    let mut last = None;
    for manager in addrs {
        match ask_again(*manager, present).await {
            Ok(certificate) => return Ok(certificate),
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(|| anyhow::anyhow!("no manager is known")))
}

async fn ask_again(manager: SocketAddr, present: &NodeCertificate) -> Result<NodeCertificate> {
    let key = NodeKey::create()?;
    let channel = connect(manager, client_config(present.trust(), Some(present))?).await?;
    let request = IssueRequest { csr: key.csr_pem()?, ..Default::default() };
    let reply = timeout(PATIENCE, CertificatesClient::new(channel).issue(request)).await;
    let reply = reply.with_context(|| format!("{manager} did not sign within {PATIENCE:?}"))?;
    let reply = reply.map_err(|status| said(&status))?.into_inner();
    let trust = Trust::from_pem(&reply.root)
        .with_context(|| format!("{manager} names no root to trust"))?;
    let renewed = NodeCertificate::new(key, &reply.certificate, trust)?;
    let (old, new) = (present.identity(), renewed.identity());
    if (&new.node_id, &new.cluster_id) != (&old.node_id, &old.cluster_id) {
        bail!("{manager} signed a certificate for another node, {}", new.node_id);
    }
    Ok(renewed)
}
