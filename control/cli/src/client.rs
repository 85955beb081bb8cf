//! A client of the Engine API: one connection per request, over a unix socket or TCP.
use crate::error::{CliError, CliResult};
use bytes::Bytes;
use futures_util::Stream;
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Frame, Incoming},
    client::conn::http1,
    header,
};
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use std::{env, path::PathBuf};
use tokio::net::{TcpStream, UnixStream};

/// The daemon's socket where nothing else is said.
pub(crate) const DEFAULT_HOST: &str = "unix:///run/shoal/shoal.sock";
/// API version spoken.
pub(crate) const API_VERSION: &str = "1.50";

type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// Where the daemon is.
#[derive(Clone, Debug)]
enum Target {
    Unix(PathBuf),
    Tcp(String),
}

/// A client; holds no connection.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    host: String,
    target: Target,
}

impl Client {
    /// `host` as given with `-H`, else `SHOAL_HOST`, else `DOCKER_HOST`, else the default.
    pub(crate) fn new(host: Option<String>) -> CliResult<Client> {
        let from = |name| env::var(name).ok().filter(|v| !v.is_empty());
        let host = host
            .or_else(|| from("SHOAL_HOST"))
            .or_else(|| from("DOCKER_HOST"))
            .unwrap_or_else(|| DEFAULT_HOST.to_owned());
        let target = match host.split_once("://") {
            Some(("unix", path)) if !path.is_empty() => Target::Unix(path.into()),
            Some(("tcp" | "http", addr)) if !addr.is_empty() => {
                let addr = addr.trim_end_matches('/');
                let port = addr.rsplit_once(':').is_some_and(|(_, p)| p.parse::<u16>().is_ok());
                Target::Tcp(if port { addr.to_owned() } else { format!("{addr}:2375") })
            }
            _ => {
                return Err(CliError::usage(format!(
                    "unable to parse docker host {host:?}: give unix:///path or tcp://host:port"
                )));
            }
        };
        Ok(Client { host, target })
    }

    async fn send(&self, request: Request<Body>) -> CliResult<Response<Incoming>> {
        let fail = |reason: String| CliError::Connect { host: self.host.clone(), reason };
        let io = |e: std::io::Error| fail(e.to_string());
        match &self.target {
            Target::Unix(path) => {
                exchange(UnixStream::connect(path).await.map_err(io)?, request).await
            }
            Target::Tcp(addr) => {
                exchange(TcpStream::connect(addr).await.map_err(io)?, request).await
            }
        }
        .map_err(|e| fail(e.to_string()))
    }

    /// Sends a request; an answer of 400 and more is an error.
    async fn call(
        &self,
        method: Method,
        path: &str,
        headers: &[(header::HeaderName, &str)],
        body: Body,
    ) -> CliResult<Response<Incoming>> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("/v{API_VERSION}{path}"))
            .header(header::HOST, "docker")
            .header(header::USER_AGENT, concat!("shoal/", env!("CARGO_PKG_VERSION")));
        for (name, value) in headers {
            request = request.header(name, *value);
        }
        let request =
            request.body(body).map_err(|e| CliError::usage(format!("invalid argument: {e}")))?;
        let response = self.send(request).await?;
        let status = response.status();
        if status.as_u16() < 400 {
            return Ok(response);
        }
        let bytes = read(response).await?;
        let value: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        let message = match value["message"].as_str() {
            Some(message) => message.trim_end().to_owned(),
            None => String::from_utf8_lossy(&bytes).trim().to_owned(),
        };
        Err(CliError::Daemon { status: status.as_u16(), message })
    }

    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> CliResult<T> {
        parse(&read(self.call(Method::GET, path, &[], empty()).await?).await?)
    }

    /// The answer as it streams.
    pub(crate) async fn stream(&self, path: &str) -> CliResult<Response<Incoming>> {
        self.call(Method::GET, path, &[], empty()).await
    }

    pub(crate) async fn delete(&self, path: &str) -> CliResult<Bytes> {
        read(self.call(Method::DELETE, path, &[], empty()).await?).await
    }

    /// Posts JSON; gives the answer's bytes, which may be none.
    pub(crate) async fn post(&self, path: &str, body: &impl Serialize) -> CliResult<Bytes> {
        let response = self.call(Method::POST, path, &[JSON], json(body)?).await?;
        read(response).await
    }

    pub(crate) async fn post_json<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> CliResult<T> {
        parse(&self.post(path, body).await?)
    }

    /// Uploads a tar and gives the answer as it streams.
    pub(crate) async fn upload(
        &self,
        path: &str,
        chunks: impl Stream<Item = std::io::Result<Bytes>> + Send + 'static,
    ) -> CliResult<Response<Incoming>> {
        use futures_util::StreamExt;
        let body = StreamBody::new(chunks.map(|c| c.map(Frame::data))).boxed_unsync();
        let tar = [(header::CONTENT_TYPE, "application/x-tar")];
        self.call(Method::POST, path, &tar, body).await
    }

    /// Posts JSON and turns the connection into a stream of bytes both ways.
    pub(crate) async fn hijack(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> CliResult<TokioIo<hyper::upgrade::Upgraded>> {
        let headers = [JSON, (header::CONNECTION, "Upgrade"), (header::UPGRADE, "tcp")];
        let response = self.call(Method::POST, path, &headers, json(body)?).await?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            let status = response.status();
            return Err(CliError::io("unable to upgrade to tcp", format!("received {status}")));
        }
        let upgraded = hyper::upgrade::on(response).await;
        Ok(TokioIo::new(upgraded.map_err(|e| CliError::io("unable to upgrade to tcp", e))?))
    }
}

const JSON: (header::HeaderName, &str) = (header::CONTENT_TYPE, "application/json");

/// One request on a new connection. The task that drives it ends with the answer's body.
async fn exchange<S>(stream: S, request: Request<Body>) -> hyper::Result<Response<Incoming>>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(async move {
        // An error of the connection reaches the caller through the answer or its body.
        let _ = connection.with_upgrades().await;
    });
    sender.send_request(request).await
}

fn empty() -> Body {
    full(Bytes::new())
}

fn full(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

fn json(body: &impl Serialize) -> CliResult<Body> {
    let bytes = serde_json::to_vec(body).map_err(|e| CliError::io("cannot encode a request", e))?;
    Ok(full(bytes.into()))
}

async fn read(response: Response<Incoming>) -> CliResult<Bytes> {
    let body = response.into_body().collect().await;
    Ok(body.map_err(|e| CliError::io("the daemon's answer broke off", e))?.to_bytes())
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> CliResult<T> {
    serde_json::from_slice(bytes).map_err(|e| CliError::io("cannot read the daemon's answer", e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_sockets_or_addresses() {
        let target = |host: &str| Client::new(Some(host.to_owned())).map(|c| c.target);
        assert!(matches!(target("unix:///x.sock"), Ok(Target::Unix(p)) if p == *"/x.sock"));
        assert!(matches!(target("tcp://h"), Ok(Target::Tcp(a)) if a == "h:2375"));
        assert!(matches!(target("tcp://h:1"), Ok(Target::Tcp(a)) if a == "h:1"));
        for bad in ["/x.sock", "ssh://h", "unix://"] {
            assert!(target(bad).is_err(), "{bad}");
        }
    }
}
