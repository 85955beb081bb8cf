//! Choice of a backend: two random candidates for VIPs, Maglev for published ports.
use aya_ebpf::helpers::bpf_get_prandom_u32;
use shoal_maps::{Backend, BackendKey, IngressTask, MAGLEV_SIZE, PublishedPort, Vip};

use crate::{
    maps::{MAGLEV, found},
    packet::{Packet, TCP},
    retry,
};

/// Slots looked at after the two candidates when neither is fit.
const FURTHER: u32 = 8;
/// How fit a backend is for a new connection; less is better.
const FIT: u32 = 0;
const EJECTED: u32 = 1;
const EXCLUDED: u32 = 2;

/// What a backend is chosen for.
#[derive(Clone, Copy)]
pub(crate) struct Wanted {
    /// IP protocol.
    pub(crate) protocol: u8,
    /// Port of the service.
    pub(crate) port: [u8; 2],
    /// A task not to be chosen, or 0.
    pub(crate) excluded: u64,
}

/// The less loaded of two random backends (Mitzenmacher, "The power of two choices", 2001), or none
/// when the VIP has none. A backend that refused a connection to the wanted port of late is taken only
/// for want of a better one, an excluded one never.
#[inline(always)]
pub(crate) fn less_loaded(vip: &Vip, wanted: &Wanted) -> Option<&'static Backend> {
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
    let fitness = |backend: &Backend| fitness(backend, wanted);
    let (mut best, mut least) = match (backend(vip, first), backend(vip, second)) {
        (Some(a), Some(b)) => {
            let (of_a, of_b) = (fitness(a), fitness(b));
            if of_b < of_a || (of_b == of_a && load(b.task) < load(a.task)) {
                (b, of_b)
            } else {
                (a, of_a)
            }
        }
        (Some(one), None) | (None, Some(one)) => (one, fitness(one)),
        // Both slots were being taken away: the first goes last.
        (None, None) => {
            let one = backend(vip, 0)?;
            (one, fitness(one))
        }
    };
    if least != FIT {
        for step in 0..FURTHER {
            if let Some(other) = backend(vip, (second + 1 + step) % count) {
                let of_other = fitness(other);
                if of_other < least {
                    (best, least) = (other, of_other);
                }
            }
        }
    }
    (least < EXCLUDED).then_some(best)
}

#[inline(always)]
fn fitness(backend: &Backend, wanted: &Wanted) -> u32 {
    if backend.task == wanted.excluded {
        EXCLUDED
    } else if wanted.protocol == TCP && retry::is_ejected(backend.task, wanted.port) {
        EJECTED
    } else {
        FIT
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
pub(crate) fn below(bound: u32) -> u32 {
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
