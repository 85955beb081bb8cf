//! The functions of templates. Their errors are reasons; the machine says where.
use super::{
    buffer::{Buffer, Full},
    machine::Machine,
    printf, quoted,
    value::{Incomparable, Value, order, same},
};
use std::{cmp::Ordering, rc::Rc};

macro_rules! functions {
    ($($variant:ident $name:literal,)*) => {
        /// A function.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub(super) enum Function { $($variant,)* }

        impl Function {
            /// The function that templates call so.
            pub(super) fn named(name: &str) -> Option<Function> {
                match name {
                    $($name => Some(Function::$variant),)*
                    _ => None,
                }
            }

            pub(super) fn name(self) -> &'static str {
                match self { $(Function::$variant => $name,)* }
            }
        }
    };
}

functions! {
    // Go's.
    And "and", Or "or", Not "not", Len "len", Index "index", Slice "slice",
    Print "print", Printf "printf", Println "println", Html "html", Urlquery "urlquery",
    Eq "eq", Ne "ne", Lt "lt", Le "le", Gt "gt", Ge "ge",
    // SwarmKit's, and that of Docker's commands.
    Join "join",
    // Those of Docker's commands.
    Json "json", Split "split", Lower "lower", Upper "upper", Title "title", Pad "pad",
    Truncate "truncate",
    // SwarmKit's for payloads.
    Secret "secret", Config "config", Env "env",
}

type Made<'a> = Result<Value<'a>, String>;

impl Function {
    /// Whether only templates of secrets and configs have it.
    pub(super) fn of_payloads(self) -> bool {
        matches!(self, Function::Secret | Function::Config | Function::Env)
    }

    pub(super) fn call<'a>(self, machine: &mut Machine<'a>, values: &[Value<'a>]) -> Made<'a> {
        match self {
            Function::And | Function::Or => Err("it is not called like this".to_owned()),
            Function::Not => Ok(Value::Bool(!exactly::<1>(values)?[0].truth())),
            Function::Len => {
                let [value] = exactly(values)?;
                let len = value.len().ok_or_else(|| format!("len of type {}", value.kind()))?;
                number(len)
            }
            Function::Index => index(machine, values),
            Function::Slice => slice(machine, values),
            Function::Print => write(machine, values, print),
            Function::Println => write(machine, values, |to, values| {
                for (n, value) in values.iter().enumerate() {
                    to.text(if n > 0 { " " } else { "" })?;
                    value.write(to)?;
                }
                to.text("\n")
            }),
            Function::Printf => printf::printf(machine, values),
            Function::Html => write(machine, values, |to, values| escape(to, values, html)),
            Function::Urlquery => write(machine, values, |to, values| escape(to, values, url)),
            Function::Eq => equal_to_one(machine, values),
            Function::Ne => {
                let [a, b] = exactly(values)?;
                equal_to_one(machine, &[a.clone(), b.clone()])
                    .map(|value| Value::Bool(!value.truth()))
            }
            Function::Lt => compared(machine, values, Ordering::is_lt),
            Function::Le => compared(machine, values, Ordering::is_le),
            Function::Gt => compared(machine, values, Ordering::is_gt),
            Function::Ge => compared(machine, values, Ordering::is_ge),
            Function::Join => join(machine, values),
            Function::Json => {
                let [value] = exactly(values)?;
                write(machine, &[value.clone()], |to, values| json(to, &values[0]))
            }
            Function::Split => split(machine, values),
            Function::Lower => changed(machine, values, |text| text.to_lowercase()),
            Function::Upper => changed(machine, values, |text| text.to_uppercase()),
            Function::Title => changed(machine, values, title),
            Function::Pad => pad(machine, values),
            Function::Truncate => {
                let [text, most] = exactly(values)?;
                let (text, most) = (bytes(text)?, size(most)?);
                write_bytes(machine, &text[..text.len().min(most)])
            }
            Function::Secret => {
                machine.quiet = true;
                let sources = machine.sources.map(|s| &s.secrets);
                target(machine, "secret", sources.and_then(|s| found(s, values)), values)
            }
            Function::Config => {
                let sources = machine.sources.map(|s| &s.configs);
                target(machine, "config", sources.and_then(|s| found(s, values)), values)
            }
            Function::Env => {
                let [name] = exactly(values)?;
                let name = bytes(name)?;
                let all = machine.sources.map_or(&[][..], |s| s.env).iter();
                let value =
                    all.filter_map(|e| e.split_once('=')).find(|(n, _)| n.as_bytes() == name);
                Ok(Value::lent(value.map_or(&[], |(_, value)| value.as_bytes())))
            }
        }
    }
}

/// So many arguments and no others.
pub(super) fn exactly<'v, 'a, const N: usize>(
    values: &'v [Value<'a>],
) -> Result<&'v [Value<'a>; N], String> {
    values
        .try_into()
        .map_err(|_| format!("wrong number of arguments: want {N} got {}", values.len()))
}

