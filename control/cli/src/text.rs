//! Small pieces of text as Docker prints them. Pure.
use crate::durations;
use chrono::{DateTime, Utc};
use serde_json::Value;
use std::time::Duration;

/// The string at a JSON pointer, or nothing.
pub(crate) fn at<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The number at a JSON pointer, or 0.
pub(crate) fn number(value: &Value, pointer: &str) -> i64 {
    value.pointer(pointer).and_then(Value::as_i64).unwrap_or(0)
}

/// The list at a JSON pointer, or an empty one.
pub(crate) fn list<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// An id without its algorithm, cut to 12 characters unless `full`.
pub(crate) fn id(id: &str, full: bool) -> String {
    if full {
        return id.to_owned();
    }
    id.strip_prefix("sha256:").unwrap_or(id).chars().take(12).collect()
}

/// First letter in upper case.
pub(crate) fn title(word: &str) -> String {
    let mut chars = word.chars();
    chars.next().map_or_else(String::new, |c| c.to_ascii_uppercase().to_string() + chars.as_str())
}

/// Cut to `width` characters, the last one an ellipsis.
pub(crate) fn ellipsis(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

/// An image's name without its digest where it has a tag.
pub(crate) fn image(name: &str) -> &str {
    match name.split_once('@') {
        Some((tagged, _)) if tagged.rsplit('/').next().is_some_and(|n| n.contains(':')) => tagged,
        _ => name,
    }
}

/// Bytes with 3 digits and a decimal unit: `1.23MB`.
pub(crate) fn size(bytes: i64) -> String {
    const UNITS: [&str; 6] = ["B", "kB", "MB", "GB", "TB", "PB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let decimals = if value >= 100.0 {
        0
    } else if value >= 10.0 {
        1
    } else {
        2
    };
    let text = format!("{value:.decimals$}");
    let text = match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.'),
        false => &text,
    };
    format!("{text}{}", UNITS[unit])
}

/// Bytes with up to 4 digits and a binary unit: `3.842GiB`.
pub(crate) fn binary_size(bytes: i64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let text = format!("{value:.3}");
    format!("{}{}", text.trim_end_matches('0').trim_end_matches('.'), UNITS[unit])
}

/// Reads bytes with an optional binary unit: `64m`, `1.5GB`.
pub(crate) fn parse_size(text: &str) -> Result<i64, String> {
    let bad =
        || format!("invalid size: {text:?}: give bytes with an optional unit b, k, m, g or t");
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(lower.len());
    let number: f64 = lower[..digits].parse().map_err(|_| bad())?;
    let shift = match lower[digits..].trim().trim_end_matches("ib").trim_end_matches('b') {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return Err(bad()),
    };
    Ok((number * (1_i64 << shift) as f64) as i64)
}

/// Reads a number of processors as 10⁻⁹ of one.
pub(crate) fn parse_cpus(text: &str) -> Result<i64, String> {
    let value: f64 = text.parse().map_err(|_| format!("invalid number of CPUs: {text:?}"))?;
    if !(0.0..1e6).contains(&value) {
        return Err(format!("invalid number of CPUs: {text:?}"));
    }
    Ok((value * 1e9).round() as i64)
}

/// How long ago an RFC 3339 time was, in words.
pub(crate) fn ago(time: &str, now: DateTime<Utc>) -> String {
    let Ok(time) = DateTime::parse_from_rfc3339(time) else { return String::new() };
    let span = now.signed_duration_since(time).to_std().unwrap_or(Duration::ZERO);
    format!("{} ago", durations::words(span))
}

/// JSON as `docker inspect` prints it.
pub(crate) fn pretty(value: &impl serde::Serialize) -> String {
    let mut out = Vec::new();
    let format = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut out, format);
    value.serialize(&mut serializer).expect("JSON values always serialise");
    String::from_utf8_lossy(&out).into_owned()
}

/// A value for a query: everything but letters, digits and `-._~` escaped.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for b in text.bytes() {
        match b {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(char::from(b));
            }
            _ => out.push_str(&format!("%{b:02X}")),
        }
    }
    out
}

/// Compares names as people sort them: `web2` before `web10`.
pub(crate) fn natural(a: &str, b: &str) -> std::cmp::Ordering {
    let (mut a, mut b) = (a, b);
    loop {
        let (x, y) = (chunk(a), chunk(b));
        if x.is_empty() || y.is_empty() {
            return x.len().cmp(&y.len());
        }
        let order = match (x.parse::<u64>(), y.parse::<u64>()) {
            (Ok(m), Ok(n)) => m.cmp(&n),
            _ => x.cmp(y),
        };
        if order.is_ne() {
            return order;
        }
        (a, b) = (&a[x.len()..], &b[y.len()..]);
    }
}

/// The leading run of digits or of others.
fn chunk(text: &str) -> &str {
    let digit = text.starts_with(|c: char| c.is_ascii_digit());
    let end = text.find(|c: char| c.is_ascii_digit() != digit).unwrap_or(text.len());
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_docker_s_digits() {
        for (bytes, text) in
            [(0, "0B"), (999, "999B"), (1000, "1kB"), (4_260_000, "4.26MB"), (123_456_789, "123MB")]
        {
            assert_eq!(size(bytes), text);
        }
        assert_eq!(binary_size(4 << 30), "4GiB");
        assert_eq!(parse_size("64m"), Ok(64 << 20));
        assert_eq!(parse_size("1.5GB"), Ok(3 << 29));
        assert!(parse_size("much").is_err() && parse_size("1x").is_err());
    }

    #[test]
    fn a_digest_is_hidden_behind_a_tag() {
        assert_eq!(image("busybox:1@sha256:ab"), "busybox:1");
        assert_eq!(image("host:5000/x@sha256:ab"), "host:5000/x@sha256:ab");
    }

    #[test]
    fn numbers_in_names_sort_as_numbers() {
        let mut names = ["web10", "web2", "db", "web"];
        names.sort_by(|a, b| natural(a, b));
        assert_eq!(names, ["db", "web", "web2", "web10"]);
    }

    #[test]
    fn long_texts_end_in_an_ellipsis() {
        assert_eq!(ellipsis("abcdef", 4), "abc…");
        assert_eq!(ellipsis("abcd", 4), "abcd");
    }
}
