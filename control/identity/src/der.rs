//! The little DER (X.690) that is written here by hand: certificates whose names must stay as they are,
//! bit by bit, and keys in older forms.
use time::OffsetDateTime;

pub(crate) const INTEGER: u8 = 0x02;
pub(crate) const BIT_STRING: u8 = 0x03;
pub(crate) const OCTET_STRING: u8 = 0x04;
pub(crate) const SEQUENCE: u8 = 0x30;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// One element: tag, length, and its parts one after another.
pub(crate) fn element(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut out = Vec::with_capacity(length + 6);
    out.push(tag);
    match u8::try_from(length) {
        Ok(short) if short < 0x80 => out.push(short),
        _ => {
            let bytes = length.to_be_bytes();
            let skipped = bytes.iter().take_while(|b| **b == 0).count();
            out.push(0x80 | (bytes.len() - skipped) as u8); // at most 8
            out.extend_from_slice(&bytes[skipped..]);
        }
    }
    parts.iter().for_each(|part| out.extend_from_slice(part));
    out
}

/// The first element: its tag, its content, and what follows it.
pub(crate) fn split(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, first], rest) = bytes.split_first_chunk::<2>()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x83 => {
            let (length, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (length.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

/// A time as certificates have it: with two digits of the year until 2049 (RFC 5280, 4.1.2.5).
pub(crate) fn time(at: OffsetDateTime) -> Vec<u8> {
    let (year, month, day) = (at.year(), u8::from(at.month()), at.day());
    let rest = format!("{month:02}{day:02}{:02}{:02}{:02}Z", at.hour(), at.minute(), at.second());
    match year {
        1950..2050 => element(UTC_TIME, &[format!("{:02}{rest}", year % 100).as_bytes()]),
        _ => element(GENERALIZED_TIME, &[format!("{year:04}{rest}").as_bytes()]),
    }
}

/// The text form: base64 in lines of 64 characters between two dashed lines (RFC 7468).
pub(crate) fn pem(label: &str, der: &[u8]) -> String {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let text = STANDARD.encode(der);
    let mut out = format!("-----BEGIN {label}-----\n");
    for line in text.as_bytes().chunks(64) {
        out.extend(line.iter().copied().map(char::from));
        out.push('\n');
    }
    out.push_str(&format!("-----END {label}-----\n"));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_take_as_many_bytes_as_they_need() {
        assert_eq!(element(SEQUENCE, &[]), [0x30, 0]);
        assert_eq!(element(OCTET_STRING, &[&[1], &[2]]), [4, 2, 1, 2]);
        assert_eq!(element(OCTET_STRING, &[&[0; 127]])[..2], [4, 127]);
        assert_eq!(element(OCTET_STRING, &[&[0; 128]])[..3], [4, 0x81, 128]);
        assert_eq!(element(OCTET_STRING, &[&[0; 258]])[..4], [4, 0x82, 1, 2]);
    }

    #[test]
    fn what_was_put_together_is_split_again_and_what_is_cut_is_not() {
        for length in [0, 1, 127, 128, 300, 70_000] {
            let content = vec![7; length];
            let mut bytes = element(OCTET_STRING, &[&content]);
            bytes.push(9);
            assert_eq!(split(&bytes), Some((OCTET_STRING, &content[..], &[9][..])), "{length}");
            assert_eq!(split(&bytes[..bytes.len() - 2]), None, "{length}");
        }
        assert_eq!(split(&[4]), None);
        assert_eq!(split(&[4, 0x80, 0, 0]), None, "of unknown length");
    }

    #[test]
    fn years_from_2050_on_have_four_digits() {
        let at = |seconds| OffsetDateTime::from_unix_timestamp(seconds).unwrap();
        assert_eq!(time(at(1_800_000_000)), b"\x17\x0d270115080000Z");
        assert_eq!(time(at(2_600_000_000)), b"\x18\x0f20520522141320Z");
    }
}