/// The bytes of a text.
pub(super) fn bytes<'v>(value: &'v Value<'_>) -> Result<&'v [u8], String> {
    match value {
        Value::Text(text) => Ok(text.bytes()),
        other => Err(format!("expected string; found {}", other.kind())),
    }
}

fn size(value: &Value<'_>) -> Result<usize, String> {
    match value {
        Value::Int(n) => usize::try_from(*n).map_err(|_| "a number is negative".to_owned()),
        other => Err(format!("expected int; found {}", other.kind())),
    }
}

fn number<'a>(n: usize) -> Made<'a> {
    i64::try_from(n).map(Value::Int).map_err(|_| "too large a number".to_owned())
}

/// What `of` writes of the arguments.
fn write<'a>(
    machine: &mut Machine<'a>,
    values: &[Value<'a>],
    of: impl FnOnce(&mut Buffer, &[Value<'a>]) -> Result<(), Full>,
) -> Made<'a> {
    let mut buffer = machine.buffer();
    let written = of(&mut buffer, values);
    machine.made(buffer, written)
}

fn write_bytes<'a>(machine: &mut Machine<'a>, bytes: &[u8]) -> Made<'a> {
    write(machine, &[], |to, _| to.push(bytes))
}

/// Go's `Sprint`: a space between two of which neither is a text.
fn print(to: &mut Buffer, values: &[Value<'_>]) -> Result<(), Full> {
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
fn escape(
    to: &mut Buffer,
    values: &[Value<'_>],
    of: fn(u8, &mut Buffer) -> Result<(), Full>,
) -> Result<(), Full> {
    // Not more than is to be made: what stands for a byte is as long at least.
    let mut plain = Buffer::new(to.most());
    print(&mut plain, values)?;
    plain.bytes().iter().try_for_each(|byte| of(*byte, to))
}

fn html(byte: u8, to: &mut Buffer) -> Result<(), Full> {
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

fn url(byte: u8, to: &mut Buffer) -> Result<(), Full> {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    match byte {
        b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'-' | b'_' | b'.' | b'~' => to.push(&[byte]),
        b' ' => to.text("+"),
        _ => to.push(&[b'%', DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]),
    }
}

fn index<'a>(machine: &mut Machine<'a>, values: &[Value<'a>]) -> Made<'a> {
    let (of, keys) =
        values.split_first().ok_or("wrong number of arguments: want at least 1 got 0")?;
    let mut value = of.clone();
    for key in keys {
        machine.work(1)?;
        let out_of_range = || "index out of range".to_owned();
        value = match &value {
            // One that is missing is empty, as in Go.
            Value::Labels(labels) => {
                let key = bytes(key)?;
                let found = std::str::from_utf8(key).ok().and_then(|key| labels.get(key));
                Value::lent(found.map_or(&[], |value| value.as_bytes()))
            }
            Value::List(list) => list.get(size(key)?).cloned().ok_or_else(out_of_range)?,
            Value::Text(text) => {
                let byte = text.bytes().get(size(key)?).ok_or_else(out_of_range)?;
                Value::Int(i64::from(*byte))
            }
            other => return Err(format!("can't index item of type {}", other.kind())),
        };
    }
    Ok(value)
}

fn slice<'a>(machine: &mut Machine<'a>, values: &[Value<'a>]) -> Made<'a> {
    let (of, ends) =
        values.split_first().ok_or("wrong number of arguments: want at least 1 got 0")?;
    if ends.len() > 2 {
        return Err("at most two numbers can follow".to_owned());
    }
    let len = of.len().filter(|_| !matches!(of, Value::Labels(_)));
    let len = len.ok_or_else(|| format!("can't slice item of type {}", of.kind()))?;
    let from = ends.first().map_or(Ok(0), size)?;
    let to = ends.get(1).map_or(Ok(len), size)?;
    if from > to || to > len {
        return Err("index out of range".to_owned());
    }
    match of {
        Value::List(list) => {
            machine.work((to - from) * size_of::<Value<'_>>())?;
            Ok(Value::List(Rc::new(list[from..to].to_vec())))
        }
        other => write_bytes(machine, &bytes(other)?[from..to]),
    }
}

fn incomparable(reason: Incomparable) -> String {
    match reason {
        Incomparable::Types => "incompatible types for comparison".to_owned(),
        Incomparable::Type => "invalid type for comparison".to_owned(),
    }
}

/// Bytes that are looked at at most when these are compared.
fn compared_bytes(a: &Value<'_>, b: &Value<'_>) -> usize {
    match (a, b) {
        (Value::Text(a), Value::Text(b)) => a.bytes().len().min(b.bytes().len()),
        _ => 1,
    }
}

/// Whether the first is the same as one of the others.
fn equal_to_one<'a>(machine: &mut Machine<'a>, values: &[Value<'a>]) -> Made<'a> {
    let (first, others) = match values.split_first() {
        Some((first, others)) if !others.is_empty() => (first, others),
        _ => return Err("missing argument for comparison".to_owned()),
    };
    for other in others {
        machine.work(compared_bytes(first, other))?;
        if same(first, other).map_err(incomparable)? {
            return Ok(Value::Bool(true));
        }
    }
    Ok(Value::Bool(false))
}

fn compared<'a>(
    machine: &mut Machine<'a>,
    values: &[Value<'a>],
    wanted: fn(Ordering) -> bool,
) -> Made<'a> {
    let [a, b] = exactly(values)?;
    machine.work(compared_bytes(a, b))?;
    Ok(Value::Bool(order(a, b).map_err(incomparable)?.is_some_and(wanted)))
}

/// `join separator text…`, or `join list separator`.
fn join<'a>(machine: &mut Machine<'a>, values: &[Value<'a>]) -> Made<'a> {
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

fn split<'a>(machine: &mut Machine<'a>, values: &[Value<'a>]) -> Made<'a> {
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
fn changed<'a>(
    machine: &mut Machine<'a>,
    values: &[Value<'a>],
    change: fn(&str) -> String,
) -> Made<'a> {
    let [text] = exactly(values)?;
    let text = bytes(text)?;
    machine.work(text.len())?;
    let mut buffer = machine.buffer();
    let written = text.utf8_chunks().try_for_each(|chunk| {
        let changed = zeroize::Zeroizing::new(change(chunk.valid()));
        buffer.text(&changed)?;
        buffer.push(chunk.invalid())
    });
    machine.made(buffer, written)
}

/// Go's `strings.Title`: a large letter after whatever is no letter, digit or underscore.
fn title(text: &str) -> String {
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
fn pad<'a>(machine: &mut Machine<'a>, values: &[Value<'a>]) -> Made<'a> {
    let [text, before, after] = exactly(values)?;
    let (text, before, after) = (bytes(text)?, size(before)?, size(after)?);
    let spaces = |to: &mut Buffer, n: usize| (0..n).try_for_each(|_| to.text(" "));
    write(machine, &[], |to, _| match text.is_empty() {
        true => Ok(()),
        false => spaces(to, before).and_then(|()| to.push(text)).and_then(|()| spaces(to, after)),
    })
}

fn json(to: &mut Buffer, value: &Value<'_>) -> Result<(), Full> {
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

/// The content of a target, by the one argument that names it.
fn found<'a>(
    all: &std::collections::BTreeMap<&'a str, &'a [u8]>,
    values: &[Value<'_>],
) -> Option<&'a [u8]> {
    let [name] = exactly(values).ok()?;
    let name = std::str::from_utf8(bytes(name).ok()?).ok()?;
    all.get(name).copied()
}

fn target<'a>(
    machine: &Machine<'a>,
    kind: &str,
    content: Option<&'a [u8]>,
    values: &[Value<'a>],
) -> Made<'a> {
    let [name] = exactly(values)?;
    let name = quoted(bytes(name)?, machine.quiet);
    content.map(Value::lent).ok_or_else(|| format!("{kind} target {name} not found"))
}
