//! From a template's bytes to text and the words of actions.
use super::{Fault, MOST_TOKENS, quoted, value::Text};
use std::rc::Rc;
use zeroize::Zeroizing;

/// What begins an action.
pub(super) const OPEN: &str = "{{";
const CLOSE: &[u8] = b"}}";
/// Spaces to Go's templates.
const SPACES: &[u8] = b" \t\r\n";

/// A part of a template.
pub(super) enum Piece<'a> {
    Text(&'a [u8]),
    Action(usize, Vec<Lexeme<'a>>),
}

/// A word of an action.
#[derive(Clone)]
pub(super) struct Lexeme<'a> {
    /// Its first byte.
    pub(super) at: usize,
    /// Whether a space comes before it.
    pub(super) spaced: bool,
    pub(super) token: Token<'a>,
}

#[derive(Clone)]
pub(super) enum Token<'a> {
    /// `.Name`
    Field(&'a str),
    /// `.`
    Dot,
    /// `$name`, or nothing for `$`
    Variable(&'a str),
    /// A keyword or a function.
    Word(&'a str),
    Text(Text<'a>),
    Int(i64),
    Float(f64),
    /// `:=`
    Declare,
    /// `=`
    Assign,
    /// `,`
    Comma,
    /// `|`
    Pipe,
    /// `(`
    Open,
    /// `)`
    Close,
}

/// Cuts a template into pieces. `quiet`: errors quote nothing.
pub(super) fn pieces(template: &[u8], quiet: bool) -> Result<Vec<Piece<'_>>, Fault> {
    let mut pieces = Vec::new();
    let (mut at, mut tokens, mut trim) = (0, 0, false);
    while at < template.len() {
        let rest = &template[at..];
        let open = find(rest, OPEN.as_bytes());
        let mut text = &rest[..open.unwrap_or(rest.len())];
        if trim {
            text = trim_start(text);
        }
        let Some(open) = open else {
            pieces.push(Piece::Text(text));
            break;
        };
        let begin = at + open;
        let mut lexer = Lexer { template, at: begin + OPEN.len(), quiet };
        if lexer.rest().starts_with(b"-") && lexer.rest().get(1).is_some_and(is_space) {
            text = trim_end(text);
            lexer.at += 2;
        }
        if !text.is_empty() {
            pieces.push(Piece::Text(text));
        }
        let words = lexer.action(begin, MOST_TOKENS - tokens)?;
        trim = words.trim;
        at = lexer.at;
        if let Some(words) = words.lexemes {
            tokens += words.len();
            pieces.push(Piece::Action(begin, words));
        }
    }
    Ok(pieces)
}

/// An action's words; none of a comment.
struct Words<'a> {
    lexemes: Option<Vec<Lexeme<'a>>>,
    /// Whether the spaces after it go.
    trim: bool,
}

struct Lexer<'a> {
    template: &'a [u8],
    at: usize,
    quiet: bool,
}

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a [u8] {
        &self.template[self.at..]
    }

    fn fault<T>(&self, at: usize, reason: impl Into<String>) -> Result<T, Fault> {
        Err(Fault::new(at, reason))
    }

    /// The words up to the end of the action, and past it.
    fn action(&mut self, begin: usize, most: usize) -> Result<Words<'a>, Fault> {
        let start = self.at + (self.rest().len() - trim_start(self.rest()).len());
        if self.template[start..].starts_with(b"/*") {
            return self.comment(start);
        }
        let mut lexemes = Vec::new();
        loop {
            let before = self.at;
            self.at += self.rest().len() - trim_start(self.rest()).len();
            let spaced = self.at > before;
            let rest = self.rest();
            if rest.is_empty() {
                return self.fault(begin, "this action has no end (\"}}\")");
            }
            if let Some(trim) = self.closed(spaced) {
                return Ok(Words { lexemes: Some(lexemes), trim });
            }
            if lexemes.len() >= most {
                return self.fault(self.at, format!("it has more than {MOST_TOKENS} words"));
            }
            let at = self.at;
            let token = self.token(rest)?;
            lexemes.push(Lexeme { at, spaced, token });
        }
    }

    /// Past the end of an action, if it is here; whether the spaces after it go.
    fn closed(&mut self, spaced: bool) -> Option<bool> {
        let trim = spaced && self.rest().starts_with(b"-}}");
        let close = if trim { &self.rest()[1..] } else { self.rest() };
        if !close.starts_with(CLOSE) {
            return None;
        }
        self.at += CLOSE.len() + usize::from(trim);
        Some(trim)
    }

    fn comment(&mut self, start: usize) -> Result<Words<'a>, Fault> {
        let Some(end) = find(&self.template[start + 2..], b"*/") else {
            return self.fault(start, "this comment has no end (\"*/\")");
        };
        self.at = start + 2 + end + 2;
        let spaces = self.rest().len() - trim_start(self.rest()).len();
        self.at += spaces;
        match self.closed(spaces > 0) {
            Some(trim) if trim == (spaces > 0) => Ok(Words { lexemes: None, trim }),
            _ => self.fault(start, "a comment must end its action: \"*/}}\" or \"*/ -}}\""),
        }
    }

    fn token(&mut self, rest: &'a [u8]) -> Result<Token<'a>, Fault> {
        let second = rest.get(1).copied().unwrap_or(0);
        let one = |token, len| Ok((token, len));
        let (token, len) = match rest[0] {
            b'|' => one(Token::Pipe, 1),
            b'(' => one(Token::Open, 1),
            b')' => one(Token::Close, 1),
            b',' => one(Token::Comma, 1),
            b':' if second == b'=' => one(Token::Declare, 2),
            b'=' => one(Token::Assign, 1),
            b'"' => self.string(rest),
            b'`' => match find(&rest[1..], b"`") {
                Some(end) => one(Token::Text(Text::Lent(&rest[1..=end])), end + 2),
                None => self.fault(self.at, "a raw string has no end (\"`\")"),
            },
            b'\'' => self.character(rest),
            b'0'..=b'9' => self.number(rest),
            b'+' | b'-' | b'.' if second.is_ascii_digit() => self.number(rest),
            b'$' => {
                let name = name(&rest[1..]);
                one(Token::Variable(name), 1 + name.len())
            }
            b'.' => match name(&rest[1..]) {
                "" => one(Token::Dot, 1),
                name => one(Token::Field(name), 1 + name.len()),
            },
            _ => match name(rest) {
                "" => {
                    let len = first(rest).map_or(1, char::len_utf8);
                    let shown = quoted(&rest[..len], self.quiet);
                    self.fault(self.at, format!("unexpected {shown} in an action"))
                }
                name => one(Token::Word(name), name.len()),
            },
        }?;
        self.at += len;
        Ok(token)
    }

    /// A number, in any of Go's ways but complex ones.
    fn number(&self, rest: &'a [u8]) -> Result<(Token<'a>, usize), Fault> {
        let digits = rest.strip_prefix(b"+").or(rest.strip_prefix(b"-")).unwrap_or(rest);
        let hex = digits.starts_with(b"0x") || digits.starts_with(b"0X");
        let mut len = 1;
        while let Some(byte) = rest.get(len) {
            let exponent = !hex && matches!(rest[len - 1], b'e' | b'E');
            match byte {
                b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'_' | b'.' => len += 1,
                b'+' | b'-' if exponent => len += 1,
                _ => break,
            }
        }
        let text: String = rest[..len].iter().filter(|b| **b != b'_').map(|b| *b as char).collect();
        let whole = |digits: &str, radix| i64::from_str_radix(digits, radix).ok();
        let (sign, digits) = match text.strip_prefix(['+', '-']) {
            Some(digits) => (&text[..1], digits),
            None => ("", text.as_str()),
        };
        let lower = digits.to_ascii_lowercase();
        let signed = |digits: &str| format!("{sign}{digits}");
        let int = match lower.get(..2) {
            Some("0x") => whole(&signed(&lower[2..]), 16),
            Some("0o") => whole(&signed(&lower[2..]), 8),
            Some("0b") => whole(&signed(&lower[2..]), 2),
            _ if lower.starts_with('0') && lower.len() > 1 => whole(&signed(&lower[1..]), 8),
            _ => whole(&signed(&lower), 10),
        };
        let decimal = lower.bytes().all(|b| b.is_ascii_digit() || b".e+-".contains(&b));
        let float = || signed(&lower).parse::<f64>().ok().filter(|f| decimal && f.is_finite());
        let fraction = decimal && lower.contains(['.', 'e']);
        match (int, fraction) {
            (Some(n), _) => Ok((Token::Int(n), len)),
            (None, true) if float().is_some() => Ok((Token::Float(float().unwrap_or(0.0)), len)),
            _ => {
                let shown = quoted(&rest[..len], self.quiet);
                self.fault(self.at, format!("bad number {shown}, or one that is too large"))
            }
        }
    }

    /// A character is its number.
    fn character(&self, rest: &'a [u8]) -> Result<(Token<'a>, usize), Fault> {
        let bad = || Fault::new(self.at, "a character must be one, between single quotes");
        let inner = &rest[1..];
        let (character, len) = match inner.first() {
            Some(b'\\') => self.escape(inner, b'\'')?,
            Some(b'\'' | b'\n') | None => return Err(bad()),
            Some(_) => {
                let character = first(inner).ok_or_else(bad)?;
                (Escape::Character(character), character.len_utf8())
            }
        };
        if inner.get(len) != Some(&b'\'') {
            return Err(bad());
        }
        let number = match character {
            Escape::Character(c) => i64::from(u32::from(c)),
            Escape::Byte(b) => i64::from(b),
        };
        Ok((Token::Int(number), len + 2))
    }

    fn string(&self, rest: &'a [u8]) -> Result<(Token<'a>, usize), Fault> {
        let special = rest[1..].iter().position(|b| matches!(b, b'"' | b'\\' | b'\n'));
        if let Some(end) = special.filter(|end| rest[1 + end] == b'"') {
            return Ok((Token::Text(Text::Lent(&rest[1..1 + end])), end + 2));
        }
        // What it stands for is never longer than what is written.
        let end = rest.iter().position(|b| *b == b'\n').unwrap_or(rest.len());
        let mut text = Zeroizing::new(Vec::with_capacity(end));
        let mut at = 1;
        loop {
            match rest.get(at) {
                Some(b'"') => return Ok((Token::Text(Text::Own(Rc::new(text))), at + 1)),
                Some(b'\\') => {
                    let (escape, len) = self.escape(&rest[at..], b'"')?;
                    match escape {
                        Escape::Byte(byte) => text.push(byte),
                        Escape::Character(c) => {
                            text.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                        }
                    }
                    at += len;
                }
                Some(b'\n') | None => return self.fault(self.at, "a string has no end ('\"')"),
                Some(byte) => {
                    text.push(*byte);
                    at += 1;
                }
            }
        }
    }

    /// What a backslash and what follows it stand for, and how long they are.
    fn escape(&self, text: &[u8], quote: u8) -> Result<(Escape, usize), Fault> {
        let bad = || Fault::new(self.at, "an escape (\"\\\") that Go does not know");
        let number = |from: usize, len: usize, radix| {
            let digits = text.get(from..from + len).and_then(|d| std::str::from_utf8(d).ok());
            let digits = digits.filter(|d| d.bytes().all(|b| b.is_ascii_alphanumeric()));
            digits.and_then(|d| u32::from_str_radix(d, radix).ok()).ok_or_else(bad)
        };
        let byte = |n: u32| u8::try_from(n).map(Escape::Byte).map_err(|_| bad());
        let character = |n| char::from_u32(n).map(Escape::Character).ok_or_else(bad);
        Ok(match text.get(1).copied().ok_or_else(bad)? {
            b'a' => (Escape::Byte(7), 2),
            b'b' => (Escape::Byte(8), 2),
            b'f' => (Escape::Byte(12), 2),
            b'n' => (Escape::Byte(b'\n'), 2),
            b'r' => (Escape::Byte(b'\r'), 2),
            b't' => (Escape::Byte(b'\t'), 2),
            b'v' => (Escape::Byte(11), 2),
            b'\\' => (Escape::Byte(b'\\'), 2),
            other if other == quote => (Escape::Byte(quote), 2),
            b'x' => (byte(number(2, 2, 16)?)?, 4),
            b'0'..=b'7' => (byte(number(1, 3, 8)?)?, 4),
            b'u' => (character(number(2, 4, 16)?)?, 6),
            b'U' => (character(number(2, 8, 16)?)?, 10),
            _ => return Err(bad()),
        })
    }
}

