//! VIPs at the socket: a connection's destination is chosen once, when the application asks for it,
//! and its packets then need no translation.
pub(crate) mod connect;
pub(crate) mod peer;
pub(crate) mod release;
pub(crate) mod udp;

use aya_ebpf::{
    EbpfContext,
    helpers::generated::{bpf_get_netns_cookie, bpf_set_retval},
    programs::SockAddrContext,
};
use shoal_maps::{Address, Backend, CallerKey, Vip};

use crate::{
    balance::{self, Wanted},
    maps::found,
};

/// The call goes on, with the address as it now is.
pub(crate) const ALLOW: i32 = 1;
const REFUSE: i32 = 0;
/// `include/uapi/asm-generic/errno.h`, x86 and ARM alike.
const ECONNREFUSED: i32 = 111;
const EHOSTUNREACH: i32 = 113;

/// Address family of the hook, hence of the address the application gave.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

/// Why a socket call is refused.
#[derive(Clone, Copy)]
pub(crate) enum Unreachable {
    /// The caller is not attached to the VIP's network.
    NotAttached,
    /// The service has no task that could answer.
    NoBackend,
}

/// Refuses the call with the error a network would give.
#[inline(always)]
pub(crate) fn refuse(why: Unreachable) -> i32 {
    let error = match why {
        Unreachable::NotAttached => EHOSTUNREACH,
        Unreachable::NoBackend => ECONNREFUSED,
    };
    // SAFETY: sets what the system call returns.
    unsafe { bpf_set_retval(-error) };
    REFUSE
}

/// Chooses a backend of a VIP for the caller.
#[inline(always)]
pub(crate) fn backend(
    ctx: &SockAddrContext,
    vip: &Vip,
    protocol: u8,
) -> Result<&'static Backend, Unreachable> {
    // SAFETY: the context is valid for the run of the program.
    let netns_cookie = unsafe { bpf_get_netns_cookie(ctx.as_ptr()) };
    let caller = CallerKey { netns_cookie, network: vip.network };
    if found!(CALLERS, &caller).is_none() {
        return Err(Unreachable::NotAttached);
    }
    let wanted = Wanted { protocol, port: port(ctx), excluded: 0 };
    balance::less_loaded(vip, &wanted).ok_or(Unreachable::NoBackend)
}

/// Reads the address of the call.
#[inline(always)]
pub(crate) fn address(ctx: &SockAddrContext, family: Family) -> Address {
    let call = ctx.sock_addr;
    // SAFETY: fields of the context, each read whole and by itself, as the verifier demands.
    unsafe {
        match family {
            Family::V4 => Address::v4((&raw const (*call).user_ip4).read_volatile().to_ne_bytes()),
            Family::V6 => {
                let a = (&raw const (*call).user_ip6[0]).read_volatile().to_ne_bytes();
                let b = (&raw const (*call).user_ip6[1]).read_volatile().to_ne_bytes();
                let c = (&raw const (*call).user_ip6[2]).read_volatile().to_ne_bytes();
                let d = (&raw const (*call).user_ip6[3]).read_volatile().to_ne_bytes();
                Address([
                    a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3], c[0], c[1], c[2], c[3], d[0],
                    d[1], d[2], d[3],
                ])
            }
        }
    }
}

/// Reads the port of the call.
#[inline(always)]
pub(crate) fn port(ctx: &SockAddrContext) -> [u8; 2] {
    // SAFETY: as above.
    let port = unsafe { (&raw const (*ctx.sock_addr).user_port).read_volatile() };
    // The port's two bytes come first in memory, in network order.
    let bytes = port.to_ne_bytes();
    [bytes[0], bytes[1]]
}

/// Writes the address of the call. A mapped address stays one in an IPv6 call; a real IPv6 address
/// cannot be told to an IPv4 one and leaves it as it is.
#[inline(always)]
pub(crate) fn set_address(ctx: &SockAddrContext, family: Family, address: &Address) {
    let call = ctx.sock_addr;
    let a = &address.0;
    // SAFETY: as above.
    unsafe {
        match family {
            Family::V4 if !address.is_v4() => {}
            Family::V4 => (&raw mut (*call).user_ip4)
                .write_volatile(u32::from_ne_bytes([a[12], a[13], a[14], a[15]])),
            Family::V6 => {
                (&raw mut (*call).user_ip6[0])
                    .write_volatile(u32::from_ne_bytes([a[0], a[1], a[2], a[3]]));
                (&raw mut (*call).user_ip6[1])
                    .write_volatile(u32::from_ne_bytes([a[4], a[5], a[6], a[7]]));
                (&raw mut (*call).user_ip6[2])
                    .write_volatile(u32::from_ne_bytes([a[8], a[9], a[10], a[11]]));
                (&raw mut (*call).user_ip6[3])
                    .write_volatile(u32::from_ne_bytes([a[12], a[13], a[14], a[15]]));
            }
        }
    }
}
