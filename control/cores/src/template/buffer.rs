//! Bytes that are overwritten wherever they have been.
use zeroize::Zeroizing;

/// What is written to, up to a bound.
pub(super) struct Buffer {
    bytes: Zeroizing<Vec<u8>>,
    most: usize,
}

/// More than the bound was written.
#[derive(Debug)]
pub(super) struct Full;

impl Buffer {
    pub(super) fn new(most: usize) -> Buffer {
        Buffer { bytes: Zeroizing::default(), most }
    }

    pub(super) fn push(&mut self, more: &[u8]) -> Result<(), Full> {
        let len = self.bytes.len() + more.len();
        if len > self.most {
            return Err(Full);
        }
        if len > self.bytes.capacity() {
            // A vector that grows by itself leaves its bytes where it was.
            let mut larger = Vec::with_capacity(len.max(2 * self.bytes.capacity()).max(64));
            larger.extend_from_slice(&self.bytes);
            self.bytes = Zeroizing::new(larger);
        }
        self.bytes.extend_from_slice(more);
        Ok(())
    }

    pub(super) fn text(&mut self, more: &str) -> Result<(), Full> {
        self.push(more.as_bytes())
    }

    /// How many bytes it may have.
    pub(super) fn most(&self) -> usize {
        self.most
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn done(self) -> Zeroizing<Vec<u8>> {
        self.bytes
    }
}
