//! What can go wrong, in words for the operator.

use ipnetwork::IpNetwork;
use std::{io, path::PathBuf};

/// Starting the engine or changing its peers failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OverlayError {
    /// The device name cannot be one.
    #[error("device name {0:?} is not valid: use 1 to 15 letters, digits, '-', '_' or '.'")]
    DeviceName(String),
    /// The MTU is out of range.
    #[error("MTU {0} is not valid for the overlay: use 1280 to 65000")]
    Mtu(u32),
    /// There is no TUN driver.
    #[error("cannot open /dev/net/tun: load the kernel module with `modprobe tun`")]
    NoTun(#[source] io::Error),
    /// Not allowed to make the device.
    #[error("cannot create the device {0}: the process needs CAP_NET_ADMIN")]
    NotPermitted(String, #[source] io::Error),
    /// Somebody has the device.
    #[error(
        "device {0} is in use or of another kind: is another overlay engine running? \
         `ip -d link show {0}` tells"
    )]
    DeviceBusy(String, #[source] io::Error),
    /// Any other refusal by the TUN driver.
    #[error("cannot set up the device {device}: {step} failed")]
    Device {
        /// Its name.
        device: String,
        /// The system call that failed.
        step: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The port is taken.
    #[error("UDP port {0} is in use: stop its owner (`ss -ulpn`) or choose another port")]
    PortInUse(u16, #[source] io::Error),
    /// Any other failure with the socket.
    #[error("cannot set up the UDP socket on port {port}: {step} failed")]
    Socket {
        /// The wanted port.
        port: u16,
        /// The system call that failed.
        step: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No thread, or no event descriptor for it.
    #[error("cannot start the thread of the device {0}")]
    Thread(String, #[source] io::Error),
    /// The same peer twice.
    #[error("peer {0} is listed twice")]
    DuplicatePeer(String),
    /// Our own key.
    #[error("peer {0} has this node's own public key")]
    OwnKey(String),
    /// An address would belong to two peers.
    #[error(
        "allowed IPs {first_net} of peer {first} and {second_net} of peer {second} overlap: an \
         address can belong to one peer only"
    )]
    Overlap {
        /// One peer.
        first: String,
        /// Its network.
        first_net: IpNetwork,
        /// The other peer.
        second: String,
        /// Its network.
        second_net: IpNetwork,
    },
    /// More than the engine is made for.
    #[error("{count} {what} are too many: the overlay engine takes at most {limit}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many were given.
        count: usize,
        /// The bound.
        limit: usize,
    },
    /// The lane's thread has ended.
    #[error("the engine of {0} has stopped after an internal error: see the log, then restart it")]
    Stopped(String),
}

/// Loading or making the node's key failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// An operation on the file failed.
    #[error("cannot {action} the WireGuard key file {}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// Others could read the key.
    #[error(
        "the WireGuard key file {} has mode {mode:o}, so others can read it: `chmod 600` it, or \
         delete it to get a new key",
        path.display()
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The content is not a key.
    #[error(
        "{what} is not a WireGuard key: it must be 44 characters of base64 for 32 bytes, as \
         `wg genkey` prints"
    )]
    Format {
        /// The file, or what was to be decoded.
        what: String,
    },
}
