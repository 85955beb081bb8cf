//! Points in time as Go writes and reads them. Pure.
use chrono::{DateTime, SecondsFormat, Utc};
use shoal_model::Timestamp;

/// Go's zero time.
pub(crate) const ZERO: &str = "0001-01-01T00:00:00Z";

/// RFC 3339 with as many fractional digits as are needed (Go's `RFC3339Nano`); the epoch itself,
/// which stands for "not set" here, is Go's zero time.
pub(crate) fn rfc3339(t: Timestamp) -> String {
    if t.0 == 0 {
        return ZERO.to_owned();
    }
    let text =
        DateTime::<Utc>::from_timestamp_nanos(t.0).to_rfc3339_opts(SecondsFormat::Nanos, true);
    let bare = text.trim_end_matches('Z').trim_end_matches('0').trim_end_matches('.');
    format!("{bare}Z")
}

/// RFC 3339 with all nine digits, as in front of log lines.
pub(crate) fn rfc3339_fixed(t: Timestamp) -> String {
    DateTime::<Utc>::from_timestamp_nanos(t.0).to_rfc3339_opts(SecondsFormat::Nanos, true)
}

/// A `since`/`until` parameter: seconds since the epoch with up to nine decimals, or RFC 3339.
pub(crate) fn parse(text: &str) -> Option<Timestamp> {
    if let Ok(t) = DateTime::parse_from_rfc3339(text) {
        return t.timestamp_nanos_opt().map(Timestamp);
    }
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    if fraction.len() > 9 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let seconds: i64 = seconds.parse().ok()?;
    let nanos: i64 = format!("{fraction:0<9}").parse().ok()?;
    seconds.checked_mul(1_000_000_000)?.checked_add(nanos).map(Timestamp)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_without_trailing_zeros() {
        assert_eq!(rfc3339(Timestamp(0)), ZERO);
        assert_eq!(rfc3339(Timestamp(1_700_000_000_000_000_000)), "2023-11-14T22:13:20Z");
        assert_eq!(rfc3339(Timestamp(1_700_000_000_120_000_000)), "2023-11-14T22:13:20.12Z");
        assert_eq!(rfc3339(Timestamp(1_700_000_000_000_000_001)), "2023-11-14T22:13:20.000000001Z");
    }

    #[test]
    fn seconds_with_decimals_and_dates_are_read() {
        assert_eq!(parse("1700000000"), Some(Timestamp(1_700_000_000_000_000_000)));
        assert_eq!(parse("1700000000.5"), Some(Timestamp(1_700_000_000_500_000_000)));
        assert_eq!(parse("2023-11-14T22:13:20Z"), Some(Timestamp(1_700_000_000_000_000_000)));
        for bad in ["", "soon", "1.0000000001", "1.x", "9999999999999"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
