//! What a network may ask for.
use super::{Verdict, absent, check, name};
use shoal_model::{ControlError, docker};

/// Checks a network's specification as far as it can be seen by itself.
pub(crate) fn network(spec: &docker::NetworkCreateRequest) -> Verdict {
    name(&spec.name)?;
    if ["host", "bridge", "none"].contains(&spec.name.as_str()) {
        let text = format!("operation is not permitted on predefined {} network", spec.name);
        return Err(ControlError::new(shoal_model::ErrorKind::PermissionDenied, text));
    }
    let driver = spec.driver.as_deref().unwrap_or_default();
    absent(!["", "overlay"].contains(&driver), &format!("the network driver {driver:?}"))?;
    if spec.ingress == Some(true) {
        let text = |what| format!("ingress network {} cannot be {what}", spec.name);
        check(spec.attachable != Some(true), text("attachable: it is for published ports"))?;
        check(spec.internal != Some(true), text("internal: it is reached from outside"))?;
    }
    absent(spec.config_only == Some(true), "ConfigOnly")?;
    let from = spec.config_from.as_ref().and_then(|c| c.network.as_deref()).unwrap_or_default();
    absent(!from.is_empty(), "ConfigFrom")?;
    absent(spec.enable_ipv4 == Some(false), "EnableIPv4 false")?;
    let ipam = spec.ipam.as_ref();
    let driver = ipam.and_then(|i| i.driver.as_deref()).unwrap_or_default();
    absent(!["", "default"].contains(&driver), &format!("the IPAM driver {driver:?}"))?;
    for config in ipam.and_then(|i| i.config.as_deref()).unwrap_or_default() {
        absent(config.ip_range.as_ref().is_some_and(|r| !r.is_empty()), "IPAM.Config.IPRange")?;
        let auxiliary = config.auxiliary_addresses.as_ref().is_some_and(|a| !a.is_empty());
        absent(auxiliary, "IPAM.Config.AuxiliaryAddresses")?;
        gateway(config)?;
    }
    Ok(())
}

/// The gateway is always the subnet's first host address.
fn gateway(config: &docker::IpamConfig) -> Verdict {
    let set = |text: &Option<String>| text.clone().filter(|t| !t.is_empty());
    let Some(gateway) = set(&config.gateway) else { return Ok(()) };
    let subnet = set(&config.subnet).unwrap_or_default();
    let first = match subnet.parse() {
        Ok(ipnetwork::IpNetwork::V4(net)) => net.nth(1).map(|a| a.to_string()),
        Ok(ipnetwork::IpNetwork::V6(net)) => net.iter().nth(1).map(|a| a.to_string()),
        Err(_) => None,
    };
    absent(
        first.as_ref() != Some(&gateway),
        &format!(
            "the gateway {gateway} (it is the first address of the subnet, which must be given)"
        ),
    )
}
