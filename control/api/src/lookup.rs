//! Finding an object by what a user types: id, name, or unique prefix of an id. Pure.
use crate::error::ApiError;
use shoal_model::{Dependency, DependencyKind, Network, Node, Service, State, Task};
use std::sync::Arc;

/// Full id, else name, else prefix of an id; the last two must be unique.
fn find<'a, T>(
    kind: &str,
    reference: &str,
    exact: Option<&'a T>,
    all: impl Iterator<Item = &'a T> + Clone,
    id: impl Fn(&T) -> &str,
    name: impl Fn(&T) -> &str,
) -> Result<&'a T, ApiError> {
    if let Some(found) = exact {
        return Ok(found);
    }
    let named: Vec<&T> = all.clone().filter(|o| name(o) == reference).collect();
    let candidates = if named.is_empty() && !reference.is_empty() {
        all.filter(|o| id(o).starts_with(reference)).collect()
    } else {
        named
    };
    match candidates.as_slice() {
        [] => Err(ApiError::not_found(format!("{kind} {reference} not found"))),
        [one] => Ok(one),
        many => Err(ApiError::bad(format!(
            "{kind} {reference} is ambiguous ({} matches found)",
            many.len()
        ))),
    }
}

pub(crate) fn node<'a>(state: &'a State, r: &str) -> Result<&'a Node, ApiError> {
    find("node", r, state.nodes.get(r), state.nodes.values(), |n| &n.id, |n| n.hostname())
}

pub(crate) fn service<'a>(state: &'a State, r: &str) -> Result<&'a Service, ApiError> {
    find("service", r, state.services.get(r), state.services.values(), |s| &s.id, |s| s.name())
}

pub(crate) fn network<'a>(state: &'a State, r: &str) -> Result<&'a Network, ApiError> {
    find("network", r, state.networks.get(r), state.networks.values(), |n| &n.id, |n| n.name())
}

pub(crate) fn dependency<'a>(
    state: &'a State,
    kind: DependencyKind,
    r: &str,
) -> Result<&'a Arc<Dependency>, ApiError> {
    let all = state.dependencies(kind);
    find(kind.as_str(), r, all.get(r), all.values(), |d| &d.id, |d| &d.name)
}

pub(crate) fn task<'a>(state: &'a State, r: &str) -> Result<&'a Task, ApiError> {
    find("task", r, state.tasks.get(r), state.tasks.values(), |t| &t.id, |t| &t.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(reference: &str) -> Result<&'static str, String> {
        const ALL: [(&str, &str); 4] =
            [("abc1", "web"), ("abd2", "db"), ("x1", "twin"), ("x2", "twin")];
        let exact = ALL.iter().find(|o| o.0 == reference);
        find("service", reference, exact, ALL.iter(), |o| o.0, |o| o.1)
            .map(|o| o.0)
            .map_err(|e| e.message)
    }

    #[test]
    fn id_name_and_unique_prefix_find_an_object() {
        assert_eq!(found("abc1"), Ok("abc1"));
        assert_eq!(found("db"), Ok("abd2"));
        assert_eq!(found("abc"), Ok("abc1"));
    }

    #[test]
    fn ambiguous_and_unknown_references_are_named() {
        assert_eq!(found("ab"), Err("service ab is ambiguous (2 matches found)".into()));
        assert_eq!(found("twin"), Err("service twin is ambiguous (2 matches found)".into()));
        assert_eq!(found("z"), Err("service z not found".into()));
        assert_eq!(found(""), Err("service  not found".into()));
    }
}
