//! The lane's UDP socket: `UDP_SEGMENT` on the way out, `UDP_GRO` on the way in.
#![expect(unsafe_code, reason = "sendmmsg, recvmmsg and their control messages")]

use crate::{
    OverlayError,
    address::{decode, encode, nowhere},
    batch::{Batch, Group},
    drops::{DropReason, Drops},
};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::{
    cell::Cell,
    ffi::{c_int, c_void},
    io,
    mem::zeroed,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    ptr::null_mut,
};

/// Messages per system call.
const SLOTS: usize = 8;
/// Bytes of a message, which may be many datagrams.
const SLOT: usize = 65_536;
/// Wanted socket buffers, in bytes: a few milliseconds at 10 Gbit/s.
const BUFFER: c_int = 7 << 20;
/// How long a send may wait for room in the socket's buffer before its datagrams are dropped, so
/// that a stuck link does not stop the lane.
const SEND_TIMEOUT: libc::timeval = libc::timeval { tv_sec: 0, tv_usec: 100_000 };

#[derive(Clone, Copy)]
struct Message {
    from: SocketAddr,
    start: usize,
    len: usize,
    /// Of each datagram but the last.
    size: usize,
}

/// Where [`Port::receive`] puts what it got.
pub(crate) struct Inbox {
    buf: Vec<u8>,
    messages: Vec<Message>,
}

impl Inbox {
    /// Bytes all datagrams together can have.
    pub(crate) const CAPACITY: usize = SLOTS * SLOT;

    pub(crate) fn new() -> Inbox {
        Inbox { buf: vec![0; Inbox::CAPACITY], messages: Vec::with_capacity(SLOTS) }
    }

    /// Every datagram and its sender, in order of arrival.
    pub(crate) fn datagrams(&self) -> impl Iterator<Item = (SocketAddr, &[u8])> {
        self.messages.iter().flat_map(|m| {
            self.buf[m.start..m.start + m.len].chunks(m.size).map(|datagram| (m.from, datagram))
        })
    }
}

pub(crate) struct Port {
    fd: OwnedFd,
    /// One socket for both families; else the host has IPv6 switched off.
    dual_stack: bool,
    /// Cleared when the network card turns out not to compute checksums.
    segments: Cell<bool>,
}

impl Port {
    /// Binds the port (zero: any) on all addresses, in the calling thread's network namespace.
    pub(crate) fn bind(port: u16) -> Result<Port, OverlayError> {
        let failed = |step| move |source| OverlayError::Socket { port, step, source };
        let (fd, dual_stack) = match socket(libc::AF_INET6) {
            Ok(fd) => (fd, true),
            Err(e) if e.raw_os_error() == Some(libc::EAFNOSUPPORT) => {
                (socket(libc::AF_INET).map_err(failed("socket"))?, false)
            }
            Err(e) => return Err(failed("socket")(e)),
        };
        let this = Port { fd, dual_stack, segments: Cell::new(true) };
        this.set_options().map_err(failed("setsockopt"))?;
        let any = match dual_stack {
            true => IpAddr::from(Ipv6Addr::UNSPECIFIED),
            false => Ipv4Addr::UNSPECIFIED.into(),
        };
        let (address, len) = encode(SocketAddr::new(any, port));
        // SAFETY: `address` lives through the call and is at least `len` bytes long.
        check(unsafe { libc::bind(this.raw(), (&raw const address).cast(), len) }).map_err(
            |e| match e.kind() {
                io::ErrorKind::AddrInUse => OverlayError::PortInUse(port, e),
                _ => failed("bind")(e),
            },
        )?;
        Ok(this)
    }

    fn set_options(&self) -> io::Result<()> {
        if self.dual_stack {
            self.set(libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, &0)?;
            self.set(libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, &libc::IPV6_PMTUDISC_DONT)?;
        }
        // A packet that is too long for the path is fragmented, as the kernel's WireGuard does it,
        // and not lost without a word.
        self.set(libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, &libc::IP_PMTUDISC_DONT)?;
        self.set(libc::SOL_UDP, libc::UDP_GRO, &1)?;
        self.set(libc::SOL_SOCKET, libc::SO_SNDTIMEO, &SEND_TIMEOUT)?;
        for (force, plain) in
            [(libc::SO_RCVBUFFORCE, libc::SO_RCVBUF), (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF)]
        {
            // The first passes the host's limit, for which it needs CAP_NET_ADMIN.
            self.set(libc::SOL_SOCKET, force, &BUFFER)
                .or_else(|_| self.set(libc::SOL_SOCKET, plain, &BUFFER))?;
        }
        Ok(())
    }

    fn set<T>(&self, level: c_int, option: c_int, value: &T) -> io::Result<()> {
        let len = size_of::<T>() as libc::socklen_t;
        // SAFETY: `value` is valid for `len` bytes, which the kernel copies.
        check(unsafe {
            libc::setsockopt(self.raw(), level, option, (value as *const T).cast(), len)
        })
    }

