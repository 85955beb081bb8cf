//! Generic resources: what tasks ask for, and which of a node's they are given.
use shoal_model::{
    GenericResource, Load, Node,
    bugs::{self, Bug},
    docker,
};
use std::collections::BTreeMap;

/// How many of each kind a task asks for.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Generic(BTreeMap<String, i64>);

impl Generic {
    /// What a template reserves. One can ask for a number only, not for names.
    pub(crate) fn of(spec: &docker::TaskSpec) -> Generic {
        let asked = spec.resources.as_ref().and_then(|r| r.reservations.as_ref());
        let asked = asked.and_then(|r| r.generic_resources.as_deref()).unwrap_or_default();
        let mut kinds = BTreeMap::new();
        for resource in asked.iter().filter_map(|r| r.discrete_resource_spec.as_ref()) {
            let value = resource.value.unwrap_or(0).max(0);
            let kind: &mut i64 =
                kinds.entry(resource.kind.clone().unwrap_or_default()).or_default();
            *kind = kind.saturating_add(value);
        }
        kinds.retain(|_, value| *value > 0);
        Generic(kinds)
    }

    /// Whether the node has as many left.
    pub(crate) fn fits(&self, node: &Node, load: &Load) -> bool {
        self.0.iter().all(|(kind, asked)| {
            let named = i64::try_from(free_names(node, load, kind).count()).unwrap_or(i64::MAX);
            named >= *asked
                || free_number(node, load, kind) >= *asked
                || bugs::active(Bug::OvercommitGeneric)
        })
    }

    /// What a node that has enough gives: its first free names, or a number where it has no names.
    pub(crate) fn claim(&self, node: &Node, load: &Load) -> Vec<GenericResource> {
        let mut given = Vec::new();
        for (kind, asked) in &self.0 {
            let wanted = usize::try_from(*asked).unwrap_or(usize::MAX);
            let names: Vec<&str> = free_names(node, load, kind).take(wanted).collect();
            if names.len() == wanted {
                given.extend(names.into_iter().map(|name| GenericResource::Named {
                    kind: kind.clone(),
                    value: name.to_owned(),
                }));
            } else {
                given.push(GenericResource::Discrete { kind: kind.clone(), value: *asked });
            }
        }
        given
    }
}

fn resources(node: &Node) -> &[GenericResource] {
    node.description.as_ref().map_or(&[], |d| &d.generic_resources)
}

fn free_names<'a>(node: &'a Node, load: &'a Load, kind: &'a str) -> impl Iterator<Item = &'a str> {
    resources(node).iter().filter_map(move |resource| match resource {
        GenericResource::Named { kind: k, value }
            if k == kind && !load.named.contains_key(&(k.clone(), value.clone())) =>
        {
            Some(value.as_str())
        }
        _ => None,
    })
}

fn free_number(node: &Node, load: &Load, kind: &str) -> i64 {
    let has = resources(node).iter().map(|resource| match resource {
        GenericResource::Discrete { kind: k, value } if k == kind => *value,
        _ => 0,
    });
    has.sum::<i64>().saturating_sub(load.discrete.get(kind).copied().unwrap_or(0))
}
