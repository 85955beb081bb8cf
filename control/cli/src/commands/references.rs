//! `--secret` and `--config` of services: what they name, looked up at the daemon as docker's client does.
use super::query;
use crate::{
    args::{ServiceCreate, ServiceUpdate},
    client::Client,
    error::{CliError, CliResult},
    text::at,
};
use serde_json::{Value, json};
use shoal_model::{DependencyKind, docker};
use std::collections::BTreeMap;

/// Permission bits of a file when none are asked for (Docker's).
const MODE: u32 = 0o444;

/// What one flag asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Wish {
    source: String,
    target: String,
    uid: String,
    gid: String,
    mode: u32,
}

/// `NAME`, or `source=NAME,target=FILE,uid=0,gid=0,mode=0444`.
fn wish(kind: DependencyKind, text: &str) -> Result<Wish, String> {
    let mut wish = Wish {
        source: String::new(),
        target: String::new(),
        uid: "0".to_owned(),
        gid: "0".to_owned(),
        mode: MODE,
    };
    let plain = !text.contains(['=', ',']);
    if plain {
        wish.source = text.to_owned();
    }
    for field in text.split(',').filter(|_| !plain) {
        let (key, value) = field
            .split_once('=')
            .ok_or_else(|| format!("invalid field '{field}' must be a key=value pair"))?;
        match key.to_ascii_lowercase().as_str() {
            "source" | "src" => wish.source = value.to_owned(),
            "target" => wish.target = value.to_owned(),
            "uid" => wish.uid = value.to_owned(),
            "gid" => wish.gid = value.to_owned(),
            "mode" => {
                let mode = u32::from_str_radix(value, 8);
                wish.mode = mode.map_err(|e| format!("invalid mode specified: {e}"))?;
            }
            _ => return Err(format!("invalid field in {kind} request: {key}")),
        }
    }
    if wish.source.is_empty() {
        return Err("source is required".to_owned());
    }
    if wish.target.is_empty() {
        wish.target.clone_from(&wish.source);
    }
    Ok(wish)
}

/// The ids of those that are named, by name.
async fn ids(
    client: &Client,
    kind: DependencyKind,
    wishes: &[Wish],
) -> CliResult<BTreeMap<String, String>> {
    if wishes.is_empty() {
        return Ok(BTreeMap::new());
    }
    let names: BTreeMap<&str, bool> = wishes.iter().map(|w| (w.source.as_str(), true)).collect();
    let filter = query(&json!({ "name": names }));
    let found: Vec<Value> = client.get(&format!("/{kind}s?{filter}")).await?;
    let found =
        found.iter().map(|one| (at(one, "/Spec/Name").to_owned(), at(one, "/ID").to_owned()));
    let found: BTreeMap<String, String> = found.collect();
    match names.keys().find(|name| !found.contains_key(**name)) {
        Some(name) => Err(CliError::usage(format!("{kind} not found: {name}"))),
        None => Ok(found),
    }
}

fn wishes(kind: DependencyKind, flags: &[String]) -> CliResult<Vec<Wish>> {
    flags.iter().map(|text| wish(kind, text)).collect::<Result<_, _>>().map_err(CliError::usage)
}

async fn secrets(
    client: &Client,
    flags: &[String],
) -> CliResult<Vec<docker::TaskSpecContainerSpecSecrets>> {
    let wishes = wishes(DependencyKind::Secret, flags)?;
    let ids = ids(client, DependencyKind::Secret, &wishes).await?;
    let one = |wish: Wish| docker::TaskSpecContainerSpecSecrets {
        secret_id: ids.get(&wish.source).cloned(),
        secret_name: Some(wish.source),
        file: Some(docker::TaskSpecContainerSpecFile {
            name: Some(wish.target),
            uid: Some(wish.uid),
            gid: Some(wish.gid),
            mode: Some(wish.mode),
        }),
    };
    Ok(wishes.into_iter().map(one).collect())
}

async fn configs(
    client: &Client,
    flags: &[String],
) -> CliResult<Vec<docker::TaskSpecContainerSpecConfigs>> {
    let wishes = wishes(DependencyKind::Config, flags)?;
    let ids = ids(client, DependencyKind::Config, &wishes).await?;
    let one = |wish: Wish| docker::TaskSpecContainerSpecConfigs {
        config_id: ids.get(&wish.source).cloned(),
        config_name: Some(wish.source),
        file: Some(docker::TaskSpecContainerSpecFile1 {
            name: Some(wish.target),
            uid: Some(wish.uid),
            gid: Some(wish.gid),
            mode: Some(wish.mode),
        }),
        runtime: None,
    };
    Ok(wishes.into_iter().map(one).collect())
}

/// What `service create` refers to.
pub(crate) async fn create(
    client: &Client,
    spec: &mut docker::ServiceSpec,
    create: &ServiceCreate,
) -> CliResult<()> {
    let (secrets, configs) =
        (secrets(client, &create.secret).await?, configs(client, &create.config).await?);
    let container =
        spec.task_template.get_or_insert_default().container_spec.get_or_insert_default();
    container.secrets = (!secrets.is_empty()).then_some(secrets);
    container.configs = (!configs.is_empty()).then_some(configs);
    Ok(())
}

/// What `service update` adds, looked up before the service is changed.
pub(crate) struct Added {
    secrets: Vec<docker::TaskSpecContainerSpecSecrets>,
    configs: Vec<docker::TaskSpecContainerSpecConfigs>,
}

pub(crate) async fn added(client: &Client, update: &ServiceUpdate) -> CliResult<Added> {
    let secrets = secrets(client, &update.secret_add).await?;
    Ok(Added { secrets, configs: configs(client, &update.config_add).await? })
}

/// Takes out what is named, and adds the rest.
pub(crate) fn update(spec: &mut docker::ServiceSpec, update: &ServiceUpdate, added: &Added) {
    let container =
        spec.task_template.get_or_insert_default().container_spec.get_or_insert_default();
    let removed = |name: &Option<String>, removed: &[String]| {
        name.as_ref().is_some_and(|name| removed.contains(name))
    };
    if !added.secrets.is_empty() || !update.secret_rm.is_empty() {
        let secrets = container.secrets.get_or_insert_default();
        secrets.retain(|secret| !removed(&secret.secret_name, &update.secret_rm));
        secrets.extend(added.secrets.iter().cloned());
    }
    if !added.configs.is_empty() || !update.config_rm.is_empty() {
        let configs = container.configs.get_or_insert_default();
        configs.retain(|config| !removed(&config.config_name, &update.config_rm));
        configs.extend(added.configs.iter().cloned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_read_in_docker_s_forms() {
        let of = |text| wish(DependencyKind::Secret, text);
        let plain = of("key").unwrap();
        assert_eq!(
            (plain.source.as_str(), plain.target.as_str(), plain.mode),
            ("key", "key", MODE)
        );
        let full = of("source=key,target=/etc/key,uid=5,gid=6,mode=0400").unwrap();
        let expected = Wish {
            source: "key".into(),
            target: "/etc/key".into(),
            uid: "5".into(),
            gid: "6".into(),
            mode: 0o400,
        };
        assert_eq!(full, expected);
        assert_eq!(of("src=key").unwrap(), plain);
        for (text, words) in [
            ("target=a", "source is required"),
            ("source=a,b", "invalid field 'b' must be a key=value pair"),
            ("source=a,mode=rw", "invalid mode specified"),
            ("source=a,colour=red", "invalid field in secret request: colour"),
        ] {
            let refusal = of(text).unwrap_err();
            assert!(refusal.contains(words), "{text}: {refusal}");
        }
    }
}
