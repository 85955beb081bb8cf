//! Asks a peer for a sign of life: an ICMP echo (RFC 792) from one node's overlay address to the other's.
//!
//! The engine answers it itself, whatever the kernel's settings are; a WireGuard that knows nothing of it
//! leaves that to its kernel, whose answer is as good.

use crate::checksum::finish;
use std::net::Ipv4Addr;

/// IPv4 and ICMP header, and what is in it.
pub(crate) const LEN: usize = 28 + MARK.len();
/// What an echo of ours holds.
const MARK: [u8; 12] = *b"shoal alive?";
/// IP protocol number.
const ICMP: u8 = 1;
/// ICMP types.
const REQUEST: u8 = 8;
const REPLY: u8 = 0;
/// Hops it may take; it takes one.
const TTL: u8 = 2;

/// The addresses of the two ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ends {
    /// This node's.
    pub own: Ipv4Addr,
    /// The peer's.
    pub theirs: Ipv4Addr,
}

impl Ends {
    pub(crate) fn request(self) -> [u8; LEN] {
        packet(self.own, self.theirs, REQUEST)
    }

    /// The answer, if the packet is a question of the peer's.
    pub(crate) fn answer(self, asked: &[u8]) -> Option<[u8; LEN]> {
        let question = asked == packet(self.theirs, self.own, REQUEST);
        question.then(|| packet(self.own, self.theirs, REPLY))
    }

    /// Whether it is the peer's answer, which nobody else waits for. A kernel's differs in its header.
    pub(crate) fn is_answer(self, packet: &[u8]) -> bool {
        packet.len() == LEN
            && (packet[9], packet[20]) == (ICMP, REPLY)
            && packet[12..16] == self.theirs.octets()
            && packet[16..20] == self.own.octets()
            && packet[28..] == MARK
    }
}

fn packet(from: Ipv4Addr, to: Ipv4Addr, kind: u8) -> [u8; LEN] {
    let mut packet = [0; LEN];
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&(LEN as u16).to_be_bytes());
    packet[8] = TTL;
    packet[9] = ICMP;
    packet[12..16].copy_from_slice(&from.octets());
    packet[16..20].copy_from_slice(&to.octets());
    packet[20] = kind;
    packet[28..].copy_from_slice(&MARK);
    let header = finish(crate::checksum::sum(&packet[..20]));
    packet[10..12].copy_from_slice(&header);
    let icmp = finish(crate::checksum::sum(&packet[20..]));
    packet[22..24].copy_from_slice(&icmp);
    packet
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checksum::{fold, sum};

    const OWN: Ends = Ends { own: Ipv4Addr::new(10, 0, 0, 2), theirs: Ipv4Addr::new(10, 0, 0, 3) };
    const PEER: Ends = Ends { own: OWN.theirs, theirs: OWN.own };

    #[test]
    fn a_question_is_answered_by_the_one_it_is_for_and_the_answer_is_known() {
        let question = OWN.request();
        let answer = PEER.answer(&question).unwrap();
        assert!(OWN.is_answer(&answer));
        assert_eq!(OWN.answer(&question), None, "its own");
        let other = Ends { own: Ipv4Addr::new(10, 0, 0, 9), ..PEER };
        assert_eq!(other.answer(&question), None, "for another");
        assert!(!PEER.is_answer(&answer) && !OWN.is_answer(&question));
    }

    #[test]
    fn headers_are_as_kernels_want_them() {
        for packet in [OWN.request(), PEER.answer(&OWN.request()).unwrap()] {
            assert_eq!(fold(sum(&packet[..20])), 0xffff);
            assert_eq!(fold(sum(&packet[20..])), 0xffff);
            assert_eq!(packet[2..4], (packet.len() as u16).to_be_bytes());
        }
    }

    #[test]
    fn other_echoes_are_the_kernels() {
        let mut ping = PEER.request();
        ping[30] ^= 1;
        assert_eq!(OWN.answer(&ping), None);
        assert_eq!(OWN.answer(&ping[..LEN - 1]), None);
        assert!(!OWN.is_answer(&[]));
    }
}
