//! A slow wire: a host's port leaves the bridge, and frames are carried over by hand, later.
//!
//! The kernel's own netem is not in every kernel. Frames keep their offload header on the way, so
//! that unfinished checksums and super-packets survive.

#![expect(unsafe_code, reason = "packet sockets have options and addresses of their own")]

use crate::Host;
use anyhow::Context as _;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::{
    io,
    os::fd::AsRawFd as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

/// Frames under way in one direction; more are dropped, as a full wire would.
const MAX_QUEUED: usize = 4096;
/// An offload header and the largest super-packet with its Ethernet header.
const MAX_FRAME: usize = 10 + 14 + 65_536;
/// How soon a relay sees that it shall end.
const LOOK: Duration = Duration::from_millis(100);

/// A delay that lasts until this is dropped.
#[derive(Debug)]
pub struct Delay<'a> {
    wire: &'a Host,
    bridge: &'static str,
    port: String,
    stop: Arc<AtomicBool>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl<'a> Delay<'a> {
    /// Delays each frame by `delay` each way.
    pub(crate) fn start(
        wire: &'a Host,
        bridge: &'static str,
        port: &str,
        delay: Duration,
    ) -> anyhow::Result<Self> {
        // Off the bridge, a port has a network stack: it must neither answer nor speak.
        wire.script(&format!(
            "ip link add {port}-b type veth peer name {port}-r\n\
             for i in {port} {port}-r {port}-b; do\n\
             echo 8 >/proc/sys/net/ipv4/conf/$i/arp_ignore\n\
             echo 1 >/proc/sys/net/ipv6/conf/$i/disable_ipv6\n\
             done\n\
             ip link set {port} nomaster promisc on\n\
             ip link set {port}-r up promisc on\n\
             ip link set {port}-b master {bridge} up"
        ))?;
        let stop = Arc::new(AtomicBool::new(false));
        let port = port.to_owned();
        let mut this = Self { wire, bridge, port, stop, threads: Vec::new() };
        let open = |name: &str| -> anyhow::Result<Arc<Socket>> {
            let socket = wire.in_network(|| packet_socket(name))?;
            Ok(Arc::new(socket.with_context(|| format!("cannot read frames of {name}"))?))
        };
        let (near, far) = (open(&this.port)?, open(&format!("{}-r", this.port))?);
        for (from, to) in [(Arc::clone(&near), Arc::clone(&far)), (far, near)] {
            let (queue, frames) = sync_channel(MAX_QUEUED);
            let stop = Arc::clone(&this.stop);
            this.threads.push(thread::spawn(move || take(&from, &queue, delay, &stop)));
            this.threads.push(thread::spawn(move || give(&to, &frames)));
        }
        Ok(this)
    }
}

impl Drop for Delay<'_> {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            // One that panicked has nothing left to end.
            thread.join().ok();
        }
        let (port, bridge) = (&self.port, self.bridge);
        let script = format!(
            "ip link set {port} promisc off master {bridge}\nip link delete {port}-b\n\
             echo 0 >/proc/sys/net/ipv6/conf/{port}/disable_ipv6"
        );
        if let Err(error) = self.wire.script(&script) {
            eprintln!("{port} is not back on the bridge: {error:#}");
        }
    }
}

/// Reads frames until told to stop; the end of the queue then ends the other side.
fn take(from: &Socket, queue: &SyncSender<(Instant, Vec<u8>)>, delay: Duration, stop: &AtomicBool) {
    let mut buffer = vec![0; MAX_FRAME];
    while !stop.load(Ordering::SeqCst) {
        // An error is a timeout, or a link that is down for a while.
        if let Ok(length) = io::Read::read(&mut &*from, &mut buffer) {
            queue.try_send((Instant::now() + delay, buffer[..length].to_vec())).ok();
        }
    }
}

/// Writes frames when their time has come.
fn give(to: &Socket, frames: &Receiver<(Instant, Vec<u8>)>) {
    for (due, frame) in frames {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        // A frame that cannot be sent is lost, as on any wire.
        to.send(&frame).ok();
    }
}

/// A socket for all frames that come in by one link, and for sending frames out by it.
fn packet_socket(link: &str) -> io::Result<Socket> {
    const ETH_P_ALL: u16 = 3;
    /// include/uapi/linux/if_packet.h: each frame starts with a virtio_net_hdr.
    const PACKET_VNET_HDR: libc::c_int = 15;
    /// The same: not those that this machine sends.
    const PACKET_IGNORE_OUTGOING: libc::c_int = 23;
    let protocol = ETH_P_ALL.to_be();
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0)))?;
    socket.set_read_timeout(Some(LOOK))?;
    for option in [PACKET_VNET_HDR, PACKET_IGNORE_OUTGOING] {
        let on: libc::c_int = 1;
        let size = size_of_val(&on) as libc::socklen_t;
        // SAFETY: the value is an int that outlives the call, and its size is given.
        let result = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_PACKET,
                option,
                (&raw const on).cast(),
                size,
            )
        };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    let index = rustix::net::netdevice::name_to_index(&socket, link)?;
    // SAFETY: the storage is larger than sockaddr_ll and zeroed, which is a valid one.
    let ((), address) = unsafe {
        SockAddr::try_init(|storage, length| {
            let link = storage.cast::<libc::sockaddr_ll>();
            (*link).sll_family = libc::AF_PACKET as u16;
            (*link).sll_protocol = protocol;
            (*link).sll_ifindex = index as i32;
            *length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
            Ok(())
        })
    }?;
    // Only from here on do frames come in: there is no link and no protocol before.
    socket.bind(&address)?;
    Ok(socket)
}
