//! Why packets were dropped.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
};

/// Adds to a counter that only one thread writes: cheaper than a locked addition.
pub(crate) fn add(counter: &AtomicU64, n: u64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
}

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident = $text:literal,)+) => {
        /// Why the engine dropped a packet.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum DropReason { $($(#[doc = $doc])+ $name,)+ }

        impl DropReason {
            /// Every reason, in the order of declaration.
            pub const ALL: &[DropReason] = &[$(DropReason::$name,)+];

            /// The name under which it is counted.
            pub fn name(self) -> &'static str {
                match self { $(DropReason::$name => $text,)+ }
            }
        }
    };
}

reasons! {
    /// To the network: no peer's allowed IPs hold the destination.
    NoPeer = "no_peer",
    /// To the network: the peer's address is not known.
    NoEndpoint = "no_endpoint",
    /// To the network: as many packets as may wait for a handshake were waiting.
    QueueFull = "queue_full",
    /// To the network: the packet waited for a handshake that was never answered.
    NoAnswer = "no_answer",
    /// To the network: the kernel refused the datagram (no route, full buffer, …).
    SendFailed = "send_failed",
    /// From the network: the inner source address is not among the sending peer's allowed IPs.
    SourceNotAllowed = "source_not_allowed",
    /// Either way: not an IP packet, a WireGuard message or a virtio header that makes sense.
    Malformed = "malformed",
    /// From the network: a handshake by a key that is no peer's.
    UnknownPeer = "unknown_peer",
    /// From the network: for a session we do not have, for instance from before a restart.
    UnknownSession = "unknown_session",
    /// From the network: the cryptographic check failed.
    NotAuthentic = "not_authentic",
    /// From the network: seen before, or too old to tell.
    Replayed = "replayed",
    /// From the network: too many handshakes at once; the sender was asked to prove its address.
    UnderLoad = "under_load",
    /// To the kernel: it refused the packet, for instance because the link is down.
    DeviceRefused = "device_refused",
}

/// One counter for each reason, written by one lane.
#[derive(Default)]
pub(crate) struct Drops([AtomicU64; DropReason::ALL.len()]);

impl Drops {
    pub(crate) fn count(&self, reason: DropReason, packets: u64) {
        add(&self.0[reason as usize], packets);
    }

    /// Adds the counts to `totals`, by name.
    pub(crate) fn add_to(&self, totals: &mut BTreeMap<&'static str, u64>) {
        for &reason in DropReason::ALL {
            *totals.entry(reason.name()).or_default() +=
                self.0[reason as usize].load(Ordering::Relaxed);
        }
    }
}
