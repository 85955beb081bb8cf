//! Outgoing datagrams, built in place in one buffer and grouped for `UDP_SEGMENT`.

use std::net::SocketAddr;

/// Datagrams one send may hold: `UDP_MAX_SEGMENTS` before Linux 6.9.
const MAX_SEGMENTS: usize = 64;
/// Payload bytes of one UDP send over IPv4.
const MAX_SEND: usize = 65_507;
/// A usual batch fits without growing.
const CAPACITY: usize = 192 * 1024;

/// Datagrams for one receiver that lie back to back, all `size` long, but the last may be shorter.
/// That is the shape one `UDP_SEGMENT` send takes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) to: SocketAddr,
    pub(crate) start: usize,
    pub(crate) len: usize,
    pub(crate) size: usize,
    pub(crate) count: usize,
}

impl Group {
    fn accepts(&self, to: SocketAddr, len: usize) -> bool {
        let full_so_far = self.len == self.size * self.count;
        let fits = len <= self.size && self.len + len <= MAX_SEND && self.count < MAX_SEGMENTS;
        self.to == to && full_so_far && fits && len > 0
    }
}

/// The buffer grows with need and is reused; whoever fills it sends it every
/// [`FULL`](Batch::FULL) bytes or so.
pub(crate) struct Batch {
    buf: Vec<u8>,
    used: usize,
    groups: Vec<Group>,
}

impl Batch {
    /// When it should be sent before more is added, in bytes.
    pub(crate) const FULL: usize = 128 * 1024;

    pub(crate) fn new() -> Batch {
        Batch { buf: vec![0; CAPACITY], used: 0, groups: vec![] }
    }

    /// At least `len` bytes for the next datagram.
    pub(crate) fn room(&mut self, len: usize) -> &mut [u8] {
        if self.buf.len() < self.used + len {
            self.buf.resize(self.used + len, 0);
        }
        &mut self.buf[self.used..]
    }

    /// The first `len` bytes of what [`Batch::room`] gave are one more datagram, for `to`.
    pub(crate) fn commit(&mut self, len: usize, to: SocketAddr) {
        match self.groups.last_mut() {
            Some(group) if group.accepts(to, len) => {
                group.len += len;
                group.count += 1;
            }
            _ => self.groups.push(Group { to, start: self.used, len, size: len, count: 1 }),
        }
        self.used += len;
    }

    pub(crate) fn is_full(&self) -> bool {
        self.used >= Batch::FULL
    }

    pub(crate) fn groups(&self) -> &[Group] {
        &self.groups
    }

    pub(crate) fn bytes(&self, group: &Group) -> &[u8] {
        &self.buf[group.start..group.start + group.len]
    }

    pub(crate) fn clear(&mut self) {
        self.used = 0;
        self.groups.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(batch: &mut Batch, len: usize, to: SocketAddr) {
        batch.room(len).fill(1);
        batch.commit(len, to);
    }

    #[test]
    fn equal_datagrams_and_one_shorter_make_one_group() {
        let (mut batch, a) = (Batch::new(), "192.0.2.1:1".parse().unwrap());
        for len in [100, 100, 40, 40, 100] {
            put(&mut batch, len, a);
        }
        let shape: Vec<_> = batch.groups().iter().map(|g| (g.size, g.len, g.count)).collect();
        assert_eq!(shape, [(100, 240, 3), (40, 40, 1), (100, 100, 1)]);
    }

    #[test]
    fn datagrams_for_another_receiver_start_a_group() {
        let mut batch = Batch::new();
        put(&mut batch, 100, "192.0.2.1:1".parse().unwrap());
        put(&mut batch, 100, "192.0.2.1:2".parse().unwrap());
        assert_eq!(batch.groups().len(), 2);
    }

    #[test]
    fn a_group_stays_within_what_one_send_takes() {
        let (mut batch, a) = (Batch::new(), "[2001:db8::1]:1".parse().unwrap());
        for _ in 0..200 {
            put(&mut batch, 1452, a);
        }
        for _ in 0..200 {
            put(&mut batch, 50, a);
        }
        assert!(batch.groups().iter().all(|g| g.len <= MAX_SEND && g.count <= MAX_SEGMENTS));
        assert_eq!(batch.groups().iter().map(|g| g.count).sum::<usize>(), 400);
    }
}
