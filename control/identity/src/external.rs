//! A certificate authority outside of the cluster, by cfssl's protocol: a request is posted as JSON to
//! its URL, the certificate comes back. What comes back is checked before anybody gets it.

use crate::{
    Identity, IdentityError, NodeCertificate, RootCa, RootCertificate,
    certificate::{check_issued, ders_of},
    cross,
    peer::unit,
    tls::{check_usable, external_config},
    transport::chain,
};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Method, Request, StatusCode, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig,
    pki_types::{ServerName, UnixTime},
};
use serde::Deserialize;
use serde_json::{Value, json};
use shoal_model::{Role, Timestamp};
use std::{fmt, sync::Arc, time::Duration};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// How long one request may take with everything (swarmkit's).
const PATIENCE: Duration = Duration::from_secs(5);

/// How long connecting alone may take, when only that is tried.
const CONNECT_PATIENCE: Duration = Duration::from_secs(2);

/// Largest answer, bytes; a certificate is below 2 KiB.
const MAX_ANSWER: usize = 64 * 1024;

/// So much of an answer that makes no sense is repeated in the error.
const SHOWN: usize = 300;

/// A certificate that ends sooner is of no use: nodes renew theirs in the second half of its life.
const SHORTEST: Duration = Duration::from_secs(3600);

/// The profile asked for when a root is to be certified (swarmkit's).
const CA_PROFILE: &str = "CA";

/// Why an external CA did not sign.
#[derive(Debug, thiserror::Error)]
pub enum ExternalError {
    /// The URL is none.
    #[error("invalid URL {url:?} of an external CA: {reason}")]
    Url {
        /// As given.
        url: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// It was not reached, or its certificate was refused.
    #[error("the external CA {url} cannot be reached: {reason}")]
    Unreachable {
        /// Its URL.
        url: String,
        /// Why.
        reason: String,
    },
    /// It answered with a refusal, or with something else.
    #[error("the external CA {url} did not sign: {reason}")]
    Refused {
        /// Its URL.
        url: String,
        /// What it said.
        reason: String,
    },
    /// What it signed is not what was asked for.
    #[error("the external CA {url} gave a certificate that cannot be used")]
    Certificate {
        /// Its URL.
        url: String,
        /// What is wrong with it.
        source: IdentityError,
    },
    /// A key or certificate of our own.
    #[error(transparent)]
    Own(#[from] IdentityError),
}

/// Where an external CA is: `https://HOST[:PORT]/PATH`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ExternalUrl {
    text: String,
    host: String,
    port: u16,
    path: String,
}

impl ExternalUrl {
    /// Reads it.
    pub fn parse(text: &str) -> Result<ExternalUrl, ExternalError> {
        let wrong = |reason| ExternalError::Url { url: text.to_owned(), reason };
        let uri: hyper::Uri =
            text.parse().map_err(|_| wrong("write it like https://HOST:PORT/PATH"))?;
        // Docker's words.
        if uri.scheme_str() != Some("https") {
            return Err(wrong("invalid HTTP scheme, it must be https"));
        }
        let host = uri.host().filter(|host| !host.is_empty()).ok_or(wrong("it names no host"))?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        if ServerName::try_from(host.as_str()).is_err() {
            return Err(wrong("its host is neither a name nor an address"));
        }
        let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        let port = uri.port_u16().unwrap_or(443);
        Ok(ExternalUrl { text: text.to_owned(), host, port, path })
    }
}

impl fmt::Display for ExternalUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// An external CA as a manager talks to it.
#[derive(Clone, Debug)]
pub struct ExternalCa {
    url: ExternalUrl,
    tls: Arc<ClientConfig>,
}

impl ExternalCa {
    /// The CA at `url`, whose server's certificate is of one of `roots`; it is shown `node`.
    pub fn new(
        url: ExternalUrl,
        roots: &[RootCertificate],
        node: Option<&NodeCertificate>,
    ) -> Result<ExternalCa, IdentityError> {
        Ok(ExternalCa { url, tls: external_config(roots, node)? })
    }

