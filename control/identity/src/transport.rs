//! gRPC over TLS between nodes.

mod authorized;
mod client;
mod door;
mod server;

pub use client::{CLIENT_PATIENCE, connect, connect_within, fetch_root};
pub use door::MAX_CONNECTIONS;
pub use server::{Lane, serve};

use rustls::{AlertDescription, CertificateError, OtherError};
use std::{error::Error, io, time::Duration};

/// How long connecting with its TLS handshake may take, on both sides.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// What a manager means that does not know the root of a node's certificate.
const NOT_KNOWN: &str = "the manager does not accept this node's certificate, since the swarm's root has \
     not signed it: its root CA was rotated while this node was away; leave with `swarm leave --force` \
     and join again";

/// An error with all its causes, each said once. A refused certificate is put in words for the user.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = words(error);
    let mut cause = error.source();
    while let Some(error) = cause {
        let words = words(error);
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        cause = error.source();
    }
    text
}

/// The text of an error; of a refusal of ours inside rustls' error inside an I/O error, the refusal's
/// own, which rustls shows in `Debug` form.
fn words(error: &(dyn Error + 'static)) -> String {
    let io = error.downcast_ref::<io::Error>();
    match io.and_then(io::Error::get_ref).and_then(|e| e.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(refusal)))) => {
            refusal.to_string()
        }
        Some(rustls::Error::AlertReceived(AlertDescription::UnknownCA)) => NOT_KNOWN.to_owned(),
        // HTTP/2 keeps the words alone.
        _ => match error.to_string() {
            text if text.contains("received fatal alert: UnknownCA") => NOT_KNOWN.to_owned(),
            text => text,
        },
    }
}
