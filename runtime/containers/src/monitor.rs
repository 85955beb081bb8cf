//! Watching shims and talking to them. `watch` is one task per running container; it ends when the
//! container has, and nothing is lost if it is cancelled: the next `recover` reads the same files.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::Instant;

use crate::disk::{read_json, write_json};
use crate::error::RuntimeError;
use crate::health::Health;
use crate::info::{ContainerState, ExitStatus, Started};
use crate::memory;
use crate::probe;
use crate::runtime::{Container, Life, Shared, blocking};
use crate::shim::session::SOCKET;
use crate::spec::short;
use crate::wire::{HEADER, Kind, Reply, Request, header, parse_header};

/// How often a shim that is about to end is looked at.
const PAUSE: Duration = Duration::from_millis(20);
/// How long a shim may take to answer a plain request.
const PATIENCE: Duration = Duration::from_secs(10);

/// Waits for a container's end and makes it known; probes it meanwhile.
pub(crate) async fn watch(shared: Arc<Shared>, container: Arc<Container>) {
    let check = container.stored.health.clone();
    let probes = check.map(|check| {
        container.health.send_if_modified(|health| match health {
            Some(_) => false,
            None => health.replace(Health::default()).is_none(),
        });
        tokio::spawn(probe::run(Arc::clone(&shared), Arc::clone(&container), check))
    });
    wait_for_end(shared, container).await;
    if let Some(probes) = probes {
        probes.abort();
    }
}

async fn wait_for_end(shared: Arc<Shared>, container: Arc<Container>) {
    loop {
        if let Ok(mut stream) = send(&container, &Request::Wait).await
            && read_reply(&container, &mut stream).await.is_ok()
        {
            note_start(&container).await;
            // Nothing more is sent: the end of the stream is the end of the shim.
            let _ = stream.read(&mut [0; 1]).await;
        }
        let (own, it) = (Arc::clone(&shared), Arc::clone(&container));
        match blocking(move || recover(&own, &it)).await {
            Ok(life) if life.state == ContainerState::Running => tokio::time::sleep(PAUSE).await,
            Ok(life) => {
                container.life.send_replace(life);
                return;
            }
            Err(e) => {
                tracing::error!(container = container.id(), error = %e, "cannot tell how it ended");
                tokio::time::sleep(PATIENCE).await;
            }
        }
    }
}

/// Completes what is known of a container that was still starting when it was found.
async fn note_start(container: &Arc<Container>) {
    if container.life.borrow().started.is_some() {
        return;
    }
    let it = Arc::clone(container);
    match blocking(move || read_json(&it.dirs.started())).await {
        Ok(started) => container.life.send_modify(|life| life.started = started),
        Err(e) => tracing::error!(container = container.id(), error = %e, "no start is known"),
    }
}

/// What the files say of a container. One whose shim is gone without a trace is cleaned up after and
/// written down as lost.
pub(crate) fn recover(shared: &Shared, container: &Container) -> Result<Life, RuntimeError> {
    let dirs = &container.dirs;
    let lock = dirs.lock_soon()?;
    let started: Option<Started> = read_json(&dirs.started())?;
    if lock.is_none() {
        return Ok(Life { state: ContainerState::Running, started });
    }
    let exit: Option<ExitStatus> = read_json(&dirs.exit())?;
    let state = match (exit, &started) {
        (Some(status), _) => ContainerState::Exited(status),
        (None, None) => ContainerState::Created,
        (None, Some(_)) => {
            // Its processes may still run, without anybody to read their output or status.
            let status = ExitStatus {
                code: 255,
                signal: None,
                oom: shared.cgroups.oom_kills(&container.cgroup) > 0,
                error: Some("shim lost: it was killed, or the host went down".to_owned()),
                finished_at: Utc::now(),
            };
            write_json(&dirs.exit(), &status)?;
            ContainerState::Exited(status)
        }
    };
    if state != ContainerState::Created {
        shared.cgroups.kill(&container.cgroup);
        shared.cgroups.remove(&container.cgroup);
        memory::release(dirs)?;
    }
    shared.images.unmount(container.id())?;
    Ok(Life { state, started })
}

