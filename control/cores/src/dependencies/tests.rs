use super::*;
use serde_json::{Value, json};
use shoal_model::{Change, Timestamp};

fn spec(json: Value) -> DependencySpec {
    serde_json::from_value(json).unwrap()
}

/// A cluster with the secret `key` (id `s1`) and the config `site` (id `c1`).
fn state() -> State {
    let mut state = State::default();
    for (kind, id, name) in
        [(DependencyKind::Secret, "s1", "key"), (DependencyKind::Config, "c1", "site")]
    {
        let asked = spec(json!({ "Name": name, "Data": "YQ==", "Labels": { "a": "b" } }));
        let new = new_dependency(&state, kind, id.to_owned(), asked).unwrap();
        let change = Change::Put(dependency_object(kind, Arc::new(new)));
        state.apply(state.version + 1, Timestamp(1), vec![change]).unwrap();
    }
    state
}

#[test]
fn what_cannot_be_had_is_refused_in_swarmkit_s_words() {
    let state = state();
    let (secret, config) = (DependencyKind::Secret, DependencyKind::Config);
    let long = "x".repeat(65);
    let name_rule = "invalid name, only 64 [a-zA-Z0-9-_.] characters allowed";
    let golang = json!({ "Name": "golang" });
    for (kind, asked, refusal) in [
        (secret, json!({ "Name": "new", "Data": "YQ==" }), ""),
        (secret, json!({ "Name": "a.b_c-d", "Data": "YQ==", "Templating": golang }), ""),
        (secret, json!({ "Name": "site", "Data": "YQ==" }), ""),
        (secret, json!({ "Name": "", "Data": "YQ==" }), "name must be provided"),
        (secret, json!({ "Name": "-a", "Data": "YQ==" }), name_rule),
        (secret, json!({ "Name": "a b", "Data": "YQ==" }), name_rule),
        (secret, json!({ "Name": long, "Data": "YQ==" }), name_rule),
        (secret, json!({ "Name": "key", "Data": "YQ==" }), "secret key already exists"),
        (config, json!({ "Name": "site", "Data": "YQ==" }), "config site already exists"),
        (
            secret,
            json!({ "Name": "a" }),
            "secret data must be larger than 0 and less than 512000 bytes: a has 0",
        ),
        (
            config,
            json!({ "Name": "a", "Data": "" }),
            "config data must be larger than 0 and less than 1024000 bytes",
        ),
        (
            secret,
            json!({ "Name": "a", "Driver": { "Name": "vault" } }),
            "secret a: the driver \"vault\" is not",
        ),
        (
            secret,
            json!({ "Name": "a", "Data": "YQ==", "Templating": { "Name": "x" } }),
            "secret a: the template driver \"x\"",
        ),
    ] {
        let new = new_dependency(&state, kind, "id".to_owned(), spec(asked.clone()));
        let text = new.map_or_else(|e| e.to_string(), |_| String::new());
        assert!(
            text.starts_with(refusal) && text.is_empty() == refusal.is_empty(),
            "{asked}: {text}"
        );
    }
    for (kind, size, fits) in [
        (secret, 511_999, true),
        (secret, 512_000, false),
        (config, 1_023_999, true),
        (config, 1_024_000, false),
    ] {
        let data = Some(vec![b'x'; size].into());
        let asked = DependencySpec { name: "big".into(), data, ..DependencySpec::default() };
        assert_eq!(new_dependency(&state, kind, "id".to_owned(), asked).is_ok(), fits, "{size}");
    }
}

