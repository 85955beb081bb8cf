//! Who signs the certificates of nodes at the moment, and what nodes are to trust: read from the
//! cluster's object, and kept until that changes.
use crate::{
    clock,
    error::{chain, invalid, refuse},
    manager::Inner,
};
use shoal_identity::{
    ExternalCa, ExternalError, ExternalUrl, Identity, NodeCertificate, Reported, RootCa,
    RootCertificate, RootDigest, Trust,
};
use shoal_model::{Cluster, ControlError, ErrorKind, NodeTls, RootRotation, Timestamp, docker};
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::time::timeout;

/// How long all external CAs together may take: the node that waits gives up after 20 s.
pub(crate) const SIGN_WAIT: Duration = Duration::from_secs(11);

/// External CAs of a cluster.
const MOST_EXTERNAL: usize = 16;

type External = docker::SwarmSpecCaConfigExternalCas;

/// Signs, and says what is to be trusted.
pub(crate) struct Authority {
    /// The roots nodes are to trust, the one in force first.
    pub(crate) trust: Trust,
    /// The root that signs: the next one while the root is rotated.
    pub(crate) signing: RootCertificate,
    /// Comes with each certificate while the root is rotated; else empty.
    cross_signed: String,
    signer: Signer,
    source: Source,
}

enum Signer {
    Own(RootCa),
    External(Vec<ExternalUrl>),
}

/// What an authority is made from.
#[derive(PartialEq)]
struct Source {
    certificate: String,
    key: String,
    rotation: Option<RootRotation>,
    external: Vec<External>,
}

impl Source {
    fn of(cluster: &Cluster) -> Source {
        Source {
            certificate: cluster.root_certificate.clone(),
            key: cluster.root_key.clone(),
            rotation: cluster.root_rotation.clone(),
            external: externals(&cluster.spec).to_vec(),
        }
    }

    fn is_of(&self, cluster: &Cluster) -> bool {
        self.certificate == cluster.root_certificate
            && self.key == cluster.root_key
            && self.rotation == cluster.root_rotation
            && self.external == externals(&cluster.spec)
    }
}

impl Authority {
    pub(crate) fn of(cluster: &Cluster) -> Result<Authority, ControlError> {
        let broken = |e: shoal_identity::IdentityError| {
            refuse(
                ErrorKind::Unknown,
                format!("the cluster's root CA cannot be used: {}", chain(&e)),
            )
        };
        let source = Source::of(cluster);
        let present = RootCertificate::from_pem(&source.certificate).map_err(broken)?;
        let (signing, key, cross_signed) = match &source.rotation {
            Some(next) => (
                RootCertificate::from_pem(&next.certificate).map_err(broken)?,
                &next.key,
                next.cross_signed.clone(),
            ),
            None => (present.clone(), &source.key, String::new()),
        };
        let urls = urls(&source.external, &signing, &present)?;
        // As swarmkit: an external CA that is named is asked, also if the key is at hand.
        let signer = match key.as_str() {
            key if urls.is_empty() && !key.is_empty() => {
                Signer::Own(RootCa::from_pem(signing.pem(), key).map_err(broken)?)
            }
            _ => Signer::External(urls),
        };
        let trust = Trust::both(present, signing.clone());
        Ok(Authority { trust, signing, cross_signed, signer, source })
    }

    /// A certificate for the key of a request, with the cross-signed root while the root is rotated.
    pub(crate) async fn sign(
        &self,
        csr: &str,
        node: &Identity,
        own: &NodeCertificate,
        now: Timestamp,
        lifetime: Duration,
    ) -> Result<String, ControlError> {
        let leaf = match &self.signer {
            Signer::Own(ca) => ca
                .sign_node(csr, &node.node_id, node.role, &node.cluster_id, now, lifetime)
                .map_err(|e| refuse(ErrorKind::InvalidArgument, chain(&e)))?,
            Signer::External(urls) => {
                let asked = ask(urls, &self.signing, self.trust.roots(), csr, node, Some(own));
                let answered = timeout(SIGN_WAIT, asked).await;
                answered.unwrap_or_else(|_| {
                    let text = format!("no external CA has signed within {SIGN_WAIT:?}");
                    Err(refuse(ErrorKind::Unavailable, text))
                })?
            }
        };
        Ok(leaf + &self.cross_signed)
    }

