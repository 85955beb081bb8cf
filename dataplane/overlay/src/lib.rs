//! The engine behind the overlay device `shoal0`: WireGuard in user space over a TUN.
//!
//! ```text
//!  kernel ── super-packet ─▶ TUN ─▶ segment ─▶ route ─▶ session (encrypt) ─▶ batch ─▶ UDP_SEGMENT
//!  kernel ◀─ super-packet ── TUN ◀─ coalesce ◀─ source check ◀─ session (decrypt) ◀── UDP_GRO
//! ```
//!
//! The work is done by [lanes](lane): a lane is one thread that owns one TUN queue, one UDP socket
//! and one boringtun `Tunn` per peer. Lanes share nothing with each other; what they share with the
//! engine are counters, and a bounded channel through which a new peer table reaches them. Today
//! there is one lane.
//!
//! Routing is WireGuard's: the destination of a packet chooses the peer whose allowed IPs hold it,
//! and a packet from a peer is only let in if its source is among that peer's allowed IPs. So a
//! source address that arrives through the tunnel is proven.
//!
//! A peer that was sent something and gives no sign of life for half a second is silent: [`Engine::silent`].
//! What follows from that is others' business.
//!
//! Addresses, MTU, routes and the state of the link are set by others. They should leave the
//! device's own `gso_max_size` alone: the kernel would cut larger super-packets, which eBPF redirects
//! into the device, in software. Where the packets are made is the place, see [`GSO_MAX_SIZE`].

mod address;
mod batch;
mod checksum;
mod coalesce;
mod drops;
mod echo;
mod engine;
mod error;
mod key;
mod lane;
mod liveness;
mod peer;
mod peers;
mod roster;
mod routes;
#[cfg(test)]
mod samples;
mod segment;
mod session;
mod tun;
mod udp;
mod vnet;

pub use drops::DropReason;
pub use echo::Ends;
pub use engine::{Engine, EngineConfig, UserspaceEngine};
pub use error::{KeyError, OverlayError};
pub use key::{PrivateKey, decode_public_key, encode_public_key, load_or_create_key};
pub use peer::{EngineStatus, Peer, PeerStatus};
pub use roster::{MAX_ALLOWED_IPS, MAX_PEERS};

/// Bytes to which `gso_max_size` (and `gso_ipv4_max_size`) of the containers' own devices may be
/// set: a super-packet of this size still fits one `UDP_SEGMENT` send (65,507 bytes) after each of
/// its segments has grown by WireGuard's 32 bytes at an MTU of 1420. Larger ones work, at the price
/// of a second send.
pub const GSO_MAX_SIZE: u32 = 62_000;
