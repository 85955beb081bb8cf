//! Numbers in base 36 (`0-9a-z`) at a fixed width, as tokens and ids are written.

const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";

/// `bytes` (big-endian) as exactly `width` digits, most significant first.
///
/// The width must be enough for the number; see the callers' constants.
pub(crate) fn encode(bytes: &[u8], width: usize) -> String {
    let mut number = bytes.to_vec();
    let mut digits = vec![b'0'; width];
    for digit in digits.iter_mut().rev() {
        let mut remainder = 0u32;
        for byte in &mut number {
            let value = remainder << 8 | u32::from(*byte);
            *byte = (value / 36) as u8; // remainder < 36, so the quotient is below 256
            remainder = value % 36;
        }
        *digit = DIGITS[remainder as usize];
    }
    debug_assert!(number.iter().all(|b| *b == 0), "width too small");
    zeroize::Zeroize::zeroize(&mut number);
    digits.into_iter().map(char::from).collect()
}

/// The number of `N` bytes `text` stands for; `None` when a character is no digit (capitals are
/// none) or the number needs more than `N` bytes.
pub(crate) fn decode<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut number = [0u8; N];
    for c in text.bytes() {
        let mut carry = DIGITS.iter().position(|d| *d == c)? as u32;
        for byte in number.iter_mut().rev() {
            let value = u32::from(*byte) * 36 + carry;
            *byte = value as u8; // low byte; the rest is carried
            carry = value >> 8;
        }
        if carry != 0 {
            return None;
        }
    }
    Some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_numbers_have_their_digits() {
        assert_eq!(encode(&[0], 3), "000");
        assert_eq!(encode(&[35], 2), "0z");
        assert_eq!(encode(&[1, 0], 4), "0074"); // 256 = 7·36 + 4
        assert_eq!(encode(&[0xff; 16], 25), "f5lxx1zz5pnorynqglhzmsp33"); // 2^128 - 1
    }

    #[test]
    fn decoding_reverses_encoding_at_the_extremes() {
        for bytes in [[0u8; 32], [0xff; 32], core::array::from_fn(|i| i as u8 * 7)] {
            assert_eq!(decode::<32>(&encode(&bytes, 50)), Some(bytes));
        }
    }

    #[test]
    fn what_does_not_fit_or_is_no_digit_is_refused() {
        assert_eq!(decode::<32>(&"z".repeat(50)), None);
        assert_eq!(decode::<2>("A"), None);
        assert_eq!(decode::<2>("é"), None);
        assert_eq!(decode::<1>("74"), None); // 256
        assert_eq!(decode::<1>("73"), Some([255]));
    }
}
