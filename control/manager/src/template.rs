//! Whether two specifications ask for the same containers.
use serde_json::Value;
use shoal_cores::Revision;
use shoal_model::docker;

/// What `new` changes for the tasks of `old`: of their template, networks and published ports.
///
/// Clients read a specification and send it back with one field changed, and differ in whether they
/// write what is empty; so what is empty counts as absent.
pub(crate) fn revision(old: &docker::ServiceSpec, new: &docker::ServiceSpec) -> Revision {
    let (mut old, mut new) = (essence(old), essence(new));
    if old == new {
        return Revision::None;
    }
    for [template, ..] in [&mut old, &mut new] {
        if let Value::Object(fields) = template {
            fields.remove("Placement");
        }
    }
    if old == new { Revision::Placement } else { Revision::Tasks }
}

fn essence(spec: &docker::ServiceSpec) -> [Value; 3] {
    let of = |value: Result<Value, serde_json::Error>| prune("", value.unwrap_or(Value::Null));
    [
        of(serde_json::to_value(&spec.task_template)).unwrap_or(Value::Null),
        of(serde_json::to_value(&spec.networks)).unwrap_or(Value::Null),
        of(serde_json::to_value(&spec.endpoint_spec)).unwrap_or(Value::Null),
    ]
}

/// The value without what means the same as nothing; `None` when nothing is left.
fn prune(key: &str, value: Value) -> Option<Value> {
    match value {
        Value::Null | Value::Bool(false) => None,
        Value::String(text) => {
            let default = match key {
                "Runtime" => "container",
                "Isolation" => "default",
                "Mode" => "vip",
                "PublishMode" => "ingress",
                "Protocol" => "tcp",
                _ => "",
            };
            (!text.is_empty() && text != default).then_some(Value::String(text))
        }
        // Of these, none is not zero but Docker's default.
        Value::Number(n)
            if n.as_i64() == Some(0) && !["Delay", "StopGracePeriod", "Mode"].contains(&key) =>
        {
            None
        }
        Value::Array(items) => {
            // An empty item of a list counts: `args` may hold "".
            let mut items: Vec<Value> = items
                .into_iter()
                .map(|item| match item {
                    Value::Object(_) => prune("", item).unwrap_or(Value::Null),
                    plain => plain,
                })
                .collect();
            // Files that do not cover each other: docker's client has an order of its own each time.
            if ["Secrets", "Configs"].contains(&key) {
                items.sort_by_cached_key(Value::to_string);
            }
            (!items.is_empty()).then_some(Value::Array(items))
        }
        Value::Object(map) => {
            let map: serde_json::Map<String, Value> = map
                .into_iter()
                .filter_map(|(key, value)| prune(&key, value).map(|value| (key, value)))
                .collect();
            (!map.is_empty()).then_some(Value::Object(map))
        }
        other => Some(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(json: Value) -> docker::ServiceSpec {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn what_is_empty_is_as_good_as_absent_and_what_is_not_is_a_change() {
        let plain = spec(serde_json::json!({
            "TaskTemplate": {"ContainerSpec": {"Image": "i", "Args": ["a"]}}
        }));
        let wordy = spec(serde_json::json!({
            "Labels": {"a": "b"},
            "TaskTemplate": {
                "ContainerSpec": {"Image": "i", "Args": ["a"], "DNSConfig": {}, "Isolation": "default"},
                "Resources": {"Limits": {}, "Reservations": {}}, "Placement": {},
                "ForceUpdate": 0, "Runtime": "container"
            },
            "EndpointSpec": {"Mode": "vip"}
        }));
        assert_eq!(revision(&plain, &wordy), Revision::None);
        for other in [
            serde_json::json!({"TaskTemplate": {"ContainerSpec": {"Image": "j", "Args": ["a"]}}}),
            serde_json::json!({"TaskTemplate": {"ContainerSpec": {"Image": "i", "Args": ["a", ""]}}}),
            serde_json::json!({"TaskTemplate": {"ContainerSpec": {"Image": "i", "Args": ["a"]}, "ForceUpdate": 1}}),
            serde_json::json!({"TaskTemplate": {"ContainerSpec": {"Image": "i", "Args": ["a"]}, "RestartPolicy": {"Delay": 0}}}),
            serde_json::json!({"TaskTemplate": {"ContainerSpec": {"Image": "i", "Args": ["a"]}}, "EndpointSpec": {"Ports": [{"TargetPort": 80}]}}),
        ] {
            assert_eq!(revision(&plain, &spec(other.clone())), Revision::Tasks, "{other}");
        }
    }

    #[test]
    fn secrets_in_another_order_are_no_change() {
        let using = |ids: &[&str]| {
            let one =
                |id: &&str| serde_json::json!({"SecretID": id, "File": {"Name": id, "Mode": 0}});
            let secrets: Vec<Value> = ids.iter().map(one).collect();
            spec(serde_json::json!({"TaskTemplate": {"ContainerSpec": {"Secrets": secrets}}}))
        };
        assert_eq!(revision(&using(&["a", "b"]), &using(&["b", "a"])), Revision::None);
        assert_eq!(revision(&using(&["a", "b"]), &using(&["a"])), Revision::Tasks);
        let mut readable = using(&["a"]);
        let container = readable.task_template.as_mut().unwrap().container_spec.as_mut().unwrap();
        container.secrets.as_mut().unwrap()[0].file.as_mut().unwrap().mode = Some(0o444);
        assert_eq!(revision(&using(&["a"]), &readable), Revision::Tasks);
    }

    #[test]
    fn where_tasks_may_run_is_a_change_of_its_own() {
        let placed = |constraint: &str, image: &str| {
            spec(serde_json::json!({"TaskTemplate": {
                "ContainerSpec": {"Image": image}, "Placement": {"Constraints": [constraint]}
            }}))
        };
        let anywhere = spec(serde_json::json!({"TaskTemplate": {"ContainerSpec": {"Image": "i"}}}));
        let here = placed("node.role==worker", "i");
        assert_eq!(revision(&anywhere, &here), Revision::Placement);
        assert_eq!(revision(&here, &placed("node.role==manager", "i")), Revision::Placement);
        assert_eq!(revision(&here, &placed("node.role==manager", "j")), Revision::Tasks);
    }
}
