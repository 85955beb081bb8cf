//! Further processes in containers. What was created and not yet started, and how the last ones
//! ended, is kept in memory, at most [`MAX_EXECS`].
//!
//! An attached exec owns one task: it ends when the process has ended, or loses its client; the
//! process then goes on without input, as Docker's does.
use super::{containers, done, ok};
use crate::{
    context::ApiContext,
    error::{Answer, ApiError},
    params::{self, Params},
    stream,
};
use axum::{
    Extension, Router,
    body::Body,
    extract::{Path, Request, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use futures_util::{StreamExt, stream::unfold};
use hyper_util::rt::TokioIo;
use serde_json::json;
use shoal_containers::{
    ContainerState, ExecInput, ExecSession, ExecSpec, RuntimeError, Stream, new_id,
};
use shoal_model::docker;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Execs remembered; beyond it the oldest ended one is forgotten.
const MAX_EXECS: usize = 1000;
/// Bytes read from a client at once.
const READ: usize = 16 << 10;

pub(super) fn routes() -> Router<ApiContext> {
    Router::new()
        .route("/containers/{id}/exec", post(create))
        .route("/exec/{id}/start", post(start))
        .route("/exec/{id}/resize", post(resize))
        .route("/exec/{id}/json", get(inspect))
        .layer(Extension(Arc::new(Execs::default())))
}

#[derive(Default)]
struct Execs(Mutex<Table>);

#[derive(Default)]
struct Table {
    execs: BTreeMap<String, Exec>,
    /// Number of the next exec: the smallest is the oldest.
    next: u64,
}

struct Exec {
    number: u64,
    container: String,
    spec: ExecSpec,
    phase: Phase,
}

#[derive(Clone)]
enum Phase {
    Created,
    Starting,
    Running(ExecInput),
    Ended(i32),
}

impl Execs {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, container: String, spec: ExecSpec) -> Result<String, ApiError> {
        let mut table = self.table();
        if table.execs.len() >= MAX_EXECS {
            let ended = |e: &Exec| matches!(e.phase, Phase::Ended(_) | Phase::Created);
            let oldest = table.execs.iter().filter(|(_, e)| ended(e)).min_by_key(|(_, e)| e.number);
            let Some(id) = oldest.map(|(id, _)| id.clone()) else {
                return Err(ApiError::conflict(format!(
                    "{MAX_EXECS} exec commands run on this node already: end some first"
                )));
            };
            table.execs.remove(&id);
        }
        let number = table.next;
        table.next += 1;
        let id = new_id();
        table.execs.insert(id.clone(), Exec { number, container, spec, phase: Phase::Created });
        Ok(id)
    }

    fn set(&self, id: &str, phase: Phase) {
        if let Some(exec) = self.table().execs.get_mut(id) {
            exec.phase = phase;
        }
    }

    /// Takes the right to start an exec.
    fn claim(&self, id: &str) -> Result<(String, ExecSpec), ApiError> {
        let mut table = self.table();
        let exec = table.execs.get_mut(id).ok_or_else(|| no_such(id))?;
        if !matches!(exec.phase, Phase::Created) {
            let text = format!("Error: Exec command {id} is already running");
            return Err(ApiError::conflict(text));
        }
        exec.phase = Phase::Starting;
        Ok((exec.container.clone(), exec.spec.clone()))
    }
}

fn no_such(id: &str) -> ApiError {
    ApiError::not_found(format!("No such exec instance: {id}"))
}

async fn create(
    State(ctx): State<ApiContext>,
    Extension(execs): Extension<Arc<Execs>>,
    Path(reference): Path<String>,
    body: Body,
) -> Answer {
    let config: docker::ExecConfig = params::json(body).await?;
    if config.privileged == Some(true) {
        return Err(ApiError::absent("a privileged exec (Privileged) is"));
    }
    if config.detach_keys.is_some_and(|k| !k.is_empty()) {
        return Err(ApiError::absent("other keys to detach (DetachKeys) are"));
    }
    let container = ctx.runtime.inspect(&reference)?;
    if container.state != ContainerState::Running {
        return Err(ApiError::conflict(format!("container {} is not running", container.id)));
    }
    let cmd = config.cmd.unwrap_or_default();
    if cmd.is_empty() {
        return Err(ApiError::bad("No exec command specified"));
    }
    let text = |t: Option<String>| t.filter(|t| !t.is_empty());
    let spec = ExecSpec {
        cmd,
        env: config.env.unwrap_or_default(),
        user: text(config.user),
        working_dir: text(config.working_dir),
        tty: config.tty.unwrap_or(false),
        stdin: config.attach_stdin.unwrap_or(false),
    };
    Ok(containers::created_id(&execs.add(container.id, spec)?))
}

async fn start(
    State(ctx): State<ApiContext>,
    Extension(execs): Extension<Arc<Execs>>,
    Path(id): Path<String>,
    mut request: Request,
) -> Answer {
    let upgrade = wants_upgrade(request.headers()).then(|| hyper::upgrade::on(&mut request));
    let config: docker::ExecStartConfig = params::json(request.into_body()).await?;
    let (container, spec) = execs.claim(&id)?;
    let (tty, stdin) = (spec.tty, spec.stdin);
    let launch = Launch { ctx, execs, id, container, spec };
    if config.detach == Some(true) {
        let session = launch.start().await?;
        drop(session.output);
        tokio::spawn(launch.end(session.exit));
        return Ok(done());
    }
    let content_type = if tty { stream::RAW } else { stream::MULTIPLEXED };
    let Some(upgrade) = upgrade else {
        if stdin {
            launch.execs.set(&launch.id, Phase::Created);
            return Err(ApiError::bad(
                "standard input needs a hijacked connection: send the headers Connection: Upgrade and Upgrade: tcp",
            ));
        }
        return launch.answer_plain(content_type, tty).await;
    };
    tokio::spawn(async move {
        match upgrade.await {
            Ok(connection) => launch.serve(TokioIo::new(connection), tty).await,
            Err(e) => {
                tracing::debug!(error = %e, "exec: the client went away before the start");
                launch.execs.set(&launch.id, Phase::Created);
            }
        }
    });
    let headers = [
        (header::CONTENT_TYPE, content_type),
        (header::CONNECTION, "Upgrade"),
        (header::UPGRADE, "tcp"),
    ];
    Ok((StatusCode::SWITCHING_PROTOCOLS, headers).into_response())
}

fn wants_upgrade(headers: &HeaderMap) -> bool {
    headers.get(header::UPGRADE).is_some_and(|v| v.as_bytes().eq_ignore_ascii_case(b"tcp"))
}

/// An exec that is being started.
struct Launch {
    ctx: ApiContext,
    execs: Arc<Execs>,
    id: String,
    container: String,
    spec: ExecSpec,
}

impl Launch {
    async fn start(&self) -> Result<ExecSession, RuntimeError> {
        match self.ctx.runtime.exec(&self.container, self.spec.clone()).await {
            Ok(session) => {
                self.execs.set(&self.id, Phase::Running(session.input.clone()));
                Ok(session)
            }
            Err(e) => {
                let code = match &e {
                    RuntimeError::Exec { code, .. } | RuntimeError::Start { code, .. } => *code,
                    _ => 126,
                };
                self.execs.set(&self.id, Phase::Ended(code));
                Err(e)
            }
        }
    }

    async fn end(self, exit: tokio::sync::oneshot::Receiver<i32>) {
        self.execs.set(&self.id, Phase::Ended(exit.await.unwrap_or(255)));
    }

    /// Both ways over a hijacked connection. What cannot be started is told in the stream, with the
    /// exit code in the exec's state, as Docker does.
    async fn serve(self, connection: TokioIo<hyper::upgrade::Upgraded>, tty: bool) {
        let (mut from, mut to) = tokio::io::split(connection);
        let mut session = match self.start().await {
            Ok(session) => session,
            Err(e) => {
                let text = format!("{e}\r\n").into_bytes();
                let text = if tty { text.into() } else { stream::frame(false, &text) };
                // The client may be gone; there is nobody else to tell.
                let _ = to.write_all(&text).await;
                let _ = to.shutdown().await;
                return;
            }
        };
        let input = session.input.clone();
        let reader = tokio::spawn(async move {
            let mut buffer = vec![0; READ];
            while let Ok(n @ 1..) = from.read(&mut buffer).await {
                if input.write(&buffer[..n]).await.is_err() {
                    return;
                }
            }
            // A process that has ended needs no end of its input.
            let _ = input.close().await;
        });
        while let Some((origin, bytes)) = session.output.recv().await {
            let bytes = if tty { bytes } else { stream::frame(origin == Stream::Stderr, &bytes) };
            if to.write_all(&bytes).await.is_err() {
                break;
            }
        }
        drop(session.output);
        // Clients ask for the exit code when the stream ends: it must be known before.
        self.end(session.exit).await;
        reader.abort();
        let _ = to.shutdown().await;
    }

    /// Output only, as the body of a plain answer.
    async fn answer_plain(self, content_type: &'static str, tty: bool) -> Answer {
        let session = self.start().await?;
        let ExecSession { output, exit, input } = session;
        drop(input);
        let output =
            unfold(output, async |mut output| output.recv().await.map(|piece| (piece, output)));
        let chunks =
            output.map(
                move |(origin, bytes)| {
                    if tty { bytes } else { stream::frame(origin == Stream::Stderr, &bytes) }
                },
            );
        tokio::spawn(self.end(exit));
        Ok(stream::streaming(content_type, chunks))
    }
}

async fn resize(
    Extension(execs): Extension<Arc<Execs>>,
    Path(id): Path<String>,
    params: Params,
) -> Answer {
    let (rows, columns) = containers::terminal_size(&params)?;
    let phase = execs.table().execs.get(&id).ok_or_else(|| no_such(&id))?.phase.clone();
    let Phase::Running(input) = phase else {
        return Err(ApiError::conflict(format!("exec {id} is not running")));
    };
    let failed = |e| ApiError::internal(format!("cannot resize the terminal of exec {id}: {e}"));
    input.resize(rows, columns).await.map_err(failed)?;
    Ok(done())
}

async fn inspect(
    Extension(execs): Extension<Arc<Execs>>,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    let table = execs.table();
    let exec = table.execs.get(&id).ok_or_else(|| no_such(&id))?;
    let code = match exec.phase {
        Phase::Ended(code) => Some(code),
        _ => None,
    };
    Ok(ok(json!({
        "ID": id,
        "Running": matches!(exec.phase, Phase::Starting | Phase::Running(_)),
        "ExitCode": code,
        "ProcessConfig": {
            "tty": exec.spec.tty,
            "entrypoint": exec.spec.cmd.first(),
            "arguments": exec.spec.cmd.get(1..).unwrap_or_default(),
            "privileged": false,
            "user": exec.spec.user.clone().unwrap_or_default(),
        },
        "OpenStdin": exec.spec.stdin,
        "OpenStderr": true,
        "OpenStdout": true,
        "CanRemove": false,
        "ContainerID": exec.container,
        "DetachKeys": "",
        "Pid": 0,
    })))
}
