//! What is asked of secrets and configs, and of services that refer to them, in SwarmKit's words. Pure.
use shoal_model::{
    Dependency, DependencyKind, DependencySpec, ErrorKind, Meta, Object, Reference, State, docker,
    file_references,
};
use std::{
    collections::BTreeMap,
    path::{Component, PathBuf},
    sync::Arc,
};

/// Longest name of a secret or a config.
const LONGEST_NAME: usize = 64;

/// The one template driver there is.
const TEMPLATES: &str = "golang";

/// Why a secret or a config, or a reference to one, is refused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each says what it is about in its text")]
pub enum DependencyError {
    #[error("name must be provided")]
    Unnamed,
    #[error(
        "invalid name, only 64 [a-zA-Z0-9-_.] characters allowed, and the start and end character \
         must be [a-zA-Z0-9]: {0:?}"
    )]
    Name(String),
    #[error("{kind} data must be larger than 0 and less than {} bytes: {name} has {size}", kind.max_size())]
    Size { kind: DependencyKind, name: String, size: usize },
    #[error(
        "{kind} {name}: the driver {driver:?} is not supported in this version; give the data itself"
    )]
    Driver { kind: DependencyKind, name: String, driver: String },
    #[error("{kind} {name}: the template driver {driver:?} is not known, use golang")]
    Templating { kind: DependencyKind, name: String, driver: String },
    #[error("{kind} {name} already exists")]
    Taken { kind: DependencyKind, name: String },
    #[error("only updates to Labels are allowed")]
    OnlyLabels,
    #[error("malformed {kind} reference{}", reason)]
    Malformed { kind: DependencyKind, reason: String },
    #[error("{kind} references '{first}' and '{second}' have a conflicting target: '{target}'")]
    Conflict { kind: DependencyKind, first: String, second: String, target: String },
    #[error("{kind}{} not found: {}", if names.len() == 1 { "" } else { "s" }, names.join(", "))]
    Missing { kind: DependencyKind, names: Vec<String> },
}

impl DependencyError {
    /// Kind of the refusal.
    pub fn kind(&self) -> ErrorKind {
        match self {
            DependencyError::Taken { .. } => ErrorKind::AlreadyExists,
            _ => ErrorKind::InvalidArgument,
        }
    }
}

/// The object of a kind.
pub fn dependency_object(kind: DependencyKind, dependency: Arc<Dependency>) -> Object {
    match kind {
        DependencyKind::Secret => Object::Secret(dependency),
        DependencyKind::Config => Object::Config(dependency),
    }
}

/// A new secret or config.
///
/// # Errors
/// When it is not to be had as it is asked for.
pub fn new_dependency(
    state: &State,
    kind: DependencyKind,
    id: String,
    spec: DependencySpec,
) -> Result<Dependency, DependencyError> {
    check_name(&spec.name)?;
    let name = spec.name;
    if let Some(driver) = spec.driver {
        return Err(DependencyError::Driver { kind, name, driver: driver.name });
    }
    if let Some(driver) = spec.templating.as_ref().filter(|driver| driver.name != TEMPLATES) {
        return Err(DependencyError::Templating { kind, name, driver: driver.name.clone() });
    }
    let content = spec.data.unwrap_or_default();
    let size = content.bytes().len();
    if !(1..kind.max_size()).contains(&size) {
        return Err(DependencyError::Size { kind, name, size });
    }
    if state.dependency_named(kind, &name).is_some() {
        return Err(DependencyError::Taken { kind, name });
    }
    let (meta, labels) = (Meta::default(), spec.labels.unwrap_or_default());
    Ok(Dependency { id, meta, name, labels, content, templating: spec.templating })
}

/// ^[a-zA-Z0-9]+(?:[a-zA-Z0-9-_.]*[a-zA-Z0-9])?$
fn check_name(name: &str) -> Result<(), DependencyError> {
    let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    let inner = |c: char| c.is_ascii_alphanumeric() || ['-', '_', '.'].contains(&c);
    let valid = ends(name.chars().next()) && ends(name.chars().last()) && name.chars().all(inner);
    match name.len() {
        0 => Err(DependencyError::Unnamed),
        1..=LONGEST_NAME if valid => Ok(()),
        _ => Err(DependencyError::Name(name.to_owned())),
    }
}

/// With other labels. The rest may be said again as it is, and not otherwise: tasks rely on it.
///
/// # Errors
/// When something else is to change.
pub fn relabelled(
    present: &Dependency,
    spec: DependencySpec,
) -> Result<Dependency, DependencyError> {
    let same = spec.name == present.name
        && spec.driver.is_none()
        && spec.data.is_none_or(|data| data == present.content)
        && (spec.templating.is_none() || spec.templating == present.templating);
    let labels = spec.labels.unwrap_or_default();
    same.then(|| Dependency { labels, ..present.clone() }).ok_or(DependencyError::OnlyLabels)
}

/// Whether the references of a specification are right as far as it can be seen by itself: each has a file
/// of its own.
///
/// # Errors
/// Naming the reference that is not.
pub fn check_references(spec: &docker::TaskSpec) -> Result<(), DependencyError> {
    let mut files: BTreeMap<PathBuf, &str> = BTreeMap::new();
    for reference in file_references(spec) {
        let Reference { kind, id, name, target, uid, gid, mode } = reference;
        let malformed = |reason: String| Err(DependencyError::Malformed { kind, reason });
        if id.is_empty() || name.is_empty() {
            return malformed(String::new());
        }
        let Some(target) = target else {
            return malformed(format!(" '{name}', no target provided"));
        };
        let path = kind.path(target);
        let plain = |part| matches!(part, Component::Normal(_) | Component::RootDir);
        let sound = !target.is_empty()
            && !target.ends_with('/')
            && !target.contains('\0')
            && path.components().all(plain)
            && path.file_name().is_some();
        if !sound {
            return malformed(format!(" '{name}', invalid target file name provided: {target:?}"));
        }
        for (what, owner) in [("UID", uid), ("GID", gid)] {
            // The kernel takes the largest number for "as it is".
            let number = owner.parse().is_ok_and(|number: u32| number != u32::MAX);
            if !owner.is_empty() && !number {
                return malformed(format!(" '{name}', the {what} {owner:?} is not a number"));
            }
        }
        if mode.is_some_and(|mode| mode > 0o777) {
            return malformed(format!(" '{name}', the mode has more than permission bits (0777)"));
        }
        if let Some(first) = files.insert(path, name) {
            let (first, second) = (first.to_owned(), name.to_owned());
            return Err(DependencyError::Conflict { kind, first, second, target: target.into() });
        }
    }
    Ok(())
}

/// Whether what a specification refers to is there, and is called what it says.
///
/// # Errors
/// Naming those that are not.
pub fn check_existence(state: &State, spec: &docker::TaskSpec) -> Result<(), DependencyError> {
    for kind in [DependencyKind::Secret, DependencyKind::Config] {
        let of_kind = file_references(spec).filter(|reference| reference.kind == kind);
        let there = |reference: &Reference<'_>| {
            let found = state.dependencies(kind).get(reference.id);
            found.is_some_and(|found| found.name == reference.name)
        };
        let names = of_kind.filter(|reference| !there(reference)).map(|r| r.name.to_owned());
        let names: Vec<String> = names.collect();
        if !names.is_empty() {
            return Err(DependencyError::Missing { kind, names });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
