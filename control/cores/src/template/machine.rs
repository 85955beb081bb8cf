//! Walks the tree.
use super::{
    Fault, MOST_STEPS, MOST_WORK,
    buffer::{Buffer, Full},
    context::{Context, Part, Sources},
    functions::Function,
    parser::{Base, Branch, Command, Node, Operand, Pipeline},
    quoted,
    value::Value,
};
use zeroize::Zeroizing;

/// One expansion.
pub(super) struct Machine<'a> {
    pub(super) context: &'a Context,
    pub(super) sources: Option<&'a Sources<'a>>,
    /// Errors quote nothing: a secret has been read, or this is one.
    pub(super) quiet: bool,
    out: Buffer,
    most: usize,
    variables: Vec<(&'a str, Value<'a>)>,
    steps: usize,
    work: usize,
}

/// How a list of nodes ended.
enum Flow {
    On,
    Break,
    Continue,
}

impl<'a> Machine<'a> {
    /// Writes at most so many bytes.
    pub(super) fn new(
        context: &'a Context,
        sources: Option<&'a Sources<'a>>,
        most: usize,
    ) -> Machine<'a> {
        Machine {
            context,
            sources,
            quiet: sources.is_some_and(|s| s.secret),
            out: Buffer::new(most),
            most,
            variables: vec![],
            steps: 0,
            work: 0,
        }
    }

    pub(super) fn run(mut self, nodes: &'a [Node<'a>]) -> Result<Zeroizing<Vec<u8>>, Fault> {
        self.walk(&Value::Part(self.context, Part::Root), nodes)?;
        Ok(self.out.done())
    }

    fn walk(&mut self, dot: &Value<'a>, nodes: &'a [Node<'a>]) -> Result<Flow, Fault> {
        for node in nodes {
            match node {
                Node::Text(text) => {
                    let written = self.out.push(text);
                    self.fits(0, written)?;
                }
                Node::Action(pipeline) => {
                    let value = self.pipeline(dot, pipeline)?;
                    if pipeline.sets.is_empty() {
                        let written = value.write(&mut self.out);
                        self.fits(pipeline.at, written)?;
                    } else {
                        self.set(pipeline, 0, value);
                    }
                }
                Node::If(branch) | Node::With(branch) => {
                    let with = matches!(node, Node::With(_));
                    match self.branch(dot, branch, with)? {
                        Flow::On => {}
                        flow => return Ok(flow),
                    }
                }
                Node::Range(branch) => match self.range(dot, branch)? {
                    Flow::On => {}
                    flow => return Ok(flow),
                },
                Node::Break => return Ok(Flow::Break),
                Node::Continue => return Ok(Flow::Continue),
            }
        }
        Ok(Flow::On)
    }

    fn fits(&self, at: usize, written: Result<(), Full>) -> Result<(), Fault> {
        written
            .map_err(|Full| Fault::new(at, format!("it expands to more than {} bytes", self.most)))
    }

    fn branch(
        &mut self,
        dot: &Value<'a>,
        branch: &'a Branch<'a>,
        with: bool,
    ) -> Result<Flow, Fault> {
        let before = self.variables.len();
        let value = self.pipeline(dot, &branch.pipeline)?;
        self.set(&branch.pipeline, 0, value.clone());
        let flow = match value.truth() {
            true if with => self.walk(&value, &branch.then),
            true => self.walk(dot, &branch.then),
            false => self.walk(dot, &branch.otherwise),
        };
        self.variables.truncate(before);
        flow
    }

    fn range(&mut self, dot: &Value<'a>, branch: &'a Branch<'a>) -> Result<Flow, Fault> {
        let at = branch.pipeline.at;
        let before = self.variables.len();
        let value = self.pipeline(dot, &branch.pipeline)?;
        // What is gone through, one by one and never all at once.
        let mut turns: Box<dyn Iterator<Item = (Value<'a>, Value<'a>)> + 'a> =
            match value {
                Value::List(list) => {
                    let items = (0..list.len()).map(move |n| list[n].clone());
                    Box::new((0..).map(Value::Int).zip(items))
                }
                Value::Labels(labels) => Box::new(labels.iter().map(|(key, value)| {
                    (Value::lent(key.as_bytes()), Value::lent(value.as_bytes()))
                })),
                Value::Int(n) if branch.pipeline.sets.len() < 2 => {
                    Box::new((0..n).map(|n| (Value::Int(n), Value::Int(n))))
                }
                Value::Nil => Box::new(std::iter::empty()),
                other => {
                    let kind = other.kind();
                    return Err(Fault::new(
                        at,
                        format!("range can't iterate over a value of type {kind}"),
                    ));
                }
            };
        let mut none = true;
        for (key, value) in &mut turns {
            none = false;
            self.step(at)?;
            match branch.pipeline.sets.len() {
                0 => {}
                1 => self.set(&branch.pipeline, 0, value.clone()),
                _ => {
                    self.set(&branch.pipeline, 0, key);
                    self.set(&branch.pipeline, 1, value.clone());
                }
            }
            let flow = self.walk(&value, &branch.then);
            self.variables.truncate(before);
            match flow? {
                Flow::Break => break,
                Flow::On | Flow::Continue => {}
            }
        }
        if none {
            return self.walk(dot, &branch.otherwise);
        }
        Ok(Flow::On)
    }

    /// Sets the variable with this number of those a pipeline sets, if it sets any.
    fn set(&mut self, pipeline: &Pipeline<'a>, n: usize, value: Value<'a>) {
        let Some(name) = pipeline.sets.get(n) else { return };
        let known = self.variables.iter().rposition(|(known, _)| known == name);
        match known.filter(|_| !pipeline.declares) {
            Some(at) => self.variables[at].1 = value,
            None => self.variables.push((name, value)),
        }
    }

    fn pipeline(
        &mut self,
        dot: &Value<'a>,
        pipeline: &'a Pipeline<'a>,
    ) -> Result<Value<'a>, Fault> {
        let mut last = None;
        for command in &pipeline.commands {
            last = Some(self.command(dot, command, last)?);
        }
        Ok(last.unwrap_or(Value::Nil))
    }

    fn command(
        &mut self,
        dot: &Value<'a>,
        command: &'a Command<'a>,
        last: Option<Value<'a>>,
    ) -> Result<Value<'a>, Fault> {
        self.step(command.at)?;
        let Command { at, head, arguments } = command;
        match &head.base {
            Base::Function(function) if head.fields.is_empty() => {
                self.call(dot, *at, *function, arguments, last)
            }
            _ if !arguments.is_empty() || last.is_some() => {
                Err(Fault::new(*at, "can't give an argument to what is no function"))
            }
            Base::Literal(Value::Nil) => Err(Fault::new(*at, "nil is not a command")),
            _ => self.operand(dot, head),
        }
    }

    fn operand(&mut self, dot: &Value<'a>, operand: &'a Operand<'a>) -> Result<Value<'a>, Fault> {
        let mut value = match &operand.base {
            Base::Dot => dot.clone(),
            Base::Variable("") => Value::Part(self.context, Part::Root),
            Base::Variable(name) => {
                let known = self.variables.iter().rfind(|(known, _)| known == name);
                known.map_or(Value::Nil, |(_, value)| value.clone())
            }
            Base::Literal(value) => value.clone(),
            Base::Function(function) => {
                self.step(operand.at)?;
                self.call(dot, operand.at, *function, &[], None)?
            }
            Base::Group(pipeline) => self.pipeline(dot, pipeline)?,
        };
        for name in &operand.fields {
            value = self.field(operand.at, &value, name)?;
        }
        Ok(value)
    }

    fn field(&self, at: usize, of: &Value<'a>, name: &str) -> Result<Value<'a>, Fault> {
        let shown = || quoted(name.as_bytes(), self.quiet);
        match of {
            Value::Part(context, part) => part.field(context, name).ok_or_else(|| {
                let (part, shown, names) = (part.type_name(), shown(), part.names().join(", "));
                Fault::new(at, format!("{part} has no field {shown}; it has {names}"))
            }),
            Value::Labels(labels) => match labels.get(name) {
                Some(value) => Ok(Value::lent(value.as_bytes())),
                None => Err(Fault::new(at, format!("map has no entry for key {}", shown()))),
            },
            other => {
                let kind = other.kind();
                Err(Fault::new(at, format!("can't evaluate field {} in type {kind}", shown())))
            }
        }
    }

    fn call(
        &mut self,
        dot: &Value<'a>,
        at: usize,
        function: Function,
        arguments: &'a [Operand<'a>],
        last: Option<Value<'a>>,
    ) -> Result<Value<'a>, Fault> {
        if let Function::And | Function::Or = function {
            // The first that decides; those after it are not looked at.
            let decides = function == Function::Or;
            let mut value = None;
            for argument in arguments {
                let next = self.operand(dot, argument)?;
                if next.truth() == decides {
                    return Ok(next);
                }
                value = Some(next);
            }
            return last.or(value).ok_or_else(|| {
                Fault::new(at, format!("{}: at least one argument is needed", function.name()))
            });
        }
        let mut values = Vec::with_capacity(arguments.len() + 1);
        for argument in arguments {
            values.push(self.operand(dot, argument)?);
        }
        values.extend(last);
        function
            .call(self, &values)
            .map_err(|reason| Fault::new(at, format!("{}: {reason}", function.name())))
    }

    fn step(&mut self, at: usize) -> Result<(), Fault> {
        self.steps += 1;
        match self.steps > MOST_STEPS {
            true => Err(Fault::new(at, format!("it takes more than {MOST_STEPS} steps"))),
            false => Ok(()),
        }
    }

    /// Functions say what they read and make.
    pub(super) fn work(&mut self, bytes: usize) -> Result<(), String> {
        self.work = self.work.saturating_add(bytes);
        match self.work > MOST_WORK {
            true => Err(format!("more than {MOST_WORK} bytes are worked on")),
            false => Ok(()),
        }
    }

    /// Where a function writes what it makes.
    pub(super) fn buffer(&self) -> Buffer {
        Buffer::new(self.most)
    }

    /// What a function has made.
    pub(super) fn made(
        &mut self,
        buffer: Buffer,
        written: Result<(), Full>,
    ) -> Result<Value<'a>, String> {
        written.map_err(|Full| format!("it makes more than {} bytes", self.most))?;
        self.work(buffer.len())?;
        Ok(Value::own(buffer.done()))
    }
}
