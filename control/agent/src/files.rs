//! The files of a task: its secrets and configs, expanded where they are templates. Pure.
use shoal_containers::{FileContent, FileSpec};
use shoal_cores::template::{Context, Sources, expand_payload};
use shoal_model::{
    DependencyKind, NodeAssignment, Payload, Reference, container_references, docker,
    file_references,
};
use std::{collections::BTreeMap, sync::Arc};

/// Permission bits of a file for which none are given (Docker's client sends the same).
const MODE: u32 = 0o444;

/// Secrets and configs the node was told.
#[derive(Clone, Debug, Default)]
pub(crate) struct Payloads(BTreeMap<(DependencyKind, String), Arc<Payload>>);

impl Payloads {
    pub(crate) fn of(assignment: &NodeAssignment) -> Payloads {
        let all = assignment.dependencies.iter();
        Payloads(all.map(|one| ((one.kind, one.id.clone()), Arc::clone(one))).collect())
    }

    /// Whether all is there that a task refers to.
    pub(crate) fn has_all(&self, spec: &docker::TaskSpec) -> bool {
        file_references(spec).all(|reference| self.get(reference).is_ok())
    }

    fn get(&self, reference: Reference<'_>) -> Result<&Arc<Payload>, String> {
        let Reference { kind, id, name, .. } = reference;
        let found = self.0.get(&(kind, id.to_owned()));
        // It was removed while the service went back to a specification that refers to it.
        found.ok_or_else(|| format!("{kind} not found: {name}"))
    }
}

/// The bytes of a payload, which stay where they are.
struct Shared(Arc<Payload>);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        self.0.content.bytes()
    }
}

/// Whether a task cannot be had without secrets or configs.
pub(crate) fn needs_files(spec: &docker::TaskSpec) -> bool {
    file_references(spec).next().is_some()
}

/// The files of a task whose variables are expanded already. An error is the task's rejection.
pub(crate) fn files(
    spec: &docker::TaskSpecContainerSpec,
    context: &Context,
    payloads: &Payloads,
) -> Result<Vec<FileSpec>, String> {
    let found = container_references(spec)
        .map(|reference| payloads.get(reference).map(|payload| (reference, payload)))
        .collect::<Result<Vec<_>, _>>()?;
    let of = |kind| {
        let of_kind = found.iter().filter(move |(reference, _)| reference.kind == kind);
        let of_kind = of_kind.map(|(reference, payload)| {
            (reference.target.unwrap_or_default(), payload.content.bytes())
        });
        of_kind.collect()
    };
    let sources = Sources {
        secrets: of(DependencyKind::Secret),
        configs: of(DependencyKind::Config),
        env: spec.env.as_deref().unwrap_or_default(),
        secret: false,
    };
    let file = |&(reference, payload): &(Reference<'_>, &Arc<Payload>)| {
        let Reference { kind, name, target, uid, gid, mode, .. } = reference;
        // Without one, which the manager refuses, it is one the runtime refuses.
        let (target, mode) = (kind.path(target.unwrap_or_default()), mode.unwrap_or(MODE));
        let content = match payload.template {
            false => FileContent::shared(Arc::new(Shared(Arc::clone(payload)))),
            true => {
                let sources = Sources { secret: kind == DependencyKind::Secret, ..sources.clone() };
                let called = format!("{kind} {name}");
                let bytes = expand_payload(&called, payload.content.bytes(), context, &sources);
                FileContent::shared(Arc::new(bytes.map_err(|e| e.to_string())?))
            }
        };
        let owner = |what: &str, owner: &str| match owner {
            "" => Ok(0),
            owner => owner
                .parse()
                .map_err(|_| format!("{kind} {name}: the {what} {owner:?} is not a number")),
        };
        let (uid, gid) = (owner("UID", uid)?, owner("GID", gid)?);
        Ok(FileSpec { target, uid, gid, mode, content })
    };
    found.iter().map(file).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn payload(kind: DependencyKind, id: &str, content: &str, template: bool) -> Arc<Payload> {
        let (id, name) = (id.to_owned(), format!("{id}-name"));
        Arc::new(Payload { kind, id, name, content: content.as_bytes().to_vec().into(), template })
    }

    fn told(payloads: Vec<Arc<Payload>>) -> Payloads {
        Payloads::of(&NodeAssignment { dependencies: payloads, ..NodeAssignment::default() })
    }

    fn spec(json: serde_json::Value) -> docker::TaskSpecContainerSpec {
        serde_json::from_value(json).unwrap()
    }

    fn bytes(file: &FileSpec) -> String {
        String::from_utf8(file.content.bytes().to_vec()).unwrap()
    }

    #[test]
    fn references_are_files_below_their_folders_with_owner_and_mode() {
        let spec = spec(serde_json::json!({
            "Secrets": [
                { "SecretID": "a", "SecretName": "a-name", "File": { "Name": "key", "UID": "5", "GID": "6", "Mode": 256 } },
                { "SecretID": "a", "SecretName": "a-name", "File": { "Name": "/etc/key" } },
            ],
            "Configs": [{ "ConfigID": "a", "ConfigName": "a-name", "File": { "Name": "site" } }],
        }));
        let payloads = told(vec![
            payload(DependencyKind::Secret, "a", "secret", false),
            payload(DependencyKind::Config, "a", "config", false),
        ]);
        let files = files(&spec, &Context::default(), &payloads).unwrap();
        let shown: Vec<_> =
            files.iter().map(|f| (f.target.as_path(), f.uid, f.gid, f.mode, bytes(f))).collect();
        assert_eq!(
            shown,
            [
                (Path::new("/run/secrets/key"), 5, 6, 0o400, "secret".to_owned()),
                (Path::new("/etc/key"), 0, 0, 0o444, "secret".to_owned()),
                (Path::new("/site"), 0, 0, 0o444, "config".to_owned()),
            ]
        );
    }

    #[test]
    fn templates_are_expanded_from_the_task_and_its_other_files() {
        let spec = spec(serde_json::json!({
            "Env": ["COLOUR=red"],
            "Secrets": [{ "SecretID": "s", "SecretName": "s-name", "File": { "Name": "key" } }],
            "Configs": [{ "ConfigID": "c", "ConfigName": "c-name", "File": { "Name": "/page" } }],
        }));
        let text = "{{.Service.Name}} {{secret \"key\"}} {{env \"COLOUR\"}}";
        let payloads = told(vec![
            payload(DependencyKind::Secret, "s", "word", false),
            payload(DependencyKind::Config, "c", text, true),
        ]);
        let context = Context { service_name: "web".to_owned(), ..Context::default() };
        let page = &files(&spec, &context, &payloads).unwrap()[1];
        assert_eq!(bytes(page), "web word red");
        let wrong = told(vec![
            payload(DependencyKind::Secret, "s", "word", false),
            payload(DependencyKind::Config, "c", "{{secret \"other\"}}", true),
        ]);
        let error = files(&spec, &context, &wrong).unwrap_err();
        assert!(error.contains("config c-name") && error.contains("not found"), "{error}");
    }

    #[test]
    fn what_is_not_there_is_named() {
        let spec = spec(serde_json::json!({
            "Secrets": [{ "SecretID": "s", "SecretName": "key", "File": { "Name": "key" } }],
        }));
        let error = files(&spec, &Context::default(), &Payloads::default()).unwrap_err();
        assert_eq!(error, "secret not found: key");
    }
}
