//! Packets: made with right checksums, and taken apart with every checksum computed again.
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use shoal_maps::GENEVE_PORT;

/// TCP flags (RFC 9293).
pub const FIN: u8 = 0x01;
/// TCP flags.
pub const SYN: u8 = 0x02;
/// TCP flags.
pub const RST: u8 = 0x04;
/// TCP flags.
pub const ACK: u8 = 0x10;

/// What an IP packet carries.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Kind {
    /// TCP with flags and options.
    Tcp {
        /// Flags.
        flags: u8,
        /// Options, padded to a multiple of four bytes.
        options: Vec<u8>,
    },
    /// UDP.
    Udp,
    /// UDP without a checksum (IPv4 only).
    UdpUnchecked,
    /// ICMP or ICMPv6 with type and code; the ports are the identifier (source) and zero.
    Icmp {
        /// Type and code.
        kind: [u8; 2],
    },
}

/// An IP packet with its link addresses.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Frame {
    /// Destination MAC.
    pub to: [u8; 6],
    /// Source MAC.
    pub from: [u8; 6],
    /// Source address and port.
    pub source: SocketAddr,
    /// Destination address and port.
    pub destination: SocketAddr,
    /// Transport.
    pub kind: Kind,
    /// Sequence and acknowledgement number of TCP.
    pub numbers: [u32; 2],
    /// Payload.
    pub payload: Vec<u8>,
}

impl Frame {
    /// A frame of no particular link.
    pub fn new(source: (IpAddr, u16), destination: (IpAddr, u16), kind: Kind) -> Frame {
        Frame {
            to: [2, 0, 0, 0, 0, 1],
            from: [2, 0, 0, 0, 0, 2],
            source: source.into(),
            destination: destination.into(),
            numbers: if matches!(kind, Kind::Tcp { .. }) { [1, 2] } else { [0; 2] },
            kind,
            payload: b"shoal of fish".to_vec(),
        }
    }

    /// TCP with data.
    pub fn tcp(source: (IpAddr, u16), destination: (IpAddr, u16)) -> Frame {
        Frame::new(source, destination, Kind::Tcp { flags: ACK, options: vec![] })
    }

    /// The first packet of a TCP connection, offering a maximum segment size.
    pub fn syn(source: (IpAddr, u16), destination: (IpAddr, u16), mss: u16) -> Frame {
        let mut options = vec![2, 4];
        options.extend(mss.to_be_bytes());
        let kind = Kind::Tcp { flags: SYN, options };
        Frame { payload: vec![], ..Frame::new(source, destination, kind) }
    }

    /// The reset a closed port answers a SYN by (RFC 9293, 3.5.2, group 1).
    pub fn refusal(syn: &Frame) -> Frame {
        let kind = Kind::Tcp { flags: RST | ACK, options: vec![] };
        Frame {
            source: syn.destination,
            destination: syn.source,
            numbers: [0, syn.numbers[0].wrapping_add(1)],
            kind,
            payload: vec![],
            ..syn.clone()
        }
    }

    /// UDP.
    pub fn udp(source: (IpAddr, u16), destination: (IpAddr, u16)) -> Frame {
        Frame::new(source, destination, Kind::Udp)
    }

    /// An echo request.
    pub fn ping(source: IpAddr, destination: IpAddr) -> Frame {
        let kind = if source.is_ipv4() { [8, 0] } else { [128, 0] };
        Frame::new((source, 77), (destination, 0), Kind::Icmp { kind })
    }

    /// Geneve around an IP packet.
    pub fn geneve(from: IpAddr, to: IpAddr, vni: u32, inner: &Frame) -> Frame {
        let ethertype: u16 = if inner.source.is_ipv4() { 0x0800 } else { 0x86dd };
        let mut payload = vec![0, 0];
        payload.extend(ethertype.to_be_bytes());
        payload.extend((vni << 8).to_be_bytes());
        payload.extend(inner.ip());
        Frame { payload, ..Frame::udp((from, 50_000), (to, GENEVE_PORT)) }
    }

