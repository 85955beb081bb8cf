//! The functions of templates. Their errors are reasons; the machine says where.
use super::{
    buffer::{Buffer, Full},
    machine::Machine,
    printf, quoted,
    texts::{changed, escape, html, join, json, pad, print, split, title, url},
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

/// A function's result, or why there is none.
pub(super) type Made<'a> = Result<Value<'a>, String>;

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
                write(machine, std::slice::from_ref(value), |to, values| json(to, &values[0]))
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

/// A number that counts.
pub(super) fn size(value: &Value<'_>) -> Result<usize, String> {
    match value {
        Value::Int(n) => usize::try_from(*n).map_err(|_| "a number is negative".to_owned()),
        other => Err(format!("expected int; found {}", other.kind())),
    }
}

fn number<'a>(n: usize) -> Made<'a> {
    i64::try_from(n).map(Value::Int).map_err(|_| "too large a number".to_owned())
}

/// What `of` writes of the arguments.
pub(super) fn write<'a>(
    machine: &mut Machine<'a>,
    values: &[Value<'a>],
    of: impl FnOnce(&mut Buffer, &[Value<'a>]) -> Result<(), Full>,
) -> Made<'a> {
    let mut buffer = machine.buffer();
    let written = of(&mut buffer, values);
    machine.made(buffer, written)
}

/// A text of these bytes.
pub(super) fn write_bytes<'a>(machine: &mut Machine<'a>, bytes: &[u8]) -> Made<'a> {
    write(machine, &[], |to, _| to.push(bytes))
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
