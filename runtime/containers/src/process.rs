//! What a container executes, from its specification and its image. Pure.

use serde::{Deserialize, Serialize};
use shoal_images::Image;

use crate::error::RuntimeError;
use crate::signal::parse_signal;
use crate::spec::{ContainerSpec, short};

/// Docker's default search path for Linux.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What a container executes, resolved when it was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Process {
    pub(crate) args: Vec<String>,
    pub(crate) env: Vec<String>,
    pub(crate) cwd: String,
    pub(crate) user: String,
    pub(crate) stop_signal: i32,
}

/// Merges specification and image by Docker's rules.
pub(crate) fn resolve(spec: &ContainerSpec, image: &Image) -> Result<Process, RuntimeError> {
    let defaults = image.config.config().clone().unwrap_or_default();
    let invalid = |field, reason: String| RuntimeError::Invalid { field, reason };
    let args = arguments(
        spec.entrypoint.as_deref(),
        spec.command.as_deref(),
        defaults.entrypoint().as_deref().unwrap_or_default(),
        defaults.cmd().as_deref().unwrap_or_default(),
    );
    if args.first().is_none_or(String::is_empty) {
        return Err(invalid("command", "no command specified, and the image has none".to_owned()));
    }
    let hostname = spec.hostname.clone().unwrap_or_else(|| short(&spec.id).to_owned());
    let mut env = vec![PATH.to_owned(), format!("HOSTNAME={hostname}")];
    if spec.tty {
        env.push("TERM=xterm".to_owned());
    }
    overlay(&mut env, defaults.env().as_deref().unwrap_or_default());
    overlay(&mut env, &spec.env);
    let nonempty = |s: &String| !s.is_empty();
    let cwd = spec.working_dir.clone().filter(nonempty);
    let cwd = cwd.or(defaults.working_dir().clone().filter(nonempty)).unwrap_or("/".to_owned());
    if !cwd.starts_with('/') {
        let reason = format!("the working directory {cwd:?} is not an absolute path");
        return Err(invalid("working directory", reason));
    }
    let signal = spec.stop_signal.clone().or(defaults.stop_signal().clone()).filter(nonempty);
    let stop_signal = match &signal {
        None => libc::SIGTERM,
        Some(name) => parse_signal(name)
            .ok_or_else(|| invalid("stop signal", format!("unknown signal {name:?}")))?,
    };
    let user = spec.user.clone().or(defaults.user().clone()).unwrap_or_default();
    let texts = args.iter().chain(&env).chain([&cwd, &user, &hostname]);
    if texts.into_iter().any(|t| t.contains('\0')) {
        return Err(invalid("process", "a zero byte in a text".to_owned()));
    }
    Ok(Process { args, env, cwd, user, stop_signal })
}

/// Docker's rule: an entry point of one's own drops the image's command too.
fn arguments(
    entrypoint: Option<&[String]>,
    command: Option<&[String]>,
    image_entrypoint: &[String],
    image_command: &[String],
) -> Vec<String> {
    let (head, tail) = match entrypoint {
        Some(own) => (own, command.unwrap_or_default()),
        None => (image_entrypoint, command.unwrap_or(image_command)),
    };
    head.iter().chain(tail).cloned().collect()
}

/// Puts `over` over `env`: a later value replaces an earlier one in its place; a name without `=`
/// removes the variable, as for Docker.
pub(crate) fn overlay(env: &mut Vec<String>, over: &[String]) {
    let key = |e: &str| e.split('=').next().unwrap_or_default().to_owned();
    for entry in over.iter().filter(|e| !e.is_empty()) {
        let at = env.iter().position(|e| key(e) == key(entry));
        match (at, entry.contains('=')) {
            (Some(i), true) => env[i].clone_from(entry),
            (None, true) => env.push(entry.clone()),
            (Some(i), false) => drop(env.remove(i)),
            (None, false) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(words: &str) -> Vec<String> {
        words.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn an_entry_point_of_ones_own_drops_the_images_command() {
        let (e, c) = (s("/entry"), s("serve"));
        assert_eq!(arguments(None, None, &e, &c), s("/entry serve"));
        assert_eq!(arguments(None, Some(&s("x y")), &e, &c), s("/entry x y"));
        assert_eq!(arguments(Some(&s("/own")), None, &e, &c), s("/own"));
        assert_eq!(arguments(Some(&s("/own")), Some(&s("z")), &e, &c), s("/own z"));
        assert_eq!(arguments(None, None, &[], &[]), s(""));
    }

    #[test]
    fn a_later_variable_replaces_and_a_bare_name_removes() {
        let mut env = s("A=1 B=2 C=3");
        overlay(&mut env, &s("B=9 C D=4"));
        assert_eq!(env, s("A=1 B=9 D=4"));
    }
}
