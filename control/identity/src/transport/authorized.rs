//! Every call is checked before it is answered.

use crate::{Members, Peer, authorize};
use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};
use tonic::{
    body::Body,
    codegen::http::{Request, Response},
};
use tower::{Layer, Service};

/// Lets a call through to `S` if [`authorize`] does.
#[derive(Clone)]
pub(super) struct Authorized<S>(S, Arc<dyn Members>);

/// Puts [`Authorized`] before a service.
#[derive(Clone)]
pub(super) struct AuthorizedLayer(pub(super) Arc<dyn Members>);

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