    /// What a node says of its connections, as far as it proves it.
    pub(crate) fn report(
        &self,
        certificate: &str,
        trust: &str,
    ) -> Result<(Identity, NodeTls), shoal_identity::IdentityError> {
        let reported = Reported::read(certificate, &[&self.signing, self.trust.present()])?;
        let text = |digest: RootDigest| digest.to_string();
        let trust = Trust::from_pem(trust)?.digests().into_iter().map(text).collect();
        Ok((reported.identity, NodeTls { root: reported.signed_by.map(text), trust }))
    }
}

/// Asks the external CAs of a root in turn; the last one's reason is told.
pub(crate) async fn ask(
    urls: &[ExternalUrl],
    signing: &RootCertificate,
    trusted: &[RootCertificate],
    csr: &str,
    node: &Identity,
    own: Option<&NodeCertificate>,
) -> Result<String, ControlError> {
    let mut last = format!(
        "no external CA is named for the root {}, and the swarm does not have its key: name one with \
         `swarm update --external-ca`",
        signing.digest()
    );
    for url in urls {
        let signed = match ExternalCa::new(url.clone(), trusted, own) {
            Ok(ca) => ca.sign_node(csr, node, signing, clock::now()).await,
            Err(error) => Err(error.into()),
        };
        match signed {
            Ok(pem) => return Ok(pem),
            Err(error) => {
                last = chain(&error);
                tracing::warn!(node = node.node_id, error = last, "not signed");
            }
        }
    }
    Err(refuse(ErrorKind::Unavailable, last))
}

/// The present authority, made anew when the cluster's object has changed.
#[derive(Default)]
pub(crate) struct Authorities(Mutex<Option<Arc<Authority>>>);

impl Authorities {
    pub(crate) fn of(&self, cluster: &Cluster) -> Result<Arc<Authority>, ControlError> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kept) = kept.as_ref().filter(|kept| kept.source.is_of(cluster)) {
            return Ok(Arc::clone(kept));
        }
        let made = Arc::new(Authority::of(cluster)?);
        *kept = Some(Arc::clone(&made));
        Ok(made)
    }
}

impl Inner {
    /// Who signs now.
    pub(crate) fn authority(&self) -> Result<Arc<Authority>, ControlError> {
        self.store.read(|state| {
            let cluster = state.cluster.as_ref();
            let cluster =
                cluster.ok_or_else(|| refuse(ErrorKind::Unavailable, "there is no cluster"))?;
            self.authorities.of(cluster)
        })
    }
}

/// The external CAs of a specification.
pub(crate) fn externals(spec: &docker::SwarmSpec) -> &[External] {
    let ca = spec.ca_config.as_ref().and_then(|c| c.external_cas.as_deref());
    ca.unwrap_or_default()
}

/// Where the external CAs of a root are. One that names no root is the present root's.
pub(crate) fn urls(
    all: &[External],
    root: &RootCertificate,
    present: &RootCertificate,
) -> Result<Vec<ExternalUrl>, ControlError> {
    if all.len() > MOST_EXTERNAL {
        let count = all.len();
        return Err(invalid(format!("{count} external CAs are too many: at most {MOST_EXTERNAL}")));
    }
    let mut urls = Vec::new();
    for ca in all {
        let of_root = match ca.ca_cert.as_deref().filter(|pem| !pem.is_empty()) {
            Some(pem) => RootCertificate::from_pem(pem).map_err(|e| {
                let url = ca.url.as_deref().unwrap_or_default();
                invalid(format!("the CA certificate of the external CA {url:?}: {}", chain(&e)))
            })?,
            None => present.clone(),
        };
        let url = ExternalUrl::parse(ca.url.as_deref().unwrap_or_default());
        let url = url.map_err(|e: ExternalError| invalid(chain(&e)))?;
        if of_root == *root {
            urls.push(url);
        }
    }
    Ok(urls)
}
