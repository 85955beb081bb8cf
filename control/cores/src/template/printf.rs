//! Go's `printf`. A format that does not fit its arguments is an error here; Go writes what is wrong.
use super::{
    buffer::{Buffer, Full},
    functions::bytes,
    machine::Machine,
    value::{Value, shortest, with_exponent},
};

/// Most columns and decimal places.
const MOST_WIDTH: usize = 1_000;

/// What a `%` asks for.
#[derive(Default)]
struct Verb {
    minus: bool,
    plus: bool,
    zero: bool,
    sharp: bool,
    space: bool,
    width: usize,
    precision: Option<usize>,
    letter: char,
}

pub(super) fn printf<'a>(
    machine: &mut Machine<'a>,
    values: &[Value<'a>],
) -> Result<Value<'a>, String> {
    let (format, arguments) = values.split_first().ok_or("it needs a format")?;
    let mut rest = bytes(format)?;
    machine.work(rest.len())?;
    let mut arguments = arguments.iter();
    let mut out = machine.buffer();
    let written = loop {
        let percent = rest.iter().position(|b| *b == b'%');
        if let Err(full) = out.push(&rest[..percent.unwrap_or(rest.len())]) {
            break Err(full);
        }
        let Some(percent) = percent else { break Ok(()) };
        let (verb, len) = verb(&rest[percent + 1..])?;
        rest = &rest[percent + 1 + len..];
        let written = match verb.letter {
            '%' => out.text("%"),
            _ => {
                let value = arguments.next().ok_or("the format asks for more values")?;
                let mut plain = Buffer::new(machine.buffer().most());
                match verb.write(value, &mut plain)? {
                    Ok(()) => verb.pad(&plain, value, &mut out),
                    full => full,
                }
            }
        };
        if let Err(full) = written {
            break Err(full);
        }
    };
    if arguments.next().is_some() {
        return Err("there are more values than the format asks for".to_owned());
    }
    machine.made(out, written)
}

fn verb(text: &[u8]) -> Result<(Verb, usize), String> {
    let mut verb = Verb::default();
    let mut at = 0;
    while let Some(flag) = text.get(at) {
        match flag {
            b'-' => verb.minus = true,
            b'+' => verb.plus = true,
            b'0' => verb.zero = true,
            b'#' => verb.sharp = true,
            b' ' => verb.space = true,
            _ => break,
        }
        at += 1;
    }
    let number = |at: &mut usize| {
        let mut n = 0;
        while let Some(digit) = text.get(*at).filter(|b| b.is_ascii_digit()) {
            n = n * 10 + usize::from(digit - b'0');
            if n > MOST_WIDTH {
                return Err(format!("a width of more than {MOST_WIDTH}"));
            }
            *at += 1;
        }
        Ok(n)
    };
    verb.width = number(&mut at)?;
    if text.get(at) == Some(&b'.') {
        at += 1;
        verb.precision = Some(number(&mut at)?);
    }
    let letter = text.get(at).ok_or("the format ends after \"%\"")?;
    verb.letter = char::from(*letter);
    Ok((verb, at + 1))
}

impl Verb {
    /// The value without its padding. An error: the verb is not for this value.
    fn write(&self, value: &Value<'_>, to: &mut Buffer) -> Result<Result<(), Full>, String> {
        let unfit = || Err(format!("%{} is not for a value of type {}", self.letter, value.kind()));
        if self.sharp || (self.space && self.letter != 'd') {
            return Err("the flags \"#\" and \" \" are not supported here".to_owned());
        }
        let bounded = matches!(
            (self.letter, value),
            ('s' | 'v', Value::Text(_)) | ('e' | 'E' | 'f' | 'F', Value::Float(_))
        );
        if self.precision.is_some() && !bounded {
            return Err(format!("a precision is not supported for %{}", self.letter));
        }
        Ok(match (self.letter, value) {
            ('v', Value::Int(_)) => self.number(value, 10, to),
            ('v' | 's', Value::Text(text)) => to.push(self.cut(text.bytes())),
            ('v' | 'g', Value::Float(f)) => self.signed(*f < 0.0, &shortest(f.abs()), to),
            ('v', _) | ('s', Value::List(_) | Value::Labels(_)) | ('t', Value::Bool(_)) => {
                value.write(to)
            }
            ('q', Value::Text(text)) => quote(text.bytes(), to),
            ('x', Value::Text(text)) => hex(text.bytes(), b"0123456789abcdef", to),
            ('X', Value::Text(text)) => hex(text.bytes(), b"0123456789ABCDEF", to),
            ('d', Value::Int(_)) => self.number(value, 10, to),
            ('b', Value::Int(_)) => self.number(value, 2, to),
            ('o', Value::Int(_)) => self.number(value, 8, to),
            ('x' | 'X', Value::Int(_)) => self.number(value, 16, to),
            ('c', Value::Int(n)) => {
                let c = u32::try_from(*n).ok().and_then(char::from_u32).unwrap_or('\u{fffd}');
                to.text(c.encode_utf8(&mut [0; 4]))
            }
            ('f' | 'F', Value::Float(f)) => {
                self.signed(*f < 0.0, &format!("{:.*}", self.precision.unwrap_or(6), f.abs()), to)
            }
            ('e' | 'E', Value::Float(f)) => {
                let text = format!("{:.*e}", self.precision.unwrap_or(6), f.abs());
                let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
                let text = with_exponent(digits, exponent.parse().unwrap_or(0));
                let text = if self.letter == 'E' { text.to_uppercase() } else { text };
                self.signed(*f < 0.0, &text, to)
            }
            _ => return unfit(),
        })
    }

