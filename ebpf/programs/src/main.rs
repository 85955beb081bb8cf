//! The kernel-side programs of Shoal's data plane.
//!
//! | hook | programs | file |
//! |---|---|---|
//! | cgroup, socket calls | `vip_connect4` … `vip_release` | [`sockets`] |
//! | tcx ingress, host side of each container's veth | `from_container` | [`container`] |
//! | tcx ingress, `shoal0` (no link header) | `from_overlay` | [`overlay`] |
//! | tcx ingress, uplink | `from_uplink` | [`uplink`] |
//!
//! Each packet program is a function from a packet to an action or a [`Refusal`]; [`verdict`] is the
//! only place that turns a refusal into what the kernel is told.
#![no_std]
#![no_main]
// Atomic addition, see `counters`; stable in effect, and the toolchain is a nightly one anyway.
#![feature(asm_experimental_arch)]

mod balance;
mod container;
mod counters;
mod deliver;
mod flows;
mod geneve;
mod maps;
mod mss;
mod overlay;
mod packet;
mod ping;
mod retry;
mod rewrite;
mod sockets;
mod uplink;

use aya_ebpf::{
    bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC},
    macros::{cgroup_sock, cgroup_sock_addr, classifier},
    programs::{SockAddrContext, SockContext, TcContext},
};
use shoal_maps::DropReason;
use sockets::{Family, connect, peer, release, udp};

/// Why a packet program does not forward a packet.
#[derive(Clone, Copy)]
pub(crate) enum Refusal {
    /// Not ours: left untouched to the programs after this one, then to the host's own stack.
    Pass,
    /// Dropped and counted.
    Drop(DropReason),
}

impl From<DropReason> for Refusal {
    #[inline(always)]
    fn from(reason: DropReason) -> Refusal {
        Refusal::Drop(reason)
    }
}

#[inline(always)]
fn verdict(outcome: Result<i32, Refusal>) -> i32 {
    match outcome {
        Ok(action) => action,
        // `TCX_NEXT`, and with a clsact qdisc "no opinion".
        Err(Refusal::Pass) => TC_ACT_UNSPEC,
        Err(Refusal::Drop(reason)) => {
            counters::dropped(reason);
            TC_ACT_SHOT as i32
        }
    }
}

/// Packets a container sends.
#[classifier]
pub fn from_container(ctx: TcContext) -> i32 {
    verdict(container::handle(&ctx))
}

/// Packets that come out of the tunnel.
#[classifier]
pub fn from_overlay(ctx: TcContext) -> i32 {
    verdict(overlay::handle(&ctx))
}

/// Packets that reach the node from outside.
#[classifier]
pub fn from_uplink(ctx: TcContext) -> i32 {
    verdict(uplink::handle(&ctx))
}

/// `connect()` of an IPv4 socket.
#[cgroup_sock_addr(connect4)]
pub fn vip_connect4(ctx: SockAddrContext) -> i32 {
    connect::handle(&ctx, Family::V4)
}

/// `connect()` of an IPv6 socket, to mapped IPv4 addresses too.
#[cgroup_sock_addr(connect6)]
pub fn vip_connect6(ctx: SockAddrContext) -> i32 {
    connect::handle(&ctx, Family::V6)
}

/// `sendto()` of an unconnected UDP socket, IPv4.
#[cgroup_sock_addr(sendmsg4)]
pub fn vip_sendmsg4(ctx: SockAddrContext) -> i32 {
    udp::send(&ctx, Family::V4)
}

/// `sendto()` of an unconnected UDP socket, IPv6.
#[cgroup_sock_addr(sendmsg6)]
pub fn vip_sendmsg6(ctx: SockAddrContext) -> i32 {
    udp::send(&ctx, Family::V6)
}

/// `recvfrom()` of a UDP socket, IPv4.
#[cgroup_sock_addr(recvmsg4)]
pub fn vip_recvmsg4(ctx: SockAddrContext) -> i32 {
    udp::receive(&ctx, Family::V4)
}

/// `recvfrom()` of a UDP socket, IPv6.
#[cgroup_sock_addr(recvmsg6)]
pub fn vip_recvmsg6(ctx: SockAddrContext) -> i32 {
    udp::receive(&ctx, Family::V6)
}

/// `getpeername()`, IPv4.
#[cgroup_sock_addr(getpeername4)]
pub fn vip_getpeername4(ctx: SockAddrContext) -> i32 {
    peer::name(&ctx, Family::V4)
}

/// `getpeername()`, IPv6.
#[cgroup_sock_addr(getpeername6)]
pub fn vip_getpeername6(ctx: SockAddrContext) -> i32 {
    peer::name(&ctx, Family::V6)
}

/// A socket is closed.
#[cgroup_sock(sock_release)]
pub fn vip_release(ctx: SockContext) -> i32 {
    release::handle(&ctx)
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // Never linked in: the verifier would refuse a loop without end.
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 11] = *b"Apache-2.0\0";
