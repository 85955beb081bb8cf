//! What daemon and shim say to each other over the shim's socket: frames of a kind byte, a length
//! (u32, big-endian) and a payload. A connection carries one request; an exec's then goes on with its
//! streams.

use std::io::{self, Read, Write};

use serde::{Deserialize, Serialize};

/// Bytes before a payload.
pub(crate) const HEADER: usize = 5;
/// Most bytes in one frame: a request with a large environment (the kernel's limit for arguments and
/// environment is 2 MiB by default).
pub(crate) const MAX_FRAME: usize = 4 << 20;
/// Bytes of a stream sent at once.
pub(crate) const CHUNK: usize = 32 << 10;

/// What a frame carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// Daemon → shim, once: a [`Request`] as JSON.
    Request = 0,
    /// Shim → daemon, once: a [`Reply`] as JSON.
    Reply = 1,
    /// Daemon → shim: bytes for the process; empty at the end of input.
    Stdin = 2,
    /// Daemon → shim: a [`Size`] as JSON.
    Resize = 3,
    /// Shim → daemon: bytes from the process.
    Stdout = 4,
    /// Shim → daemon: bytes from the process.
    Stderr = 5,
    /// Shim → daemon, last: the exit code as decimal text.
    Exit = 6,
    /// Daemon → shim: kill the process.
    Kill = 7,
}

impl Kind {
    fn from_byte(byte: u8) -> io::Result<Self> {
        [
            Self::Request,
            Self::Reply,
            Self::Stdin,
            Self::Resize,
            Self::Stdout,
            Self::Stderr,
            Self::Exit,
            Self::Kill,
        ]
        .into_iter()
        .find(|k| *k as u8 == byte)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "unknown kind of frame"))
    }
}

/// What the daemon asks of a shim.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    /// Send a signal to the container's first process.
    Signal(i32),
    /// Answer that the container has started, and close the connection when it has ended.
    Wait,
    /// Set the size of the container's terminal.
    Resize(Size),
    /// Start one more process.
    Exec(ExecRequest),
}

/// One more process: an OCI `process` object and whether it wants a standard input.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ExecRequest {
    pub(crate) process: serde_json::Value,
    pub(crate) tty: bool,
    pub(crate) stdin: bool,
}

/// A terminal's size in characters.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Size {
    pub(crate) rows: u16,
    pub(crate) columns: u16,
}

/// A shim's answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Reply {
    /// Done; for an exec: it runs.
    Ok,
    /// Not done.
    Failed(Failure),
}

/// Why a process did not start: Docker's words and the exit code its client uses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Failure {
    pub(crate) reason: String,
    pub(crate) code: i32,
}

/// The bytes of a frame's header.
pub(crate) fn header(kind: Kind, len: usize) -> [u8; HEADER] {
    let len = u32::try_from(len).expect("frames are cut at CHUNK or checked against MAX_FRAME");
    let [a, b, c, d] = len.to_be_bytes();
    [kind as u8, a, b, c, d]
}

/// Kind and length, from a header's bytes.
pub(crate) fn parse_header(bytes: [u8; HEADER]) -> io::Result<(Kind, usize)> {
    let [kind, a, b, c, d] = bytes;
    let len = u32::from_be_bytes([a, b, c, d]) as usize;
    if len > MAX_FRAME {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "frame too large"));
    }
    Ok((Kind::from_byte(kind)?, len))
}

/// Reads one frame; `None` at a clean end.
pub(crate) fn read_frame(from: &mut impl Read) -> io::Result<Option<(Kind, Vec<u8>)>> {
    let mut bytes = [0; HEADER];
    match from.read_exact(&mut bytes) {
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let (kind, len) = parse_header(bytes)?;
    let mut payload = vec![0; len];
    from.read_exact(&mut payload)?;
    Ok(Some((kind, payload)))
}

/// Writes one frame.
pub(crate) fn write_frame(to: &mut impl Write, kind: Kind, payload: &[u8]) -> io::Result<()> {
    to.write_all(&header(kind, payload.len()))?;
    to.write_all(payload)
}

/// Writes a reply.
pub(crate) fn write_reply(to: &mut impl Write, reply: &Reply) -> io::Result<()> {
    write_frame(to, Kind::Reply, &serde_json::to_vec(reply)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_comes_back_as_it_was_sent_and_a_huge_or_unknown_one_is_refused() {
        let mut bytes = Vec::new();
        write_frame(&mut bytes, Kind::Stderr, b"hello").unwrap();
        let frame = read_frame(&mut bytes.as_slice()).unwrap();
        assert_eq!(frame, Some((Kind::Stderr, b"hello".to_vec())));
        assert_eq!(read_frame(&mut [].as_slice()).unwrap(), None);
        assert!(read_frame(&mut [4, 0xff, 0, 0, 0].as_slice()).is_err());
        assert!(read_frame(&mut [99, 0, 0, 0, 0].as_slice()).is_err());
        assert!(read_frame(&mut [4, 0, 0, 0, 9, 1].as_slice()).is_err());
    }
}