    fn number(&self, value: &Value<'_>, radix: u32, to: &mut Buffer) -> Result<(), Full> {
        let Value::Int(n) = value else { return Ok(()) };
        let plain = n.unsigned_abs();
        let digits = match (radix, self.letter) {
            (2, _) => format!("{plain:b}"),
            (8, _) => format!("{plain:o}"),
            (16, 'X') => format!("{plain:X}"),
            (16, _) => format!("{plain:x}"),
            _ => plain.to_string(),
        };
        self.signed(*n < 0, &digits, to)
    }

    fn signed(&self, negative: bool, digits: &str, to: &mut Buffer) -> Result<(), Full> {
        to.text(match negative {
            true => "-",
            false if self.plus => "+",
            false if self.space => " ",
            false => "",
        })?;
        to.text(digits)
    }

    /// A text's first characters.
    fn cut<'t>(&self, text: &'t [u8]) -> &'t [u8] {
        let Some(most) = self.precision else { return text };
        let begins = |b: &u8| b & 0xc0 != 0x80;
        let mut characters = text.iter().enumerate().filter(|(_, b)| begins(b)).map(|(at, _)| at);
        &text[..characters.nth(most).unwrap_or(text.len())]
    }

    fn pad(&self, plain: &Buffer, value: &Value<'_>, to: &mut Buffer) -> Result<(), Full> {
        let bytes = plain.bytes();
        let columns = bytes.iter().filter(|b| **b & 0xc0 != 0x80).count();
        let missing = self.width.saturating_sub(columns);
        let fill = |to: &mut Buffer, with: &str| (0..missing).try_for_each(|_| to.text(with));
        let number = matches!(value, Value::Int(_) | Value::Float(_)) && self.letter != 'c';
        if self.minus {
            to.push(bytes)?;
            return fill(to, " ");
        }
        if self.zero && number {
            // The zeros come after the sign.
            let sign = usize::from(bytes.first().is_some_and(|b| b"+- ".contains(b)));
            to.push(&bytes[..sign])?;
            fill(to, "0")?;
            return to.push(&bytes[sign..]);
        }
        fill(to, " ")?;
        to.push(bytes)
    }
}

fn hex(bytes: &[u8], digits: &[u8; 16], to: &mut Buffer) -> Result<(), Full> {
    bytes.iter().try_for_each(|byte| {
        to.push(&[digits[usize::from(byte >> 4)], digits[usize::from(byte & 15)]])
    })
}

/// A text as Go's source has it.
fn quote(bytes: &[u8], to: &mut Buffer) -> Result<(), Full> {
    to.text("\"")?;
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '"' => to.text("\\\"")?,
                '\\' => to.text("\\\\")?,
                '\n' => to.text("\\n")?,
                '\r' => to.text("\\r")?,
                '\t' => to.text("\\t")?,
                '\u{7}' => to.text("\\a")?,
                '\u{8}' => to.text("\\b")?,
                '\u{b}' => to.text("\\v")?,
                '\u{c}' => to.text("\\f")?,
                '\0'..='\u{1f}' | '\u{7f}' => to.text(&format!("\\x{:02x}", u32::from(c)))?,
                c if c.is_control() => to.text(&format!("\\u{:04x}", u32::from(c)))?,
                c => to.text(c.encode_utf8(&mut [0; 4]))?,
            }
        }
        for byte in chunk.invalid() {
            to.text(&format!("\\x{byte:02x}"))?;
        }
    }
    to.text("\"")
}
