//! Secrets and configs: what tasks are given as files besides their image.
use crate::{docker, objects::Meta, task::Task};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
};
use zeroize::Zeroizing;

/// A secret has fewer bytes (SwarmKit's `MaxSecretSize`).
pub const MAX_SECRET_SIZE: usize = 500 * 1024;
/// A config has fewer bytes (SwarmKit's `MaxConfigSize`).
pub const MAX_CONFIG_SIZE: usize = 1000 * 1024;

/// Which of the two it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum DependencyKind {
    /// Never shown once it is created, and kept in memory alone where it is used.
    Secret,
    /// May be read by whoever may read the cluster.
    Config,
}

impl DependencyKind {
    /// Docker's word.
    pub fn as_str(self) -> &'static str {
        match self {
            DependencyKind::Secret => "secret",
            DependencyKind::Config => "config",
        }
    }

    /// One has fewer bytes.
    pub fn max_size(self) -> usize {
        match self {
            DependencyKind::Secret => MAX_SECRET_SIZE,
            DependencyKind::Config => MAX_CONFIG_SIZE,
        }
    }

    /// Where a container finds the file that a reference calls `target`.
    pub fn path(self, target: &str) -> PathBuf {
        let below = match self {
            DependencyKind::Secret => "/run/secrets",
            DependencyKind::Config => "/",
        };
        Path::new(below).join(target)
    }
}

impl fmt::Display for DependencyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Bytes that are not shown, and overwritten when they are let go. Written out in base64.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Content(Zeroizing<Vec<u8>>);

impl Content {
    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl From<Vec<u8>> for Content {
    fn from(bytes: Vec<u8>) -> Content {
        Content(Zeroizing::new(bytes))
    }
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl Serialize for Content {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&Zeroizing::new(BASE64_STANDARD.encode(&*self.0)))
    }
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Content, D::Error> {
        let text = Zeroizing::new(String::deserialize(deserializer)?);
        // The decoder's own message would show a byte of it.
        let bytes = BASE64_STANDARD.decode(&*text);
        bytes.map(Content::from).map_err(|_| de::Error::custom("the content is not base64"))
    }
}

/// A secret or a config as it is asked for, in Docker's form.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct DependencySpec {
    /// Name.
    pub name: String,
    /// Labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeMap<String, String>>,
    /// Content; not needed where only labels are changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<Content>,
    /// Who has the content instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub driver: Option<docker::Driver>,
    /// What makes a task's file of the content.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub templating: Option<docker::Driver>,
}

/// A secret or a config. Its content never changes, nor what it is called: both are what tasks rely on.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Dependency {
    /// Id, 25 characters.
    pub id: String,
    /// Version and times.
    pub meta: Meta,
    /// Name.
    pub name: String,
    /// Labels given by the user.
    pub labels: BTreeMap<String, String>,
    /// Content.
    pub content: Content,
    /// What makes a task's file of the content; `None`: it is the file.
    #[serde(default)]
    pub templating: Option<docker::Driver>,
}

/// A secret or a config as nodes get it whose tasks use it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Payload {
    /// Which of the two.
    pub kind: DependencyKind,
    /// Id.
    pub id: String,
    /// Name.
    pub name: String,
    /// Content.
    pub content: Content,
    /// Whether the content is a template of the file (Docker's `golang` driver).
    pub template: bool,
}

impl Payload {
    /// As nodes get it.
    pub fn of(kind: DependencyKind, dependency: &Dependency) -> Payload {
        Payload {
            kind,
            id: dependency.id.clone(),
            name: dependency.name.clone(),
            content: dependency.content.clone(),
            template: dependency.templating.is_some(),
        }
    }
}

/// What a specification of tasks says of a secret or a config. What it leaves out is empty.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reference<'a> {
    /// Which of the two.
    pub kind: DependencyKind,
    /// Id.
    pub id: &'a str,
    /// Name.
    pub name: &'a str,
    /// The file it is to be; nothing when it is to be none.
    pub target: Option<&'a str>,
    /// The file's owner.
    pub uid: &'a str,
    /// The file's group.
    pub gid: &'a str,
    /// The file's permission bits.
    pub mode: Option<u32>,
}

/// What a specification of tasks refers to, first secrets, then configs, each in its order.
pub fn file_references(spec: &docker::TaskSpec) -> impl Iterator<Item = Reference<'_>> {
    spec.container_spec.iter().flat_map(container_references)
}

/// [`file_references`] of the container's part.
pub fn container_references(
    spec: &docker::TaskSpecContainerSpec,
) -> impl Iterator<Item = Reference<'_>> {
    fn text(text: Option<&String>) -> &str {
        text.map(String::as_str).unwrap_or_default()
    }
    let secrets = spec.secrets.iter().flatten().map(|secret| {
        let file = secret.file.as_ref();
        Reference {
            kind: DependencyKind::Secret,
            id: text(secret.secret_id.as_ref()),
            name: text(secret.secret_name.as_ref()),
            target: file.map(|f| text(f.name.as_ref())),
            uid: text(file.and_then(|f| f.uid.as_ref())),
            gid: text(file.and_then(|f| f.gid.as_ref())),
            mode: file.and_then(|f| f.mode),
        }
    });
    let configs = spec.configs.iter().flatten().map(|config| {
        let file = config.file.as_ref();
        Reference {
            kind: DependencyKind::Config,
            id: text(config.config_id.as_ref()),
            name: text(config.config_name.as_ref()),
            target: file.map(|f| text(f.name.as_ref())),
            uid: text(file.and_then(|f| f.uid.as_ref())),
            gid: text(file.and_then(|f| f.gid.as_ref())),
            mode: file.and_then(|f| f.mode),
        }
    });
    secrets.chain(configs)
}

/// Kind and id of each object a specification of tasks names, as often as it does.
pub fn references(spec: &docker::TaskSpec) -> impl Iterator<Item = (DependencyKind, &str)> {
    file_references(spec).filter(|one| !one.id.is_empty()).map(|one| (one.kind, one.id))
}

/// [`references`] of a task, as long as it has a node and may still run there.
pub fn needs(task: &Task) -> impl Iterator<Item = (DependencyKind, &str)> {
    let needed = task.is_assigned() && !task.status.state.is_terminal();
    needed.then(|| references(&task.spec)).into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_is_not_shown_and_survives_being_written_out() {
        let content = Content::from(b"p\xffssword".to_vec());
        let text = serde_json::to_string(&content).unwrap();
        assert_eq!(serde_json::from_str::<Content>(&text).unwrap(), content);
        assert_eq!(format!("{content:?}"), "8 bytes");
        let error = serde_json::from_str::<Content>(r#""p?ssword""#).unwrap_err().to_string();
        assert!(error.starts_with("the content is not base64"), "{error}");
    }
}
