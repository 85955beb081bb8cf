//! Choice of a backend: two random candidates for VIPs, Maglev for published ports.
use aya_ebpf::helpers::bpf_get_prandom_u32;
use shoal_maps::{Backend, BackendKey, IngressTask, MAGLEV_SIZE, PublishedPort, Vip};

use crate::{
    maps::{MAGLEV, found},
    packet::Packet,
};

/// The less loaded of two random backends (Mitzenmacher, "The power of two choices", 2001), or none
/// when the VIP has none.
#[inline(always)]
pub(crate) fn less_loaded(vip: &Vip) -> Option<&'static Backend> {
    let count = vip.count;
    if count == 0 {
        return None;
    }
    let first = below(count);
    let second = match count {
        1 => first,
        // Distinct from the first: one of the others, counted on from it.
        _ => (first + 1 + below(count - 1)) % count,
    };
    match (backend(vip, first), backend(vip, second)) {
        (Some(a), Some(b)) => Some(if load(b.task) < load(a.task) { b } else { a }),
        (Some(one), None) | (None, Some(one)) => Some(one),
        // Both slots were being taken away: the first goes last.
        (None, None) => backend(vip, 0),
    }
}

/// Open connections first; where they are equal the past ones, so that short connections one after
/// another spread evenly too.
#[inline(always)]
fn load(task: u64) -> (i64, u64) {
    found!(BACKEND_STATS, &task).map_or((0, 0), |stats| (stats.active, stats.connections))
}

#[inline(always)]
fn backend(vip: &Vip, slot: u32) -> Option<&'static Backend> {
    let key = BackendKey { service: vip.service, network: vip.network, slot, pad: 0 };
    found!(BACKENDS, &key)
}

/// A random number below `bound`, which is not zero.
#[inline(always)]
fn below(bound: u32) -> u32 {
    // SAFETY: no arguments, no effects.
    let random = unsafe { bpf_get_prandom_u32() };
    ((u64::from(random) * u64::from(bound)) >> 32) as u32
}

/// The task a client's flow to a published port belongs to (Eisenbud et al., "Maglev", 2016), with
/// its key in `INGRESS_TASKS`. The node's own address is left out of the hash: a flow reaches the
/// same task through whichever node it comes.
#[inline(always)]
pub(crate) fn maglev(
    port: &PublishedPort,
    packet: &Packet<'_>,
) -> Option<(u32, &'static IngressTask)> {
    if port.backends == 0 {
        return None;
    }
    let key = *MAGLEV.get(port.maglev.wrapping_add(hash(packet) % MAGLEV_SIZE))?;
    Some((key, found!(INGRESS_TASKS, &key)?))
}

/// The same on every node, whatever its byte order.
#[inline(always)]
fn hash(packet: &Packet<'_>) -> u32 {
    let a = &packet.source.0;
    let high = u64::from_be_bytes([a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7]]);
    let low = u64::from_be_bytes([a[8], a[9], a[10], a[11], a[12], a[13], a[14], a[15]]);
    let ports = u64::from(u16::from_be_bytes(packet.source_port)) << 24
        | u64::from(u16::from_be_bytes(packet.destination_port)) << 8
        | u64::from(packet.protocol);
    mix(mix(mix(high) ^ low) ^ ports) as u32
}

/// The finalizer of SplitMix64 (Steele, Lea, Flood, 2014): every bit depends on every other.
#[inline(always)]
pub(crate) fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
