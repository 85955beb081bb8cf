//! Rows as they are sent.
//!
//! Those that are told to many nodes are Protocol Buffers: half of JSON's bytes, and an older or newer
//! version reads them, too. The others are seldom, and large for what they hold anyway.
//!
//! One row is a message [`Pack`] of one, so that the bytes of several rows after each other are a pack of
//! them all: what is told to many can be put together once.
use super::{MemberRow, PeerRow, Row, ServiceRow};
use crate::{objects::NetAddresses, task::PublishedPort};
use prost::{
    Message as _, Oneof,
    encoding::{WireType, decode_key, decode_varint},
};
use std::{
    net::{AddrParseError, Ipv4Addr, Ipv6Addr},
    num::TryFromIntError,
};
use zeroize::{Zeroize as _, Zeroizing};

/// A row that another node sent cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum UnreadableRow {
    /// It is no message.
    #[error("a row of an assignment is no row")]
    Message(#[from] prost::DecodeError),
    /// It is longer than what was sent.
    #[error("a row of an assignment is not whole")]
    Length,
    /// It is of a kind that this version does not know, or of none.
    #[error("a row of an assignment is of an unknown kind: is the manager of a later version?")]
    Kind,
    /// A number is larger than what it is about can be.
    #[error("a number in a row of an assignment is out of range")]
    Number(#[from] TryFromIntError),
    /// An endpoint is none.
    #[error("an endpoint in a row of an assignment is no address with a port")]
    Endpoint(#[from] AddrParseError),
    /// An IPv6 address has not 16 bytes.
    #[error("an IPv6 address in a row of an assignment has {0} bytes")]
    Address(usize),
    /// Addresses are missing where they must be.
    #[error("a row of a task on a network has no addresses")]
    NoAddresses,
    /// A row of the other kinds.
    #[error("a row of an assignment is not understood")]
    Json(#[from] serde_json::Error),
}

#[derive(Clone, PartialEq, prost::Message)]
struct Pack {
    #[prost(message, repeated, tag = "1")]
    rows: Vec<Written>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Written {
    #[prost(oneof = "Kind", tags = "1, 2, 3, 4")]
    kind: Option<Kind>,
}

#[derive(Clone, PartialEq, Oneof)]
enum Kind {
    /// JSON of a [`Row`].
    #[prost(bytes, tag = "1")]
    Other(Vec<u8>),
    #[prost(message, tag = "2")]
    Peer(Peer),
    #[prost(message, tag = "3")]
    Service(Service),
    #[prost(message, tag = "4")]
    Member(Member),
}

#[derive(Clone, PartialEq, prost::Message)]
struct Peer {
    #[prost(string, tag = "1")]
    network_id: String,
    #[prost(string, tag = "2")]
    node_id: String,
    #[prost(string, tag = "3")]
    hostname: String,
    #[prost(string, tag = "4")]
    public_key: String,
    #[prost(string, tag = "5")]
    endpoint: String,
    #[prost(fixed32, tag = "6")]
    overlay: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Service {
    #[prost(string, tag = "1")]
    network_id: String,
    #[prost(string, tag = "2")]
    id: String,
    #[prost(string, tag = "3")]
    name: String,
    #[prost(message, repeated, tag = "4")]
    ports: Vec<Port>,
    #[prost(message, optional, tag = "5")]
    vip: Option<Addresses>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Port {
    #[prost(uint32, tag = "1")]
    protocol: u32,
    #[prost(uint32, tag = "2")]
    published: u32,
    #[prost(uint32, tag = "3")]
    target: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Member {
    #[prost(string, tag = "1")]
    service_id: String,
    #[prost(string, tag = "2")]
    id: String,
    #[prost(string, tag = "3")]
    name: String,
    #[prost(uint64, tag = "4")]
    slot: u64,
    #[prost(string, tag = "5")]
    node_id: String,
    #[prost(bool, tag = "6")]
    serving: bool,
    #[prost(message, optional, tag = "7")]
    at: Option<Addresses>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Addresses {
    #[prost(string, tag = "1")]
    network_id: String,
    #[prost(fixed32, tag = "2")]
    v4: u32,
    #[prost(bytes = "vec", optional, tag = "3")]
    v6: Option<Vec<u8>>,
    #[prost(string, repeated, tag = "4")]
    aliases: Vec<String>,
}

impl Row {
    /// As it is sent: the same row is the same bytes.
    ///
    /// # Panics
    /// Never: a row has text keys and plain values only.
    pub fn write(&self) -> Vec<u8> {
        let kind = match self {
            Row::Peer(row) => Kind::Peer(row.into()),
            Row::Service(row) => Kind::Service(row.into()),
            Row::Member(row) => Kind::Member(row.into()),
            Row::Node { .. } | Row::Network(_) | Row::Task(_) | Row::Dependency(_) => Kind::Other(
                serde_json::to_vec(self).expect("a row has text keys and plain values only"),
            ),
        };
        let mut pack = Pack { rows: vec![Written { kind: Some(kind) }] };
        let bytes = pack.encode_to_vec();
        for row in &mut pack.rows {
            if let Some(Kind::Other(json)) = &mut row.kind {
                json.zeroize(); // it may be a secret
            }
        }
        bytes
    }

    /// What was written of one row, or of several after each other.
    ///
    /// # Errors
    /// When it is no row.
    pub fn read_all(pack: &[u8]) -> impl Iterator<Item = Result<Row, UnreadableRow>> {
        Row::split(pack).map(|row| Row::read(row?))
    }

    /// What was written of several rows, for each of them.
    ///
    /// # Errors
    /// When it is no row; nothing follows then.
    pub fn split(mut pack: &[u8]) -> impl Iterator<Item = Result<&[u8], UnreadableRow>> {
        std::iter::from_fn(move || {
            let all = std::mem::take(&mut pack);
            if all.is_empty() {
                return None;
            }
            let length = length_of_first(all);
            Some(length.map(|length| {
                let (first, rest) = all.split_at(length);
                pack = rest;
                first
            }))
        })
    }

    /// What was written of one row.
    ///
    /// # Errors
    /// When it is no row.
    pub fn read(bytes: &[u8]) -> Result<Row, UnreadableRow> {
        let row = Pack::decode(bytes)?.rows.pop().ok_or(UnreadableRow::Kind)?;
        Ok(match row.kind.ok_or(UnreadableRow::Kind)? {
            Kind::Other(json) => serde_json::from_slice(&Zeroizing::new(json))?,
            Kind::Peer(row) => Row::Peer(row.try_into()?),
            Kind::Service(row) => Row::Service(row.try_into()?),
            Kind::Member(row) => Row::Member(row.try_into()?),
        })
    }
}

/// Bytes of the first row of several, with what precedes it.
fn length_of_first(pack: &[u8]) -> Result<usize, UnreadableRow> {
    let mut rest = pack;
    let (tag, kind) = decode_key(&mut rest)?;
    if (tag, kind) != (1, WireType::LengthDelimited) {
        return Err(UnreadableRow::Kind);
    }
    let row = decode_varint(&mut rest)?;
    let before = pack.len() - rest.len();
    let row = usize::try_from(row).ok().filter(|row| *row <= rest.len());
    Ok(before + row.ok_or(UnreadableRow::Length)?)
}

impl From<&PeerRow> for Peer {
    fn from(row: &PeerRow) -> Peer {
        Peer {
            network_id: row.network_id.clone(),
            node_id: row.node_id.clone(),
            hostname: row.hostname.clone(),
            public_key: row.public_key.clone(),
            endpoint: row.endpoint.to_string(),
            overlay: row.overlay.into(),
        }
    }
}

impl TryFrom<Peer> for PeerRow {
    type Error = UnreadableRow;

    fn try_from(row: Peer) -> Result<PeerRow, UnreadableRow> {
        Ok(PeerRow {
            endpoint: row.endpoint.parse()?,
            overlay: Ipv4Addr::from(row.overlay),
            network_id: row.network_id,
            node_id: row.node_id,
            hostname: row.hostname,
            public_key: row.public_key,
        })
    }
}

impl From<&ServiceRow> for Service {
    fn from(row: &ServiceRow) -> Service {
        let port = |port: &PublishedPort| Port {
            protocol: port.protocol.into(),
            published: port.published.into(),
            target: port.target.into(),
        };
        Service {
            network_id: row.network_id.clone(),
            id: row.id.clone(),
            name: row.name.clone(),
            ports: row.ports.iter().map(port).collect(),
            vip: row.vip.as_ref().map(Addresses::from),
        }
    }
}

impl TryFrom<Service> for ServiceRow {
    type Error = UnreadableRow;

    fn try_from(row: Service) -> Result<ServiceRow, UnreadableRow> {
        let port = |port: Port| -> Result<PublishedPort, UnreadableRow> {
            Ok(PublishedPort {
                protocol: port.protocol.try_into()?,
                published: port.published.try_into()?,
                target: port.target.try_into()?,
            })
        };
        Ok(ServiceRow {
            ports: row.ports.into_iter().map(port).collect::<Result<_, _>>()?,
            vip: row.vip.map(NetAddresses::try_from).transpose()?,
            network_id: row.network_id,
            id: row.id,
            name: row.name,
        })
    }
}

impl From<&MemberRow> for Member {
    fn from(row: &MemberRow) -> Member {
        Member {
            service_id: row.service_id.clone(),
            id: row.id.clone(),
            name: row.name.clone(),
            slot: row.slot,
            node_id: row.node_id.clone(),
            serving: row.serving,
            at: Some((&row.at).into()),
        }
    }
}

impl TryFrom<Member> for MemberRow {
    type Error = UnreadableRow;

    fn try_from(row: Member) -> Result<MemberRow, UnreadableRow> {
        Ok(MemberRow {
            at: row.at.ok_or(UnreadableRow::NoAddresses)?.try_into()?,
            service_id: row.service_id,
            id: row.id,
            name: row.name,
            slot: row.slot,
            node_id: row.node_id,
            serving: row.serving,
        })
    }
}

impl From<&NetAddresses> for Addresses {
    fn from(at: &NetAddresses) -> Addresses {
        Addresses {
            network_id: at.network_id.clone(),
            v4: at.v4.into(),
            v6: at.v6.map(|v6| v6.octets().to_vec()),
            aliases: at.aliases.clone(),
        }
    }
}

impl TryFrom<Addresses> for NetAddresses {
    type Error = UnreadableRow;

    fn try_from(at: Addresses) -> Result<NetAddresses, UnreadableRow> {
        let v6 = |bytes: Vec<u8>| -> Result<Ipv6Addr, UnreadableRow> {
            let octets: [u8; 16] =
                bytes.as_slice().try_into().map_err(|_| UnreadableRow::Address(bytes.len()))?;
            Ok(octets.into())
        };
        Ok(NetAddresses {
            v4: at.v4.into(),
            v6: at.v6.map(v6).transpose()?,
            network_id: at.network_id,
            aliases: at.aliases,
        })
    }
}

#[cfg(test)]
mod tests;
