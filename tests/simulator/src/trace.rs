//! A fingerprint of all that happened: two runs with the same one were the same to the bit.
use crate::time::Ns;

/// FNV-1a, 64 bits.
pub(crate) struct Trace {
    hash: u64,
    print: bool,
}

impl Trace {
    pub(crate) fn new(print: bool) -> Trace {
        Trace { hash: 0xcbf2_9ce4_8422_2325, print }
    }

    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    fn feed(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.hash = (self.hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    pub(crate) fn note(&mut self, now: Ns, (word, a, b): (&'static str, u64, u64)) {
        self.feed(word.as_bytes());
        for number in [now, a, b] {
            self.feed(&number.to_le_bytes());
        }
        if self.print {
            let (s, ns) = (now / 1_000_000_000, now % 1_000_000_000);
            println!("{s:6}.{ns:09} {word} {a:x} {b:x}");
        }
    }

    /// A line for who reads the events; not a part of the fingerprint.
    pub(crate) fn say(&self, now: Ns, text: impl FnOnce() -> String) {
        if self.print {
            let (s, ns) = (now / 1_000_000_000, now % 1_000_000_000);
            println!("{s:6}.{ns:09}   {}", text());
        }
    }
}
