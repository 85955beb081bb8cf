//! Docker's frames around the bytes of standard output and error, and log lines in them.
use crate::{error::ApiError, params::Params, times};
use axum::{
    body::{Body, Bytes},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::{BufMut, BytesMut};
use futures_util::{Stream, StreamExt};
use shoal_model::{LogOptions, Timestamp};
use std::convert::Infallible;

/// Content type of a stream in frames.
pub(crate) const MULTIPLEXED: &str = "application/vnd.docker.multiplexed-stream";
/// Content type of a stream without frames (terminals).
pub(crate) const RAW: &str = "application/vnd.docker.raw-stream";

/// A frame: `[1 or 2, 0, 0, 0, length as u32 big-endian]` and the payload.
pub(crate) fn frame(stderr: bool, payload: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(8 + payload.len());
    out.put_u32(if stderr { 2 << 24 } else { 1 << 24 });
    // Payloads are log lines and reads of at most 64 KiB.
    out.put_u32(u32::try_from(payload.len()).unwrap_or(u32::MAX));
    out.put_slice(payload);
    out.freeze()
}

/// A frame of Docker's third stream: an error of the daemon in the middle of an answer.
pub(crate) fn error_frame(message: &str) -> Bytes {
    let mut out = BytesMut::from(&frame(false, message.as_bytes())[..]);
    out[0] = 3;
    out.freeze()
}

/// What stands in front of each line.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Prefix {
    /// `timestamps=1`.
    pub(crate) timestamps: bool,
}

impl Prefix {
    /// `<time> <details> <line>`, each part only if asked for.
    pub(crate) fn put(self, time: Timestamp, details: Option<&str>, line: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(line.len() + 40);
        if self.timestamps {
            out.extend_from_slice(times::rfc3339_fixed(time).as_bytes());
            out.push(b' ');
        }
        if let Some(details) = details {
            out.extend_from_slice(details.as_bytes());
            out.push(b' ');
        }
        out.extend_from_slice(line);
        out
    }
}

/// The parameters of a logs request.
pub(crate) fn log_options(params: &Params) -> Result<(LogOptions, Prefix), ApiError> {
    let (stdout, stderr) = (params.flag("stdout"), params.flag("stderr"));
    if !stdout && !stderr {
        return Err(ApiError::bad("Bad parameters: you must choose at least one stream"));
    }
    let tail = match params.get("tail") {
        None | Some("all") => None,
        // Docker takes any negative number for "all".
        Some(text) => match text.parse::<i64>() {
            Ok(n) => u64::try_from(n).ok(),
            Err(_) => return Err(ApiError::bad(format!("invalid value {text:?} for tail"))),
        },
    };
    let since = time_param(params, "since")?;
    let options = LogOptions { stdout, stderr, follow: params.flag("follow"), tail, since };
    Ok((options, Prefix { timestamps: params.flag("timestamps") }))
}

/// A `since` or `until` parameter; 0 means not given.
pub(crate) fn time_param(params: &Params, key: &str) -> Result<Option<Timestamp>, ApiError> {
    match params.get(key) {
        None | Some("0") => Ok(None),
        Some(text) => times::parse(text)
            .map(Some)
            .ok_or_else(|| ApiError::bad(format!("invalid value {text:?} for {key}"))),
    }
}

/// An answer that streams.
pub(crate) fn streaming(
    content_type: &'static str,
    chunks: impl Stream<Item = Bytes> + Send + 'static,
) -> Response {
    let body = Body::from_stream(chunks.map(Ok::<_, Infallible>));
    (StatusCode::OK, [(header::CONTENT_TYPE, content_type)], body).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_tells_stream_and_length() {
        assert_eq!(&frame(false, b"hi\n")[..], b"\x01\0\0\0\0\0\0\x03hi\n");
        assert_eq!(&frame(true, b"")[..], b"\x02\0\0\0\0\0\0\0");
    }

    #[test]
    fn time_stands_before_details_and_details_before_the_line() {
        let t = Timestamp(1_700_000_000_000_000_000);
        assert_eq!(
            Prefix { timestamps: true }.put(t, Some("a=b"), b"x\n"),
            b"2023-11-14T22:13:20.000000000Z a=b x\n"
        );
        assert_eq!(Prefix { timestamps: false }.put(t, None, b"x"), b"x");
    }
}
