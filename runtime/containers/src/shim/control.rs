//! The shim's socket: one thread accepts, one serves each connection.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use rustix::process::pidfd_send_signal;

use super::{ShimConfig, console, exec, signals};
use crate::wire::{Failure, Kind, Reply, Request, read_frame, write_reply};

/// Most connections at a time, execs included; more are told so.
const MAX_CONNECTIONS: usize = 256;

/// What the threads of a shim share.
pub(super) struct Shared {
    pub(super) config: ShimConfig,
    /// The container's first process: a signal through this can never hit another one.
    init: OwnedFd,
    terminal: Option<OwnedFd>,
    connections: AtomicUsize,
    /// Numbers exec sessions.
    pub(super) sessions: AtomicU64,
    /// Held while a child is started, see `exec::spawn`.
    pub(super) spawning: Mutex<()>,
}

impl Shared {
    pub(super) fn new(config: ShimConfig, init: OwnedFd, terminal: Option<OwnedFd>) -> Self {
        Self {
            config,
            init,
            terminal,
            connections: AtomicUsize::new(0),
            sessions: AtomicU64::new(0),
            spawning: Mutex::new(()),
        }
    }
}

/// Starts accepting.
pub(super) fn start(listener: UnixListener, shared: Arc<Shared>) -> io::Result<()> {
    let accept = move || {
        for stream in listener.incoming() {
            match stream {
                Ok(stream) => admit(stream, &shared),
                Err(e) => {
                    eprintln!("accept: {e}");
                    // Out of descriptors, most likely: do not spin.
                    thread::sleep(std::time::Duration::from_millis(100));
                }
            }
        }
    };
    thread::Builder::new().name("control".to_owned()).spawn(accept).map(drop)
}

fn admit(mut stream: UnixStream, shared: &Arc<Shared>) {
    if shared.connections.fetch_add(1, Ordering::Relaxed) >= MAX_CONNECTIONS {
        shared.connections.fetch_sub(1, Ordering::Relaxed);
        let reason = format!("more than {MAX_CONNECTIONS} connections to this container's shim");
        let _ = write_reply(&mut stream, &Reply::Failed(Failure { reason, code: 125 }));
        return;
    }
    let own = Arc::clone(shared);
    let serve = move || {
        if let Err(e) = serve(stream, &own) {
            eprintln!("connection: {e}");
        }
        own.connections.fetch_sub(1, Ordering::Relaxed);
    };
    if let Err(e) = thread::Builder::new().name("connection".to_owned()).spawn(serve) {
        eprintln!("thread: {e}");
        shared.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

fn serve(mut stream: UnixStream, shared: &Shared) -> io::Result<()> {
    let Some((Kind::Request, payload)) = read_frame(&mut stream)? else { return Ok(()) };
    let reply = match serde_json::from_slice(&payload)? {
        Request::Signal(number) => replied(signal(shared, number)),
        Request::Resize(size) => match &shared.terminal {
            Some(terminal) => replied(console::resize(terminal, size)),
            None => replied(Err(io::Error::other("the container has no terminal"))),
        },
        Request::Wait => {
            // The container has started, or nobody would be served.
            write_reply(&mut stream, &Reply::Ok)?;
            // Ends with this process, or when the daemon hangs up.
            return stream.read(&mut [0]).map(drop);
        }
        Request::Exec(request) => return exec::serve(stream, request, shared),
    };
    write_reply(&mut stream, &reply)
}

fn signal(shared: &Shared, number: i32) -> io::Result<()> {
    let signal = signals::from_number(number)
        .ok_or_else(|| io::Error::other(format!("no such signal: {number}")))?;
    match pidfd_send_signal(&shared.init, signal) {
        // It has ended: what was wanted of most signals.
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

fn replied(result: io::Result<()>) -> Reply {
    match result {
        Ok(()) => Reply::Ok,
        Err(e) => Reply::Failed(Failure { reason: e.to_string(), code: 125 }),
    }
}

/// A descriptor as a file, for reading and writing.
pub(super) fn file(fd: OwnedFd) -> File {
    File::from(fd)
}
