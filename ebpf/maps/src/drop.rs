//! Why a packet was dropped.

/// Index into map `DROPS` (per-CPU array of `u64`).
#[repr(u32)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DropReason {
    /// Too short, or lengths that contradict each other.
    Malformed = 0,
    /// Neither IPv4 nor IPv6.
    NotIp = 1,
    /// The source address is not the container's own, or not the peer's.
    SpoofedSource = 2,
    /// The destination is in no network of the sender.
    OtherNetwork = 3,
    /// No endpoint and no VIP has this address.
    NoEndpoint = 4,
    /// The VIP has no backend.
    NoBackend = 5,
    /// An encapsulated packet made by a container, or for a task that is not here.
    BadEncapsulation = 6,
    /// A reply that belongs to no flow.
    NoFlow = 7,
    /// A fragment the per-packet path cannot place.
    Fragment = 8,
    /// A kernel helper refused (no room for a header, redirect failed).
    Helper = 9,
    /// Not an error: a backend's refusal withheld from a client that used its VIP, because the
    /// connection is being tried at another backend.
    Retried = 10,
}

/// Every reason with its label in metrics.
pub const DROP_REASONS: [(DropReason, &str); 11] = [
    (DropReason::Malformed, "malformed"),
    (DropReason::NotIp, "not_ip"),
    (DropReason::SpoofedSource, "spoofed_source"),
    (DropReason::OtherNetwork, "other_network"),
    (DropReason::NoEndpoint, "no_endpoint"),
    (DropReason::NoBackend, "no_backend"),
    (DropReason::BadEncapsulation, "bad_encapsulation"),
    (DropReason::NoFlow, "no_flow"),
    (DropReason::Fragment, "fragment"),
    (DropReason::Helper, "helper"),
    (DropReason::Retried, "syn_retried"),
];
