//! Docker's frames taken apart again. Pure.
use bytes::{Buf, BytesMut};

/// Longest payload accepted, bytes. The daemon sends log lines and reads of some kilobytes.
const MAX_PAYLOAD: usize = 16 << 20;

/// Which stream a payload belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Origin {
    Out,
    Err,
    /// An error of the daemon while it streams.
    System,
}

/// Collects bytes and gives whole payloads.
#[derive(Debug, Default)]
pub(crate) struct Demux(BytesMut);

impl Demux {
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// The next whole payload; an error when the stream is not in frames.
    pub(crate) fn next(&mut self) -> Result<Option<(Origin, BytesMut)>, String> {
        if self.0.len() < 8 {
            return Ok(None);
        }
        let origin = match self.0[0] {
            0 | 1 => Origin::Out,
            2 => Origin::Err,
            3 => Origin::System,
            other => return Err(format!("unrecognized stream: {other}")),
        };
        let length = u32::from_be_bytes([self.0[4], self.0[5], self.0[6], self.0[7]]) as usize;
        if length > MAX_PAYLOAD {
            return Err(format!("a frame of {length} bytes is too long"));
        }
        if self.0.len() < 8 + length {
            return Ok(None);
        }
        self.0.advance(8);
        Ok(Some((origin, self.0.split_to(length))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_out_whole_however_they_are_cut() {
        let mut demux = Demux::default();
        for byte in b"\x01\0\0\0\0\0\0\x02hi\x02\0\0\0\0\0\0\x01!" {
            let before = demux.next().unwrap();
            assert!(before.is_none() || before == Some((Origin::Out, BytesMut::from("hi"))));
            demux.push(&[*byte]);
        }
        assert_eq!(demux.next().unwrap(), Some((Origin::Err, BytesMut::from("!"))));
        assert_eq!(demux.next().unwrap(), None);
    }

    #[test]
    fn bytes_that_are_no_frames_are_an_error() {
        let mut demux = Demux::default();
        demux.push(b"plain text");
        assert!(demux.next().is_err());
    }
}
