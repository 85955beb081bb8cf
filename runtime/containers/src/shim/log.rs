//! Docker's json-file log: one JSON object per line of output.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;

use crate::info::Stream;
use crate::spec::LogLimits;

/// Longest line kept whole, bytes (Docker's); a longer one becomes several entries, of which only the
/// last ends in a newline.
pub(crate) const MAX_LINE: usize = 16 << 10;

#[derive(Serialize)]
struct Entry<'a> {
    log: &'a str,
    stream: Stream,
    time: String,
}

/// Cuts a stream of bytes into lines. Pure.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    pending: Vec<u8>,
}

impl Lines {
    /// Takes more bytes and gives each finished piece to `emit`.
    pub(crate) fn push(&mut self, mut bytes: &[u8], mut emit: impl FnMut(&[u8])) {
        while !bytes.is_empty() {
            let room = MAX_LINE - self.pending.len();
            let window = &bytes[..bytes.len().min(room)];
            let newline = window.iter().position(|b| *b == b'\n');
            let take = newline.map_or(window.len(), |at| at + 1);
            self.pending.extend_from_slice(&bytes[..take]);
            bytes = &bytes[take..];
            if newline.is_some() {
                emit(&self.pending);
                self.pending.clear();
            } else if self.pending.len() == MAX_LINE {
                let cut = whole_characters(&self.pending);
                emit(&self.pending[..cut]);
                self.pending.drain(..cut);
            }
        }
    }

    /// Gives what is left at the end of the stream.
    pub(crate) fn finish(self, mut emit: impl FnMut(&[u8])) {
        if !self.pending.is_empty() {
            emit(&self.pending);
        }
    }
}

/// How many bytes end at a character's end; all of them if this is no UTF-8 anyway.
fn whole_characters(bytes: &[u8]) -> usize {
    match std::str::from_utf8(bytes) {
        Err(e) if e.error_len().is_none() && e.valid_up_to() > 0 => e.valid_up_to(),
        _ => bytes.len(),
    }
}

/// A log file that is being written.
pub(crate) struct Log {
    path: PathBuf,
    file: File,
    size: u64,
    limits: LogLimits,
}

impl Log {
    /// Opens or continues a log.
    pub(crate) fn open(path: &Path, limits: LogLimits) -> io::Result<Self> {
        let file = File::options().create(true).append(true).open(path)?;
        let size = file.metadata()?.len();
        Ok(Self { path: path.to_owned(), file, size, limits })
    }

    /// Writes one entry. `log` with its newline, if it had one.
    pub(crate) fn write(
        &mut self,
        stream: Stream,
        log: &[u8],
        now: DateTime<Utc>,
    ) -> io::Result<()> {
        let text = String::from_utf8_lossy(log);
        let time = now.to_rfc3339_opts(SecondsFormat::Nanos, true);
        let mut line = serde_json::to_vec(&Entry { log: &text, stream, time })?;
        line.push(b'\n');
        if self
            .limits
            .max_size
            .is_some_and(|max| self.size > 0 && self.size + line.len() as u64 > max)
        {
            self.rotate()?;
        }
        // One write per entry: a reader sees whole lines only.
        self.file.write_all(&line)?;
        self.size += line.len() as u64;
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        let kept = self.limits.max_file.max(1) - 1;
        for number in (1..kept).rev() {
            let from = rotated(&self.path, number);
            if from.exists() {
                fs::rename(from, rotated(&self.path, number + 1))?;
            }
        }
        if kept == 0 {
            fs::remove_file(&self.path)?;
        } else {
            fs::rename(&self.path, rotated(&self.path, 1))?;
        }
        self.file = File::options().create(true).append(true).open(&self.path)?;
        self.size = 0;
        Ok(())
    }
}

/// Name of an older file of a log; 1 is the youngest.
pub(crate) fn rotated(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(chunks: &[&[u8]]) -> Vec<Vec<u8>> {
        let mut out = Vec::new();
        let mut lines = Lines::default();
        for chunk in chunks {
            lines.push(chunk, |l| out.push(l.to_vec()));
        }
        lines.finish(|l| out.push(l.to_vec()));
        out
    }

    #[test]
    fn lines_are_put_together_over_chunks_and_the_last_needs_no_newline() {
        assert_eq!(cut(&[b"a\nb", b"c\n\n", b"d"]), [&b"a\n"[..], b"bc\n", b"\n", b"d"]);
    }

    #[test]
    fn a_long_line_is_cut_at_16_kib_between_characters() {
        let long = [vec![b'x'; MAX_LINE], b"yz\n".to_vec()].concat();
        let parts = cut(&[&long]);
        assert_eq!((parts[0].len(), parts[1].as_slice()), (MAX_LINE, &b"yz\n"[..]));
        let mut accents = "é".repeat(MAX_LINE / 2 + 1).into_bytes();
        accents.insert(0, b'x');
        let parts = cut(&[&accents]);
        assert_eq!(parts[0].len(), MAX_LINE - 1);
        assert_eq!(parts.concat(), accents);
    }

    #[test]
    fn rotation_keeps_the_newest_files() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let limits = LogLimits { max_size: Some(100), max_file: 3 };
        let mut log = Log::open(&path, limits).unwrap();
        for n in 0..10 {
            let line = format!("{n}\n");
            log.write(Stream::Stdout, line.as_bytes(), DateTime::UNIX_EPOCH).unwrap();
        }
        let read = |p: PathBuf| fs::read_to_string(p).unwrap();
        assert!(read(path.clone()).contains("9\\n"));
        assert!(read(rotated(&path, 1)).contains("8\\n"));
        assert!(read(rotated(&path, 2)).contains("7\\n"));
        assert!(!rotated(&path, 3).exists());
    }
}