#[test]
fn only_labels_change() {
    let state = state();
    let present = &state.secrets["s1"];
    for (asked, right) in [
        (json!({ "Name": "key", "Labels": { "c": "d" } }), true),
        (json!({ "Name": "key", "Data": "YQ==" }), true),
        (json!({ "Name": "key", "Data": "Yg==" }), false),
        (json!({ "Name": "other" }), false),
        (json!({ "Name": "key", "Templating": { "Name": "golang" } }), false),
    ] {
        match relabelled(present, spec(asked.clone())) {
            Ok(new) => {
                assert!(right, "{asked}");
                assert_eq!(new.content, present.content);
                assert_eq!(new.labels.len(), usize::from(asked.get("Labels").is_some()));
            }
            Err(refusal) => {
                assert!(!right, "{asked}");
                assert_eq!(refusal, DependencyError::OnlyLabels);
            }
        }
    }
}

fn referring(secrets: Value, configs: Value) -> docker::TaskSpec {
    let container = json!({ "ContainerSpec": { "Secrets": secrets, "Configs": configs } });
    serde_json::from_value(container).unwrap()
}

fn secret(target: &str) -> Value {
    json!({ "SecretID": "s1", "SecretName": "key", "File": { "Name": target, "UID": "0", "GID": "0", "Mode": 292 } })
}

fn config(target: &str) -> Value {
    json!({ "ConfigID": "c1", "ConfigName": "site", "File": { "Name": target } })
}

#[test]
fn each_reference_has_a_file_of_its_own() {
    let mut odd_owner = secret("a");
    odd_owner["File"]["UID"] = json!("www");
    let mut nobody = secret("a");
    nobody["File"]["GID"] = json!("4294967295");
    let mut odd_mode = secret("a");
    odd_mode["File"]["Mode"] = json!(0o4755);
    for (secrets, configs, refusal) in [
        (
            json!([secret("key"), secret("/etc/key")]),
            json!([config("/site"), config("etc/site")]),
            "",
        ),
        (
            json!([{ "SecretName": "key", "File": { "Name": "a" } }]),
            json!([]),
            "malformed secret reference",
        ),
        (
            json!([]),
            json!([{ "ConfigID": "c1", "ConfigName": "site" }]),
            "malformed config reference 'site', no target",
        ),
        (json!([secret("")]), json!([]), "malformed secret reference 'key', invalid target"),
        (
            json!([secret("../../etc/passwd")]),
            json!([]),
            "malformed secret reference 'key', invalid target",
        ),
        (json!([]), json!([config("/")]), "malformed config reference 'site', invalid target"),
        (
            json!([secret("a"), secret("a")]),
            json!([]),
            "secret references 'key' and 'key' have a conflicting target: 'a'",
        ),
        (
            json!([secret("a")]),
            json!([config("run/secrets/a")]),
            "config references 'key' and 'site' have a conflicting",
        ),
        (
            json!([odd_owner]),
            json!([]),
            "malformed secret reference 'key', the UID \"www\" is not a number",
        ),
        (json!([nobody]), json!([]), "malformed secret reference 'key', the GID"),
        (json!([odd_mode]), json!([]), "malformed secret reference 'key', the mode"),
    ] {
        let checked = check_references(&referring(secrets.clone(), configs.clone()));
        let text = checked.map_or_else(|e| e.to_string(), |()| String::new());
        assert!(
            text.starts_with(refusal) && text.is_empty() == refusal.is_empty(),
            "{secrets} {configs}: {text}"
        );
    }
}

#[test]
fn what_is_referred_to_must_be_there_under_its_name() {
    let state = state();
    let right = referring(json!([secret("a")]), json!([config("b")]));
    assert_eq!(check_existence(&state, &right), Ok(()));
    let mut renamed = secret("a");
    renamed["SecretName"] = json!("other");
    let mut unknown = secret("b");
    unknown["SecretID"] = json!("s2");
    let wrong = referring(json!([renamed, unknown]), json!([]));
    let refusal = check_existence(&state, &wrong).unwrap_err().to_string();
    assert_eq!(refusal, "secrets not found: other, key");
    let mut unknown = config("b");
    unknown["ConfigID"] = json!("c2");
    let refusal = check_existence(&state, &referring(json!([]), json!([unknown]))).unwrap_err();
    assert_eq!(refusal.to_string(), "config not found: site");
}
