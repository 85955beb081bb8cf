//! Links, routes, neighbours and network namespaces over netlink.
//!
//! A container has a network namespace of its own ([`NetNs`]) and one veth pair ([`Links::plug`]).
//! [`Links`] speaks netlink in the namespace it was made in: it owns one spawned task that serves
//! its socket and ends when the last clone of the handle is dropped.
//!
//! What this crate deliberately does not do: it turns on no forwarding and relaxes no `rp_filter` of
//! the host. Packets of containers never pass the host's IP stack: the programs on the veths, on the
//! overlay device and on the uplink hand them on by redirects, which look up routes and neighbours
//! for output only. The few settings changed are those of devices made here ([`sysctl`]).
mod device;
mod error;
mod host;
mod links;
mod netns;
mod plug;
pub mod sysctl;

pub use error::LinksError;
pub use host::{AdvertiseError, HostAddress, Uplink, choose_advertise_address};
pub use links::Links;
pub use netns::{NetNs, namespaces};
pub use plug::{Attachment, MAX_NETWORKS, PlugSpec, Plugged, VETH_PREFIX, host_ifname};
pub use sysctl::has_ipv6;