    /// Whether it can be reached and shows a certificate that is trusted.
    pub async fn reach(&self) -> Result<(), ExternalError> {
        let reached = timeout(CONNECT_PATIENCE, self.connect()).await;
        reached
            .map_err(|_| self.unreachable(format!("no answer within {CONNECT_PATIENCE:?}")))??;
        Ok(())
    }

    /// Has the key of a request certified for a node, and gives the certificate in PEM form. It is by
    /// `root`, for this node, and can be used now and for an hour at least.
    pub async fn sign_node(
        &self,
        csr: &str,
        node: &Identity,
        root: &RootCertificate,
        now: Timestamp,
    ) -> Result<String, ExternalError> {
        let role = unit(node.role);
        // Names as swarmkit asks for them. Here host names play no part.
        let mut hosts = vec![role, &node.node_id];
        if node.role == Role::Manager {
            hosts.push("swarm-ca");
        }
        let request = json!({
            "certificate_request": csr,
            "hosts": hosts,
            "subject": {
                "CN": node.node_id,
                "names": [{ "OU": role, "O": node.cluster_id }],
            },
            "profile": "",
        });
        let pem = self.sign(&request).await?;
        let unusable = |source| ExternalError::Certificate { url: self.url.to_string(), source };
        check(&pem, csr, node, root, now).map_err(unusable)?;
        Ok(pem)
    }

    /// Has `new` certified by the present root, whose key it has, and gives that in PEM form.
    pub async fn cross_sign(
        &self,
        new: &RootCa,
        present: &RootCertificate,
    ) -> Result<String, ExternalError> {
        let request = json!({
            "certificate_request": new.csr_pem()?,
            "hosts": [],
            "profile": CA_PROFILE,
        });
        let pem = self.sign(&request).await?;
        let checked = ders_of("cross-signed root certificate", &pem, 1)
            .and_then(|made| cross::check(&made[0], present, new.certificate()));
        let unusable = |source| ExternalError::Certificate { url: self.url.to_string(), source };
        checked.map_err(unusable)?;
        Ok(pem)
    }

    async fn sign(&self, request: &Value) -> Result<String, ExternalError> {
        let answered = timeout(PATIENCE, self.post(request)).await;
        let (status, body) =
            answered.map_err(|_| self.unreachable(format!("no answer within {PATIENCE:?}")))??;
        answer(status, &body)
            .map_err(|reason| ExternalError::Refused { url: self.url.to_string(), reason })
    }

    async fn post(&self, request: &Value) -> Result<(StatusCode, Bytes), ExternalError> {
        let lost = |error: hyper::Error| self.unreachable(chain(&error));
        let stream = TokioIo::new(self.connect().await?);
        let (mut sender, connection) = http1::handshake(stream).await.map_err(lost)?;
        let request = Request::builder()
            .method(Method::POST)
            .uri(&self.url.path)
            .header(header::HOST, format!("{}:{}", self.url.host, self.url.port))
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::CONNECTION, "close")
            .body(Full::new(Bytes::from(request.to_string())))
            .map_err(|e| self.unreachable(e.to_string()))?;
        let exchange = async {
            let (head, body) = sender.send_request(request).await.map_err(lost)?.into_parts();
            let body = Limited::new(body, MAX_ANSWER).collect().await;
            let body = body.map_err(|e| self.unreachable(e.to_string()))?;
            Ok((head.status, body.to_bytes()))
        };
        // The connection is driven beside the exchange, which is done when it has its answer.
        let mut exchange = std::pin::pin!(exchange);
        tokio::select! {
            answer = &mut exchange => answer,
            ended = connection => {
                ended.map_err(lost)?;
                exchange.await
            }
        }
    }

    async fn connect(&self) -> Result<TlsStream<TcpStream>, ExternalError> {
        let failed = |error: std::io::Error| self.unreachable(chain(&error));
        let name = ServerName::try_from(self.url.host.clone());
        let name = name.map_err(|e| self.unreachable(e.to_string()))?;
        let tcp = TcpStream::connect((self.url.host.as_str(), self.url.port)).await;
        let connector = TlsConnector::from(Arc::clone(&self.tls));
        connector.connect(name, tcp.map_err(failed)?).await.map_err(failed)
    }

