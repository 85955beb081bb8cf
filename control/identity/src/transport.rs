//! gRPC over TLS between nodes.
//!
//! [`serve`] runs in the caller's task: one loop accepts, handshakes run beside it, tonic runs one
//! task per connection. Dropping the future, or `shutdown`, ends the loop and the handshakes.

use crate::{
    Identity, IdentityError, Members, Peer, Places, RootCertificate, RootDigest, authorize,
    tls::unverified_client_config,
};
use hyper_util::rt::TokioIo;
use rustls::{
    AlertDescription, CertificateError, ClientConfig, OtherError, ServerConfig,
    pki_types::ServerName, server::Acceptor,
};
use shoal_rpc::{RootRequest, certificates_client::CertificatesClient};
use std::{
    error::Error,
    future::Future,
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncWrite, BufReader, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch},
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::{LazyConfigAcceptor, TlsConnector, server::TlsStream};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    body::Body,
    codegen::http::{Request, Response, Uri},
    service::Routes,
    transport::{Channel, Endpoint, Server, server::Connected},
};
use tower::{Layer, Service, service_fn};

/// How long connecting with its TLS handshake may take, on both sides.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long until the other side's kernel has answered: one that has no answer from a host tries another soon,
/// however patient it is with one that is busy. Long enough to send the first packet twice.
const REACH_TIMEOUT: Duration = Duration::from_millis(1_500);

/// Connections a manager holds at once, handshakes included; more wait in the kernel's backlog. Every
/// node of the largest cluster has one, and those that join have two.
pub const MAX_CONNECTIONS: usize = 32_768;

/// Handshakes a server works on at a time; others wait their turn. Of thousands that are begun together
/// none would be done before its client gives up, and tries again. These are a thousand a second with clients that
/// take their time for each; where this process does not keep up there are fewer, so that what managers say
/// to each other does not wait behind them.
const HANDSHAKES: usize = 256;

/// How long one counts among them: a client that is silent in the middle of it is in nobody's way.
const HANDSHAKE_TURN: Duration = Duration::from_millis(250);

/// Part of its client's patience that one may wait: one that waited longer would be done for nobody.
const HANDSHAKE_WAIT: u32 = 4;

/// Silence after which a server sends an HTTP/2 ping, and again until it gives the connection up.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// The same of clients that have nothing else to notice it by: that a manager is gone must be known soon, since
/// another leads a second later.
const CLIENT_KEEPALIVE: Duration = Duration::from_secs(1);

/// How long a client waits for an answer to its ping, if it does not say.
pub const CLIENT_PATIENCE: Duration = Duration::from_secs(2);

/// How long open calls may go on after `shutdown`.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(2);

/// Serves `routes` until `shutdown`. Every call is checked with [`authorize`], by what `members` say,
/// and has its [`Peer`] in the request's extensions. New connections get the newest `tls` settings:
/// they change when the node renews its certificate.
pub async fn serve(
    listener: TcpListener,
    tls: watch::Receiver<Arc<ServerConfig>>,
    routes: Routes,
    members: Arc<dyn Members>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), IdentityError> {
    let (ready, incoming) = mpsc::channel(64);
    let turns = Places::new(HANDSHAKES);
    let (stop, stopped) = oneshot::channel::<()>();
    let mut serving = pin!(
        Server::builder()
            .http2_keepalive_interval(Some(KEEPALIVE))
            .http2_keepalive_timeout(Some(KEEPALIVE))
            .layer(AuthorizedLayer(Arc::clone(&members)))
            .add_routes(routes)
            .serve_with_incoming_shutdown(ReceiverStream::new(incoming), async {
                let _ = stopped.await; // sent or dropped: both mean stop
            })
    );
    tokio::select! {
        result = &mut serving => return result.map_err(IdentityError::Serve),
        () = accept(listener, tls, ready, members, &turns) => {}
        () = turns.watch() => {}
        () = shutdown => {}
    }
    drop(stop);
    match timeout(SHUTDOWN_GRACE, serving).await {
        Ok(result) => result.map_err(IdentityError::Serve),
        Err(_) => Ok(()), // calls still open are cut
    }
}

/// Accepts connections and hands over those whose handshake succeeded. Ends when nobody takes them.
async fn accept(
    listener: TcpListener,
    tls: watch::Receiver<Arc<ServerConfig>>,
    ready: mpsc::Sender<io::Result<Connection>>,
    members: Arc<dyn Members>,
    turns: &Arc<Places>,
) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut handshakes = JoinSet::new();
    while !ready.is_closed() {
        while handshakes.try_join_next().is_some() {} // forget those done
        let Ok(permit) = slots.clone().acquire_owned().await else { return };
        let (tcp, addr) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors or the like: wait instead of spinning.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (tls, ready, turns) = (tls.borrow().clone(), ready.clone(), Arc::clone(turns));
        let wait = members.patience() / HANDSHAKE_WAIT;
        handshakes.spawn(async move {
            let shaken = handshake(tls, &turns, wait, tcp, addr, permit);
            match timeout(CONNECT_TIMEOUT, shaken).await {
                Ok(Ok(connection)) => drop(ready.send(Ok(connection)).await),
                Ok(Err(error)) => {
                    tracing::info!(%addr, error = chain(&error), "TLS handshake failed");
                }
                Err(_) => tracing::info!(%addr, "TLS handshake took too long"),
            }
        });
    }
}

async fn handshake(
    tls: Arc<ServerConfig>,
    turns: &Arc<Places>,
    wait: Duration,
    tcp: TcpStream,
    addr: SocketAddr,
    permit: OwnedSemaphorePermit,
) -> io::Result<Connection> {
    tcp.set_nodelay(true)?;
    // Who connects and says nothing has no turn: what follows is what costs something.
    let hello = LazyConfigAcceptor::new(Acceptor::default(), tcp).await?;
    let turn = match timeout(wait, turns.queue().acquire_owned()).await {
        Ok(turn) => turns.taken(turn.map_err(io::Error::other)?),
        Err(_) => return Err(io::Error::new(io::ErrorKind::TimedOut, "too many connect at once")),
    };
    let mut shaking = pin!(hello.into_stream(tls));
    let io = match timeout(HANDSHAKE_TURN, shaking.as_mut()).await {
        Ok(done) => done?,
        Err(_) => {
            drop(turn);
            shaking.await?
        }
    };
    let certificate = io.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let identity = certificate.map(Identity::of).transpose().map_err(io::Error::other)?;
    Ok(Connection { io, peer: Peer { addr, identity }, _permit: permit })
}

/// An accepted connection.
struct Connection {
    io: TlsStream<TcpStream>,
    peer: Peer,
    _permit: OwnedSemaphorePermit,
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// Lets a call through to `S` if [`authorize`] does.
#[derive(Clone)]
struct Authorized<S>(S, Arc<dyn Members>);

#[derive(Clone)]
struct AuthorizedLayer(Arc<dyn Members>);

impl<S> Layer<S> for AuthorizedLayer {
    type Service = Authorized<S>;

    fn layer(&self, inner: S) -> Authorized<S> {
        Authorized(inner, Arc::clone(&self.0))
    }
}

impl<S> Service<Request<Body>> for Authorized<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let path = request.uri().path();
        let peer = request.extensions().get::<Peer>();
        match authorize(path, peer.and_then(|p| p.identity.as_ref()), &*self.1) {
            Ok(()) => Box::pin(self.0.call(request)),
            Err(status) => {
                tracing::info!(path, ?peer, %status, "call refused");
                Box::pin(std::future::ready(Ok(status.into_http())))
            }
        }
    }
}

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
