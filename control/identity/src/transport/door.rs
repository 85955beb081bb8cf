//! How connections get in: accepted, shaken hands with in turns, handed over to who serves them.

use super::{CONNECT_TIMEOUT, chain};
use crate::{Identity, Members, Peer, Places, tls::LANE};
use rustls::{ServerConfig, server::Acceptor};
use shoal_model::Role;
use std::{
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch},
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::{LazyConfigAcceptor, StartHandshake, server::TlsStream};
use tonic::transport::server::Connected;

/// Connections a manager holds at once, handshakes included; more wait in the kernel's backlog. Every
/// node of the largest cluster has one, and those that join have two.
pub const MAX_CONNECTIONS: usize = 32_768;

/// Handshakes a server works on at a time; others wait their turn. Of thousands that are begun together
/// none would be done before its client gives up, and tries again. These are a thousand a second with clients that
/// take their time for each; where this process does not keep up there are fewer, so that what managers say
/// to each other does not wait behind them.
pub(super) const HANDSHAKES: usize = 256;

/// The same of the lane: there are at most seven managers.
pub(super) const LANE_HANDSHAKES: usize = 16;

/// How long one counts among them: a client that is silent in the middle of it is in nobody's way.
const HANDSHAKE_TURN: Duration = Duration::from_millis(250);

/// Part of its client's patience that one may wait: one that waited longer would be done for nobody.
const HANDSHAKE_WAIT: u32 = 4;

/// Where connections go whose handshake is done.
pub(super) type Ready = mpsc::Sender<io::Result<Connection>>;

/// Where connections come in.
pub(super) struct Door {
    pub(super) tls: watch::Receiver<Arc<ServerConfig>>,
    pub(super) ready: Ready,
    pub(super) turns: Arc<Places>,
    pub(super) lane: Option<LaneDoor>,
    pub(super) members: Arc<dyn Members>,
}

#[derive(Clone)]
pub(super) struct LaneDoor {
    pub(super) runtime: Handle,
    pub(super) ready: Ready,
    pub(super) turns: Arc<Semaphore>,
}

impl Door {
    /// Accepts connections and hands over those whose handshake succeeded. Ends when nobody takes them.
    pub(super) async fn accept(self, listener: TcpListener) {
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
pub(super) struct Connection {
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
