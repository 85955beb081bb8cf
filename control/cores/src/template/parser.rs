//! From words to a tree.
use super::{
    Fault, MOST_DEPTH, MOST_VARIABLES,
    functions::Function,
    lexer::{Lexeme, Piece, Token},
    quoted,
    value::Value,
};

pub(super) enum Node<'a> {
    Text(&'a [u8]),
    /// Writes what it gives, unless it only sets variables.
    Action(Pipeline<'a>),
    If(Branch<'a>),
    With(Branch<'a>),
    Range(Branch<'a>),
    Break,
    Continue,
}

/// A control structure.
pub(super) struct Branch<'a> {
    pub(super) pipeline: Pipeline<'a>,
    pub(super) then: Vec<Node<'a>>,
    pub(super) otherwise: Vec<Node<'a>>,
}

pub(super) struct Pipeline<'a> {
    pub(super) at: usize,
    /// Variables that are set to what it gives: one, or two of a `range`.
    pub(super) sets: Vec<&'a str>,
    /// Whether they are new.
    pub(super) declares: bool,
    /// At least one.
    pub(super) commands: Vec<Command<'a>>,
}

pub(super) struct Command<'a> {
    pub(super) at: usize,
    /// What it is of.
    pub(super) head: Operand<'a>,
    /// What is given to the head, if it is a function.
    pub(super) arguments: Vec<Operand<'a>>,
}

pub(super) struct Operand<'a> {
    pub(super) at: usize,
    pub(super) base: Base<'a>,
    /// Fields of fields of it.
    pub(super) fields: Vec<&'a str>,
}

pub(super) enum Base<'a> {
    Dot,
    /// Nothing is the whole context.
    Variable(&'a str),
    Function(Function),
    Literal(Value<'a>),
    Group(Box<Pipeline<'a>>),
}

/// Makes the tree. `payload`: the functions of secrets and configs are there. `quiet`: errors quote nothing.
pub(super) fn parse<'a>(
    pieces: &[Piece<'a>],
    payload: bool,
    quiet: bool,
) -> Result<Vec<Node<'a>>, Fault> {
    let mut parser =
        Parser { pieces: pieces.iter(), payload, quiet, depth: 0, ranges: 0, variables: vec![] };
    let (nodes, end) = parser.nodes()?;
    match end {
        None => Ok(nodes),
        Some(end) => Err(Fault::new(end.at, format!("{{{{{}}}}} of nothing", end.word))),
    }
}

/// The action that ended a list of nodes.
struct End<'p, 'a> {
    at: usize,
    word: &'a str,
    /// What follows the word.
    rest: &'p [Lexeme<'a>],
}

struct Parser<'p, 'a> {
    pieces: std::slice::Iter<'p, Piece<'a>>,
    payload: bool,
    quiet: bool,
    depth: usize,
    /// How many `range`s we are in.
    ranges: usize,
    /// Variables here, the newest last.
    variables: Vec<&'a str>,
}

impl<'p, 'a> Parser<'p, 'a> {
    /// Up to an `end` or `else`, or the template's end.
    fn nodes(&mut self) -> Result<(Vec<Node<'a>>, Option<End<'p, 'a>>), Fault> {
        let mut nodes = Vec::new();
        while let Some(piece) = self.pieces.next() {
            let (at, words) = match piece {
                Piece::Text(text) => {
                    nodes.push(Node::Text(text));
                    continue;
                }
                Piece::Action(at, words) => (*at, words.as_slice()),
            };
            let (word, rest) = match words.split_first() {
                Some((Lexeme { token: Token::Word(word), .. }, rest)) => (*word, rest),
                _ => ("", words),
            };
            match word {
                "end" | "else" => return Ok((nodes, Some(End { at, word, rest }))),
                "if" => nodes.push(Node::If(self.branch(at, word, rest)?)),
                "with" => nodes.push(Node::With(self.branch(at, word, rest)?)),
                "range" => nodes.push(Node::Range(self.branch(at, word, rest)?)),
                "break" | "continue" => {
                    self.nothing(word, rest)?;
                    if self.ranges == 0 {
                        return Err(Fault::new(
                            at,
                            format!("{{{{{word}}}}} outside {{{{range}}}}"),
                        ));
                    }
                    nodes.push(if word == "break" { Node::Break } else { Node::Continue });
                }
                "define" | "template" | "block" => {
                    return Err(Fault::new(at, format!("{{{{{word}}}}} is not supported")));
                }
                _ => nodes.push(Node::Action(self.whole_pipeline(at, "command", words, 1)?)),
            }
        }
        Ok((nodes, None))
    }

