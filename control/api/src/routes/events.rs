//! The stream of the cluster's events.
use crate::{
    context::ApiContext,
    error::{Answer, ApiError},
    events::{Event, Wanted, now},
    params::Params,
    stream::time_param,
};
use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use futures_util::{StreamExt, stream};
use shoal_model::Timestamp;
use std::{future::pending, io, sync::Arc};
use tokio::{
    sync::broadcast::{Receiver, error::RecvError},
    time::{Instant, sleep_until},
};

pub(super) fn routes() -> Router<ApiContext> {
    Router::new().route("/events", get(events))
}

async fn events(State(ctx): State<ApiContext>, params: Params) -> Answer {
    let (since, until) = (time_param(&params, "since")?, time_param(&params, "until")?);
    if let (Some(after), Some(before)) = (since, until)
        && before < after
    {
        let text = |key| params.get(key).unwrap_or_default();
        return Err(ApiError::bad(format!(
            "`since` time ({}) cannot be after `until` time ({})",
            text("since"),
            text("until"),
        )));
    }
    let wanted = Wanted::new(params.get("filters"), since, until)?;
    if ctx.swarm.progress().is_none() {
        return Err(ApiError::absent(
            "this node is no manager, which would tell of the swarm, and events of a node itself are",
        ));
    }
    let (kept, listener) = ctx.events.subscribe();
    let now = now();
    let asked_for_past = since.is_some() || until.is_some();
    let past: Vec<_> = kept.into_iter().filter(|e| asked_for_past && wanted.includes(e)).collect();
    let past = stream::iter(past).map(|event| Ok::<_, io::Error>(line(&event)));
    let left = until.map(|until| until.since(now)).map(|left| Instant::now() + left);
    let body = match until.is_some_and(|until: Timestamp| until < now) {
        true => Body::from_stream(past),
        false => Body::from_stream(past.chain(to_come(listener, wanted, left))),
    };
    Ok((StatusCode::OK, [(header::CONTENT_TYPE, "application/json")], body).into_response())
}

fn line(event: &Event) -> Bytes {
    Bytes::from(format!("{}\n", event.json()))
}

/// Events from now on, until a moment if there is one. A listener that is too far behind, or whose node is no
/// manager any more, is told so by a stream that breaks off: it would not know otherwise that it misses some.
fn to_come(
    listener: Receiver<Arc<Event>>,
    wanted: Wanted,
    until: Option<Instant>,
) -> impl stream::Stream<Item = io::Result<Bytes>> + Send {
    stream::unfold(Some((listener, wanted)), move |listening| async move {
        let (mut listener, wanted) = listening?;
        loop {
            let over = async {
                match until {
                    Some(until) => sleep_until(until).await,
                    None => pending().await,
                }
            };
            let heard = tokio::select! {
                heard = listener.recv() => heard,
                () = over => return None,
            };
            match heard {
                Ok(event) if wanted.includes(&event) => {
                    return Some((Ok(line(&event)), Some((listener, wanted))));
                }
                Ok(_) => {}
                Err(RecvError::Lagged(missed)) => {
                    tracing::warn!(
                        missed,
                        "a listener of events is too slow; its stream is broken off"
                    );
                    return Some((Err(io::Error::other("events were missed")), None));
                }
                Err(RecvError::Closed) => {
                    let gone = io::Error::other("this node is no manager any more");
                    return Some((Err(gone), None));
                }
            }
        }
    })
}
