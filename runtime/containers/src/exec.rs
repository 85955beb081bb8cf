//! One more process in a running container, from the daemon's side.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Mutex, mpsc, oneshot};

use crate::error::RuntimeError;
use crate::info::Stream;
use crate::monitor::{read_frame, read_reply, send, write_frame};
use crate::oci::process_object;
use crate::process::overlay;
use crate::runtime::{Container, Runtime, Shared, blocking};
use crate::spec::ExecSpec;
use crate::start::container_capabilities;
use crate::user::{self, User};
use crate::wire::{CHUNK, ExecRequest, Kind, MAX_FRAME, Request, Size};

/// Pieces of output that wait for a slow reader before the process has to.
const QUEUE: usize = 16;

/// A process that was started by [`Runtime::exec`]. Dropping it does not end the process: its output
/// is then thrown away and its input ends.
#[derive(Debug)]
pub struct ExecSession {
    /// Standard input and terminal size. Clone it to keep it apart from the rest.
    pub input: ExecInput,
    /// Output in order; ends when the process has ended and nothing is left.
    pub output: mpsc::Receiver<(Stream, Bytes)>,
    /// The exit code, after the last output was received. An error means the shim was lost.
    pub exit: oneshot::Receiver<i32>,
}

/// The input side of an exec. All clones are the same.
#[derive(Debug, Clone)]
pub struct ExecInput {
    stream: Arc<Mutex<OwnedWriteHalf>>,
}

impl ExecInput {
    /// Sends bytes to the process's standard input; waits while it does not read.
    pub async fn write(&self, bytes: &[u8]) -> io::Result<()> {
        let mut stream = self.stream.lock().await;
        for chunk in bytes.chunks(CHUNK) {
            write_frame(&mut *stream, Kind::Stdin, chunk).await?;
        }
        Ok(())
    }

    /// Ends the process's standard input.
    pub async fn close(&self) -> io::Result<()> {
        write_frame(&mut *self.stream.lock().await, Kind::Stdin, &[]).await
    }

    /// Kills the process, not what it started.
    pub async fn kill(&self) -> io::Result<()> {
        write_frame(&mut *self.stream.lock().await, Kind::Kill, &[]).await
    }

    /// Sets the size of its terminal, in characters.
    pub async fn resize(&self, rows: u16, columns: u16) -> io::Result<()> {
        let size = serde_json::to_vec(&Size { rows, columns })?;
        write_frame(&mut *self.stream.lock().await, Kind::Resize, &size).await
    }
}

impl Runtime {
    /// Starts one more process in a running container. When this returns it runs.
    pub async fn exec(&self, reference: &str, spec: ExecSpec) -> Result<ExecSession, RuntimeError> {
        let container = self.shared.find(reference)?;
        if !container.running() {
            return Err(RuntimeError::NotRunning { id: container.id().to_owned() });
        }
        let (shared, it) = (Arc::clone(&self.shared), Arc::clone(&container));
        let request = blocking(move || request(&shared, &it, &spec)).await?;
        let mut stream = send(&container, &Request::Exec(request)).await?;
        read_reply(&container, &mut stream).await?;
        let (read, write) = stream.into_split();
        let (to_output, output) = mpsc::channel(QUEUE);
        let (to_exit, exit) = oneshot::channel();
        tokio::spawn(receive(read, to_output, to_exit));
        let input = ExecInput { stream: Arc::new(Mutex::new(write)) };
        Ok(ExecSession { input, output, exit })
    }
}

/// One task per exec: ends with the process, or when the session is dropped.
async fn receive(
    mut from: OwnedReadHalf,
    output: mpsc::Sender<(Stream, Bytes)>,
    exit: oneshot::Sender<i32>,
) {
    while let Ok(Some((kind, payload))) = read_frame(&mut from).await {
        let stream = match kind {
            Kind::Stdout => Stream::Stdout,
            Kind::Stderr => Stream::Stderr,
            Kind::Exit => {
                let code = std::str::from_utf8(&payload).ok().and_then(|t| t.parse().ok());
                drop(output);
                // Nobody may be interested any more.
                let _ = exit.send(code.unwrap_or(255));
                return;
            }
            _ => return,
        };
        // Nobody reads: what comes is dropped, and the exit code still matters.
        let _ = output.send((stream, payload.into())).await;
    }
}

fn request(
    shared: &Shared,
    container: &Container,
    spec: &ExecSpec,
) -> Result<ExecRequest, RuntimeError> {
    let invalid = |field, reason: &str| RuntimeError::Invalid { field, reason: reason.to_owned() };
    let stored = &container.stored;
    if spec.cmd.first().is_none_or(String::is_empty) {
        return Err(invalid("exec command", "No exec command specified"));
    }
    let texts = spec.cmd.iter().chain(&spec.env).chain(&spec.working_dir);
    if texts.into_iter().any(|t| t.contains('\0')) {
        return Err(invalid("exec", "a zero byte in a text"));
    }
    let cwd = spec.working_dir.as_ref().filter(|d| !d.is_empty()).unwrap_or(&stored.process.cwd);
    if !cwd.starts_with('/') {
        return Err(invalid("exec working directory", "Cwd must be an absolute path"));
    }
    let image = shared.images.resolve(&stored.image_id)?;
    let rootfs = shared.images.prepare(&image, container.id())?;
    let name = spec.user.as_ref().filter(|u| !u.is_empty()).unwrap_or(&stored.process.user);
    let user: User = user::resolve_in(&rootfs, name)
        .map_err(|reason| RuntimeError::Exec { reason, code: 126 })?;
    let mut env = stored.process.env.clone();
    if spec.tty {
        overlay(&mut env, &["TERM=xterm".to_owned()]);
    }
    overlay(&mut env, &spec.env);
    let capabilities = container_capabilities(shared, container)?;
    let mut process = process_object(&spec.cmd, &env, cwd, &user, &capabilities, spec.tty);
    if let Some(adjust) = stored.spec.oom_score_adj {
        process["oomScoreAdj"] = adjust.into();
    }
    if process.to_string().len() > MAX_FRAME / 2 {
        return Err(invalid("exec", "command and environment are larger than 2 MiB"));
    }
    Ok(ExecRequest { process, tty: spec.tty, stdin: spec.stdin })
}
