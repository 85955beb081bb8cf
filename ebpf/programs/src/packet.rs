//! Parsing. [`Packet::load`] is the one place bytes are read from: it is bounds-checked and reaches
//! data outside the linear part of an aggregated packet.
use core::mem::MaybeUninit;

use aya_ebpf::{
    bindings::__sk_buff,
    helpers::generated::{bpf_skb_load_bytes, bpf_skb_store_bytes},
    programs::TcContext,
};
use shoal_maps::{Address, DropReason};

use crate::Refusal;

/// Length of an Ethernet header without tags (IEEE 802.3).
pub(crate) const ETHERNET: u32 = 14;
/// EtherTypes (IEEE 802), as on the wire.
pub(crate) const ETHERTYPE_V4: [u8; 2] = [0x08, 0x00];
pub(crate) const ETHERTYPE_V6: [u8; 2] = [0x86, 0xdd];

/// IP protocol numbers (RFC 9293, RFC 768, RFC 792, RFC 4443, RFC 8200).
pub(crate) const ICMP: u8 = 1;
pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const FRAGMENT: u8 = 44;
pub(crate) const ICMP_V6: u8 = 58;

/// Offsets of sequence and acknowledgement number in TCP's header (RFC 9293, 3.1).
pub(crate) const TCP_SEQUENCE: u32 = 4;
pub(crate) const TCP_ACKNOWLEDGEMENT: u32 = 8;
/// Offset of the checksum in the headers of TCP (RFC 9293, 3.1), UDP (RFC 768).
pub(crate) const TCP_CHECKSUM: u32 = 16;
pub(crate) const UDP_CHECKSUM: u32 = 6;
/// Flags of TCP, byte 13 of its header (RFC 9293, 3.1).
const TCP_FLAGS: u32 = 13;
const TCP_SYN: u8 = 0x02;
const TCP_RST: u8 = 0x04;
const TCP_ACK: u8 = 0x10;

/// TCP's header from the sequence number on (RFC 9293, 3.1).
#[repr(C)]
#[derive(Clone, Copy)]
struct Tcp {
    sequence: [u8; 4],
    acknowledgement: [u8; 4],
    _data_offset: u8,
    flags: u8,
}

/// IPv4 header (RFC 791, 3.1).
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Ipv4 {
    pub(crate) version_length: u8,
    pub(crate) service: u8,
    pub(crate) total_length: [u8; 2],
    pub(crate) id: [u8; 2],
    pub(crate) fragment: [u8; 2],
    pub(crate) ttl: u8,
    pub(crate) protocol: u8,
    pub(crate) checksum: [u8; 2],
    pub(crate) source: [u8; 4],
    pub(crate) destination: [u8; 4],
}

/// IPv6 header (RFC 8200, 3).
#[repr(C)]
#[derive(Clone, Copy)]
struct Ipv6 {
    _version_class_flow: [u8; 4],
    payload_length: [u8; 2],
    next_header: u8,
    _hop_limit: u8,
    source: Address,
    destination: Address,
}

/// An IP packet inside a socket buffer: what the tables are asked by, and where it is.
pub(crate) struct Packet<'a> {
    ctx: &'a TcContext,
    /// Offset of the IP header.
    pub(crate) base: u32,
    /// Offset of the header after it.
    pub(crate) transport: u32,
    /// Bytes from the IP header on.
    pub(crate) length: u32,
    pub(crate) source: Address,
    pub(crate) destination: Address,
    /// Zero unless TCP or UDP.
    pub(crate) source_port: [u8; 2],
    /// Zero unless TCP or UDP.
    pub(crate) destination_port: [u8; 2],
    pub(crate) protocol: u8,
    pub(crate) v6: bool,
    /// Part of a larger packet, the first part included: only its addresses are known.
    pub(crate) fragment: bool,
}