    /// VNI and inner packet.
    ///
    /// # Panics
    ///
    /// When this is not Geneve without options.
    pub fn inner(&self) -> (u32, Frame) {
        assert_eq!(self.destination.port(), GENEVE_PORT, "not Geneve: {self:?}");
        let g = &self.payload;
        assert_eq!(g[..2], [0, 0], "Geneve with options or flags");
        let inner = Frame::from_ip(&g[8..]);
        let ethertype: u16 = if inner.source.is_ipv4() { 0x0800 } else { 0x86dd };
        assert_eq!(g[2..4], ethertype.to_be_bytes(), "payload type");
        (u32::from_be_bytes([0, g[4], g[5], g[6]]), inner)
    }

    /// The maximum segment size offered.
    pub fn mss(&self) -> Option<u16> {
        match &self.kind {
            Kind::Tcp { options, .. } => {
                let at = options.windows(2).position(|o| o == [2, 4])?;
                Some(u16::from_be_bytes([options[at + 2], options[at + 3]]))
            }
            _ => None,
        }
    }

    /// As bytes from the Ethernet header on.
    pub fn ethernet(&self) -> Vec<u8> {
        let ethertype: u16 = if self.source.is_ipv4() { 0x0800 } else { 0x86dd };
        let mut bytes = [self.to, self.from].concat();
        bytes.extend(ethertype.to_be_bytes());
        bytes.extend(self.ip());
        bytes
    }

