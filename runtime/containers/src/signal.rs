//! Signal names. Pure.

/// Linux's signals by name (x86 and ARM numbering, signal(7)).
const NAMES: [(&str, i32); 33] = [
    ("ABRT", 6),
    ("ALRM", 14),
    ("BUS", 7),
    ("CHLD", 17),
    ("CLD", 17),
    ("CONT", 18),
    ("FPE", 8),
    ("HUP", 1),
    ("ILL", 4),
    ("INT", 2),
    ("IO", 29),
    ("IOT", 6),
    ("KILL", 9),
    ("PIPE", 13),
    ("POLL", 29),
    ("PROF", 27),
    ("PWR", 30),
    ("QUIT", 3),
    ("SEGV", 11),
    ("STKFLT", 16),
    ("STOP", 19),
    ("SYS", 31),
    ("TERM", 15),
    ("TRAP", 5),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("USR1", 10),
    ("USR2", 12),
    ("VTALRM", 26),
    ("WINCH", 28),
    ("XCPU", 24),
];
/// First and last real-time signal as glibc and Docker number them.
const RTMIN: i32 = 34;
const RTMAX: i32 = 64;

/// The number of a signal given as `SIGTERM`, `term`, `15`, or `RTMIN+3`; `None` if there is none.
pub fn parse_signal(text: &str) -> Option<i32> {
    // 32 and 33 are the C library's own.
    let known = |n: &i32| (1..32).contains(n) || (RTMIN..=RTMAX).contains(n);
    if let Ok(number) = text.parse::<i32>() {
        return Some(number).filter(known);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if name == "XFSZ" {
        return Some(25);
    }
    let real_time = if let Some(offset) = name.strip_prefix("RTMIN") {
        Some(RTMIN + if offset.is_empty() { 0 } else { offset.strip_prefix('+')?.parse().ok()? })
    } else if let Some(offset) = name.strip_prefix("RTMAX") {
        Some(
            RTMAX
                - if offset.is_empty() {
                    0
                } else {
                    offset.strip_prefix('-')?.parse::<i32>().ok()?
                },
        )
    } else {
        NAMES.iter().find(|(n, _)| *n == name).map(|(_, number)| *number)
    };
    real_time.filter(known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_known_by_name_number_and_offset() {
        for (text, number) in [
            ("SIGTERM", 15),
            ("kill", 9),
            ("12", 12),
            ("RTMIN+3", 37),
            ("SIGRTMAX-1", 63),
            ("xfsz", 25),
        ] {
            assert_eq!(parse_signal(text), Some(number), "{text}");
        }
        for text in ["", "0", "65", "33", "SIGNOPE", "RTMIN+x", "RTMIN+99", "-1"] {
            assert_eq!(parse_signal(text), None, "{text}");
        }
    }
}