impl<'a> Packet<'a> {
    /// A packet not yet read. It is filled in place: moving it would cost stack, of which a program
    /// has 512 bytes.
    #[inline(always)]
    pub(crate) fn unread(ctx: &'a TcContext) -> Packet<'a> {
        Packet {
            ctx,
            base: 0,
            transport: 0,
            length: 0,
            source: Address::NONE,
            destination: Address::NONE,
            source_port: [0; 2],
            destination_port: [0; 2],
            protocol: 0,
            v6: false,
            fragment: false,
        }
    }

    /// Reads the packet of a device with Ethernet headers.
    #[inline(always)]
    pub(crate) fn read_ethernet(&mut self) -> Result<(), Refusal> {
        // SAFETY: the context is valid for the run of the program.
        if unsafe { (*self.skb()).vlan_present } != 0 {
            return Err(DropReason::NotIp.into());
        }
        let ethertype: [u8; 2] = self.load(ETHERNET - 2)?;
        if ethertype != ETHERTYPE_V4 && ethertype != ETHERTYPE_V6 {
            return Err(DropReason::NotIp.into());
        }
        self.read_ip(ETHERNET)?;
        // The kernel goes by the one, the tables by the other.
        if self.ethertype() == ethertype { Ok(()) } else { Err(DropReason::Malformed.into()) }
    }

    /// Reads the packet at an offset where an IP header of either version starts.
    #[inline(always)]
    pub(crate) fn read_ip(&mut self, base: u32) -> Result<(), Refusal> {
        self.base = base;
        // Two bytes: a check of one at the very start compiles to what the verifier refuses.
        let start: [u8; 2] = self.load(base)?;
        match start[0] >> 4 {
            4 => self.read_v4()?,
            6 => self.read_v6()?,
            _ => return Err(DropReason::NotIp.into()),
        }
        if self.base + self.length > self.ctx.len() {
            return Err(DropReason::Malformed.into());
        }
        if !self.has_ports() {
            return Ok(());
        }
        let header = if self.protocol == TCP { 20 } else { 8 };
        if self.transport + header > self.base + self.length {
            return Err(DropReason::Malformed.into());
        }
        [self.source_port, self.destination_port] = self.load(self.transport)?;
        Ok(())
    }

    #[inline(always)]
    fn read_v4(&mut self) -> Result<(), Refusal> {
        let ip: Ipv4 = self.load(self.base)?;
        let header = u32::from(ip.version_length & 0x0f) * 4;
        self.length = u32::from(u16::from_be_bytes(ip.total_length));
        if header < 20 || self.length < header {
            return Err(DropReason::Malformed.into());
        }
        self.transport = self.base + header;
        self.source = Address::v4(ip.source);
        self.destination = Address::v4(ip.destination);
        self.protocol = ip.protocol;
        // More to come, or not the first.
        self.fragment = u16::from_be_bytes(ip.fragment) & 0x3fff != 0;
        Ok(())
    }

    #[inline(always)]
    fn read_v6(&mut self) -> Result<(), Refusal> {
        let ip: Ipv6 = self.load(self.base)?;
        self.transport = self.base + 40;
        self.length = 40 + u32::from(u16::from_be_bytes(ip.payload_length));
        self.source = ip.source;
        self.destination = ip.destination;
        self.protocol = ip.next_header;
        // Any other extension header counts as an unknown protocol.
        self.fragment = ip.next_header == FRAGMENT;
        self.v6 = true;
        Ok(())
    }

    /// Whether this is TCP or UDP with its ports known.
    #[inline(always)]
    pub(crate) fn has_ports(&self) -> bool {
        (self.protocol == TCP || self.protocol == UDP) && !self.fragment
    }

    /// Whether this is TCP opening a connection: SYN, with or without ACK.
    #[inline(always)]
    pub(crate) fn syn(&self) -> Result<Option<Syn>, Refusal> {
        if self.protocol != TCP || self.fragment {
            return Ok(None);
        }
        let flags: u8 = self.load(self.transport + TCP_FLAGS)?;
        Ok(match (flags & TCP_SYN != 0, flags & TCP_ACK != 0) {
            (false, _) => None,
            (true, false) => Some(Syn::Request),
            (true, true) => Some(Syn::Answer),
        })
    }

    /// What a reset that answers a SYN acknowledges. Only such a one has number zero together with an
    /// acknowledgement: RFC 9293, 3.5.2, group 1.
    #[inline(always)]
    pub(crate) fn refusal(&self) -> Result<Option<u32>, Refusal> {
        if self.protocol != TCP || self.fragment {
            return Ok(None);
        }
        let tcp: Tcp = self.load(self.transport + TCP_SEQUENCE)?;
        let refuses = tcp.flags & (TCP_RST | TCP_ACK | TCP_SYN) == TCP_RST | TCP_ACK
            && tcp.sequence == [0; 4];
        Ok(refuses.then_some(u32::from_be_bytes(tcp.acknowledgement)))
    }

    /// Offset of the transport checksum, where it covers the addresses too.
    #[inline(always)]
    pub(crate) fn checksum(&self) -> Option<u32> {
        match self.protocol {
            _ if self.fragment => None,
            TCP => Some(self.transport + TCP_CHECKSUM),
            UDP => Some(self.transport + UDP_CHECKSUM),
            _ => None,
        }
    }

    #[inline(always)]
    pub(crate) fn ethertype(&self) -> [u8; 2] {
        if self.v6 { ETHERTYPE_V6 } else { ETHERTYPE_V4 }
    }

    #[inline(always)]
    pub(crate) fn skb(&self) -> *mut __sk_buff {
        self.ctx.skb.skb
    }

    /// Reads at an offset from the start of the buffer.
    #[inline(always)]
    pub(crate) fn load<T: Copy>(&self, offset: u32) -> Result<T, Refusal> {
        let mut value = MaybeUninit::<T>::uninit();
        // SAFETY: the helper checks the bounds of the buffer and fills the value or fails.
        unsafe {
            match bpf_skb_load_bytes(
                self.skb().cast(),
                offset,
                value.as_mut_ptr().cast(),
                size_of::<T>() as u32,
            ) {
                0 => Ok(value.assume_init()),
                _ => Err(DropReason::Malformed.into()),
            }
        }
    }

    /// Writes at an offset from the start of the buffer.
    #[inline(always)]
    pub(crate) fn store<T: Copy>(&self, offset: u32, value: T) -> Result<(), Refusal> {
        // SAFETY: the helper checks the bounds of the buffer; the value is as long as its type.
        let refused = unsafe {
            bpf_skb_store_bytes(
                self.skb(),
                offset,
                (&raw const value).cast(),
                size_of::<T>() as u32,
                0,
            )
        };
        if refused == 0 { Ok(()) } else { Err(DropReason::Helper.into()) }
    }
}

/// A segment that opens a connection.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Syn {
    /// SYN.
    Request,
    /// SYN and ACK.
    Answer,
}
