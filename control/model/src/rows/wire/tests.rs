use super::*;
use crate::{
    assignment::TableNetwork,
    dependency::{DependencyKind, Payload},
};
use proptest::{collection::vec, option, prelude::*};
use std::{net::SocketAddr, sync::Arc};

fn addresses() -> impl Strategy<Value = NetAddresses> {
    (".{0,30}", any::<Ipv4Addr>(), option::of(any::<Ipv6Addr>()), vec(".{0,9}", 0..3))
        .prop_map(|(network_id, v4, v6, aliases)| NetAddresses { network_id, v4, v6, aliases })
}

fn peer() -> impl Strategy<Value = Row> {
    (vec(".{0,30}", 4), any::<SocketAddr>(), any::<Ipv4Addr>()).prop_map(
        |(mut text, mut endpoint, overlay)| {
            if let SocketAddr::V6(v6) = &mut endpoint {
                v6.set_flowinfo(0); // no endpoint has one, nor does its text
            }
            let mut text = || text.pop().unwrap_or_default();
            Row::Peer(PeerRow {
                network_id: text(),
                node_id: text(),
                hostname: text(),
                public_key: text(),
                endpoint,
                overlay,
            })
        },
    )
}

fn service() -> impl Strategy<Value = Row> {
    let port = (any::<u8>(), any::<u16>(), any::<u16>())
        .prop_map(|(protocol, published, target)| PublishedPort { protocol, published, target });
    (".{0,30}", ".{0,30}", ".{0,30}", vec(port, 0..4), option::of(addresses())).prop_map(
        |(network_id, id, name, ports, vip)| {
            Row::Service(ServiceRow { network_id, id, name, ports, vip })
        },
    )
}

fn member() -> impl Strategy<Value = Row> {
    (vec(".{0,30}", 4), any::<u64>(), any::<bool>(), addresses()).prop_map(
        |(mut text, slot, serving, at)| {
            let mut text = || text.pop().unwrap_or_default();
            Row::Member(MemberRow {
                service_id: text(),
                id: text(),
                name: text(),
                slot,
                node_id: text(),
                serving,
                at,
            })
        },
    )
}

fn network() -> impl Strategy<Value = Row> {
    (".{0,30}", any::<bool>()).prop_map(|(name, internal)| {
        Row::Network(TableNetwork {
            id: "net".into(),
            name,
            ingress: false,
            internal,
            subnet: "10.0.1.0/24".parse().unwrap(),
            subnet6: None,
        })
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read(row in prop_oneof![peer(), service(), member(), network()]) {
        let written = row.write();
        prop_assert_eq!(&Row::read(&written).unwrap(), &row);
        prop_assert_eq!(row.write(), written, "the same bytes each time");
    }

    #[test]
    fn rows_after_each_other_are_read_one_by_one(
        rows in vec(prop_oneof![peer(), service(), member(), network()], 0..9),
        cut in 1_usize..9,
    ) {
        let each: Vec<Vec<u8>> = rows.iter().map(Row::write).collect();
        let pack = each.concat();
        let read: Vec<Row> = Row::read_all(&pack).map(Result::unwrap).collect();
        prop_assert_eq!(&read, &rows);
        let split: Vec<&[u8]> = Row::split(&pack).map(Result::unwrap).collect();
        prop_assert_eq!(split, each.iter().map(Vec::as_slice).collect::<Vec<_>>());
        let short = Row::read_all(&pack[..pack.len().saturating_sub(cut)]);
        prop_assert!(rows.is_empty() || short.filter(Result::is_ok).count() < rows.len());
    }

    #[test]
    fn anything_else_is_refused_or_a_row(bytes in vec(any::<u8>(), 0..200)) {
        let read: Result<Vec<Row>, UnreadableRow> = Row::read_all(&bytes).collect();
        for row in read.into_iter().flatten() {
            prop_assert_eq!(Row::read(&row.write()).unwrap(), row);
        }
    }

    /// What another manager says may be wrong in a single place.
    #[test]
    fn a_damaged_row_is_refused_or_a_row(
        row in prop_oneof![peer(), service(), member()],
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let mut bytes = row.write();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let read: Result<Vec<Row>, UnreadableRow> = Row::read_all(&bytes).collect();
        prop_assert!(read.is_err() || read.unwrap().len() <= bytes.len());
    }
}

#[test]
fn a_secret_is_a_row_too() {
    let row = Row::Dependency(Arc::new(Payload {
        kind: DependencyKind::Secret,
        id: "s".into(),
        name: "password".into(),
        content: b"hunter2".to_vec().into(),
        template: false,
    }));
    assert_eq!(Row::read(&row.write()).unwrap(), row);
}

fn member_of(task: &str) -> Vec<u8> {
    let member = Kind::Member(Member { id: task.into(), ..Member::default() });
    Pack { rows: vec![Written { kind: Some(member) }] }.encode_to_vec()
}

fn reason(kind: Option<Kind>) -> String {
    Row::read(&Pack { rows: vec![Written { kind }] }.encode_to_vec()).unwrap_err().to_string()
}

#[test]
fn what_is_wrong_is_said() {
    let member = Member::default();
    assert!(reason(None).contains("unknown kind"));
    let mut short = member_of("t");
    short.pop();
    assert!(Row::split(&short).next().unwrap().unwrap_err().to_string().contains("not whole"));
    assert!(reason(Some(Kind::Member(member.clone()))).contains("no addresses"));
    let at = Some(Addresses { v6: Some(vec![1; 15]), ..Addresses::default() });
    assert!(reason(Some(Kind::Member(Member { at, ..member }))).contains("15 bytes"));
    let ports = vec![Port { protocol: 6, published: 70_000, target: 80 }];
    let service = Service { ports, ..Service::default() };
    assert!(reason(Some(Kind::Service(service))).contains("out of range"));
    let peer = Peer { endpoint: "192.0.2.1".into(), ..Peer::default() };
    assert!(reason(Some(Kind::Peer(peer))).contains("no address with a port"));
    assert!(reason(Some(Kind::Other(b"{}".to_vec()))).contains("not understood"));
}

#[test]
fn a_row_of_a_later_version_that_says_more_is_read() {
    let Row::Member(row) = Row::read(&{
        let at = Some(Addresses { network_id: "net".into(), v4: 7, ..Addresses::default() });
        let mut bytes = Member { id: "t".into(), at, ..Member::default() }.encode_to_vec();
        bytes.extend([0x98, 0x06, 1]); // field 99, a number
        let mut whole = vec![0x22, u8::try_from(bytes.len()).unwrap()]; // field 4, of a length
        whole.extend(bytes);
        whole.splice(0..0, [0x0a, u8::try_from(whole.len()).unwrap()]); // field 1, of a length
        whole
    })
    .unwrap() else {
        panic!("it is a member")
    };
    assert_eq!((row.id.as_str(), row.at.v4), ("t", [0, 0, 0, 7].into()));
}
