//! System calls without a safe wrapper among the dependencies.
#![expect(unsafe_code, reason = "raw system calls: namespaces, packet sockets, TUN")]
use std::{
    ffi::CString,
    fs::{File, OpenOptions},
    io::{Error, Result},
    mem::size_of,
    net::{IpAddr, TcpListener, UdpSocket},
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
    time::{Duration, Instant},
};

/// Moves the calling thread into a new network namespace.
///
/// # Panics
///
/// When the kernel refuses.
pub(crate) fn new_network_namespace() {
    // SAFETY: no memory involved; only this thread is moved.
    let refused = unsafe { libc::unshare(libc::CLONE_NEWNET) };
    assert!(
        refused == 0,
        "cannot make a network namespace (CAP_SYS_ADMIN?): {}",
        Error::last_os_error()
    );
}

/// The kernel's id of the calling thread.
pub(crate) fn thread_id() -> i32 {
    // SAFETY: no arguments, no effects.
    unsafe { libc::gettid() }
}

/// Index of an interface of the calling thread's namespace.
///
/// # Panics
///
/// When there is none of the name.
pub(crate) fn ifindex(name: &str) -> u32 {
    let text = CString::new(name).expect("no zero byte");
    // SAFETY: the string lives through the call.
    let index = unsafe { libc::if_nametoindex(text.as_ptr()) };
    assert!(index != 0, "no interface {name}");
    index
}

/// Cookie of the network namespace a socket of this thread belongs to.
///
/// # Panics
///
/// Before Linux 5.14.
pub(crate) fn netns_cookie() -> u64 {
    let socket = UdpSocket::bind("[::]:0").expect("a socket");
    let mut cookie = 0_u64;
    let mut length = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the buffer is as long as said.
    let refused = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    assert!(refused == 0, "SO_NETNS_COOKIE: {}", Error::last_os_error());
    cookie
}

/// Waits until one of the host's own addresses takes packets: the kernel finishes an IPv6 one in the
/// background, and until then the host answers "unreachable" to itself.
///
/// # Panics
///
/// When it never does.
pub(crate) fn wait_for_address(address: IpAddr) {
    let end = Instant::now() + Duration::from_secs(5);
    let reached = || -> Result<()> {
        let socket = UdpSocket::bind((address, 0))?;
        socket.set_read_timeout(Some(Duration::from_millis(20)))?;
        socket.send_to(b"?", socket.local_addr()?)?;
        socket.recv(&mut [0]).map(|_| ())
    };
    while let Err(error) = reached() {
        assert!(Instant::now() < end, "{address} takes no packets: {error}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A socket for whole frames of one interface of the calling thread's namespace.
///
/// # Errors
///
/// Those of `socket` and `bind`.
pub(crate) fn packet_socket(interface: &str) -> Result<OwnedFd> {
    let protocol = (libc::ETH_P_ALL as u16).to_be();
    // SAFETY: the descriptor is new and owned by nobody else.
    let socket = unsafe {
        let fd = libc::socket(
            libc::AF_PACKET,
            libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK,
            i32::from(protocol),
        );
        if fd < 0 {
            return Err(Error::last_os_error());
        }
        OwnedFd::from_raw_fd(fd)
    };
    // SAFETY: zero is a valid value of every field.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = protocol;
    address.sll_ifindex = ifindex(interface) as i32;
    // SAFETY: the address is as long as said.
    let refused = unsafe {
        libc::bind(
            socket.as_raw_fd(),
            (&raw const address).cast(),
            size_of::<libc::sockaddr_ll>() as libc::socklen_t,
        )
    };
    if refused == 0 { Ok(socket) } else { Err(Error::last_os_error()) }
}

/// Makes an L3 TUN device in the calling thread's namespace; it goes with the descriptor.
///
/// # Errors
///
/// Those of opening `/dev/net/tun` and of `TUNSETIFF`.
pub(crate) fn tun(name: &str) -> Result<OwnedFd> {
    let file: File = OpenOptions::new().read(true).write(true).open("/dev/net/tun")?;
    // SAFETY: zero is a valid value of every field.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as i16;
    // SAFETY: the request is of the type the call takes. The descriptor becomes non-blocking.
    unsafe {
        if libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF as _, &raw mut request) < 0
            || libc::fcntl(file.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) < 0
        {
            return Err(Error::last_os_error());
        }
    }
    Ok(file.into())
}

/// Ends a listening socket as the end of its process does: its port refuses from now on, and threads
/// that wait for callers are woken.
///
/// # Panics
///
/// When it is none.
pub fn shut(listener: &TcpListener) {
    // SAFETY: no memory involved.
    let refused = unsafe { libc::shutdown(listener.as_raw_fd(), libc::SHUT_RDWR) };
    assert!(refused == 0, "shutdown: {}", Error::last_os_error());
}

/// Waits until one of the descriptors can be read; empty when the time is up.
pub(crate) fn readable(fds: &[RawFd], timeout: Duration) -> Vec<usize> {
    let mut set: Vec<_> =
        fds.iter().map(|&fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 }).collect();
    // SAFETY: the array is as long as said.
    unsafe { libc::poll(set.as_mut_ptr(), set.len() as _, timeout.as_millis() as i32) };
    set.iter()
        .enumerate()
        .filter(|(_, fd)| fd.revents & libc::POLLIN != 0)
        .map(|(i, _)| i)
        .collect()
}

/// Reads one frame, if there is one.
pub(crate) fn read(fd: &OwnedFd) -> Option<Vec<u8>> {
    let mut frame = vec![0; 65_536];
    // SAFETY: the buffer is as long as said.
    let length = unsafe { libc::read(fd.as_raw_fd(), frame.as_mut_ptr().cast(), frame.len()) };
    frame.truncate(usize::try_from(length).ok()?);
    Some(frame)
}

/// Writes one frame.
///
/// # Panics
///
/// When it is refused.
pub(crate) fn write(fd: &OwnedFd, frame: &[u8]) {
    // SAFETY: the buffer is as long as said.
    let length = unsafe { libc::write(fd.as_raw_fd(), frame.as_ptr().cast(), frame.len()) };
    assert!(length == frame.len() as isize, "cannot send a frame: {}", Error::last_os_error());
}
