//! UDP without `connect()`: each datagram names its destination.
use aya_ebpf::{EbpfContext, helpers::generated::bpf_get_socket_cookie, programs::SockAddrContext};
use shoal_maps::{UdpForward, UdpForwardKey, UdpReverse, UdpReverseKey};

use crate::{
    counters,
    maps::{UDP_FORWARD, UDP_REVERSE, found},
    packet::UDP,
    sockets::{self, ALLOW, Family, peer, refuse},
};

/// Replaces a VIP by the backend this socket uses for it, chosen with the first datagram.
#[inline(always)]
pub(crate) fn send(ctx: &SockAddrContext, family: Family) -> i32 {
    let address = sockets::address(ctx, family);
    let Some(vip) = found!(VIPS, &address) else { return ALLOW };
    let (socket, port) = (cookie(ctx), sockets::port(ctx));
    let key = UdpForwardKey { socket, vip: address, port, pad: [0; 6] };
    let known = found!(UDP_FORWARD, &key).copied().filter(is_backend);
    let forward = match known {
        Some(forward) => forward,
        None => match sockets::backend(ctx, vip, UDP) {
            Ok(backend) => {
                let forward = UdpForward { backend: backend.address, task: backend.task };
                // Fails only for want of memory: then the next datagram chooses again.
                let _ = UDP_FORWARD.insert(&key, &forward, 0);
                counters::connection(backend.task);
                forward
            }
            Err(why) => return refuse(why),
        },
    };
    let answer = UdpReverseKey { socket, backend: forward.backend, port, pad: [0; 6] };
    // The two tables evict by themselves, so the answer's entry is looked after each time.
    if found!(UDP_REVERSE, &answer).is_none_or(|reverse| reverse.vip != address) {
        let _ = UDP_REVERSE.insert(&answer, &UdpReverse { vip: address }, 0);
    }
    sockets::set_address(ctx, family, &forward.backend);
    ALLOW
}

/// Gives the VIP as the source of a backend's answer.
#[inline(always)]
pub(crate) fn receive(ctx: &SockAddrContext, family: Family) -> i32 {
    if let Some(vip) = peer::vip_of(ctx, family) {
        sockets::set_address(ctx, family, &vip);
        return ALLOW;
    }
    let key = UdpReverseKey {
        socket: cookie(ctx),
        backend: sockets::address(ctx, family),
        port: sockets::port(ctx),
        pad: [0; 6],
    };
    if let Some(reverse) = found!(UDP_REVERSE, &key) {
        sockets::set_address(ctx, family, &reverse.vip);
    }
    ALLOW
}

/// Whether the backend may still be used: user space keeps statistics of backends only, and an
/// endpoint for every task that can be reached.
#[inline(always)]
fn is_backend(forward: &UdpForward) -> bool {
    found!(BACKEND_STATS, &forward.task).is_some() && found!(ENDPOINTS, &forward.backend).is_some()
}

#[inline(always)]
fn cookie(ctx: &SockAddrContext) -> u64 {
    // SAFETY: the context is valid for the run of the program.
    unsafe { bpf_get_socket_cookie(ctx.as_ptr()) }
}
