//! Networks.
use super::Refusal;
use shoal_cores::{allocate_subnet, attachments, network_of};
use shoal_model::{Meta, Network, State, TaskState, docker};

pub(super) fn create(
    state: &State,
    name: &str,
    ipv6: bool,
    subnet: Option<&str>,
    id: String,
) -> Result<Network, Refusal> {
    let config = docker::IpamConfig { subnet: subnet.map(str::to_owned), ..Default::default() };
    let ipam = docker::Ipam { config: Some(vec![config]), ..Default::default() };
    let spec = docker::NetworkCreateRequest {
        name: name.to_owned(),
        enable_ipv6: Some(ipv6),
        ipam: subnet.is_some().then_some(ipam),
        ..Default::default()
    };
    if state.network_named(name).is_some() {
        return Err(Refusal::Other);
    }
    let (subnet, subnet6) = allocate_subnet(state, &spec).map_err(|_| Refusal::Other)?;
    Ok(Network { id, meta: Meta::default(), spec, ingress: false, subnet, subnet6 })
}

/// Whether a service names the network, or a task that is wanted has an address there.
pub(super) fn is_used(state: &State, network: &Network) -> bool {
    let here = |a: &docker::NetworkAttachmentConfig| {
        network_of(state, a).is_some_and(|n| n.id == network.id)
    };
    let wanted =
        |t: &&shoal_model::Task| t.desired <= TaskState::Running && !t.status.state.is_terminal();
    state.services.values().any(|s| attachments(&s.spec).iter().any(here))
        || state
            .tasks
            .values()
            .filter(wanted)
            .any(|t| t.networks.iter().any(|n| n.network_id == network.id))
}