    fn branch(
        &mut self,
        at: usize,
        word: &str,
        words: &'p [Lexeme<'a>],
    ) -> Result<Branch<'a>, Fault> {
        self.deeper(at)?;
        let before = self.variables.len();
        let range = word == "range";
        let sets = if range { 2 } else { 1 };
        let pipeline = self.whole_pipeline(at, word, words, sets)?;
        let inner = self.variables.len();
        self.ranges += usize::from(range);
        let (then, mut end) = self.nodes()?;
        self.ranges -= usize::from(range);
        let mut otherwise = Vec::new();
        if let Some(End { word: "else", at: else_at, rest }) = end {
            self.variables.truncate(inner);
            let next = rest.first().map(|l| &l.token);
            match next {
                // The structure after `else` ends both.
                Some(Token::Word(again @ ("if" | "with"))) if *again == word => {
                    let branch = self.branch(else_at, again, &rest[1..])?;
                    otherwise.push(if word == "if" {
                        Node::If(branch)
                    } else {
                        Node::With(branch)
                    });
                    self.leave(before);
                    return Ok(Branch { pipeline, then, otherwise });
                }
                _ => {
                    self.nothing("else", rest)?;
                    (otherwise, end) = self.nodes()?;
                }
            }
        }
        match end {
            Some(End { word: "end", rest, .. }) => self.nothing("end", rest)?,
            Some(End { at, word, .. }) => {
                return Err(Fault::new(at, format!("{{{{{word}}}}} comes a second time")));
            }
            None => return Err(Fault::new(at, format!("{{{{{word}}}}} has no {{{{end}}}}"))),
        }
        self.leave(before);
        Ok(Branch { pipeline, then, otherwise })
    }

    fn deeper(&mut self, at: usize) -> Result<(), Fault> {
        self.depth += 1;
        match self.depth > MOST_DEPTH {
            true => Err(Fault::new(at, format!("it is nested more than {MOST_DEPTH} deep"))),
            false => Ok(()),
        }
    }

    fn leave(&mut self, variables: usize) {
        self.depth -= 1;
        self.variables.truncate(variables);
    }

    fn nothing(&self, after: &str, rest: &[Lexeme<'_>]) -> Result<(), Fault> {
        match rest.first() {
            Some(word) => Err(Fault::new(word.at, format!("unexpected word after {after:?}"))),
            None => Ok(()),
        }
    }

    /// All words of an action as one pipeline.
    fn whole_pipeline(
        &mut self,
        at: usize,
        of: &str,
        words: &'p [Lexeme<'a>],
        most_sets: usize,
    ) -> Result<Pipeline<'a>, Fault> {
        let mut words = Words { words, at: 0, end: at };
        let (sets, declares) = self.sets(&mut words, most_sets)?;
        let mut pipeline = self.pipeline(&mut words, at, of)?;
        if let Some(word) = words.peek() {
            return Err(Fault::new(word.at, "unexpected \")\", \",\" or \"=\""));
        }
        if declares {
            self.variables.extend(&sets);
            if self.variables.len() > MOST_VARIABLES {
                return Err(Fault::new(at, format!("more than {MOST_VARIABLES} variables")));
            }
        }
        (pipeline.sets, pipeline.declares) = (sets, declares);
        Ok(pipeline)
    }

    /// `$x :=`, `$x =`, and of a `range` `$k, $v :=`.
    fn sets(&self, words: &mut Words<'p, 'a>, most: usize) -> Result<(Vec<&'a str>, bool), Fault> {
        let variable = |n: usize| match words.words.get(n).map(|w| &w.token) {
            Some(Token::Variable(name)) => Some(*name),
            _ => None,
        };
        let token = |n: usize| words.words.get(n).map(|w| &w.token);
        let (sets, len) = match (variable(0), token(1), variable(2)) {
            (Some(one), Some(Token::Declare | Token::Assign), _) => (vec![one], 1),
            (Some(one), Some(Token::Comma), Some(two)) => (vec![one, two], 3),
            _ => return Ok((vec![], false)),
        };
        let at = words.words[0].at;
        let declares = match token(len) {
            Some(Token::Declare) => true,
            Some(Token::Assign) => false,
            _ => return Err(Fault::new(at, "\":=\" must follow the variables")),
        };
        if sets.len() > most {
            return Err(Fault::new(at, "only {{range}} sets two variables"));
        }
        if sets.contains(&"") {
            return Err(Fault::new(at, "\"$\" cannot be set"));
        }
        if !declares {
            sets.iter().try_for_each(|name| self.known(at, name))?;
        }
        words.at = len + 1;
        Ok((sets, declares))
    }

    fn known(&self, at: usize, name: &str) -> Result<(), Fault> {
        if name.is_empty() || self.variables.contains(&name) {
            return Ok(());
        }
        let shown = quoted(format!("${name}").as_bytes(), self.quiet);
        Err(Fault::new(at, format!("undefined variable {shown}")))
    }

    fn pipeline(
        &mut self,
        words: &mut Words<'p, 'a>,
        at: usize,
        of: &str,
    ) -> Result<Pipeline<'a>, Fault> {
        let mut commands = vec![self.command(words, at, of)?];
        while let Some(Token::Pipe) = words.peek().map(|w| &w.token) {
            words.at += 1;
            commands.push(self.command(words, at, "the command after \"|\"")?);
        }
        Ok(Pipeline { at, sets: vec![], declares: false, commands })
    }

    fn command(
        &mut self,
        words: &mut Words<'p, 'a>,
        at: usize,
        of: &str,
    ) -> Result<Command<'a>, Fault> {
        let Some(head) = self.operand(words, true)? else {
            return Err(Fault::new(words.here(at), format!("missing value for {of}")));
        };
        let mut arguments = Vec::new();
        while let Some(argument) = self.operand(words, false)? {
            arguments.push(argument);
        }
        Ok(Command { at: head.at, head, arguments })
    }

    /// One operand, if there is one.
    fn operand(
        &mut self,
        words: &mut Words<'p, 'a>,
        first: bool,
    ) -> Result<Option<Operand<'a>>, Fault> {
        let Some(word) = words.peek() else { return Ok(None) };
        let at = word.at;
        let (base, mut fields) = match &word.token {
            Token::Pipe | Token::Close | Token::Comma | Token::Declare | Token::Assign => {
                return Ok(None);
            }
            _ if !first && !word.spaced => {
                return Err(Fault::new(at, "a space is missing here"));
            }
            Token::Dot => (Base::Dot, vec![]),
            Token::Field(name) => (Base::Dot, vec![*name]),
            Token::Variable(name) => {
                self.known(at, name)?;
                (Base::Variable(name), vec![])
            }
            Token::Text(text) => (Base::Literal(Value::Text(text.clone())), vec![]),
            Token::Int(n) => (Base::Literal(Value::Int(*n)), vec![]),
            Token::Float(f) => (Base::Literal(Value::Float(*f)), vec![]),
            Token::Word("true") => (Base::Literal(Value::Bool(true)), vec![]),
            Token::Word("false") => (Base::Literal(Value::Bool(false)), vec![]),
            Token::Word("nil") => (Base::Literal(Value::Nil), vec![]),
            Token::Word(name) => (Base::Function(self.function(at, name)?), vec![]),
            Token::Open => {
                self.deeper(at)?;
                words.at += 1;
                let pipeline = self.pipeline(words, at, "parentheses")?;
                self.depth -= 1;
                if !matches!(words.peek().map(|w| &w.token), Some(Token::Close)) {
                    return Err(Fault::new(at, "this \"(\" has no \")\""));
                }
                (Base::Group(Box::new(pipeline)), vec![])
            }
        };
        words.at += 1;
        while let Some(Lexeme { at, spaced: false, token }) = words.peek() {
            match (token, &base) {
                (Token::Field(_), Base::Literal(_)) => {
                    return Err(Fault::new(*at, "unexpected \".\" after a literal"));
                }
                (Token::Field(name), _) => fields.push(*name),
                _ => break,
            }
            words.at += 1;
        }
        Ok(Some(Operand { at, base, fields }))
    }

    fn function(&self, at: usize, name: &str) -> Result<Function, Fault> {
        let shown = || quoted(name.as_bytes(), self.quiet);
        match Function::named(name) {
            Some(function) if self.payload || !function.of_payloads() => Ok(function),
            Some(_) => Err(Fault::new(
                at,
                format!("function {} is for templates of secrets and configs alone", shown()),
            )),
            None => Err(Fault::new(at, format!("function {} not defined", shown()))),
        }
    }
}

/// Words of one action, as they are taken.
struct Words<'p, 'a> {
    words: &'p [Lexeme<'a>],
    at: usize,
    /// Where the action begins.
    end: usize,
}

impl<'p, 'a> Words<'p, 'a> {
    fn peek(&self) -> Option<&'p Lexeme<'a>> {
        self.words.get(self.at)
    }

    /// Where in the template the next word is; the action itself after the last one.
    fn here(&self, otherwise: usize) -> usize {
        self.peek().map_or(self.end.max(otherwise), |w| w.at)
    }
}
