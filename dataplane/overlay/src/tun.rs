//! One queue of the TUN device.
#![expect(unsafe_code, reason = "the TUN driver is configured by ioctl")]

use crate::{
    OverlayError,
    vnet::{PLAIN_LEN, TUNNEL_LEN},
};
use rustix::{
    fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    fs::{Mode, OFlags},
};
use std::{
    ffi::{c_int, c_uint, c_ulong},
    io::{self, IoSlice},
};

/// Longest device name, `IFNAMSIZ` less its final zero.
const MAX_NAME: usize = libc::IFNAMSIZ - 1;
/// linux/if_tun.h: super-packets within a UDP tunnel, since Linux 6.17. Only after the header's
/// size has been set to [`TUNNEL_LEN`], or every read fails.
const TUN_F_UDP_TUNNEL_GSO: c_uint = 0x80;
/// linux/if_tun.h: `_IOW('T', 216, int)`.
const TUNSETVNETHDRSZ: c_ulong = 0x4004_54d8;

const TSO: c_uint = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_TSO_ECN;
/// Since Linux 6.2.
const USO: c_uint = libc::TUN_F_USO4 | libc::TUN_F_USO6;

/// What we take from and give to the kernel, best first: header length, offloads, UDP super-packets.
const OFFERS: [(usize, c_uint, bool); 3] = [
    (TUNNEL_LEN, TSO | USO | TUN_F_UDP_TUNNEL_GSO, true),
    (PLAIN_LEN, TSO | USO, true),
    (PLAIN_LEN, TSO, false),
];

pub(crate) struct Queue {
    fd: OwnedFd,
    vnet_len: usize,
    udp_offload: bool,
}

/// Whether it can be the name of a device.
pub(crate) fn valid_name(name: &str) -> bool {
    let allowed = |c: u8| c.is_ascii_alphanumeric() || b"-_.".contains(&c);
    !name.is_empty()
        && name.len() <= MAX_NAME
        && name.bytes().all(allowed)
        && name != "."
        && name != ".."
}

impl Queue {
    /// Makes the device, which lives as long as its queue, in the calling thread's network
    /// namespace. `name` must be [valid](valid_name).
    pub(crate) fn create(name: &str) -> Result<Queue, OverlayError> {
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = rustix::fs::open("/dev/net/tun", flags, Mode::empty())
            .map_err(|e| OverlayError::NoTun(e.into()))?;
        // With IFF_MULTI_QUEUE a second engine would become a second queue of the same device.
        let socket = rustix::net::socket(
            rustix::net::AddressFamily::INET,
            rustix::net::SocketType::DGRAM,
            None,
        )
        .map_err(|e| device_error(name, "socket", e.into()))?;
        if rustix::net::netdevice::name_to_index(socket, name).is_ok() {
            return Err(OverlayError::DeviceBusy(name.into(), io::ErrorKind::AlreadyExists.into()));
        }
        attach(&fd, name).map_err(|e| match e.raw_os_error() {
            Some(libc::EPERM) => OverlayError::NotPermitted(name.into(), e),
            Some(libc::EBUSY | libc::EINVAL) => OverlayError::DeviceBusy(name.into(), e),
            _ => device_error(name, "TUNSETIFF", e),
        })?;
        let mut refusal = None;
        for (vnet_len, offloads, udp_offload) in OFFERS {
            match set_offloads(&fd, vnet_len, offloads) {
                Ok(()) => {
                    tracing::info!(device = name, vnet_len, offloads, "TUN device created");
                    return Ok(Queue { fd, vnet_len, udp_offload });
                }
                Err(e) => refusal = Some(e),
            }
        }
        let source = refusal.expect("OFFERS is not empty, and none was taken");
        Err(device_error(name, "TUNSETOFFLOAD", source))
    }

    /// Bytes of the virtio header in front of each packet, both ways.
    pub(crate) fn vnet_len(&self) -> usize {
        self.vnet_len
    }

    /// Whether the kernel takes UDP super-packets.
    pub(crate) fn udp_offload(&self) -> bool {
        self.udp_offload
    }

    /// One packet with its header, or none when the queue is empty or the device gone.
    pub(crate) fn read(&self, buf: &mut [u8]) -> Option<usize> {
        rustix::io::read(&self.fd, buf).ok().filter(|&n| n > 0)
    }

    /// One packet: the header, then the pieces of the packet.
    pub(crate) fn write(&self, pieces: &[IoSlice<'_>]) -> io::Result<()> {
        rustix::io::writev(&self.fd, pieces)?;
        Ok(())
    }
}

impl AsFd for Queue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn device_error(device: &str, step: &'static str, source: io::Error) -> OverlayError {
    OverlayError::Device { device: device.into(), step, source }
}

fn attach(fd: &OwnedFd, name: &str) -> io::Result<()> {
    // SAFETY: ifreq is a plain C structure for which all zeros is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes().take(MAX_NAME)) {
        *to = from as libc::c_char;
    }
    let flags = libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_VNET_HDR | libc::IFF_MULTI_QUEUE;
    request.ifr_ifru.ifru_flags = flags as libc::c_short;
    // SAFETY: the descriptor is open, and TUNSETIFF reads and writes one ifreq.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETIFF as _, &raw mut request) })
}

fn set_offloads(fd: &OwnedFd, vnet_len: usize, offloads: c_uint) -> io::Result<()> {
    let size = vnet_len as c_int;
    // SAFETY: the descriptor is open, and TUNSETVNETHDRSZ reads one int.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), TUNSETVNETHDRSZ as _, &raw const size) })?;
    // SAFETY: the descriptor is open, and TUNSETOFFLOAD takes its argument by value.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETOFFLOAD as _, c_ulong::from(offloads)) })
}

fn check(result: c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