    /// The port it is bound to.
    pub(crate) fn number(&self) -> io::Result<u16> {
        let mut address = nowhere();
        let mut len = size_of_val(&address) as libc::socklen_t;
        // SAFETY: both pointers are valid, and `len` says how much may be written.
        check(unsafe { libc::getsockname(self.raw(), (&raw mut address).cast(), &raw mut len) })?;
        decode(&address)
            .map(|a| a.port())
            .ok_or_else(|| io::Error::other("the socket has no address"))
    }

    /// Sends and empties the batch. Waits, but not long, for room in the socket's buffer: that is
    /// the back-pressure that makes the TUN's queue drop instead of us.
    pub(crate) fn send(&self, batch: &mut Batch, drops: &Drops) {
        for groups in batch.groups().chunks(SLOTS) {
            let mut rest = groups;
            while let Some((first, others)) = rest.split_first() {
                match self.send_groups(batch, rest) {
                    Ok(sent) => rest = &rest[sent.clamp(1, rest.len())..],
                    Err(e) => {
                        self.send_again(batch, first, &e, drops);
                        rest = others;
                    }
                }
            }
        }
        batch.clear();
    }

    /// At most [`SLOTS`] groups, in one system call. Gives how many were sent.
    fn send_groups(&self, batch: &Batch, groups: &[Group]) -> io::Result<usize> {
        if groups.iter().any(|g| g.count > 1) && !self.segments.get() {
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        // SAFETY: these are plain C structures for which all zeros is a valid value.
        let (mut iovs, mut messages): ([libc::iovec; SLOTS], [libc::mmsghdr; SLOTS]) =
            unsafe { (zeroed(), zeroed()) };
        let mut addresses = [nowhere(); SLOTS];
        let mut control = [[0u64; 3]; SLOTS];
        let count = groups.len().min(SLOTS);
        for (i, group) in groups.iter().take(SLOTS).enumerate() {
            let bytes = batch.bytes(group);
            iovs[i] = libc::iovec { iov_base: bytes.as_ptr() as *mut c_void, iov_len: bytes.len() };
            let (address, len) = self.encode(group.to);
            addresses[i] = address;
            let header = &mut messages[i].msg_hdr;
            header.msg_name = (&raw mut addresses[i]).cast();
            header.msg_namelen = len;
            header.msg_iov = &raw mut iovs[i];
            header.msg_iovlen = 1;
            if group.count > 1 {
                header.msg_control = control[i].as_mut_ptr().cast();
                header.msg_controllen = size_of_val(&control[i]);
                // SAFETY: the control buffer is aligned and has room for one message of two
                // bytes: CMSG_SPACE(2) is 24.
                unsafe {
                    let message = libc::CMSG_FIRSTHDR(header);
                    (*message).cmsg_level = libc::SOL_UDP;
                    (*message).cmsg_type = libc::UDP_SEGMENT;
                    (*message).cmsg_len = libc::CMSG_LEN(2) as usize;
                    libc::CMSG_DATA(message).cast::<u16>().write_unaligned(group.size as u16);
                }
            }
        }
        // SAFETY: the first `count` messages point to buffers that live through the call, and the
        // kernel only reads them.
        let sent = unsafe { libc::sendmmsg(self.raw(), messages.as_mut_ptr(), count as u32, 0) };
        check(sent)?;
        Ok(sent as usize)
    }

    /// After a failure: datagram by datagram, which works where segmentation does not.
    fn send_again(&self, batch: &Batch, group: &Group, error: &io::Error, drops: &Drops) {
        let hopeless = matches!(
            error.raw_os_error(),
            Some(libc::EAGAIN | libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EAFNOSUPPORT)
        );
        if group.count == 1 && self.segments.get() || hopeless {
            tracing::trace!(to = %group.to, %error, "send failed");
            return drops.count(DropReason::SendFailed, group.count as u64);
        }
        if error.raw_os_error() == Some(libc::EIO) && self.segments.replace(false) {
            tracing::warn!("the network card cannot segment UDP: every datagram is sent by itself");
        }
        let (address, len) = self.encode(group.to);
        for datagram in batch.bytes(group).chunks(group.size) {
            // SAFETY: the datagram and the address are valid for the lengths given.
            let sent = unsafe {
                let (data, to) = (datagram.as_ptr().cast(), (&raw const address).cast());
                libc::sendto(self.raw(), data, datagram.len(), 0, to, len)
            };
            if sent < 0 {
                drops.count(DropReason::SendFailed, 1);
            }
        }
    }

    /// The kernel wants mapped addresses on a socket for both families. On a socket for IPv4
    /// alone, an IPv6 address is left for it to refuse.
    fn encode(&self, to: SocketAddr) -> (libc::sockaddr_in6, libc::socklen_t) {
        match to {
            SocketAddr::V4(v4) if self.dual_stack => {
                encode(SocketAddr::new(v4.ip().to_ipv6_mapped().into(), v4.port()))
            }
            to => encode(to),
        }
    }

    /// Takes what is there without waiting; false when there was nothing.
    pub(crate) fn receive(&self, inbox: &mut Inbox) -> bool {
        inbox.messages.clear();
        // SAFETY: these are plain C structures for which all zeros is a valid value.
        let (mut iovs, mut messages): ([libc::iovec; SLOTS], [libc::mmsghdr; SLOTS]) =
            unsafe { (zeroed(), zeroed()) };
        let mut addresses = [nowhere(); SLOTS];
        let mut control = [[0u64; 8]; SLOTS];
        for (i, slot) in inbox.buf.chunks_exact_mut(SLOT).enumerate() {
            iovs[i] = libc::iovec { iov_base: slot.as_mut_ptr().cast(), iov_len: SLOT };
            let header = &mut messages[i].msg_hdr;
            header.msg_name = (&raw mut addresses[i]).cast();
            header.msg_namelen = size_of_val(&addresses[i]) as libc::socklen_t;
            header.msg_iov = &raw mut iovs[i];
            header.msg_iovlen = 1;
            header.msg_control = control[i].as_mut_ptr().cast();
            header.msg_controllen = size_of_val(&control[i]);
        }
        // SAFETY: all SLOTS messages point to buffers of the lengths they state, which live
        // through the call; the inbox has SLOTS slots.
        let count = unsafe {
            libc::recvmmsg(
                self.raw(),
                messages.as_mut_ptr(),
                SLOTS as u32,
                libc::MSG_DONTWAIT,
                null_mut(),
            )
        };
        for i in 0..count.max(0) as usize {
            let (len, header) = (messages[i].msg_len as usize, &messages[i].msg_hdr);
            let whole = header.msg_flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) == 0;
            if let Some(from) = decode(&addresses[i]).filter(|_| whole && len > 0) {
                let size = gro_size(header).filter(|&size| size > 0).unwrap_or(len);
                inbox.messages.push(Message { from, start: i * SLOT, len, size });
            }
        }
        count > 0
    }