    /// As bytes from the IP header on.
    pub fn ip(&self) -> Vec<u8> {
        let transport = self.transport();
        let protocol = self.protocol();
        let length = transport.len() as u16;
        let mut ip = match (self.source.ip(), self.destination.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let mut ip = vec![0x45, 0];
                ip.extend((length + 20).to_be_bytes());
                ip.extend([0, 1, 0x40, 0, 64, protocol, 0, 0]);
                ip.extend(source.octets());
                ip.extend(destination.octets());
                let sum = checksum(&ip).to_be_bytes();
                ip[10..12].copy_from_slice(&sum);
                ip
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let mut ip = vec![0x60, 0, 0, 0];
                ip.extend(length.to_be_bytes());
                ip.extend([protocol, 64]);
                ip.extend(source.octets());
                ip.extend(destination.octets());
                ip
            }
            mixed => panic!("families differ: {mixed:?}"),
        };
        ip.extend(transport);
        ip
    }

    fn protocol(&self) -> u8 {
        match self.kind {
            Kind::Tcp { .. } => 6,
            Kind::Udp | Kind::UdpUnchecked => 17,
            Kind::Icmp { .. } if self.source.is_ipv4() => 1,
            Kind::Icmp { .. } => 58,
        }
    }

    fn transport(&self) -> Vec<u8> {
        let (source, destination) = (self.source.port(), self.destination.port());
        let mut bytes = vec![];
        let checksum_at = match &self.kind {
            Kind::Tcp { flags, options } => {
                bytes.extend(source.to_be_bytes());
                bytes.extend(destination.to_be_bytes());
                bytes.extend(self.numbers.map(u32::to_be_bytes).as_flattened());
                bytes.extend([(5 + options.len() as u8 / 4) << 4, *flags, 0xff, 0, 0, 0, 0, 0]);
                bytes.extend(options);
                16
            }
            Kind::Udp | Kind::UdpUnchecked => {
                bytes.extend(source.to_be_bytes());
                bytes.extend(destination.to_be_bytes());
                bytes.extend((8 + self.payload.len() as u16).to_be_bytes());
                bytes.extend([0, 0]);
                6
            }
            Kind::Icmp { kind } => {
                bytes.extend(kind);
                bytes.extend([0, 0]);
                bytes.extend(source.to_be_bytes());
                bytes.extend([0, 1]);
                2
            }
        };
        bytes.extend(&self.payload);
        if self.kind != Kind::UdpUnchecked {
            let mut sum = checksum(&self.covered(&bytes));
            if sum == 0 && self.kind == Kind::Udp {
                sum = 0xffff;
            }
            bytes[checksum_at..checksum_at + 2].copy_from_slice(&sum.to_be_bytes());
        }
        bytes
    }

    /// What the transport's checksum is over: ICMP for IPv4 has no pseudo header.
    fn covered(&self, transport: &[u8]) -> Vec<u8> {
        let mut covered = match (self.source.ip(), self.destination.ip()) {
            (IpAddr::V4(_), IpAddr::V4(_)) if matches!(self.kind, Kind::Icmp { .. }) => vec![],
            (IpAddr::V4(a), IpAddr::V4(b)) => [a.octets(), b.octets()].concat(),
            (IpAddr::V6(a), IpAddr::V6(b)) => [a.octets(), b.octets()].concat(),
            mixed => panic!("families differ: {mixed:?}"),
        };
        if !covered.is_empty() {
            covered.extend((transport.len() as u32).to_be_bytes());
            covered.extend([0, 0, 0, self.protocol()]);
        }
        covered.extend(transport);
        covered
    }

    /// Takes a frame apart.
    ///
    /// # Panics
    ///
    /// When it is none of ours or any length or checksum is wrong.
    pub fn from_ethernet(bytes: &[u8]) -> Frame {
        let mut frame = Frame::from_ip(&bytes[14..]);
        let ethertype: u16 = if frame.source.is_ipv4() { 0x0800 } else { 0x86dd };
        assert_eq!(bytes[12..14], ethertype.to_be_bytes(), "ethertype");
        frame.to.copy_from_slice(&bytes[..6]);
        frame.from.copy_from_slice(&bytes[6..12]);
        frame
    }

    /// Takes a packet apart.
    ///
    /// # Panics
    ///
    /// As [`Frame::from_ethernet`].
    pub fn from_ip(bytes: &[u8]) -> Frame {
        let v4 = bytes[0] >> 4 == 4;
        let (source, destination, protocol, transport): (IpAddr, IpAddr, u8, &[u8]) = if v4 {
            assert_eq!(bytes[0], 0x45, "IPv4 options");
            assert_eq!(checksum(&bytes[..20]), 0, "checksum of the IPv4 header");
            let length = usize::from(u16::from_be_bytes([bytes[2], bytes[3]]));
            let address =
                |at: usize| IpAddr::from(<[u8; 4]>::try_from(&bytes[at..at + 4]).expect("4"));
            (address(12), address(16), bytes[9], &bytes[20..length])
        } else {
            let length = usize::from(u16::from_be_bytes([bytes[4], bytes[5]]));
            let address = |at: usize| {
                Ipv6Addr::from(<[u8; 16]>::try_from(&bytes[at..at + 16]).expect("16")).into()
            };
            (address(8), address(24), bytes[6], &bytes[40..40 + length])
        };
        let word = |at: usize| u16::from_be_bytes([transport[at], transport[at + 1]]);
        let mut numbers = [0; 2];
        let (kind, ports, header) = match protocol {
            6 => {
                let header = usize::from(transport[12] >> 4) * 4;
                let options = transport[20..header].to_vec();
                let number = |at: usize| u32::from(word(at)) << 16 | u32::from(word(at + 2));
                numbers = [number(4), number(8)];
                (Kind::Tcp { flags: transport[13], options }, (word(0), word(2)), header)
            }
            17 => {
                assert_eq!(usize::from(word(4)), transport.len(), "length of UDP");
                let kind = if word(6) == 0 { Kind::UdpUnchecked } else { Kind::Udp };
                (kind, (word(0), word(2)), 8)
            }
            1 | 58 => (Kind::Icmp { kind: [transport[0], transport[1]] }, (word(4), 0), 8),
            other => panic!("protocol {other}"),
        };
        let frame = Frame {
            to: [0; 6],
            from: [0; 6],
            source: SocketAddr::new(source, ports.0),
            destination: SocketAddr::new(destination, ports.1),
            kind,
            numbers,
            payload: transport[header..].to_vec(),
        };
        if frame.kind != Kind::UdpUnchecked {
            assert_eq!(checksum(&frame.covered(transport)), 0, "checksum of {frame:?}");
        }
        frame
    }
}

/// RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)])))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
