//! A change of the root CA, as `swarm update` and `swarm ca --rotate` ask for it.
use crate::{
    authority::{externals, urls},
    clock,
    error::{chain, invalid, refuse},
    manager::Inner,
};
use futures_util::future::join_all;
use shoal_cores::{CrossSigner, Needed, RootChange, RootWish, plan_root};
use shoal_identity::{ExternalCa, NodeCertificate, RootCa, RootCertificate};
use shoal_model::{Cluster, ControlError, ErrorKind, RootRotation, Timestamp, docker};
use std::time::Duration;
use tokio::time::timeout;

/// A root that ends sooner is not taken (swarmkit's).
const SHORTEST_ROOT: Duration = Duration::from_secs(365 * 24 * 3600);

/// How long the external CAs may take to certify the next root: the user's call is answered within 10 s,
/// and up to 4 s have gone into trying whether they answer at all.
const CROSS_SIGN_WAIT: Duration = Duration::from_secs(5);

/// A root that a user gives.
pub(crate) struct Given {
    pub(crate) root: RootCertificate,
    /// With its key, if that was given, too.
    pub(crate) ca: Option<RootCa>,
}

impl Given {
    /// The key for the cluster's object; empty if it was not given.
    pub(crate) fn key(&self) -> String {
        self.ca.as_ref().map_or(String::new(), |ca| ca.key_pem().to_string())
    }
}

/// Certificate and key of the root that a specification gives.
pub(crate) fn asked(spec: &docker::SwarmSpec) -> (Option<&str>, Option<&str>) {
    fn text(text: &Option<String>) -> Option<&str> {
        text.as_deref().filter(|text| !text.trim().is_empty())
    }
    let ca = spec.ca_config.as_ref();
    (ca.and_then(|ca| text(&ca.signing_ca_cert)), ca.and_then(|ca| text(&ca.signing_ca_key)))
}

/// Takes certificate and key out of a specification that is kept: the key is a secret, and one without the
/// other would be a wish for an external CA when the specification is sent back (Docker's reason, too).
pub(crate) fn forget(spec: &mut docker::SwarmSpec) {
    if let Some(ca) = &mut spec.ca_config {
        (ca.signing_ca_cert, ca.signing_ca_key) = (None, None);
    }
}

/// Looks at what a specification says of the root, and gives the cluster as it is to be. The specification
/// then has neither the root nor its key.
pub(crate) async fn changed(
    inner: &Inner,
    present: &Cluster,
    spec: &mut docker::SwarmSpec,
    own: &NodeCertificate,
) -> Result<Cluster, ControlError> {
    check_protocols(spec)?;
    let (certificate, key) = asked(spec);
    let given = certificate.map(|pem| given(pem, key)).transpose()?;
    let wish = RootWish {
        certificate: given.as_ref().map(|given| given.root.pem()),
        key: key.is_some(),
        force: spec.ca_config.as_ref().and_then(|ca| ca.force_rotate).unwrap_or(0),
    };
    forget(spec);
    let plan = plan_root(present, wish).map_err(invalid)?;
    let root = root_of(&present.root_certificate)?;
    let next = present.root_rotation.as_ref().map(|r| root_of(&r.certificate)).transpose()?;
    let desired = given.as_ref().map(|given| given.root.clone());
    for needed in &plan.needed {
        let of = match needed {
            Needed::Current => Some(&root),
            Needed::Desired => desired.as_ref(),
            Needed::Next => next.as_ref(),
        };
        if let Some(of) = of {
            reachable(spec, of, &root, own, *needed).await?;
        }
    }
    // Also what is not needed must be well written.
    urls(externals(spec), &root, &root)?;
    let mut cluster = present.clone();
    let towards = match (plan.change, given) {
        (RootChange::Keep, _) => return Ok(cluster),
        (RootChange::Generate, _) => {
            let ca =
                RootCa::create(clock::now()).map_err(|e| refuse(ErrorKind::Unknown, chain(&e)))?;
            Given { root: ca.certificate().clone(), ca: Some(ca) }
        }
        (RootChange::Begin, Some(given)) => given,
        (RootChange::Adopt, Some(given)) => {
            cluster.root_key = given.key();
            if cluster.root_rotation.take().is_some() {
                tracing::info!("the rotation of the root CA is given up; the present root stays");
            }
            return Ok(cluster);
        }
        (RootChange::Rekey, Some(given)) => {
            if let Some(rotation) = &mut cluster.root_rotation {
                rotation.key = given.key();
            }
            return Ok(cluster);
        }
        (_, None) => return Err(invalid("no root CA certificate was given")), // not planned so
    };
    let cross_signed = match plan.signer {
        Some(CrossSigner::External) => {
            cross_signed_outside(spec, &towards, &root, own).await.map_err(unable)?
        }
        _ => {
            let ca = RootCa::from_pem(&present.root_certificate, &present.root_key);
            let signed = ca.and_then(|ca| ca.cross_sign(&towards.root, clock::now()));
            signed.map_err(|e| unable(chain(&e)))?
        }
    };
    let digest = towards.root.digest().to_string();
    tracing::info!(
        root = digest,
        nodes = inner.store.read(|s| s.nodes.len()),
        "the root CA is rotated"
    );
    cluster.root_rotation = Some(RootRotation {
        certificate: towards.root.pem().to_owned(),
        digest,
        key: towards.key(),
        cross_signed,
    });
    Ok(cluster)
}

