//! One form for each meaning of a service specification. Clients leave a field out, or send it empty,
//! or send its default; stored alike, an update that changes nothing compares equal and replaces no
//! task. Pure.
use serde_json::{Map, Value};

/// Objects whose keys are the user's own: what is in them is kept as it is.
const FREE: [&str; 5] = ["Labels", "Sysctls", "DriverOpts", "Options", "Secrets"];
/// Objects that mean something by being there, even empty.
const MODES: [&str; 4] = ["Replicated", "Global", "ReplicatedJob", "GlobalJob"];

/// Leaves out of a specification what means the same as nothing.
pub(crate) fn canonical(spec: Value) -> Value {
    match spec {
        Value::Object(map) => Value::Object(object(map)),
        other => other,
    }
}

fn object(map: Map<String, Value>) -> Map<String, Value> {
    map.into_iter()
        .map(|(key, value)| {
            let value = match value {
                Value::Object(inner) if !FREE.contains(&key.as_str()) => {
                    Value::Object(object(inner))
                }
                Value::Array(items) => items.into_iter().map(canonical).collect(),
                other => other,
            };
            (key, value)
        })
        .filter(|(key, value)| !means_nothing(key, value))
        .collect()
}

fn means_nothing(key: &str, value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => match key {
            "Runtime" => text == "container",
            "Isolation" => text == "default",
            _ => text.is_empty(),
        },
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty() && !MODES.contains(&key),
        Value::Bool(on) => !on && ["TTY", "OpenStdin", "ReadOnly"].contains(&key),
        Value::Number(n) => {
            n.as_u64() == Some(0) && ["ForceUpdate", "MaxAttempts", "Window"].contains(&key)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn empty_and_default_fields_are_the_same_as_absent_ones() {
        let told = json!({
            "Name": "web", "Labels": {}, "Mode": { "Replicated": {} },
            "TaskTemplate": {
                "ForceUpdate": 0, "Runtime": "container", "Networks": [],
                "ContainerSpec": { "Image": "i", "Args": null, "Isolation": "default", "DNSConfig": {} },
                "Resources": { "Limits": {}, "Reservations": {} }, "Placement": {},
            },
        });
        let silent = json!({
            "Name": "web", "Mode": { "Replicated": {} },
            "TaskTemplate": { "ContainerSpec": { "Image": "i" } },
        });
        assert_eq!(canonical(told), silent);
        assert_eq!(canonical(silent.clone()), silent);
    }

    #[test]
    fn what_means_something_stays() {
        let spec = json!({
            "Labels": { "empty": "" },
            "Mode": { "Replicated": { "Replicas": 0 } },
            "UpdateConfig": { "Parallelism": 0 },
            "TaskTemplate": {
                "ForceUpdate": 2, "ContainerSpec": { "Init": false, "TTY": true },
                "RestartPolicy": { "Delay": 0 },
            },
        });
        assert_eq!(canonical(spec.clone()), spec);
    }
}
