//! Reading a container's log: from its json-file and the rotated ones before it.
//!
//! One task per reader. It reads in batches on tokio's blocking threads and holds none of them while
//! it waits; it ends when the reader drops the stream, or when the container has ended and everything
//! is read.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures_util::stream;
use serde::Deserialize;
use tokio::sync::mpsc;

use crate::error::{IoContext, RuntimeError};
use crate::info::Stream;
use crate::runtime::{Container, Runtime, blocking};
use crate::shim::log::rotated;

/// Most entries read at once, and waiting for a slow reader.
const BATCH: usize = 256;
/// Most bytes of one line in the file: 16 KiB of text, each byte escaped (`\u0000`), and the frame.
const MAX_LINE: u64 = 128 << 10;
/// How long a reader that follows waits when there is nothing new: from, and growing up to.
const PAUSE: Duration = Duration::from_millis(10);
const LONG_PAUSE: Duration = Duration::from_millis(160);

/// Which entries to read.
#[derive(Debug, Clone)]
pub struct LogOptions {
    /// Standard output.
    pub stdout: bool,
    /// Standard error.
    pub stderr: bool,
    /// Not before this time.
    pub since: Option<DateTime<Utc>>,
    /// Not after this time.
    pub until: Option<DateTime<Utc>>,
    /// Only the last so many entries of what there is at the start.
    pub tail: Option<usize>,
    /// Go on until the container ends.
    pub follow: bool,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self { stdout: true, stderr: true, since: None, until: None, tail: None, follow: false }
    }
}

/// One entry of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEntry {
    /// When it was read from the container.
    pub time: DateTime<Utc>,
    /// Where it came from.
    pub stream: Stream,
    /// The text, with its newline. Without one it is part of a line longer than 16 KiB, or the last.
    pub line: Bytes,
}

#[derive(Deserialize)]
struct Raw {
    log: String,
    stream: Stream,
    time: DateTime<Utc>,
}

impl Runtime {
    /// Reads a container's log.
    pub fn logs(
        &self,
        reference: &str,
        options: LogOptions,
    ) -> Result<
        impl futures_util::Stream<Item = Result<LogEntry, RuntimeError>> + use<>,
        RuntimeError,
    > {
        let container = self.shared.find(reference)?;
        let (sender, receiver) = mpsc::channel(BATCH);
        tokio::spawn(read(container, options, sender));
        Ok(stream::unfold(receiver, async |mut receiver| {
            receiver.recv().await.map(|entry| (entry, receiver))
        }))
    }
}

async fn read(
    container: Arc<Container>,
    options: LogOptions,
    to: mpsc::Sender<Result<LogEntry, RuntimeError>>,
) {
    let path = container.dirs.log(container.id());
    let tail = options.tail;
    let mut reader = match blocking(move || Reader::open(path, tail)).await {
        Ok(reader) => reader,
        Err(e) => return drop(to.send(Err(e)).await),
    };
    let mut pause = PAUSE;
    loop {
        // Looked at before reading: what a container wrote before it ended is then surely read.
        let running = container.running();
        let batch = blocking(move || {
            let batch = reader.batch()?;
            Ok((reader, batch))
        });
        let batch = match batch.await {
            Ok((back, batch)) => {
                reader = back;
                batch
            }
            Err(e) => return drop(to.send(Err(e)).await),
        };
        let empty = batch.is_empty();
        for entry in batch {
            if options.until.is_some_and(|until| entry.time > until) {
                return;
            }
            let wanted = match entry.stream {
                Stream::Stdout => options.stdout,
                Stream::Stderr => options.stderr,
            };
            let wanted = wanted && options.since.is_none_or(|since| entry.time >= since);
            if wanted && to.send(Ok(entry)).await.is_err() {
                return;
            }
        }
        if !empty {
            pause = PAUSE;
            continue;
        }
        if !options.follow || !running || options.until.is_some_and(|until| Utc::now() > until) {
            return;
        }
        tokio::select! {
            () = to.closed() => return,
            () = tokio::time::sleep(pause) => pause = (pause * 2).min(LONG_PAUSE),
        }
    }
}

/// A position in a log and its older files.
struct Reader {
    path: PathBuf,
    /// Older files still to be read, oldest first, and where in the first of them to begin.
    older: VecDeque<PathBuf>,
    file: Option<BufReader<File>>,
    /// A line whose end was not there yet.
    partial: Vec<u8>,
}

impl Reader {
    fn open(path: PathBuf, tail: Option<usize>) -> Result<Self, RuntimeError> {
        let mut files: VecDeque<PathBuf> = [path.clone()].into();
        for number in 1.. {
            let older = rotated(&path, number);
            if !older.exists() {
                break;
            }
            files.push_front(older);
        }
        let mut from = 0;
        if let Some(tail) = tail {
            let mut wanted = tail;
            let mut newest_first = files.iter().rev();
            let mut keep = 0;
            for file in newest_first.by_ref() {
                keep += 1;
                let (found, offset) = last_lines(file, wanted).at("read", file)?;
                from = offset;
                wanted -= found;
                if wanted == 0 {
                    break;
                }
            }
            files.drain(..files.len() - keep);
        }
        let mut reader = Self { path, older: files, file: None, partial: Vec::new() };
        reader.next_file()?;
        if let Some(file) = &mut reader.file {
            file.seek(SeekFrom::Start(from)).at("read", &reader.path)?;
        }
        Ok(reader)
    }

