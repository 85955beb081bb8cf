//! Query parameters and bodies as Docker's clients send them.
use crate::error::ApiError;
use axum::{
    body::{Body, Bytes},
    extract::{FromRequestParts, Query},
    http::request::Parts,
};
use bytes::BytesMut;
use futures_util::StreamExt;
use serde::de::DeserializeOwned;
use std::{collections::BTreeMap, io};

/// Longest JSON body, bytes. A service specification is some kilobytes; the store takes 1.5 MiB.
pub(crate) const MAX_JSON: usize = 2 << 20;

/// Longest body that is read and thrown away, bytes: what a client sends to a route that refuses it
/// (a build's files) before it listens to the answer.
const MAX_DISCARD: usize = 256 << 20;

/// The query; of a key given twice the last counts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Params(BTreeMap<String, String>);

impl<S: Sync> FromRequestParts<S> for Params {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Params, ApiError> {
        Query::<Vec<(String, String)>>::try_from_uri(&parts.uri)
            .map(|Query(pairs)| Params(pairs.into_iter().collect()))
            .map_err(|e| ApiError::bad(format!("invalid query string: {e}")))
    }
}

impl Params {
    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str).filter(|v| !v.is_empty())
    }

    /// Docker's idea of a boolean: anything but nothing, `0`, `no`, `false` and `none`.
    pub(crate) fn flag(&self, key: &str) -> bool {
        let value = self.get(key).unwrap_or_default().trim().to_ascii_lowercase();
        !matches!(value.as_str(), "" | "0" | "no" | "false" | "none")
    }

    pub(crate) fn number<T: std::str::FromStr>(&self, key: &str) -> Result<Option<T>, ApiError> {
        let Some(text) = self.get(key) else { return Ok(None) };
        let bad = |_| ApiError::bad(format!("invalid value {text:?} for {key}: not a number"));
        text.parse().map(Some).map_err(bad)
    }

    /// The version an update is made from.
    pub(crate) fn version(&self, kind: &str) -> Result<u64, ApiError> {
        let text = self.get("version").unwrap_or_default();
        let bad = |e| ApiError::bad(format!("invalid {kind} version '{text}': {e}"));
        text.parse().map_err(bad)
    }
}

/// Reads a body to its end: one with the same content, or, beyond [`MAX_JSON`], one that fails when
/// a handler reads it. Beyond [`MAX_DISCARD`] the client is not listened to any more.
pub(crate) async fn whole(body: Body) -> Body {
    let mut chunks = body.into_data_stream();
    let (mut kept, mut length) = (BytesMut::new(), 0);
    while let Some(chunk) = chunks.next().await {
        let Ok(chunk) = chunk else { return broken("the body broke off") };
        length += chunk.len();
        if length > MAX_DISCARD {
            break;
        }
        if length <= MAX_JSON {
            kept.extend_from_slice(&chunk);
        }
    }
    if length > MAX_JSON { broken("the body is too long") } else { Body::from(kept.freeze()) }
}

fn broken(reason: &'static str) -> Body {
    Body::from_stream(futures_util::stream::iter([Err::<Bytes, _>(io::Error::other(reason))]))
}

/// Reads a body of at most [`MAX_JSON`] bytes.
pub(crate) async fn bytes(body: Body) -> Result<Bytes, ApiError> {
    axum::body::to_bytes(body, MAX_JSON).await.map_err(|_| {
        ApiError::bad(format!("the request's body broke off or is longer than {MAX_JSON} bytes"))
    })
}

/// Reads a JSON body.
pub(crate) async fn json<T: DeserializeOwned>(body: Body) -> Result<T, ApiError> {
    let bytes = bytes(body).await?;
    if bytes.is_empty() {
        return Err(ApiError::bad("invalid JSON: got EOF while reading request body"));
    }
    serde_json::from_slice(&bytes).map_err(|e| ApiError::bad(format!("invalid JSON: {e}")))
}
