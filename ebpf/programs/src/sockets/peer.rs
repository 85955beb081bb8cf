//! The peer's name, as the application knows it.
use aya_ebpf::programs::SockAddrContext;
use shoal_maps::Address;

use crate::{
    maps::SOCKETS,
    sockets::{self, ALLOW, Family},
};

/// `getpeername()` gives the VIP the socket was connected to.
#[inline(always)]
pub(crate) fn name(ctx: &SockAddrContext, family: Family) -> i32 {
    if let Some(vip) = vip_of(ctx, family) {
        sockets::set_address(ctx, family, &vip);
    }
    ALLOW
}

/// The VIP of a connected socket, when the address of the call is the backend it was given.
#[inline(always)]
pub(crate) fn vip_of(ctx: &SockAddrContext, family: Family) -> Option<Address> {
    // SAFETY: the socket of the call; null when it never was connected through a VIP.
    let record = unsafe { SOCKETS.get_ptr_mut(ctx) };
    if record.is_null() {
        return None;
    }
    // SAFETY: not null; plain integers.
    let record = unsafe { *record };
    let same = record.task != 0
        && record.backend == sockets::address(ctx, family)
        && record.port == sockets::port(ctx);
    same.then_some(record.vip)
}