    /// Opens the next file that exists. Tells whether there is one.
    fn next_file(&mut self) -> Result<bool, RuntimeError> {
        while let Some(path) = self.older.pop_front() {
            match File::open(&path) {
                Ok(file) => {
                    self.file = Some(BufReader::new(file));
                    return Ok(true);
                }
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(e).at("open", &path),
            }
        }
        Ok(false)
    }

    /// What can be read now, up to a bound; empty at the end of what there is.
    fn batch(&mut self) -> Result<Vec<LogEntry>, RuntimeError> {
        let mut entries = Vec::new();
        while entries.len() < BATCH {
            let Some(file) = &mut self.file else {
                // Nothing was logged so far.
                self.older.push_back(self.path.clone());
                if self.next_file()? {
                    continue;
                }
                break;
            };
            let room = MAX_LINE.saturating_sub(self.partial.len() as u64);
            let read = file.take(room).read_until(b'\n', &mut self.partial);
            if read.at("read", &self.path)? == 0 && room > 0 {
                if self.older.is_empty() && !self.rotated_away()? {
                    break;
                }
                if !self.next_file()? {
                    break;
                }
                self.partial.clear();
                continue;
            }
            let whole = self.partial.ends_with(b"\n");
            if !whole && (self.partial.len() as u64) < MAX_LINE {
                break;
            }
            match serde_json::from_slice::<Raw>(&self.partial) {
                Ok(raw) => entries.push(LogEntry {
                    time: raw.time,
                    stream: raw.stream,
                    line: raw.log.into_bytes().into(),
                }),
                // A crash in the middle of a write: the line is lost, the log is not.
                Err(e) => {
                    tracing::warn!(log = %self.path.display(), error = %e, "a damaged line is skipped");
                }
            }
            self.partial.clear();
        }
        Ok(entries)
    }

    /// Whether the file being read is no longer the current one; if so, the current one is next.
    fn rotated_away(&mut self) -> Result<bool, RuntimeError> {
        let Some(file) = &self.file else { return Ok(false) };
        let own = file.get_ref().metadata().at("look at", &self.path)?;
        match std::fs::metadata(&self.path) {
            Ok(current) if current.ino() != own.ino() => {
                self.older.push_back(self.path.clone());
                Ok(true)
            }
            _ => Ok(false),
        }
    }
}

/// Where the last `wanted` lines of a file begin, and how many there are of them.
fn last_lines(path: &Path, wanted: usize) -> io::Result<(usize, u64)> {
    const BLOCK: u64 = 64 << 10;
    let mut file = match File::open(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok((0, 0)),
        other => other?,
    };
    let mut at = file.metadata()?.len();
    if wanted == 0 {
        return Ok((0, at));
    }
    let mut newlines = 0;
    while at > 0 {
        let start = at.saturating_sub(BLOCK);
        let mut block = Vec::new();
        file.seek(SeekFrom::Start(start))?;
        file.by_ref().take(at - start).read_to_end(&mut block)?;
        for (i, _) in block.iter().enumerate().rev().filter(|(_, b)| **b == b'\n') {
            newlines += 1;
            if newlines > wanted {
                return Ok((wanted, start + i as u64 + 1));
            }
        }
        at = start;
    }
    Ok((newlines, 0))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::shim::log::Log;
    use crate::spec::LogLimits;

    fn written(limits: LogLimits, lines: usize) -> (tempfile::TempDir, PathBuf, Log) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = Log::open(&path, limits).unwrap();
        for n in 0..lines {
            log.write(Stream::Stdout, format!("{n}\n").as_bytes(), Utc::now()).unwrap();
        }
        (dir, path, log)
    }

    fn all(reader: &mut Reader) -> Vec<String> {
        let mut out = Vec::new();
        loop {
            let batch = reader.batch().unwrap();
            if batch.is_empty() {
                return out;
            }
            let text = |e: LogEntry| String::from_utf8(e.line.to_vec()).unwrap().trim().to_owned();
            out.extend(batch.into_iter().map(text));
        }
    }

    #[test]
    fn the_last_lines_are_found_over_rotated_files() {
        let limits = LogLimits { max_size: Some(160), max_file: 4 };
        let (_dir, path, _log) = written(limits, 9);
        let mut reader = Reader::open(path.clone(), Some(4)).unwrap();
        assert_eq!(all(&mut reader), ["5", "6", "7", "8"]);
        assert_eq!(all(&mut Reader::open(path.clone(), Some(0)).unwrap()), Vec::<String>::new());
        let everything = all(&mut Reader::open(path.clone(), None).unwrap());
        assert_eq!(all(&mut Reader::open(path, Some(1000)).unwrap()), everything);
    }

    #[test]
    fn a_reader_follows_the_log_over_a_rotation_and_skips_a_damaged_line() {
        let limits = LogLimits { max_size: Some(200), max_file: 2 };
        let (_dir, path, mut log) = written(limits, 1);
        let mut reader = Reader::open(path.clone(), None).unwrap();
        assert_eq!(all(&mut reader), ["0"]);
        Write::write_all(
            &mut File::options().append(true).open(&path).unwrap(),
            b"{\"log\":\"half\n",
        )
        .unwrap();
        for n in 1..5 {
            log.write(Stream::Stderr, format!("{n}\n").as_bytes(), Utc::now()).unwrap();
            assert_eq!(all(&mut reader), [n.to_string()]);
        }
    }
}
