//! Readings of Docker's specifications, with Docker's defaults for what is not said.
use shoal_model::{EndpointState, HostPort, Network, State, docker, port_wishes, protocol_number};
use std::time::Duration;

/// Networks a service is attached to: those of the task template, else the older field's.
pub fn attachments(spec: &docker::ServiceSpec) -> &[docker::NetworkAttachmentConfig] {
    let of_template = spec.task_template.as_ref().and_then(|t| t.networks.as_deref());
    of_template.filter(|list| !list.is_empty()).or(spec.networks.as_deref()).unwrap_or_default()
}

/// The network an attachment names, by id or by name.
pub fn network_of<'a>(
    state: &'a State,
    attachment: &docker::NetworkAttachmentConfig,
) -> Option<&'a Network> {
    let target = attachment.target.as_deref()?;
    state.networks.get(target).or_else(|| state.network_named(target))
}

/// Whether the service gets virtual addresses (endpoint mode `vip`, the default).
pub fn uses_vip(spec: &docker::ServiceSpec) -> bool {
    let mode = spec.endpoint_spec.as_ref().and_then(|e| e.mode);
    mode != Some(docker::EndpointSpecModeEnum::DNSRR)
}

/// What a service has that asks for nothing the allocator gives: neither a published port nor a virtual
/// address. `None`: it has to wait for the allocator.
pub fn free_endpoint(spec: &docker::ServiceSpec) -> Option<EndpointState> {
    let addressed = uses_vip(spec) && !attachments(spec).is_empty();
    (!addressed && port_wishes(spec).is_empty()).then(EndpointState::default)
}

/// Ports a task of the service takes of its node (publish mode `host`), each once. One without a
/// number is chosen by the node and takes none of another's.
pub fn host_ports(spec: &docker::ServiceSpec) -> Vec<HostPort> {
    let ports = spec.endpoint_spec.as_ref().and_then(|e| e.ports.as_deref()).unwrap_or_default();
    let host = |p: &&docker::EndpointPortConfig| {
        p.publish_mode == Some(docker::EndpointPortConfigPublishModeEnum::HOST)
    };
    let port = |p: &docker::EndpointPortConfig| {
        let port = u16::try_from(p.published_port.unwrap_or(0)).ok().filter(|port| *port > 0)?;
        Some(HostPort { protocol: protocol_number(p.protocol), port })
    };
    let mut ports: Vec<HostPort> = ports.iter().filter(host).filter_map(port).collect();
    ports.sort();
    ports.dedup();
    ports
}

/// A duration in nanoseconds as Docker writes it; negative ones count as none.
pub(crate) fn nanos(value: i64) -> Duration {
    Duration::from_nanos(u64::try_from(value).unwrap_or(0))
}
