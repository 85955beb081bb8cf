//! Accepting connections: one task per listener and one per connection, all owned by [`serve`].
//! When `shutdown` completes, idle connections are closed, busy ones get [`GRACE`] to end.
use crate::{context::ApiContext, entry::router, events};
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use std::{future::Future, io, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    sync::{Semaphore, watch},
    task::JoinSet,
};

/// How long requests may go on after the shutdown began.
const GRACE: Duration = Duration::from_secs(2);
/// Connections at one time; further ones wait in the listener's queue.
const MAX_CONNECTIONS: usize = 1024;
/// Pause after a failed accept (out of file descriptors), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A socket to accept connections on.
#[derive(Debug)]
pub enum Listener {
    /// A unix socket.
    Unix(UnixListener),
    /// A TCP socket. Whoever reaches it controls the node: bind it to loopback only.
    Tcp(TcpListener),
}

/// Serves the API on all listeners until `shutdown` completes.
pub async fn serve(
    listeners: Vec<Listener>,
    ctx: ApiContext,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    if listeners.is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "no socket to serve the API on"));
    }
    let following = tokio::spawn(events::follow(ctx.events.clone(), Arc::clone(&ctx.swarm)));
    let routes = router(ctx);
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let (stop, stopped) = watch::channel(false);
    let mut accepting = JoinSet::new();
    for listener in listeners {
        let (routes, slots, stopped) = (routes.clone(), slots.clone(), stopped.clone());
        accepting.spawn(accept(listener, routes, slots, stopped));
    }
    drop(stopped);
    shutdown.await;
    following.abort();
    stop.send_replace(true);
    if tokio::time::timeout(GRACE, async { while accepting.join_next().await.is_some() {} })
        .await
        .is_err()
    {
        tracing::info!("requests still under way are cut off");
        accepting.shutdown().await;
    }
    Ok(())
}

async fn accept(
    listener: Listener,
    routes: axum::Router,
    slots: Arc<Semaphore>,
    mut stopped: watch::Receiver<bool>,
) {
    let mut connections = JoinSet::new();
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else { break };
        let accepted = tokio::select! {
            biased;
            () = async { drop(stopped.wait_for(|s| *s).await) } => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            accepted = async {
                match &listener {
                    Listener::Unix(l) => l.accept().await.map(|(s, _)| Stream::Unix(s)),
                    Listener::Tcp(l) => l.accept().await.map(|(s, _)| Stream::Tcp(s)),
                }
            } => accepted,
        };
        match accepted {
            Ok(Stream::Unix(s)) => {
                connections.spawn(connection(s, routes.clone(), slot, stopped.clone()));
            }
            Ok(Stream::Tcp(s)) => {
                if let Err(e) = s.set_nodelay(true) {
                    tracing::debug!(error = %e, "TCP_NODELAY refused");
                }
                connections.spawn(connection(s, routes.clone(), slot, stopped.clone()));
            }
            Err(e) => {
                tracing::warn!(error = %e, "cannot accept a connection to the API");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    while connections.join_next().await.is_some() {}
}

enum Stream {
    Unix(tokio::net::UnixStream),
    Tcp(tokio::net::TcpStream),
}

async fn connection(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    routes: axum::Router,
    _slot: tokio::sync::OwnedSemaphorePermit,
    mut stopped: watch::Receiver<bool>,
) {
    let connection = hyper::server::conn::http1::Builder::new()
        .half_close(true)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes))
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        result = connection.as_mut() => Some(result),
        () = async { drop(stopped.wait_for(|s| *s).await) } => None,
    };
    let result = match ended {
        Some(result) => result,
        None => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(e) = result {
        tracing::debug!(error = %e, "API connection ended");
    }
}
