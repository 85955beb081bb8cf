//! Docker's templates of services, secrets and configs: Go's `text/template`, as far as it is of use there.
//!
//! A service's variables, host name and mounts are templates over the [`Context`] of a task
//! ([`expand_container`]); a secret or a config with a templating driver is one over the same and
//! [`Sources`] ([`expand_payload`]). They are expanded on the node. The manager expands a service with a
//! made-up context to refuse what does not expand ([`check_service`]).
//!
//! **Why not a crate.** There is one for Go's templates, `gtmpl` (0.7.1): it knows text as UTF-8 alone, where
//! a secret is any bytes; copies values that are to be overwritten; walks the `else` of every `range`;
//! takes a missing label for a value; and has no bound of work or output, with a depth of 100,000 on the
//! stack. What is written here comes from users and runs in the manager.
//!
//! **What there is:** text, actions, pipelines, `{{-` and `-}}`, comments, `if`/`else if`/`else`/`end`,
//! `range` (over lists, labels and numbers), `with`, `break`, `continue`, variables, fields, parentheses,
//! all kinds of literals but complex numbers; Go's functions but `call` and `js`; SwarmKit's `join` (separator
//! first); and those Docker's own commands have: `json`, `split`, `join` (of a list), `lower`, `upper`, `title`,
//! `pad`, `truncate`. **What there is not:** `define`, `template` and `block` (they recurse), methods, and what Go
//! prints for a format that does not fit (`%!d(…)`), which is an error here.
//!
//! **Bounds:** [`MOST_TEMPLATE`], [`MOST_TOKENS`], [`MOST_DEPTH`], [`MOST_VARIABLES`], [`MOST_STEPS`], [`MOST_WORK`],
//! [`MOST_OUTPUT`] and [`MOST_FIELD`]; at each the template is refused.
//!
//! **Secrets:** bytes that come from a payload are overwritten when they are let go. From the moment a
//! secret has been read, and in the template of a secret from the start, errors quote nothing.

mod buffer;
mod container;
mod context;
mod functions;
mod lexer;
mod machine;
mod parser;
mod printf;
#[cfg(test)]
mod tests;
mod texts;
mod value;

pub use container::{check_service, expand_container};
pub use context::{Context, Sources};

use machine::Machine;
use zeroize::Zeroizing;

/// Most bytes of a template: the largest config.
pub const MOST_TEMPLATE: usize = shoal_model::MAX_CONFIG_SIZE;
/// Most words of a template's actions: some MiB while it is worked on.
pub const MOST_TOKENS: usize = 50_000;
/// How deep control structures and parentheses may lie in each other (`else if` is one more).
pub const MOST_DEPTH: usize = 50;
/// Most variables at one place.
pub const MOST_VARIABLES: usize = 100;
/// Most commands and turns of loops of one expansion: some hundredths of a second.
pub const MOST_STEPS: usize = 100_000;
/// Most bytes that functions read and make in one expansion.
pub const MOST_WORK: usize = 64 << 20;
/// Most bytes of an expanded payload: the largest config.
pub const MOST_OUTPUT: usize = shoal_model::MAX_CONFIG_SIZE;
/// Most bytes of an expanded field of a service: the most the kernel takes for one variable
/// (`MAX_ARG_STRLEN`).
pub const MOST_FIELD: usize = 128 << 10;

/// Why a template does not expand.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("template of {name}, line {line}, column {column}: {reason}")]
pub struct TemplateError {
    /// What it is the template of.
    pub name: String,
    /// Line, from 1.
    pub line: usize,
    /// Byte of the line, from 1.
    pub column: usize,
    /// What is wrong.
    pub reason: String,
}

/// Where a template is wrong, and why.
#[derive(Debug)]
struct Fault {
    /// Byte of the template.
    at: usize,
    reason: String,
}

impl Fault {
    fn new(at: usize, reason: impl Into<String>) -> Fault {
        Fault { at, reason: reason.into() }
    }
}

/// Expands a field of a service. `name` is what errors call it.
///
/// # Errors
/// When it is no template, or asks for what is not there.
pub fn expand(name: &str, template: &str, context: &Context) -> Result<String, TemplateError> {
    if !template.contains(lexer::OPEN) {
        return Ok(template.to_owned());
    }
    let bytes = run(name, template.as_bytes(), context, None, MOST_FIELD)?;
    String::from_utf8(bytes.to_vec()).map_err(|_| TemplateError {
        name: name.to_owned(),
        line: 1,
        column: 1,
        reason: "what it expands to is not UTF-8".to_owned(),
    })
}

/// Expands the content of a secret or config. `name` is what errors call it.
///
/// # Errors
/// When it is no template, or asks for what is not there.
pub fn expand_payload(
    name: &str,
    template: &[u8],
    context: &Context,
    sources: &Sources<'_>,
) -> Result<Zeroizing<Vec<u8>>, TemplateError> {
    run(name, template, context, Some(sources), MOST_OUTPUT)
}

fn run(
    name: &str,
    template: &[u8],
    context: &Context,
    sources: Option<&Sources<'_>>,
    most: usize,
) -> Result<Zeroizing<Vec<u8>>, TemplateError> {
    let quiet = sources.is_some_and(|s| s.secret);
    let expanded = (|| {
        if template.len() > MOST_TEMPLATE {
            let reason = format!("it has {} bytes, more than {MOST_TEMPLATE}", template.len());
            return Err(Fault::new(0, reason));
        }
        let pieces = lexer::pieces(template, quiet)?;
        let nodes = parser::parse(&pieces, sources.is_some(), quiet)?;
        Machine::new(context, sources, most).run(&nodes)
    })();
    expanded.map_err(|fault| {
        let before = &template[..fault.at.min(template.len())];
        let line_start = before.iter().rposition(|b| *b == b'\n').map_or(0, |n| n + 1);
        TemplateError {
            name: name.to_owned(),
            line: 1 + before.iter().filter(|b| **b == b'\n').count(),
            column: 1 + before.len() - line_start,
            reason: fault.reason,
        }
    })
}

/// What errors say instead of something that may be secret.
const UNSAID: &str = "(not shown)";

/// A word of the template or of its data, as errors show it.
fn quoted(bytes: &[u8], quiet: bool) -> String {
    /// Bytes shown of a word.
    const MOST: usize = 64;
    match quiet {
        true => UNSAID.to_owned(),
        false if bytes.len() > MOST => {
            format!("{:?}…", String::from_utf8_lossy(&bytes[..MOST]))
        }
        false => format!("{:?}", String::from_utf8_lossy(bytes)),
    }
}
