//! Values of templates, and what they are as text.
use super::{
    buffer::{Buffer, Full},
    context::{Context, Part},
};
use std::{cmp::Ordering, collections::BTreeMap, rc::Rc};
use zeroize::Zeroizing;

/// Bytes, cheap to copy.
#[derive(Clone)]
pub(super) enum Text<'a> {
    Lent(&'a [u8]),
    Own(Rc<Zeroizing<Vec<u8>>>),
}

impl Text<'_> {
    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Text::Lent(bytes) => bytes,
            Text::Own(bytes) => bytes,
        }
    }
}

/// A value, cheap to copy.
#[derive(Clone)]
pub(super) enum Value<'a> {
    Nil,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(Text<'a>),
    List(Rc<Vec<Value<'a>>>),
    Labels(&'a BTreeMap<String, String>),
    Part(&'a Context, Part),
}

impl<'a> Value<'a> {
    pub(super) fn lent(bytes: &'a [u8]) -> Value<'a> {
        Value::Text(Text::Lent(bytes))
    }

    pub(super) fn own(bytes: Zeroizing<Vec<u8>>) -> Value<'a> {
        Value::Text(Text::Own(Rc::new(bytes)))
    }

    /// What it is, for errors.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Value::Nil => "nil",
            Value::Bool(_) => "bool",
            Value::Int(_) => "int",
            Value::Float(_) => "float64",
            Value::Text(_) => "string",
            Value::List(_) => "[]string",
            Value::Labels(_) => "map[string]string",
            Value::Part(_, part) => part.type_name(),
        }
    }

    /// Whether it counts as true: not zero and not empty.
    pub(super) fn truth(&self) -> bool {
        match self {
            Value::Nil => false,
            Value::Bool(b) => *b,
            Value::Int(n) => *n != 0,
            Value::Float(f) => *f != 0.0,
            Value::Text(text) => !text.bytes().is_empty(),
            Value::List(list) => !list.is_empty(),
            Value::Labels(labels) => !labels.is_empty(),
            Value::Part(..) => true,
        }
    }

    pub(super) fn len(&self) -> Option<usize> {
        match self {
            Value::Text(text) => Some(text.bytes().len()),
            Value::List(list) => Some(list.len()),
            Value::Labels(labels) => Some(labels.len()),
            _ => None,
        }
    }

    /// As Go's `%v` writes it.
    pub(super) fn write(&self, to: &mut Buffer) -> Result<(), Full> {
        match self {
            Value::Nil => to.text("<nil>"),
            Value::Bool(b) => to.text(if *b { "true" } else { "false" }),
            Value::Int(n) => to.text(&n.to_string()),
            Value::Float(f) => to.text(&shortest(*f)),
            Value::Text(text) => to.push(text.bytes()),
            Value::List(list) => {
                to.text("[")?;
                for (n, value) in list.iter().enumerate() {
                    to.text(if n > 0 { " " } else { "" })?;
                    value.write(to)?;
                }
                to.text("]")
            }
            Value::Labels(labels) => {
                to.text("map[")?;
                for (n, (key, value)) in labels.iter().enumerate() {
                    to.text(if n > 0 { " " } else { "" })?;
                    to.text(key)?;
                    to.text(":")?;
                    to.text(value)?;
                }
                to.text("]")
            }
            Value::Part(context, part) => {
                to.text("{")?;
                for (n, name) in part.names().iter().enumerate() {
                    to.text(if n > 0 { " " } else { "" })?;
                    part.field(context, name).unwrap_or(Value::Nil).write(to)?;
                }
                to.text("}")
            }
        }
    }
}

/// Why two values are not compared.
#[derive(Debug)]
pub(super) enum Incomparable {
    /// They are of two types.
    Types,
    /// Values of this type are not compared in this way.
    Type,
}

/// Whether two values are the same.
pub(super) fn same(a: &Value<'_>, b: &Value<'_>) -> Result<bool, Incomparable> {
    match (a, b) {
        (Value::Nil, Value::Nil) => Ok(true),
        (Value::Nil, _) | (_, Value::Nil) => Ok(false),
        (Value::Bool(a), Value::Bool(b)) => Ok(a == b),
        (Value::List(_) | Value::Labels(_) | Value::Part(..), _)
        | (_, Value::List(_) | Value::Labels(_) | Value::Part(..)) => Err(Incomparable::Type),
        _ => order(a, b).map(|o| o == Some(Ordering::Equal)),
    }
}

/// Which of two values is less; `None`: neither, nor are they the same.
pub(super) fn order(a: &Value<'_>, b: &Value<'_>) -> Result<Option<Ordering>, Incomparable> {
    match (a, b) {
        (Value::Int(a), Value::Int(b)) => Ok(Some(a.cmp(b))),
        (Value::Float(a), Value::Float(b)) => Ok(a.partial_cmp(b)),
        (Value::Text(a), Value::Text(b)) => Ok(Some(a.bytes().cmp(b.bytes()))),
        (Value::Int(_) | Value::Float(_) | Value::Text(_) | Value::Bool(_), _)
            if a.kind() != b.kind() =>
        {
            Err(Incomparable::Types)
        }
        _ => Err(Incomparable::Type),
    }
}

/// The fewest digits that mean this number, as Go's `%g`: with an exponent below −4 and from 6 on.
pub(super) fn shortest(f: f64) -> String {
    if !f.is_finite() {
        return if f.is_nan() {
            "NaN"
        } else if f > 0.0 {
            "+Inf"
        } else {
            "-Inf"
        }
        .to_owned();
    }
    let text = format!("{f:e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    match exponent.parse().unwrap_or(0) {
        -4..6 => format!("{f}"),
        exponent => with_exponent(digits, exponent),
    }
}

/// Go writes a sign and two digits at least.
pub(super) fn with_exponent(digits: &str, exponent: i32) -> String {
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.unsigned_abs())
}
