//! The cluster's state in Docker's JSON. Pure.
pub(crate) mod canonical;
pub(crate) mod containers;
pub(crate) mod dependencies;
pub(crate) mod networks;
pub(crate) mod nodes;
pub(crate) mod services;
pub(crate) mod swarm;
pub(crate) mod tasks;

use serde_json::Value;
use shoal_model::{GenericResource, Meta, docker};

/// A model as JSON. Keys come out sorted, so that the same state always reads the same; whole floats
/// are written as Go writes them (`0`, not `0.0`).
fn value(model: &impl serde::Serialize) -> Value {
    go_numbers(serde_json::to_value(model).expect("models have string keys only"))
}

fn go_numbers(value: Value) -> Value {
    match value {
        Value::Number(n) => match n.as_f64() {
            Some(f) if n.is_f64() && f.fract() == 0.0 && f.abs() < 1e15 => (f as i64).into(),
            _ => Value::Number(n),
        },
        Value::Array(items) => items.into_iter().map(go_numbers).collect(),
        Value::Object(map) => map.into_iter().map(|(k, v)| (k, go_numbers(v))).collect(),
        other => other,
    }
}

/// Generic resources; `None` for none.
pub(crate) fn generic_resources(
    all: &[GenericResource],
) -> Option<Vec<docker::GenericResourcesInner>> {
    let one = |resource: &GenericResource| match resource {
        GenericResource::Discrete { kind, value } => docker::GenericResourcesInner {
            discrete_resource_spec: Some(docker::GenericResourcesInnerDiscreteResourceSpec {
                kind: Some(kind.clone()),
                value: Some(*value),
            }),
            named_resource_spec: None,
        },
        GenericResource::Named { kind, value } => docker::GenericResourcesInner {
            named_resource_spec: Some(docker::GenericResourcesInnerNamedResourceSpec {
                kind: Some(kind.clone()),
                value: Some(value.clone()),
            }),
            discrete_resource_spec: None,
        },
    };
    (!all.is_empty()).then(|| all.iter().map(one).collect())
}

fn version(meta: &Meta) -> Option<docker::ObjectVersion> {
    Some(docker::ObjectVersion { index: Some(meta.version) })
}
