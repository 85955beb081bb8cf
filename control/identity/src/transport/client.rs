//! Connections to managers.

use super::{CONNECT_TIMEOUT, chain};
use crate::{IdentityError, RootCertificate, RootDigest, tls::unverified_client_config};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, pki_types::ServerName};
use shoal_rpc::{RootRequest, certificates_client::CertificatesClient};
use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;
use tonic::{
    codegen::http::Uri,
    transport::{Channel, Endpoint},
};
use tower::service_fn;

/// How long until the other side's kernel has answered: one that has no answer from a host tries another soon,
/// however patient it is with one that is busy. Long enough to send the first packet twice.
const REACH_TIMEOUT: Duration = Duration::from_millis(1_500);

/// The same of clients that have nothing else to notice it by: that a manager is gone must be known soon, since
/// another leads a second later.
const CLIENT_KEEPALIVE: Duration = Duration::from_secs(1);

/// How long a client waits for an answer to its ping, if it does not say.
pub const CLIENT_PATIENCE: Duration = Duration::from_secs(2);

/// Connects to the manager at `addr`. The channel reconnects by itself when the connection breaks.
pub async fn connect(addr: SocketAddr, tls: Arc<ClientConfig>) -> Result<Channel, IdentityError> {
    connect_within(CONNECT_TIMEOUT, Some(CLIENT_PATIENCE), addr, tls).await
}

/// [`connect`] with another time limit, and the longest time that the manager may be silent afterwards; `None` when
/// that is not to be noticed here.
pub async fn connect_within(
    limit: Duration,
    silence: Option<Duration>,
    addr: SocketAddr,
    tls: Arc<ClientConfig>,
) -> Result<Channel, IdentityError> {
    let connector = TlsConnector::from(tls);
    let refused = Arc::new(AtomicBool::new(false));
    let closed = Arc::clone(&refused);
    // Only the path of this address is used: the connector decides where to go.
    let mut endpoint = Endpoint::from_static("http://manager");
    if let Some(silence) = silence {
        endpoint = endpoint
            .http2_keep_alive_interval(CLIENT_KEEPALIVE)
            .keep_alive_timeout(silence)
            .keep_alive_while_idle(true);
    }
    endpoint
        .connect_with_connector(service_fn(move |_: Uri| {
            let (connector, closed) = (connector.clone(), Arc::clone(&closed));
            async move {
                let connecting = async {
                    let reach = limit.min(REACH_TIMEOUT);
                    let tcp = timeout(reach, TcpStream::connect(addr)).await;
                    let tcp = tcp.map_err(|_| no_answer(reach))??;
                    tcp.set_nodelay(true)?;
                    let name = ServerName::IpAddress(addr.ip().into());
                    let mut io = BufReader::new(connector.connect(name, tcp).await?);
                    // The server checks this side's certificate last, and then speaks first (RFC 9113,
                    // 3.4). Who waits for that hears why it is refused; who writes may only see the
                    // connection break.
                    match io.fill_buf().await? {
                        [] => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it was closed")),
                        _ => Ok(io),
                    }
                };
                match timeout(limit, connecting).await {
                    Ok(stream) => stream.map(TokioIo::new).inspect_err(|error| {
                        closed.store(is_closed(error), Ordering::Relaxed);
                    }),
                    Err(_) => Err(no_answer(limit)),
                }
            }
        }))
        .await
        .map_err(|e| match refused.load(Ordering::Relaxed) {
            true => IdentityError::Busy { addr, reason: chain(&e) },
            false => IdentityError::Connect { addr, reason: chain(&e) },
        })
}

/// Whether the other side ended the connection, and did not say why.
fn is_closed(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionReset | UnexpectedEof)
}

fn no_answer(within: Duration) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {within:?}"))
}

/// Asks the manager at `addr` for the cluster's root certificate and believes it only if it has the
/// digest that the join token carries.
pub async fn fetch_root(
    addr: SocketAddr,
    expected: RootDigest,
) -> Result<RootCertificate, IdentityError> {
    let channel = connect(addr, unverified_client_config()?).await?;
    let reply = timeout(CONNECT_TIMEOUT, CertificatesClient::new(channel).root(RootRequest {}))
        .await
        .map_err(|_| format!("no answer within {CONNECT_TIMEOUT:?}"))
        .and_then(|reply| reply.map_err(|status| chain(&status)))
        .map_err(|reason| IdentityError::Connect { addr, reason })?;
    let root = RootCertificate::from_pem(&reply.into_inner().certificate)?;
    match root.digest() {
        found if found == expected => Ok(root),
        found => Err(IdentityError::WrongRoot { addr, expected, found }),
    }
}