    fn raw(&self) -> c_int {
        self.fd.as_raw_fd()
    }
}

impl AsFd for Port {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn socket(family: c_int) -> io::Result<OwnedFd> {
    // SAFETY: the call takes no pointers.
    let fd = unsafe { libc::socket(family, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    check(fd)?;
    // SAFETY: the descriptor is open, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn check(result: c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Size of the datagrams the kernel merged; none if it merged nothing.
fn gro_size(header: &libc::msghdr) -> Option<usize> {
    // SAFETY: the kernel filled the header's control buffer; CMSG_NXTHDR stays within it, and a
    // UDP_GRO message holds one int.
    unsafe {
        let mut message = libc::CMSG_FIRSTHDR(header);
        while !message.is_null() {
            if (*message).cmsg_level == libc::SOL_UDP && (*message).cmsg_type == libc::UDP_GRO {
                let size = libc::CMSG_DATA(message).cast::<c_int>().read_unaligned();
                return usize::try_from(size).ok();
            }
            message = libc::CMSG_NXTHDR(header, message);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;

    #[test]
    fn datagrams_pass_whole_and_in_order_over_both_families() {
        let (a, b, drops) = (Port::bind(0).unwrap(), Port::bind(0).unwrap(), Drops::default());
        for ip in ["127.0.0.1", "::1"] {
            let to = SocketAddr::new(ip.parse().unwrap(), b.number().unwrap());
            let mut batch = Batch::new();
            let sizes: Vec<usize> = [1452; 50].into_iter().chain([700, 20, 1452]).collect();
            for (i, &size) in sizes.iter().enumerate() {
                batch.room(size)[..size].fill(i as u8);
                batch.commit(size, to);
            }
            a.send(&mut batch, &drops);
            let (mut inbox, mut got) = (Inbox::new(), vec![]);
            while b.receive(&mut inbox) {
                for (from, datagram) in inbox.datagrams() {
                    assert_eq!(from, SocketAddr::new(to.ip(), a.number().unwrap()));
                    assert!(datagram.iter().all(|&byte| byte == got.len() as u8));
                    got.push(datagram.len());
                }
            }
            assert_eq!(got, sizes, "over {ip}");
        }
    }

    #[test]
    fn a_port_in_use_is_named() {
        let holder = UdpSocket::bind("[::]:0").unwrap();
        let port = holder.local_addr().unwrap().port();
        let message = Port::bind(port).err().unwrap().to_string();
        assert!(message.contains(&port.to_string()) && message.contains("in use"), "{message}");
    }
}
