//! `exec`.
//!
//! Attached, three things run until the process ends: its output is copied here, standard input is
//! copied there (a thread, since reading a terminal cannot be cancelled; it ends with the program),
//! and with a terminal each change of its size is passed on.
use super::container::put;
use crate::{
    args::Exec,
    client::Client,
    demux::{Demux, Origin},
    error::{CliError, CliResult},
    text::{at, escape, number},
};
use bytes::Bytes;
use rustix::termios::{self, OptionalActions, Termios};
use serde_json::{Value, json};
use std::{
    io::{IsTerminal, Read},
    thread,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};

/// Bytes read at once.
const CHUNK: usize = 16 << 10;
/// Pieces of input that wait for the daemon.
const QUEUE: usize = 16;

pub(crate) async fn run(client: &Client, exec: Exec) -> CliResult<u8> {
    if exec.tty && exec.interactive && !std::io::stdin().is_terminal() {
        return Err(CliError::usage("the input device is not a TTY"));
    }
    let container = escape(&exec.container);
    // As Docker's client: a container that is not there is told before anything is made.
    let _: Value = client.get(&format!("/containers/{container}/json")).await?;
    let request = json!({
        "AttachStdin": exec.interactive && !exec.detach,
        "AttachStdout": !exec.detach,
        "AttachStderr": !exec.detach,
        "Tty": exec.tty,
        "Cmd": exec.command,
        "Env": exec.env.iter().map(|e| with_value(e)).collect::<Vec<_>>(),
        "User": exec.user,
        "WorkingDir": exec.workdir,
    });
    let created: Value =
        client.post_json(&format!("/containers/{container}/exec"), &request).await?;
    let id = at(&created, "/Id");
    let start = json!({ "Detach": exec.detach, "Tty": exec.tty });
    let path = format!("/exec/{id}/start");
    if exec.detach {
        return match client.post(&path, &start).await {
            Ok(_) => Ok(0),
            // Docker's code for a command that cannot be run.
            Err(e) => Err(CliError::Exec { message: e.to_string(), code: 126 }),
        };
    }
    let stream = client.hijack(&path, &start).await?;
    let (mut from, mut to) = tokio::io::split(stream);
    let raw = if exec.tty && exec.interactive { RawMode::enter()? } else { None };
    let resizing = exec.tty.then(|| tokio::spawn(follow_size(client.clone(), id.to_owned())));
    let sending = tokio::spawn(async move {
        if exec.interactive {
            let mut input = standard_input();
            while let Some(bytes) = input.recv().await {
                if to.write_all(&bytes).await.is_err() {
                    return to;
                }
            }
        }
        // The other end may have closed already.
        let _ = to.shutdown().await;
        to
    });
    let mut demux = Demux::default();
    let mut buffer = vec![0; CHUNK];
    let copied = async {
        loop {
            let n = from.read(&mut buffer).await;
            match n.map_err(|e| CliError::io("the stream from the container broke off", e))? {
                0 => return Ok(()),
                n if exec.tty => put(Origin::Out, &buffer[..n])?,
                n => {
                    demux.push(&buffer[..n]);
                    let broken = |e| CliError::io("the stream from the container is damaged", e);
                    while let Some((origin, payload)) = demux.next().map_err(broken)? {
                        put(origin, &payload)?;
                    }
                }
            }
        }
    }
    .await;
    sending.abort();
    if let Some(resizing) = resizing {
        resizing.abort();
    }
    drop(raw);
    copied?;
    let ended: Value = client.get(&format!("/exec/{id}/json")).await?;
    Ok(u8::try_from(number(&ended, "/ExitCode")).unwrap_or(255))
}

/// `KEY` alone takes its value from our own environment.
fn with_value(variable: &str) -> String {
    match std::env::var(variable) {
        Ok(value) if !variable.contains('=') => format!("{variable}={value}"),
        _ => variable.to_owned(),
    }
}

fn standard_input() -> mpsc::Receiver<Bytes> {
    let (sender, receiver) = mpsc::channel(QUEUE);
    thread::spawn(move || {
        let mut buffer = vec![0; CHUNK];
        while let Ok(n @ 1..) = std::io::stdin().lock().read(&mut buffer) {
            if sender.blocking_send(Bytes::copy_from_slice(&buffer[..n])).is_err() {
                return;
            }
        }
    });
    receiver
}

/// Tells the size of our terminal, now and whenever it changes.
async fn follow_size(client: Client, id: String) {
    let Ok(mut changes) = signal(SignalKind::window_change()) else { return };
    loop {
        if let Ok(size) = termios::tcgetwinsize(std::io::stdout()) {
            let path = format!("/exec/{id}/resize?h={}&w={}", size.ws_row, size.ws_col);
            // Before the process runs and after it ended there is nothing to resize.
            let mut tries = 0;
            while client.post(&path, &Value::Null).await.is_err() && tries < 10 {
                tries += 1;
                tokio::time::sleep(std::time::Duration::from_millis(20 * tries)).await;
            }
        }
        if changes.recv().await.is_none() {
            return;
        }
    }
}

/// The terminal without line editing; put back when dropped.
struct RawMode(Termios);

impl RawMode {
    fn enter() -> CliResult<Option<RawMode>> {
        let failed = |e| CliError::io("cannot change the terminal's mode", e);
        let stdin = std::io::stdin();
        let before = termios::tcgetattr(&stdin).map_err(failed)?;
        let mut raw = before.clone();
        raw.make_raw();
        termios::tcsetattr(&stdin, OptionalActions::Now, &raw).map_err(failed)?;
        Ok(Some(RawMode(before)))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // Nothing can be done about a terminal that went away.
        let _ = termios::tcsetattr(std::io::stdin(), OptionalActions::Now, &self.0);
    }
}
