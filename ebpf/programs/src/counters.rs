//! Counters user space reads.
use core::arch::asm;

use shoal_maps::{DropReason, Traffic};

use crate::maps::{BACKEND_STATS, DROPS, TRAFFIC};

/// Counts a dropped packet.
#[inline(always)]
pub(crate) fn dropped(reason: DropReason) {
    if let Some(count) = DROPS.get_ptr_mut(reason as u32) {
        // SAFETY: this CPU's own slot, and programs of one CPU do not interrupt each other.
        unsafe { *count += 1 }
    }
}

/// Which way a packet goes, seen from the task.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// Delivered to it.
    Received,
    /// Accepted from it.
    Sent,
}

/// Counts a packet of `bytes` of a local task.
#[inline(always)]
pub(crate) fn traffic(task: u64, bytes: u32, way: Way) {
    let slot = match TRAFFIC.get_ptr_mut(&task) {
        Some(slot) => slot,
        None => {
            // Refused when the table is full: then the task goes uncounted, but not unserved.
            let _ = TRAFFIC.insert(&task, &Traffic::default(), 0);
            match TRAFFIC.get_ptr_mut(&task) {
                Some(slot) => slot,
                None => return,
            }
        }
    };
    // SAFETY: this CPU's own slot.
    let slot = unsafe { &mut *slot };
    match way {
        Way::Received => {
            slot.rx_packets += 1;
            slot.rx_bytes += u64::from(bytes);
        }
        Way::Sent => {
            slot.tx_packets += 1;
            slot.tx_bytes += u64::from(bytes);
        }
    }
}

/// Counts a connection sent to a backend, if user space keeps statistics of it.
#[inline(always)]
pub(crate) fn connection(task: u64) {
    if let Some(stats) = BACKEND_STATS.get_ptr_mut(&task) {
        // SAFETY: a field of a live entry.
        unsafe { add(&raw mut (*stats).connections, 1) }
    }
}

/// Adds to the connections a backend has open through sockets.
#[inline(always)]
pub(crate) fn active(task: u64, change: i64) {
    if let Some(stats) = BACKEND_STATS.get_ptr_mut(&task) {
        // SAFETY: a field of a live entry; two's complement, so the sign does not matter.
        unsafe { add((&raw mut (*stats).active).cast(), change as u64) }
    }
}

/// Adds atomically. Written out because the target is declared without compare-and-swap, for which
/// `core::sync::atomic` withholds every read-modify-write operation.
///
/// # Safety
///
/// `at` must be valid and aligned.
#[inline(always)]
unsafe fn add(at: *mut u64, value: u64) {
    // SAFETY: of the caller; the instruction touches nothing else.
    unsafe { asm!("lock *(u64 *)({at} + 0) += {value}", at = in(reg) at, value = in(reg) value) }
}
