//! Signal numbers as the kernel interface's type, real-time signals included.

#![expect(unsafe_code, reason = "rustix makes a real-time signal from its number only unchecked")]

use rustix::process::Signal;

/// First and last real-time signal that the C library leaves to others.
const REAL_TIME: std::ops::RangeInclusive<i32> = 34..=64;

/// The signal with this number; `None` if there is none or the C library keeps it for itself.
pub(super) fn from_number(number: i32) -> Option<Signal> {
    Signal::from_named_raw(number).or_else(|| {
        REAL_TIME.contains(&number).then(|| {
            // SAFETY: the number is a signal of Linux (at most 64), not 0, and not one of 32 and 33,
            // which the C library reserves.
            unsafe { Signal::from_raw_unchecked(number) }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_and_unknown_numbers_are_no_signals() {
        for number in [-1, 0, 32, 33, 65] {
            assert!(from_number(number).is_none(), "{number}");
        }
        for number in [1, 9, 15, 31, 34, 64] {
            assert_eq!(from_number(number).map(|s| s.as_raw()), Some(number));
        }
    }
}