/// Reads certificate and key of a user's root, and tries them.
pub(crate) fn given(pem: &str, key: Option<&str>) -> Result<Given, ControlError> {
    if pem.matches("-----BEGIN CERTIFICATE-----").count() > 1 {
        return Err(invalid("the desired CA certificate cannot contain multiple certificates"));
    }
    let wrong = |e: shoal_identity::IdentityError| invalid(chain(&e));
    let root = RootCertificate::from_pem(pem).map_err(wrong)?;
    let now = clock::now();
    let [begin, end] = root.validity();
    check_dates(begin, end, now)?;
    let ca = match key {
        Some(key) => Some(RootCa::from_pem(root.pem(), key).map_err(|e| match e {
            // Docker's words first.
            shoal_identity::IdentityError::KeyMismatch(_) => {
                invalid(format!("certificate key mismatch: {e}; give the key it was made with"))
            }
            e => wrong(e),
        })?),
        None => None,
    };
    if let Some(ca) = &ca {
        // A name that cannot be written again shows now and not when the first node renews.
        let trial = shoal_identity::NodeKey::create().and_then(|key| key.csr_pem());
        let hour = Duration::from_secs(3600);
        trial
            .and_then(|csr| ca.sign_node(&csr, "n", shoal_model::Role::Worker, "c", now, hour))
            .map_err(wrong)?;
    }
    Ok(Given { root, ca })
}

fn check_dates(begin: Timestamp, end: Timestamp, now: Timestamp) -> Result<(), ControlError> {
    if now < begin || now > end {
        return Err(invalid(
            "error while validating Root CA Certificate: x509: certificate has expired or is not yet valid; \
             give one that is in force",
        ));
    }
    match end < now.after(SHORTEST_ROOT) {
        true => Err(invalid("CA certificate expires too soon: it must be valid for another year")),
        false => Ok(()),
    }
}

/// Only cfssl is known, and it has no options.
pub(crate) fn check_protocols(spec: &docker::SwarmSpec) -> Result<(), ControlError> {
    use docker::SwarmSpecCaConfigExternalCasProtocolEnum::{CFSSL, EMPTY};
    for ca in externals(spec) {
        match ca.protocol {
            Some(CFSSL) => {}
            Some(EMPTY) | None => {
                return Err(invalid("invalid protocol: \"\"; only cfssl is known"));
            }
        }
        if ca.options.as_ref().is_some_and(|options| !options.is_empty()) {
            return Err(invalid("options of an external CA (ExternalCAs.Options): cfssl has none"));
        }
    }
    Ok(())
}

/// One of the root's external CAs must answer, in Docker's words.
async fn reachable(
    spec: &docker::SwarmSpec,
    of: &RootCertificate,
    present: &RootCertificate,
    own: &NodeCertificate,
    which: Needed,
) -> Result<(), ControlError> {
    let urls = urls(externals(spec), of, present)?;
    let roots = [present.clone(), of.clone()];
    let tried = urls.into_iter().map(async |url| {
        let ca = ExternalCa::new(url, &roots, Some(own)).map_err(|e| chain(&e))?;
        ca.reach().await.map_err(|e| chain(&e))
    });
    let tried = join_all(tried).await;
    if tried.iter().any(Result::is_ok) {
        return Ok(());
    }
    let reasons: Vec<String> = tried.into_iter().filter_map(Result::err).collect();
    Err(unreachable(which, &reasons))
}

/// None of a root's external CAs answers, or there is none. Docker's words, and why.
pub(crate) fn unreachable(which: Needed, reasons: &[String]) -> ControlError {
    let reasons = match reasons.is_empty() {
        true => "none is named for it".to_owned(),
        false => reasons.join("; "),
    };
    invalid(format!(
        "there must be at least one valid, reachable external CA corresponding to the {} CA \
         certificate: {reasons}",
        which.as_str(),
    ))
}

async fn cross_signed_outside(
    spec: &docker::SwarmSpec,
    towards: &Given,
    root: &RootCertificate,
    own: &NodeCertificate,
) -> Result<String, String> {
    let ca = towards.ca.as_ref().ok_or("the next root's key was not given")?;
    let mut last = "the present root has no external CA".to_owned();
    let asked = async {
        for url in urls(externals(spec), root, root).map_err(|e| e.message)? {
            let signed = match ExternalCa::new(url, std::slice::from_ref(root), Some(own)) {
                Ok(external) => external.cross_sign(ca, root).await.map_err(|e| chain(&e)),
                Err(error) => Err(chain(&error)),
            };
            match signed {
                Ok(pem) => return Ok(pem),
                Err(reason) => last = reason,
            }
        }
        Err(last)
    };
    let answered = timeout(CROSS_SIGN_WAIT, asked).await;
    answered
        .unwrap_or_else(|_| Err(format!("no external CA has signed within {CROSS_SIGN_WAIT:?}")))
}

/// Docker's words, and why.
fn unable(reason: impl std::fmt::Display) -> ControlError {
    let text = "unable to generate a cross-signed certificate for root rotation";
    refuse(ErrorKind::FailedPrecondition, format!("{text}: {reason}"))
}

fn root_of(pem: &str) -> Result<RootCertificate, ControlError> {
    RootCertificate::from_pem(pem).map_err(|e| refuse(ErrorKind::Unknown, chain(&e)))
}
