//! Use of the flow table.
use aya_ebpf::{
    bindings::BPF_NOEXIST, helpers::generated::bpf_ktime_get_coarse_ns, macros::map,
    maps::PerCpuArray,
};
use shoal_maps::{DropReason, Flow, FlowAction, FlowKey};

use crate::{Refusal, maps::FLOWS, packet::Packet};

/// A flow's time is written at most so often, so that its cache line is not fought over, ns.
const TOUCH_INTERVAL: u64 = 1_000_000_000;

/// Working memory of the packet programs: they run with softirqs off, one at a time on a CPU, and
/// their stack of 512 bytes is too small for this. Nothing in it outlives a run.
#[map]
static SCRATCH: PerCpuArray<Entry> = PerCpuArray::with_max_entries(1, 0);

/// An entry of the table, to be looked up or inserted.
#[repr(C)]
pub(crate) struct Entry {
    pub(crate) key: FlowKey,
    pub(crate) flow: Flow,
}

impl Entry {
    /// The entry of the packet's own direction. There is only one [`Entry`] at a time.
    #[inline(always)]
    pub(crate) fn of(packet: &Packet<'_>) -> Result<&'static mut Entry, Refusal> {
        let entry = Entry::scratch()?;
        entry.key = FlowKey {
            source: packet.source,
            destination: packet.destination,
            source_port: packet.source_port,
            destination_port: packet.destination_port,
            protocol: packet.protocol,
            pad: [0; 3],
        };
        Ok(entry)
    }

    /// The entry of the opposite direction.
    #[inline(always)]
    pub(crate) fn answering(packet: &Packet<'_>) -> Result<&'static mut Entry, Refusal> {
        let entry = Entry::scratch()?;
        entry.key = FlowKey {
            source: packet.destination,
            destination: packet.source,
            source_port: packet.destination_port,
            destination_port: packet.source_port,
            protocol: packet.protocol,
            pad: [0; 3],
        };
        Ok(entry)
    }

    /// Looks the flow up and marks it as used.
    #[inline(always)]
    pub(crate) fn find(&self) -> Option<&'static Flow> {
        let slot = FLOWS.get_ptr_mut(&self.key)?;
        let now = now();
        // SAFETY: plain integers: any bytes are a valid value. An entry that is evicted meanwhile
        // gets a time it does not care about.
        unsafe {
            if now.wrapping_sub((*slot).seen) > TOUCH_INTERVAL {
                (*slot).seen = now;
            }
            Some(&*slot)
        }
    }

    /// Inserts or replaces the flow. The table evicts what was not used for longest; an insertion
    /// can fail only for want of memory, and then the next packet of the flow tries again.
    #[inline(always)]
    pub(crate) fn put(&mut self) {
        self.flow.seen = now();
        let _ = FLOWS.insert(&self.key, &self.flow, 0);
    }

    /// Inserts the flow unless there is one; whether it did.
    #[inline(always)]
    pub(crate) fn put_new(&mut self) -> bool {
        self.flow.seen = now();
        FLOWS.insert(&self.key, &self.flow, u64::from(BPF_NOEXIST)).is_ok()
    }

    /// Removes the flow.
    #[inline(always)]
    pub(crate) fn remove(&self) {
        // Fails only when it is gone already.
        let _ = FLOWS.remove(&self.key);
    }

    /// Marks that the client has sent more than its SYN.
    #[inline(always)]
    pub(crate) fn establish(&self) {
        if let Some(slot) = FLOWS.get_ptr_mut(&self.key) {
            // SAFETY: one byte of a plain value; an entry evicted meanwhile does not mind.
            unsafe { (*slot).established = 1 }
        }
    }

    #[inline(always)]
    fn scratch() -> Result<&'static mut Entry, Refusal> {
        // An array's slot always exists; the verifier wants it asked all the same.
        let slot = SCRATCH.get_ptr_mut(0).ok_or(Refusal::Drop(DropReason::Helper))?;
        // SAFETY: this CPU's own, and only one is in use at a time.
        Ok(unsafe { &mut *slot })
    }
}

/// Whether the flow asks for an action.
#[inline(always)]
pub(crate) fn is(flow: &Flow, action: FlowAction) -> bool {
    flow.action == action as u32
}

/// Monotonic time, ns, as fine as the timer tick.
#[inline(always)]
pub(crate) fn now() -> u64 {
    // SAFETY: no arguments, no effects.
    unsafe { bpf_ktime_get_coarse_ns() }
}
