//! The Internet checksum (RFC 1071).
//!
//! Sums are kept in the machine's byte order, which one's complement arithmetic allows (RFC 1071,
//! section 2 B): fold them and store them with `to_ne_bytes`.

/// IP protocol number of TCP.
pub(crate) const TCP: u8 = 6;
/// IP protocol number of UDP.
pub(crate) const UDP: u8 = 17;

/// Sum of the 16-bit words of `bytes`, an odd last byte padded with zero; not folded. Sums over
/// parts may be added if all parts but the last have an even length.
pub(crate) fn sum(bytes: &[u8]) -> u64 {
    // Eight independent sums of 32-bit words: the compiler turns them into vector instructions.
    let mut lanes = [0u64; 8];
    let (blocks, rest) = bytes.as_chunks::<32>();
    for block in blocks {
        let (words, _) = block.as_chunks::<4>();
        for (lane, word) in lanes.iter_mut().zip(words) {
            *lane += u64::from(u32::from_ne_bytes(*word));
        }
    }
    let (words, tail) = rest.as_chunks::<4>();
    let mut total: u64 = lanes.iter().sum();
    total += words.iter().map(|w| u64::from(u32::from_ne_bytes(*w))).sum::<u64>();
    let mut last = [0; 4];
    last[..tail.len()].copy_from_slice(tail);
    total + u64::from(u32::from_ne_bytes(last))
}

/// Folds a sum to 16 bits. The checksum is the complement of this.
pub(crate) fn fold(sum: u64) -> u16 {
    let mut folded = sum;
    while folded >> 16 != 0 {
        folded = (folded & 0xffff) + (folded >> 16);
    }
    folded as u16
}

/// What goes into the checksum field. Never zero, which in UDP means "no checksum" and in TCP is
/// the same number as 0xffff.
pub(crate) fn finish(sum: u64) -> [u8; 2] {
    match !fold(sum) {
        0 => [0xff; 2],
        checksum => checksum.to_ne_bytes(),
    }
}

/// Sum of the pseudo header of TCP or UDP (RFC 9293, section 3.1; RFC 8200, section 8.1). `ip`
/// starts with the IP header, which must be whole; `length` is that of the transport header and
/// what follows it.
pub(crate) fn pseudo_header(ip: &[u8], protocol: u8, length: usize) -> u64 {
    let addresses = if ip[0] >> 4 == 4 { &ip[12..20] } else { &ip[8..40] };
    // All lengths here are below 65,536, so the upper half of IPv6's 32-bit length is zero.
    sum(addresses) + u64::from(u16::from(protocol).to_be()) + u64::from((length as u16).to_be())
}

/// Sets the length, and for IPv4 the checksum, of the IP header of `header_len` bytes that starts
/// `ip`, for a packet of `total` bytes.
pub(crate) fn set_ip_length(ip: &mut [u8], header_len: usize, total: usize) {
    if ip[0] >> 4 == 4 {
        ip[2..4].copy_from_slice(&(total as u16).to_be_bytes());
        ip[10..12].fill(0);
        let checksum = !fold(sum(&ip[..header_len]));
        ip[10..12].copy_from_slice(&checksum.to_ne_bytes());
    } else {
        ip[4..6].copy_from_slice(&((total - 40) as u16).to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn plain_sum(bytes: &[u8]) -> u16 {
        let mut total = 0u32;
        for pair in bytes.chunks(2) {
            let word = [pair[0], *pair.get(1).unwrap_or(&0)];
            total += u32::from(u16::from_be_bytes(word));
            total = (total & 0xffff) + (total >> 16);
        }
        total as u16
    }

    #[test]
    fn the_example_of_rfc_1071_gives_its_sum() {
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(fold(sum(&bytes)).to_ne_bytes(), [0xdd, 0xf2]);
    }

    proptest! {
        #[test]
        fn the_wide_sum_equals_the_plain_one(bytes in prop::collection::vec(any::<u8>(), 1..300)) {
            prop_assert_eq!(u16::from_be_bytes(fold(sum(&bytes)).to_ne_bytes()), plain_sum(&bytes));
        }
    }
}