    fn unreachable(&self, reason: String) -> ExternalError {
        ExternalError::Unreachable { url: self.url.to_string(), reason }
    }
}

/// The certificate in an answer, or what the answer says instead.
fn answer(status: StatusCode, body: &[u8]) -> Result<String, String> {
    #[derive(Deserialize)]
    struct Answer {
        success: bool,
        result: Option<Signed>,
        #[serde(default)]
        errors: Vec<Reason>,
    }
    #[derive(Deserialize)]
    struct Signed {
        certificate: String,
    }
    #[derive(Deserialize)]
    struct Reason {
        #[serde(default)]
        message: String,
    }
    let shown = || {
        let text = String::from_utf8_lossy(body);
        text.chars().filter(|c| !c.is_control()).take(SHOWN).collect::<String>()
    };
    match serde_json::from_slice::<Answer>(body) {
        Ok(Answer { success: true, result: Some(signed), .. }) if status == StatusCode::OK => {
            Ok(signed.certificate)
        }
        Ok(answer) if !answer.errors.is_empty() => {
            let reasons: Vec<_> = answer.errors.into_iter().map(|e| e.message).collect();
            Err(reasons.join("; ").chars().take(SHOWN).collect())
        }
        _ if status != StatusCode::OK => {
            Err(format!("unexpected status code {status}: {}", shown()))
        }
        Ok(_) => Err("certificate signing request failed".to_owned()),
        Err(error) => Err(format!("its answer is not understood ({error}): {}", shown())),
    }
}

fn check(
    pem: &str,
    csr: &str,
    node: &Identity,
    root: &RootCertificate,
    now: Timestamp,
) -> Result<(), IdentityError> {
    const WHAT: &str = "node certificate";
    let made = ders_of(WHAT, pem, 1)?;
    let [_, end] = check_issued(&made[0], csr, node, root)?;
    if end < now.after(SHORTEST) {
        return Err(IdentityError::invalid(WHAT, "it ends within an hour"));
    }
    let seconds = u64::try_from(now.0 / 1_000_000_000).unwrap_or_default();
    let now = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
    check_usable(&made[0], root, now).map_err(|e| IdentityError::invalid(WHAT, e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_urls_of_https_are_taken() {
        let parts = |url: ExternalUrl| (url.host, url.port, url.path);
        let good = [
            ("https://ca.example", ("ca.example", 443, "/")),
            ("https://ca:8888/api/v1/cfssl/sign", ("ca", 8888, "/api/v1/cfssl/sign")),
            ("https://[::1]:8/x?y", ("::1", 8, "/x?y")),
        ];
        for (text, (host, port, path)) in good {
            let found = parts(ExternalUrl::parse(text).unwrap());
            assert_eq!(found, (host.to_owned(), port, path.to_owned()), "{text}");
        }
        for text in
            ["", "http://ca.example/", "ca.example:443", "https://", "https:///x", "https://a b/"]
        {
            let error = ExternalUrl::parse(text).unwrap_err().to_string();
            assert!(error.contains("of an external CA"), "{error}");
        }
    }

    #[test]
    fn an_answer_gives_the_certificate_or_the_reason() {
        let good = br#"{"success":true,"result":{"certificate":"PEM"},"errors":[],"messages":[]}"#;
        assert_eq!(answer(StatusCode::OK, good).unwrap(), "PEM");
        let table: [(u16, &[u8], &str); 6] = [
            (200, br#"{"success":false,"result":null,"errors":[{"code":1,"message":"no"}]}"#, "no"),
            (400, br#"{"success":false,"errors":[{"message":"a"},{"message":"b"}]}"#, "a; b"),
            (200, br#"{"success":false,"errors":[]}"#, "certificate signing request failed"),
            (
                502,
                b"<html>Bad\nGateway",
                "unexpected status code 502 Bad Gateway: <html>BadGateway",
            ),
            (500, good, "unexpected status code 500"),
            (200, br#"{"success":true,"result":{}}"#, "its answer is not understood"),
        ];
        for (status, body, reason) in table {
            let said = answer(StatusCode::from_u16(status).unwrap(), body).unwrap_err();
            assert!(said.contains(reason), "{said}");
        }
    }
}
