//! Nodes.
use super::{generic_resources, swarm::Roots, value, version};
use crate::times::rfc3339;
use serde_json::Value;
use shoal_model::{Availability, Node, NodeState, Plugin, Role, docker};

/// A node as `GET /nodes/{id}` answers it. `leader` is the id of the leading manager.
pub(crate) fn node(node: &Node, roots: &Roots, leader: Option<&str>) -> Value {
    let description = node.description.as_ref().map(|d| docker::NodeDescription {
        hostname: Some(d.hostname.clone()),
        platform: Some(docker::Platform {
            architecture: Some(d.architecture.clone()),
            os: Some(d.os.clone()),
        }),
        resources: Some(docker::ResourceObject {
            nano_cpus: Some(d.nano_cpus),
            memory_bytes: Some(d.memory_bytes),
            generic_resources: generic_resources(&d.generic_resources),
        }),
        engine: Some(docker::EngineDescription {
            engine_version: Some(d.engine_version.clone()),
            labels: (!d.engine_labels.is_empty())
                .then(|| d.engine_labels.clone().into_iter().collect()),
            plugins: (!d.plugins.is_empty()).then(|| d.plugins.iter().map(plugin).collect()),
        }),
        // There in any case, as Docker has it.
        tls_info: Some(node.tls.as_ref().map(|tls| roots.tls_info(tls)).unwrap_or_default()),
    });
    value(&docker::Node {
        id: Some(node.id.clone()),
        version: version(&node.meta),
        created_at: Some(rfc3339(node.meta.created)),
        updated_at: Some(rfc3339(node.meta.updated)),
        spec: Some(spec(node)),
        // The client reads fields of the description without asking whether it is there.
        description: Some(description.unwrap_or_default()),
        status: Some(docker::NodeStatus {
            state: Some(node_state(node.status.state)),
            message: Some(node.status.message.clone()).filter(|m| !m.is_empty()),
            addr: Some(node.status.addr.clone()),
        }),
        manager_status: manager_status(node, leader),
    })
}

fn plugin(plugin: &Plugin) -> docker::EngineDescriptionPlugins {
    docker::EngineDescriptionPlugins {
        typ: Some(plugin.kind.as_str().to_owned()),
        name: Some(plugin.name.clone()),
    }
}

fn spec(node: &Node) -> docker::NodeSpec {
    docker::NodeSpec {
        name: (!node.name.is_empty()).then(|| node.name.clone()),
        labels: Some(node.labels.clone().into_iter().collect()),
        role: Some(match node.role {
            Role::Worker => docker::NodeSpecRoleEnum::WORKER,
            Role::Manager => docker::NodeSpecRoleEnum::MANAGER,
        }),
        availability: Some(match node.availability {
            Availability::Active => docker::NodeSpecAvailabilityEnum::ACTIVE,
            Availability::Pause => docker::NodeSpecAvailabilityEnum::PAUSE,
            Availability::Drain => docker::NodeSpecAvailabilityEnum::DRAIN,
        }),
    }
}

pub(crate) fn node_state(state: NodeState) -> docker::NodeState {
    match state {
        NodeState::Unknown => docker::NodeState::UNKNOWN,
        NodeState::Down => docker::NodeState::DOWN,
        NodeState::Ready => docker::NodeState::READY,
        NodeState::Disconnected => docker::NodeState::DISCONNECTED,
    }
}

pub(crate) fn manager_status(node: &Node, leader: Option<&str>) -> Option<docker::ManagerStatus> {
    let addr = node.manager_addr.clone().filter(|_| node.role == Role::Manager)?;
    let reachable = node.status.state == NodeState::Ready;
    Some(docker::ManagerStatus {
        leader: (leader == Some(node.id.as_str())).then_some(true),
        reachability: Some(if reachable {
            docker::Reachability::REACHABLE
        } else {
            docker::Reachability::UNREACHABLE
        }),
        addr: Some(addr),
    })
}
