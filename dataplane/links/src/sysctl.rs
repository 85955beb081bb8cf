//! Kernel settings below `/proc/sys/net`, of the calling thread's network namespace.
//!
//! Inside a container's namespace:
//! - `rp_filter` off: a request through the routing mesh arrives with its client's own address, for
//!   which a container with several networks may have another way back.
//! - `accept_ra`, `autoconf` off: addresses and routes come from the cluster only.
//! - duplicate address detection off: the cluster allocates addresses, and detection would hold
//!   back a container's first packets for a second.
//! - `ip_unprivileged_port_start`, `ping_group_range`: as Docker gives its containers, so that an
//!   unprivileged process may serve port 80 and ping.
//!
//! On the host's end of a veth: IPv6 off, so that the host neither listens there nor sends router
//! solicitations into a container. On the overlay device: no link-local address, for the same
//! reason. Nothing else of the host is changed.
use crate::LinksError;
use std::{fs, io, path::Path};

/// Settings of a container's namespace; `default` before a device exists, so that it is born so.
const CONTAINER: [(&str, &str); 10] = [
    ("ipv4/conf/all/rp_filter", "0"),
    ("ipv4/conf/default/rp_filter", "0"),
    ("ipv4/ip_unprivileged_port_start", "0"),
    ("ipv4/ping_group_range", "0 2147483647"),
    ("ipv6/conf/all/accept_dad", "0"),
    ("ipv6/conf/default/accept_dad", "0"),
    ("ipv6/conf/all/accept_ra", "0"),
    ("ipv6/conf/default/accept_ra", "0"),
    ("ipv6/conf/default/autoconf", "0"),
    ("ipv6/conf/all/disable_ipv6", "0"),
];

/// Sets what a container's namespace needs. Call it in that namespace.
pub(crate) fn set_container() -> Result<(), LinksError> {
    CONTAINER.iter().try_for_each(|(key, value)| set(key, value))
}

/// Sets what the host's end of a veth needs.
pub(crate) fn set_host_veth(ifname: &str) -> Result<(), LinksError> {
    set(&format!("ipv6/conf/{ifname}/disable_ipv6"), "1")
}

/// Sets what the overlay device needs.
pub(crate) fn set_overlay(ifname: &str) -> Result<(), LinksError> {
    set(&format!("ipv6/conf/{ifname}/addr_gen_mode"), "1")
}

/// Whether this kernel has IPv6: it may be built or booted without.
pub fn has_ipv6() -> bool {
    Path::new("/proc/sys/net/ipv6").exists()
}

/// Writes one setting. A kernel without IPv6 has nothing to be set there.
fn set(key: &str, value: &str) -> Result<(), LinksError> {
    match fs::write(Path::new("/proc/sys/net").join(key), value) {
        Err(e)
            if e.kind() == io::ErrorKind::NotFound && key.starts_with("ipv6/") && !has_ipv6() =>
        {
            Ok(())
        }
        Err(source) => {
            Err(LinksError::Sysctl { key: format!("net/{key}"), value: value.into(), source })
        }
        Ok(()) => Ok(()),
    }
}
