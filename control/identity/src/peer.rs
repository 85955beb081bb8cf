//! Who is at the other end of a connection, as its verified certificate says.

use crate::{IdentityError, certificate::parse};
use rustls::pki_types::CertificateDer;
use shoal_model::Role;
use std::{fmt, net::SocketAddr};
use x509_parser::{der_parser::asn1_rs::Oid, oid_registry, x509::X509Name};

/// The word for a role in the organizational unit of a certificate.
pub(crate) fn unit(role: Role) -> &'static str {
    match role {
        Role::Worker => "swarm-worker",
        Role::Manager => "swarm-manager",
    }
}

/// A node as its certificate names it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Identity {
    /// Node id (common name).
    pub node_id: String,
    /// Role (organizational unit).
    pub role: Role,
    /// Cluster id (organization).
    pub cluster_id: String,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Identity { node_id, role, cluster_id } = self;
        write!(f, "node {node_id} as {} of cluster {cluster_id}", unit(*role))
    }
}

impl Identity {
    /// Reads the subject of a certificate. Says nothing about who signed it.
    pub(crate) fn of(der: &CertificateDer<'_>) -> Result<Identity, IdentityError> {
        let certificate = parse(WHAT, der)?;
        let subject = certificate.subject();
        let role = match only(subject, &oid_registry::OID_X509_ORGANIZATIONAL_UNIT, "role (OU)")? {
            "swarm-worker" => Role::Worker,
            "swarm-manager" => Role::Manager,
            other => {
                return Err(IdentityError::invalid(WHAT, format!("unknown role (OU) {other:?}")));
            }
        };
        Ok(Identity {
            node_id: only(subject, &oid_registry::OID_X509_COMMON_NAME, "node id (CN)")?.into(),
            role,
            cluster_id: only(subject, &oid_registry::OID_X509_ORGANIZATION_NAME, "cluster (O)")?
                .into(),
        })
    }
}

const WHAT: &str = "node certificate";

/// The one attribute of this type: several would leave it open which one counts.
fn only<'a>(
    name: &'a X509Name<'_>,
    oid: &Oid<'static>,
    what: &str,
) -> Result<&'a str, IdentityError> {
    let mut values = name.iter_by_oid(oid);
    match (values.next().map(|v| v.as_str()), values.next()) {
        (Some(Ok(value)), None) if !value.is_empty() => Ok(value),
        (None, _) => Err(IdentityError::invalid(WHAT, format!("it has no {what}"))),
        _ => Err(IdentityError::invalid(WHAT, format!("its {what} is not one plain text"))),
    }
}

/// The other end of a connection; [`crate::serve`] puts it into the extensions of each request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Peer {
    /// Address it is seen at.
    pub addr: SocketAddr,
    /// Who it is; `None` without a client certificate.
    pub identity: Option<Identity>,
}

impl Peer {
    /// The peer of a request.
    pub fn of<T>(request: &tonic::Request<T>) -> Result<&Peer, tonic::Status> {
        request
            .extensions()
            .get::<Peer>()
            .ok_or_else(|| tonic::Status::internal("request without a peer"))
    }

    /// The node that calls; refused when it has shown no certificate.
    pub fn node(&self) -> Result<&Identity, tonic::Status> {
        self.identity
            .as_ref()
            .ok_or_else(|| tonic::Status::unauthenticated("no node certificate was presented"))
    }
}
