//! The cluster's state in Docker's JSON. Pure.
pub(crate) mod canonical;
pub(crate) mod containers;
pub(crate) mod networks;
pub(crate) mod nodes;
pub(crate) mod services;
pub(crate) mod swarm;
pub(crate) mod tasks;

use shoal_model::{Meta, docker};

/// A model as JSON. Keys come out sorted, so that the same state always reads the same.
fn value(model: &impl serde::Serialize) -> serde_json::Value {
    serde_json::to_value(model).expect("models have string keys only")
}

fn version(meta: &Meta) -> Option<docker::ObjectVersion> {
    Some(docker::ObjectVersion { index: Some(meta.version) })
}
