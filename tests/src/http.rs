//! The least of HTTP/1.0: one request per connection, read to its end.

use anyhow::{Context as _, bail};
use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

/// How long a connection, and each read after it, may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);
/// More than any page or metrics text here; a runaway answer ends there.
const MAX_RESPONSE: u64 = 16 << 20;

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The body.
    pub body: String,
}

/// `GET` of `http://ADDRESS[:PORT]/PATH` from wherever this thread is. No names: addresses only.
pub(crate) fn get(url: &str) -> anyhow::Result<Response> {
    let rest = url.strip_prefix("http://").with_context(|| format!("{url} is no http URL"))?;
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let address: SocketAddr = authority
        .parse()
        .or_else(|_| format!("{authority}:80").parse())
        .with_context(|| format!("{url} needs an address, not a name"))?;
    let path = if path.is_empty() { "/" } else { path };
    let stream = TcpStream::connect_timeout(&address, PATIENCE)
        .with_context(|| format!("cannot connect to {address}"))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    exchange(stream, "GET", authority, path, "").with_context(|| format!("no answer from {url}"))
}

/// One request and its answer over a fresh stream.
pub(crate) fn exchange(
    mut stream: impl Read + Write,
    method: &str,
    host: &str,
    path: &str,
    body: &str,
) -> anyhow::Result<Response> {
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.0\r\nHost: {host}\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(body.as_bytes())?;
    let mut answer = Vec::new();
    stream.take(MAX_RESPONSE).read_to_end(&mut answer)?;
    parse(&String::from_utf8_lossy(&answer))
}

fn parse(answer: &str) -> anyhow::Result<Response> {
    let Some((head, body)) = answer.split_once("\r\n\r\n") else {
        bail!("the answer ended after {} bytes, before its body", answer.len());
    };
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status = status.with_context(|| format!("{head:?} does not start like HTTP"))?;
    Ok(Response { status, body: body.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_and_body_are_told_apart() {
        let response = parse("HTTP/1.1 404 Not Found\r\nServer: x\r\n\r\nno such thing\n").unwrap();
        assert_eq!(response, Response { status: 404, body: "no such thing\n".to_owned() });
    }

    #[test]
    fn an_answer_cut_short_is_an_error() {
        assert!(parse("HTTP/1.1 200 OK\r\nServer:").is_err());
        assert!(parse("").is_err());
    }
}
