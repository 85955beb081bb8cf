//! Functions that make texts of texts.
use super::{
    buffer::{Buffer, Full},
    functions::{Made, bytes, exactly, size, write, write_bytes},
    machine::Machine,
    value::Value,
};
use std::rc::Rc;
use zeroize::Zeroizing;

/// Go's `Sprint`: a space between two of which neither is a text.
pub(super) fn print(to: &mut Buffer, values: &[Value<'_>]) -> Result<(), Full> {
    let mut text_before = true;
    for value in values {
        let text = matches!(value, Value::Text(_));
        to.text(if text || text_before { "" } else { " " })?;
        value.write(to)?;
        text_before = text;
    }
    Ok(())
}

/// Writes all bytes of what `print` writes by what stands for them.
pub(super) fn escape(
    to: &mut Buffer,
    values: &[Value<'_>],
    of: fn(u8, &mut Buffer) -> Result<(), Full>,
) -> Result<(), Full> {
    // Not more than is to be made: what stands for a byte is as long at least.
    let mut plain = Buffer::new(to.most());
    print(&mut plain, values)?;
    plain.bytes().iter().try_for_each(|byte| of(*byte, to))
}

pub(super) fn html(byte: u8, to: &mut Buffer) -> Result<(), Full> {
    match byte {
        0 => to.text("\u{fffd}"),
        b'"' => to.text("&#34;"),
        b'\'' => to.text("&#39;"),
        b'&' => to.text("&amp;"),
        b'<' => to.text("&lt;"),
        b'>' => to.text("&gt;"),
        other => to.push(&[other]),
    }
}

pub(super) fn url(byte: u8, to: &mut Buffer) -> Result<(), Full> {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    match byte {
        b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'-' | b'_' | b'.' | b'~' => to.push(&[byte]),
        b' ' => to.text("+"),
        _ => to.push(&[b'%', DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]),
    }
}

/// `join separator text…`, or `join list separator`.
pub(super) fn join<'a>(machine: &mut Machine<'a>, values: &[Value<'a>]) -> Made<'a> {
    let (separator, texts) = match values {
        [Value::List(list), separator] => (separator, list.as_slice()),
        [separator, texts @ ..] => (separator, texts),
        [] => return Err("wrong number of arguments: want at least 1 got 0".to_owned()),
    };
    let separator = bytes(separator)?;
    for text in texts {
        bytes(text)?;
    }
    write(machine, texts, |to, texts| {
        for (n, text) in texts.iter().enumerate() {
            to.push(if n > 0 { separator } else { &[] })?;
            text.write(to)?;
        }
        Ok(())
    })
}

pub(super) fn split<'a>(machine: &mut Machine<'a>, values: &[Value<'a>]) -> Made<'a> {
    let [text, separator] = exactly(values)?;
    let (text, separator) = (bytes(text)?, bytes(separator)?);
    let mut parts: Vec<&[u8]> = Vec::new();
    if separator.is_empty() {
        // Go: into characters.
        parts.extend(text.utf8_chunks().flat_map(|chunk| {
            let characters = chunk.valid().split_inclusive(|_| true).map(str::as_bytes);
            characters.chain(chunk.invalid().chunks(1))
        }));
    } else {
        machine.work(text.len().saturating_mul(separator.len()))?;
        let mut rest = text;
        while let Some(at) = rest.windows(separator.len()).position(|w| w == separator) {
            parts.push(&rest[..at]);
            rest = &rest[at + separator.len()..];
        }
        parts.push(rest);
    }
    machine.work(parts.len() * size_of::<Value<'_>>())?;
    let mut list = Vec::with_capacity(parts.len());
    for part in parts {
        list.push(write_bytes(machine, part)?);
    }
    Ok(Value::List(Rc::new(list)))
}

/// A text with other letters. What is not UTF-8 stays as it is.
pub(super) fn changed<'a>(
    machine: &mut Machine<'a>,
    values: &[Value<'a>],
    change: fn(&str) -> String,
) -> Made<'a> {
    let [text] = exactly(values)?;
    let text = bytes(text)?;
    machine.work(text.len())?;
    let mut buffer = machine.buffer();
    let written = text.utf8_chunks().try_for_each(|chunk| {
        let changed = Zeroizing::new(change(chunk.valid()));
        buffer.text(&changed)?;
        buffer.push(chunk.invalid())
    });
    machine.made(buffer, written)
}

/// Go's `strings.Title`: a large letter after whatever is no letter, digit or underscore.
pub(super) fn title(text: &str) -> String {
    let mut titled = String::with_capacity(text.len());
    let mut inside = false;
    for c in text.chars() {
        match inside {
            true => titled.push(c),
            false => titled.extend(c.to_uppercase()),
        }
        inside = c.is_alphanumeric() || c == '_';
    }
    titled
}

/// Spaces before and after a text, unless it is empty.
pub(super) fn pad<'a>(machine: &mut Machine<'a>, values: &[Value<'a>]) -> Made<'a> {
    let [text, before, after] = exactly(values)?;
    let (text, before, after) = (bytes(text)?, size(before)?, size(after)?);
    let spaces = |to: &mut Buffer, n: usize| (0..n).try_for_each(|_| to.text(" "));
    write(machine, &[], |to, _| match text.is_empty() {
        true => Ok(()),
        false => spaces(to, before).and_then(|()| to.push(text)).and_then(|()| spaces(to, after)),
    })
}

pub(super) fn json(to: &mut Buffer, value: &Value<'_>) -> Result<(), Full> {
    let text = |to: &mut Buffer, bytes: &[u8]| {
        to.text("\"")?;
        for chunk in bytes.utf8_chunks() {
            for c in chunk.valid().chars() {
                match c {
                    '"' => to.text("\\\""),
                    '\\' => to.text("\\\\"),
                    '\n' => to.text("\\n"),
                    '\r' => to.text("\\r"),
                    '\t' => to.text("\\t"),
                    '\u{8}' => to.text("\\b"),
                    '\u{c}' => to.text("\\f"),
                    '\0'..='\u{1f}' | '\u{2028}' | '\u{2029}' => {
                        to.text(&format!("\\u{:04x}", u32::from(c)))
                    }
                    c => to.text(c.encode_utf8(&mut [0; 4])),
                }?;
            }
            to.text(if chunk.invalid().is_empty() { "" } else { "\\ufffd" })?;
        }
        to.text("\"")
    };
    match value {
        Value::Nil => to.text("null"),
        Value::Text(bytes) => text(to, bytes.bytes()),
        Value::List(list) => {
            to.text("[")?;
            for (n, value) in list.iter().enumerate() {
                to.text(if n > 0 { "," } else { "" })?;
                json(to, value)?;
            }
            to.text("]")
        }
        Value::Labels(labels) => {
            to.text("{")?;
            for (n, (key, value)) in labels.iter().enumerate() {
                to.text(if n > 0 { "," } else { "" })?;
                text(to, key.as_bytes())?;
                to.text(":")?;
                text(to, value.as_bytes())?;
            }
            to.text("}")
        }
        Value::Part(context, part) => {
            to.text("{")?;
            for (n, name) in part.names().iter().enumerate() {
                to.text(if n > 0 { "," } else { "" })?;
                text(to, name.as_bytes())?;
                to.text(":")?;
                json(to, &part.field(context, name).unwrap_or(Value::Nil))?;
            }
            to.text("}")
        }
        Value::Float(f) => to.text(&f.to_string()),
        Value::Bool(_) | Value::Int(_) => value.write(to),
    }
}
