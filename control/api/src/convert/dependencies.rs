//! Secrets and configs.
use crate::times::rfc3339;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use shoal_model::{Dependency, DependencyKind};

/// A secret or a config. A secret's content is in no answer.
pub(crate) fn dependency(kind: DependencyKind, dependency: &Dependency) -> Value {
    let mut spec = json!({ "Name": dependency.name, "Labels": dependency.labels });
    if kind == DependencyKind::Config {
        spec["Data"] = BASE64_STANDARD.encode(dependency.content.bytes()).into();
    }
    if let Some(driver) = &dependency.templating {
        spec["Templating"] = super::value(driver);
    }
    json!({
        "ID": dependency.id,
        "Version": { "Index": dependency.meta.version },
        "CreatedAt": rfc3339(dependency.meta.created),
        "UpdatedAt": rfc3339(dependency.meta.updated),
        "Spec": spec,
    })
}
