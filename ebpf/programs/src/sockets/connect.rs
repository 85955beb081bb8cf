//! `connect()`: TCP, and UDP that connects.
use aya_ebpf::programs::SockAddrContext;
use shoal_maps::SocketVip;

use crate::{
    counters,
    maps::{SOCKETS, found},
    packet::{TCP, UDP},
    sockets::{self, ALLOW, Family, refuse, release},
};

/// Replaces a VIP by a backend and remembers both with the socket.
#[inline(always)]
pub(crate) fn handle(ctx: &SockAddrContext, family: Family) -> i32 {
    // SAFETY: a field of the context.
    let protocol = unsafe { (&raw const (*ctx.sock_addr).protocol).read_volatile() };
    if protocol != u32::from(TCP) && protocol != u32::from(UDP) {
        // A ping socket has to reach the VIP itself.
        return ALLOW;
    }
    // SAFETY: the socket of the call; null when it never was connected through a VIP.
    let known = unsafe { SOCKETS.get_ptr_mut(ctx) };
    if !known.is_null() {
        // SAFETY: not null, and the socket is locked by its own system call.
        release::give_back(unsafe { &mut *known });
    }
    let address = sockets::address(ctx, family);
    let Some(vip) = found!(VIPS, &address) else { return ALLOW };
    let backend = match sockets::backend(ctx, vip, protocol as u8) {
        Ok(backend) => backend,
        Err(why) => return refuse(why),
    };
    // SAFETY: as above, but made when missing.
    let record = unsafe { SOCKETS.get_or_insert_ptr_mut(ctx, None) };
    counters::connection(backend.task);
    // Only for want of memory: then the peer is reported as the backend, and the connection is not
    // counted as open, since it could never be given back.
    if !record.is_null() {
        let value = SocketVip {
            vip: address,
            backend: backend.address,
            task: backend.task,
            port: sockets::port(ctx),
            pad: [0; 6],
        };
        // SAFETY: not null, locked as above.
        unsafe { *record = value };
        counters::active(backend.task, 1);
    }
    sockets::set_address(ctx, family, &backend.address);
    ALLOW
}
