//! A manager's server for nodes.
//!
//! [`serve`] runs in the caller's task: one loop accepts, handshakes run beside it, tonic runs one
//! task per connection. Dropping the future, or `shutdown`, ends the loop and the handshakes.

use super::{
    authorized::AuthorizedLayer,
    door::{Door, HANDSHAKES, LANE_HANDSHAKES, LaneDoor, Ready},
};
use crate::{IdentityError, Members, Places};
use rustls::ServerConfig;
use std::{future::Future, panic::resume_unwind, pin::pin, sync::Arc, time::Duration};
use tokio::{
    net::TcpListener,
    runtime::Handle,
    sync::{Semaphore, mpsc, oneshot, watch},
    task::{JoinError, JoinSet},
    time::timeout,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{service::Routes, transport::Server};

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