enum Escape {
    Byte(u8),
    Character(char),
}

/// The name that `text` begins with: letters, digits and underscores, no digit first.
fn name(text: &[u8]) -> &str {
    let mut len = 0;
    while let Some(byte) = text.get(len) {
        match byte {
            b'_' | b'a'..=b'z' | b'A'..=b'Z' => {}
            b'0'..=b'9' if len > 0 => {}
            _ => break,
        }
        len += 1;
    }
    std::str::from_utf8(&text[..len]).unwrap_or_default()
}

/// The character that `text` begins with.
fn first(text: &[u8]) -> Option<char> {
    let text = &text[..text.len().min(4)];
    let text = match std::str::from_utf8(text) {
        Ok(text) => text,
        Err(e) => std::str::from_utf8(&text[..e.valid_up_to()]).unwrap_or_default(),
    };
    text.chars().next()
}

fn is_space(byte: &u8) -> bool {
    SPACES.contains(byte)
}

fn trim_start(text: &[u8]) -> &[u8] {
    &text[text.iter().position(|b| !is_space(b)).unwrap_or(text.len())..]
}

fn trim_end(text: &[u8]) -> &[u8] {
    &text[..text.iter().rposition(|b| !is_space(b)).map_or(0, |n| n + 1)]
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|w| w == what)
}
