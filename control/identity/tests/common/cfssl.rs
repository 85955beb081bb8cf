//! A server that signs by cfssl's protocol, well or badly.
#![allow(clippy::unwrap_used, reason = "where a test cannot be set up it fails")]

use rcgen::{CertificateParams, IsCa, Issuer, KeyPair, SanType};
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};
use serde_json::{Value, json};
use shoal_identity::{NODE_VALIDITY, RootCa};
use shoal_model::{Role, Timestamp};
use std::{
    net::{IpAddr, Ipv4Addr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;

/// How it answers.
#[derive(Clone)]
#[allow(dead_code, reason = "not every test program uses all of them")]
pub(crate) enum Manners {
    Signs,
    /// With another root.
    By(RootCa),
    /// For a node of this name.
    For(&'static str),
    AsManager,
    /// Somebody else's key.
    Key(String),
    EndsIn(Duration),
    Answers(u16, &'static str),
    Hangs,
}

/// A running server; it ends with the test.
pub(crate) struct Cfssl {
    pub(crate) url: String,
    pub(crate) manners: Arc<Mutex<Manners>>,
    /// Requests answered.
    pub(crate) asked: Arc<AtomicUsize>,
}

fn now() -> Timestamp {
    Timestamp::default().after(SystemTime::now().duration_since(UNIX_EPOCH).unwrap())
}

/// The server's own certificate, for 127.0.0.1, by the root.
fn own(root: &RootCa) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::ExplicitNoCa;
    params.subject_alt_names.push(SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST)));
    let authority = KeyPair::from_pem(root.key_pem()).unwrap();
    let issuer = Issuer::from_ca_cert_pem(root.certificate().pem(), authority).unwrap();
    let made = params.signed_by(&key, &issuer).unwrap();
    let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap();
    (made.der().clone(), key)
}

impl Cfssl {
    /// Signs with `root` for anybody.
    #[allow(dead_code, reason = "not every test program uses it")]
    pub(crate) async fn open(root: &RootCa) -> Cfssl {
        Cfssl::serve(root, WebPkiClientVerifier::no_client_auth()).await
    }

    /// Signs with `root`; its clients have to show a certificate of one of `clients`.
    pub(crate) async fn start(root: &RootCa, clients: &[&RootCa]) -> Cfssl {
        let mut roots = RootCertStore::empty();
        for ca in clients {
            let pem = ca.certificate().pem();
            roots.add(CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()).unwrap();
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        Cfssl::serve(root, clients.build().unwrap()).await
    }

    async fn serve(root: &RootCa, clients: Arc<dyn ClientCertVerifier>) -> Cfssl {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let (certificate, key) = own(root);
        let tls = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(clients)
            .with_single_cert(vec![certificate], key)
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}/api/v1/cfssl/sign", listener.local_addr().unwrap());
        let manners = Arc::new(Mutex::new(Manners::Signs));
        let asked = Arc::new(AtomicUsize::new(0));
        let (root, how, count) = (root.clone(), manners.clone(), asked.clone());
        tokio::spawn(async move {
            let acceptor = TlsAcceptor::from(Arc::new(tls));
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                let Ok(mut tls) = acceptor.accept(tcp).await else { continue };
                let Some(request) = read(&mut tls).await else { continue };
                count.fetch_add(1, Ordering::Relaxed);
                let manners = how.lock().unwrap().clone();
                let (status, body) = match manners {
                    Manners::Hangs => {
                        tokio::spawn(async move {
                            tokio::time::sleep(Duration::from_secs(60)).await;
                            drop(tls);
                        });
                        continue;
                    }
                    Manners::Answers(status, body) => (status, body.to_owned()),
                    manners => (200, signed(&root, &request, manners).to_string()),
                };
                let head = format!(
                    "HTTP/1.1 {status} Word\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
                    body.len()
                );
                let _ = tls.write_all((head + &body).as_bytes()).await;
                let _ = tls.shutdown().await;
            }
        });
        Cfssl { url, manners, asked }
    }

    pub(crate) fn behave(&self, manners: Manners) {
        *self.manners.lock().unwrap() = manners;
    }
}

/// The body of a request, as JSON.
async fn read(io: &mut (impl AsyncReadExt + Unpin)) -> Option<Value> {
    let mut text = Vec::new();
    loop {
        let mut part = [0; 4096];
        match io.read(&mut part).await {
            Ok(length) if length > 0 => text.extend_from_slice(&part[..length]),
            _ => return None,
        }
        let all = String::from_utf8_lossy(&text);
        if let Some((head, body)) = all.split_once("\r\n\r\n")
            && let Ok(json) = serde_json::from_str(body)
        {
            assert!(head.starts_with("POST /api/v1/cfssl/sign HTTP/1.1\r\n"), "{head}");
            return Some(json);
        }
    }
}

fn signed(root: &RootCa, request: &Value, manners: Manners) -> Value {
    let text = |pointer: &str| request.pointer(pointer).unwrap().as_str().unwrap().to_owned();
    let (mut csr, mut node) = (text("/certificate_request"), text("/subject/CN"));
    let mut role = match text("/subject/names/0/OU").as_str() {
        "swarm-manager" => Role::Manager,
        _ => Role::Worker,
    };
    let (mut root, mut lifetime) = (root.clone(), NODE_VALIDITY);
    match manners {
        Manners::By(other) => root = other,
        Manners::For(other) => node = other.to_owned(),
        Manners::AsManager => role = Role::Manager,
        Manners::Key(other) => csr = other,
        Manners::EndsIn(time) => lifetime = time,
        _ => {}
    }
    let cluster = text("/subject/names/0/O");
    let made = root.sign_node(&csr, &node, role, &cluster, now(), lifetime).unwrap();
    json!({ "success": true, "result": { "certificate": made }, "errors": [], "messages": [] })
}
