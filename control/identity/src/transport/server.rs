//! A manager's server for nodes.
//!
//! [`serve`] runs in the caller's task: one loop accepts, handshakes run beside it, tonic runs one
//! task per connection. Dropping the future, or `shutdown`, ends the loop and the handshakes.

use super::{CONNECT_TIMEOUT, chain};
use crate::{Identity, IdentityError, Members, Peer, Places, authorize, tls::LANE};
use rustls::{ServerConfig, server::Acceptor};
use shoal_model::Role;
use std::{
    future::Future,
    io,
    net::SocketAddr,
    panic::resume_unwind,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch},
    task::{JoinError, JoinSet},
    time::timeout,
};
use tokio_rustls::{LazyConfigAcceptor, StartHandshake, server::TlsStream};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    body::Body,
    codegen::http::{Request, Response},
    service::Routes,
    transport::{Server, server::Connected},
};
use tower::{Layer, Service};

/// Connections a manager holds at once, handshakes included; more wait in the kernel's backlog. Every
/// node of the largest cluster has one, and those that join have two.
pub const MAX_CONNECTIONS: usize = 32_768;

/// Handshakes a server works on at a time; others wait their turn. Of thousands that are begun together
/// none would be done before its client gives up, and tries again. These are a thousand a second with clients that
/// take their time for each; where this process does not keep up there are fewer, so that what managers say
/// to each other does not wait behind them.
const HANDSHAKES: usize = 256;

/// The same of the lane: there are at most seven managers.
const LANE_HANDSHAKES: usize = 16;

/// How long one counts among them: a client that is silent in the middle of it is in nobody's way.
const HANDSHAKE_TURN: Duration = Duration::from_millis(250);

/// Part of its client's patience that one may wait: one that waited longer would be done for nobody.
const HANDSHAKE_WAIT: u32 = 4;

/// Silence after which a server sends an HTTP/2 ping, and again until it gives the connection up.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// How long open calls may go on after `shutdown`.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(2);

/// Calls between managers that must not wait behind all others: they are served by tasks of another runtime, over
/// connections that ask for it (see [`crate::lane_config`]). Only managers get one.
pub struct Lane {
    /// Where its connections are served.
    pub runtime: Handle,
    /// What is served to them.
    pub routes: Routes,
}

/// Serves `routes` until `shutdown`, and those of the lane if there is one. Every call is checked with [`authorize`], by
/// what `members` say, and has its [`Peer`] in the request's extensions. New connections get the newest `tls` settings:
/// they change when the node renews its certificate.
pub async fn serve(
    listener: TcpListener,
    tls: watch::Receiver<Arc<ServerConfig>>,
    routes: Routes,
    lane: Option<Lane>,
    members: Arc<dyn Members>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), IdentityError> {
    let turns = Places::new(HANDSHAKES);
    let (ready, stop, serving) = server(routes, &members);
    let mut serving = pin!(serving);
    let mut beside = JoinSet::new();
    let (lane, stop_lane) = match lane {
        Some(Lane { runtime, routes }) => {
            let (ready, stop, serving) = server(routes, &members);
            beside.spawn_on(serving, &runtime);
            let turns = Arc::new(Semaphore::new(LANE_HANDSHAKES));
            (Some(LaneDoor { runtime, ready, turns }), Some(stop))
        }
        None => (None, None),
    };
    let door = Door { tls, ready, turns: Arc::clone(&turns), lane, members };
    tokio::select! {
        result = &mut serving => return result.map_err(IdentityError::Serve),
        Some(ended) = beside.join_next() => return finished(ended),
        () = door.accept(listener) => {}
        () = turns.watch() => {}
        () = shutdown => {}
    }
    drop((stop, stop_lane));
    let both = async {
        let lane = beside.join_next().await.map_or(Ok(()), finished);
        serving.await.map_err(IdentityError::Serve).and(lane)
    };
    // Calls still open are cut then.
    timeout(SHUTDOWN_GRACE, both).await.unwrap_or(Ok(()))
}

type Served = Result<(), tonic::transport::Error>;

fn finished(ended: Result<Served, JoinError>) -> Result<(), IdentityError> {
    match ended {
        Ok(served) => served.map_err(IdentityError::Serve),
        Err(error) if error.is_panic() => resume_unwind(error.into_panic()),
        Err(_) => Ok(()), // its runtime ends
    }
}

type Ready = mpsc::Sender<io::Result<Connection>>;

