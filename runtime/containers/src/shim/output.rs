//! Carries a container's output into its log: one thread for each stream.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use chrono::Utc;

use super::log::{Lines, Log};
use crate::info::Stream;
use crate::wire::CHUNK;

/// How long output may still come after the container has ended. All its processes are dead by then:
/// this only covers reading what is in the pipes.
const DRAIN: Duration = Duration::from_secs(5);

/// The threads at work; each drops its sender when its stream has ended.
pub(super) struct Outputs {
    done: Receiver<()>,
}

impl Outputs {
    pub(super) fn start(log: Log, streams: Vec<(Stream, OwnedFd)>) -> io::Result<Self> {
        let (sender, done) = std::sync::mpsc::channel();
        let log = Arc::new(Mutex::new(log));
        for (stream, fd) in streams {
            let (log, sender) = (Arc::clone(&log), sender.clone());
            thread::Builder::new()
                .name("output".to_owned())
                .spawn(move || carry(File::from(fd), stream, &log, sender))?;
        }
        Ok(Self { done })
    }

    /// Waits until everything is in the log, but not forever.
    pub(super) fn finish(self) {
        // No message ever comes: the end of all senders, or the time, is the signal.
        let _ = self.done.recv_timeout(DRAIN);
    }
}

fn carry(mut from: File, stream: Stream, log: &Mutex<Log>, done: Sender<()>) {
    let mut lines = Lines::default();
    let mut chunk = vec![0; CHUNK];
    let write = |line: &[u8]| {
        let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(e) = log.write(stream, line, Utc::now()) {
            // A full disk costs log lines, never the container: it would block on a full pipe.
            eprintln!("log: {e}");
        }
    };
    loop {
        match from.read(&mut chunk) {
            Ok(n) if n > 0 => lines.push(&chunk[..n], write),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            // A terminal ends with EIO, a pipe with 0 bytes.
            _ => break,
        }
    }
    lines.finish(write);
    drop(done);
}
