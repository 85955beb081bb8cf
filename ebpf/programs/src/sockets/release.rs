//! The end of a socket.
use aya_ebpf::{helpers::generated::bpf_sk_storage_get, programs::SockContext};
use shoal_maps::SocketVip;

use crate::{counters, maps::SOCKETS, sockets::ALLOW};

/// Gives a closed socket's connection back to its backend's count.
#[inline(always)]
pub(crate) fn handle(ctx: &SockContext) -> i32 {
    // SAFETY: the map and the socket of this call; without flags it only looks.
    let record = unsafe {
        bpf_sk_storage_get(
            (&raw const SOCKETS).cast_mut().cast(),
            ctx.sock.cast(),
            core::ptr::null_mut(),
            0,
        )
    };
    if !record.is_null() {
        // SAFETY: not null, of the map's value type; nobody else holds a socket that is closed.
        give_back(unsafe { &mut *record.cast::<SocketVip>() });
    }
    ALLOW
}

/// Takes the socket off its backend's open connections, once.
#[inline(always)]
pub(crate) fn give_back(record: &mut SocketVip) {
    if record.task != 0 {
        counters::active(record.task, -1);
        record.task = 0;
    }
}