/// Who serves connections: where they are handed over, what ends it when it is dropped, and its work.
fn server(
    routes: Routes,
    members: &Arc<dyn Members>,
) -> (Ready, oneshot::Sender<()>, impl Future<Output = Served> + use<>) {
    let (ready, incoming) = mpsc::channel(64);
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE))
        .layer(AuthorizedLayer(Arc::clone(members)))
        .add_routes(routes)
        .serve_with_incoming_shutdown(ReceiverStream::new(incoming), async {
            let _ = stopped.await; // sent or dropped: both mean stop
        });
    (ready, stop, serving)
}

/// Where connections come in.
struct Door {
    tls: watch::Receiver<Arc<ServerConfig>>,
    ready: Ready,
    turns: Arc<Places>,
    lane: Option<LaneDoor>,
    members: Arc<dyn Members>,
}

#[derive(Clone)]
struct LaneDoor {
    runtime: Handle,
    ready: Ready,
    turns: Arc<Semaphore>,
}

impl Door {
    /// Accepts connections and hands over those whose handshake succeeded. Ends when nobody takes them.
    async fn accept(self, listener: TcpListener) {
        let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let mut handshakes = JoinSet::new();
        while !self.ready.is_closed() {
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
            let arrival = Arrival {
                addr,
                permit,
                tls: self.tls.borrow().clone(),
                ready: self.ready.clone(),
                turns: Arc::clone(&self.turns),
                lane: self.lane.clone(),
                wait: self.members.patience() / HANDSHAKE_WAIT,
            };
            handshakes.spawn(async move {
                match timeout(CONNECT_TIMEOUT, arrival.enter(tcp)).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => {
                        tracing::info!(%addr, error = chain(&error), "TLS handshake failed");
                    }
                    Err(_) => tracing::info!(%addr, "TLS handshake took too long"),
                }
            });
        }
    }
}

/// A connection before its handshake.
struct Arrival {
    addr: SocketAddr,
    permit: OwnedSemaphorePermit,
    tls: Arc<ServerConfig>,
    ready: Ready,
    turns: Arc<Places>,
    lane: Option<LaneDoor>,
    /// How long it may wait for its turn.
    wait: Duration,
}

impl Arrival {
    async fn enter(self, tcp: TcpStream) -> io::Result<()> {
        tcp.set_nodelay(true)?;
        // Who connects and says nothing has no turn: what follows is what costs something.
        let hello = LazyConfigAcceptor::new(Acceptor::default(), tcp).await?;
        let asks = hello.client_hello().alpn().is_some_and(|mut all| all.any(|one| one == LANE));
        if let Some(lane) = self.lane.clone().filter(|_| asks) {
            // Its socket belongs to the other runtime from now on.
            let StartHandshake { accepted, io, .. } = hello;
            let (tcp, runtime) = (io.into_std()?, lane.runtime.clone());
            let mut there = JoinSet::new();
            there.spawn_on(
                async move {
                    let hello = StartHandshake::from_parts(accepted, TcpStream::from_std(tcp)?);
                    self.enter_lane(hello, lane).await
                },
                &runtime,
            );
            return there
                .join_next()
                .await
                .map_or(Ok(()), |done| done.map_err(io::Error::other)?);
        }
        let turn = timeout(self.wait, self.turns.queue().acquire_owned()).await;
        let turn = self.turns.taken(turn.map_err(|_| crowded())?.map_err(io::Error::other)?);
        let ready = self.ready.clone();
        let connection = self.shake(hello, turn).await?;
        drop(ready.send(Ok(connection)).await);
        Ok(())
    }

    async fn enter_lane(self, hello: StartHandshake<TcpStream>, lane: LaneDoor) -> io::Result<()> {
        let turn = timeout(self.wait, lane.turns.acquire_owned()).await;
        let turn = turn.map_err(|_| crowded())?.map_err(io::Error::other)?;
        let connection = self.shake(hello, turn).await?;
        if connection.peer.identity.as_ref().is_none_or(|node| node.role != Role::Manager) {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "it is not a manager's"));
        }
        drop(lane.ready.send(Ok(connection)).await);
        Ok(())
    }

    async fn shake<T>(self, hello: StartHandshake<TcpStream>, turn: T) -> io::Result<Connection> {
        let mut shaking = pin!(hello.into_stream(self.tls));
        let io = match timeout(HANDSHAKE_TURN, shaking.as_mut()).await {
            Ok(done) => done?,
            Err(_) => {
                drop(turn);
                shaking.await?
            }
        };
        let certificate = io.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        let identity = certificate.map(Identity::of).transpose().map_err(io::Error::other)?;
        Ok(Connection { io, peer: Peer { addr: self.addr, identity }, _permit: self.permit })
    }
}

fn crowded() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "too many connect at once")
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
