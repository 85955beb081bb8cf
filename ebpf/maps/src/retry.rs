//! Connections through a VIP that their backend refuses.
use crate::Address;

/// Value of map `ATTEMPTS` (LRU hash, key [`crate::FlowKey`] from the client to the backend): the
/// SYN of a socket connected through a VIP. Taken out when it is refused.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Attempt {
    /// The VIP the application asked for.
    pub vip: Address,
    /// The SYN's sequence number.
    pub sequence: u32,
    /// Zero.
    pub pad: u32,
}

/// Key of map `EJECTED` (LRU hash, value `u64`: monotonic time until which, ns): a backend that
/// refused a connection; others are preferred for new ones.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct EjectedKey {
    /// The task.
    pub task: u64,
    /// TCP port, network order bytes.
    pub port: [u8; 2],
    /// Zero.
    pub pad: [u8; 6],
}