/// Sends a plain request and waits for the answer.
pub(crate) async fn ask(container: &Container, request: &Request) -> Result<(), RuntimeError> {
    let exchange = async {
        let mut stream = send(container, request).await?;
        read_reply(container, &mut stream).await
    };
    match tokio::time::timeout(PATIENCE, exchange).await {
        Ok(result) => result,
        Err(_) => Err(failed(container, "no answer within 10 s".to_owned())),
    }
}

/// Connects and sends a request.
pub(crate) async fn send(
    container: &Container,
    request: &Request,
) -> Result<UnixStream, RuntimeError> {
    let patience = Instant::now() + PATIENCE;
    loop {
        if !container.running() {
            return Err(RuntimeError::NotRunning { id: container.id().to_owned() });
        }
        // Found while it was starting: its socket may not be there yet.
        let early = container.life.borrow().started.is_none() && Instant::now() < patience;
        match connect(container, request).await {
            Ok(stream) => return Ok(stream),
            // Unless its shim has ended meanwhile, which whoever watches it finds out then.
            Err(e) if early && absent(&e) && alive(container).await? => {
                tokio::time::sleep(PAUSE).await;
            }
            Err(e) => return Err(failed(container, e.to_string())),
        }
    }
}

/// Whether a shim holds the container's lock.
async fn alive(container: &Container) -> Result<bool, RuntimeError> {
    let dirs = container.dirs.clone();
    blocking(move || Ok(dirs.try_lock()?.is_none())).await
}

async fn connect(container: &Container, request: &Request) -> io::Result<UnixStream> {
    // By the folder's descriptor: a socket's path may have no more than 108 bytes.
    let folder = File::open(&container.dirs.bundle)?;
    let path = format!("/proc/self/fd/{}/{SOCKET}", folder.as_raw_fd());
    let mut stream = UnixStream::connect(path).await?;
    write_frame(&mut stream, Kind::Request, &serde_json::to_vec(request)?).await?;
    Ok(stream)
}

fn absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

/// Reads the answer to a request.
pub(crate) async fn read_reply(
    container: &Container,
    stream: &mut UnixStream,
) -> Result<(), RuntimeError> {
    let frame = read_frame(stream).await.map_err(|e| failed(container, e.to_string()))?;
    let reply = match frame {
        Some((Kind::Reply, payload)) => serde_json::from_slice(&payload).ok(),
        _ => None,
    };
    match reply {
        Some(Reply::Ok) => Ok(()),
        Some(Reply::Failed(f)) => Err(RuntimeError::Exec { reason: f.reason, code: f.code }),
        None => Err(failed(container, "it hung up".to_owned())),
    }
}

/// Reads one frame; `None` at a clean end.
pub(crate) async fn read_frame(
    from: &mut (impl AsyncReadExt + Unpin),
) -> io::Result<Option<(Kind, Vec<u8>)>> {
    let mut bytes = [0; HEADER];
    match from.read_exact(&mut bytes).await {
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    };
    let (kind, len) = parse_header(bytes)?;
    let mut payload = vec![0; len];
    from.read_exact(&mut payload).await?;
    Ok(Some((kind, payload)))
}

/// Writes one frame.
pub(crate) async fn write_frame(
    to: &mut (impl AsyncWriteExt + Unpin),
    kind: Kind,
    payload: &[u8],
) -> io::Result<()> {
    to.write_all(&header(kind, payload.len())).await?;
    to.write_all(payload).await
}

fn failed(container: &Container, reason: String) -> RuntimeError {
    let id = short(container.id()).to_owned();
    RuntimeError::Shim { id, reason, log: container.dirs.shim_log() }
}
