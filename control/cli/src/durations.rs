//! Durations as Go reads them and as Docker words them. Pure.
use std::time::Duration;

/// Reads a Go duration (`1h30m`, `500ms`, `5s`) as nanoseconds.
pub(crate) fn parse(text: &str) -> Result<i64, String> {
    let bad = || format!("time: invalid duration {text:?}: give for example 500ms, 10s, 1m30s, 2h");
    if text == "0" {
        return Ok(0);
    }
    let mut rest = text;
    let mut total: f64 = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(bad)?;
        let number: f64 = rest[..digits].parse().map_err(|_| bad())?;
        rest = &rest[digits..];
        let end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let unit = match &rest[..end] {
            "ns" => 1.0,
            "us" | "µs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return Err(bad()),
        };
        rest = &rest[end..];
        total += number * unit;
    }
    // 2⁶³ ns are 292 years.
    if text.is_empty() || total >= i64::MAX as f64 { Err(bad()) } else { Ok(total.round() as i64) }
}

/// Docker's words for a span of time: `5 seconds`, `About an hour`.
pub(crate) fn words(span: Duration) -> String {
    let seconds = span.as_secs();
    let hours = (span.as_secs_f64() / 3600.0).round() as u64;
    match seconds {
        0 => "Less than a second".to_owned(),
        1 => "1 second".to_owned(),
        2..60 => format!("{seconds} seconds"),
        60..120 => "About a minute".to_owned(),
        120..3600 => format!("{} minutes", seconds / 60),
        _ => match hours {
            ..=1 => "About an hour".to_owned(),
            2..48 => format!("{hours} hours"),
            48..336 => format!("{} days", hours / 24),
            336..1440 => format!("{} weeks", hours / 24 / 7),
            1440..17520 => format!("{} months", hours / 24 / 30),
            _ => format!("{} years", hours / 24 / 365),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_durations_are_read() {
        assert_eq!(parse("5s"), Ok(5_000_000_000));
        assert_eq!(parse("1m30s"), Ok(90_000_000_000));
        assert_eq!(parse("1.5h"), Ok(5_400_000_000_000));
        assert_eq!(parse("0"), Ok(0));
        for bad in ["", "5", "s", "5x", "-1s", "9999999999h"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn spans_have_docker_s_words() {
        for (seconds, text) in [
            (0, "Less than a second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (300, "5 minutes"),
            (3600, "About an hour"),
            (2 * 86_400, "2 days"),
            (30 * 86_400, "4 weeks"),
            (90 * 86_400, "3 months"),
        ] {
            assert_eq!(words(Duration::from_secs(seconds)), text);
        }
    }
}
