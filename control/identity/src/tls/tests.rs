//! What both sides of a connection say of certificates.

use super::{
    roots::{anchors, store},
    verifiers::{ManagersOnly, NodesOnly},
};
use crate::{NODE_VALIDITY, NodeCertificate, NodeKey, RootCa, Trust};
use rustls::{
    client::danger::ServerCertVerifier,
    crypto::ring,
    pki_types::{ServerName, UnixTime},
    server::danger::ClientCertVerifier,
};
use shoal_model::{Role, Timestamp};
use std::{sync::Arc, time::Duration};

const BEGIN: Timestamp = Timestamp(1_800_000_000_000_000_000);
const DAY: Duration = Duration::from_secs(24 * 3600);
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

fn node(ca: &RootCa, role: Role, cluster: &str, from: Timestamp) -> NodeCertificate {
    let key = NodeKey::create().unwrap();
    let csr = key.csr_pem().unwrap();
    let pem = ca.sign_node(&csr, "node", role, cluster, from, NODE_VALIDITY).unwrap();
    NodeCertificate::new(key, &pem, ca.certificate().clone()).unwrap()
}

fn after(d: Duration) -> UnixTime {
    let time = BEGIN.after(d).0 / 1_000_000_000;
    UnixTime::since_unix_epoch(Duration::from_secs(time.try_into().unwrap()))
}

/// What a server of cluster `c` says of a client.
fn server_says(ca: &RootCa, client: &NodeCertificate, now: UnixTime) -> String {
    let server = node(ca, Role::Manager, "c", BEGIN);
    let verifier = NodesOnly::new(&server, Arc::new(ring::default_provider())).unwrap();
    let (leaf, others) = client.shown().split_first().unwrap();
    match verifier.verify_client_cert(leaf, others, now) {
        Ok(_) => "ok".to_owned(),
        Err(error) => format!("{error:?}"),
    }
}

/// What a client of cluster `c` says of a server.
fn client_says(ca: &RootCa, server: &NodeCertificate, now: UnixTime) -> String {
    peer_says(&ca.certificate().clone().into(), server, None, now)
}

/// The same, of one that wants to talk to a certain manager.
fn peer_says(
    trust: &Trust,
    server: &NodeCertificate,
    wanted: Option<&str>,
    now: UnixTime,
) -> String {
    let verifier = ManagersOnly {
        roots: anchors(trust, store).unwrap(),
        cluster_id: Some("c".to_owned()),
        node_id: wanted.map(str::to_owned),
        provider: Arc::new(ring::default_provider()),
    };
    let name = ServerName::try_from("ignored").unwrap();
    let (leaf, others) = server.shown().split_first().unwrap();
    match verifier.verify_server_cert(leaf, others, &name, &[], now) {
        Ok(_) => "ok".to_owned(),
        Err(error) => format!("{error:?}"),
    }
}

#[test]
fn both_sides_check_root_cluster_dates_and_role() {
    let ca = RootCa::create(BEGIN).unwrap();
    let other = RootCa::create(BEGIN).unwrap();
    let worker = node(&ca, Role::Worker, "c", BEGIN);
    let manager = node(&ca, Role::Manager, "c", BEGIN);
    let elsewhere = node(&ca, Role::Manager, "d", BEGIN);
    let foreign = node(&other, Role::Manager, "c", BEGIN);
    let late = node(&ca, Role::Manager, "c", BEGIN.after(20 * YEAR));
    // Certificate, when, what a server says of it, what a client says of it.
    let table = [
        (&worker, after(DAY), "ok", "it is a worker's"),
        (&manager, after(DAY), "ok", "ok"),
        (&elsewhere, after(DAY), "another cluster", "another cluster"),
        (&foreign, after(DAY), "UnknownIssuer", "no root trusted here has signed it"),
        (&manager, after(91 * DAY), "Expired", "Expired"),
        (&late, after(DAY), "NotValidYet", "NotValidYet"),
        // Valid by itself, but its root is no more.
        (&late, after(20 * YEAR + DAY), "root certificate", "root certificate"),
    ];
    for (certificate, now, server, client) in table {
        let said = server_says(&ca, certificate, now);
        assert!(said.contains(server), "server: {said}, expected {server}");
        let said = client_says(&ca, certificate, now);
        assert!(said.contains(client), "client: {said}, expected {client}");
    }
}

#[test]
fn a_certain_manager_is_not_mistaken_for_another() {
    let ca = RootCa::create(BEGIN).unwrap();
    let manager = node(&ca, Role::Manager, "c", BEGIN);
    let trust = Trust::from(ca.certificate().clone());
    let said = |wanted| peer_says(&trust, &manager, Some(wanted), after(DAY));
    assert_eq!(said("node"), "ok");
    assert!(said("other").contains("it is node node's"), "{}", said("other"));
}

/// A certificate as it is issued while the root is rotated: with the cross-signed one.
fn crossed(old: &RootCa, new: &RootCa, role: Role, trust: Trust) -> NodeCertificate {
    let key = NodeKey::create().unwrap();
    let csr = key.csr_pem().unwrap();
    let leaf = new.sign_node(&csr, "node", role, "c", BEGIN, NODE_VALIDITY).unwrap();
    let chain = leaf + &old.cross_sign(new.certificate(), BEGIN).unwrap();
    NodeCertificate::new(key, &chain, trust).unwrap()
}

#[test]
fn while_the_root_is_rotated_every_stage_believes_every_other_and_afterwards_the_old_is_none() {
    let [old, new] = [(); 2].map(|()| RootCa::create(BEGIN).unwrap());
    let [first, second] = [&old, &new].map(|ca| Trust::from(ca.certificate().clone()));
    let both = Trust::both(old.certificate().clone(), new.certificate().clone());
    let manager = |ca: &RootCa| node(ca, Role::Manager, "c", BEGIN);
    // What a node shows: before, in between, and when its certificate was renewed once more.
    let shown = [manager(&old), crossed(&old, &new, Role::Manager, both.clone()), manager(&new)];
    let table = [(&first, [true, true, false]), (&both, [true; 3]), (&second, [false, true, true])];
    for (trust, expected) in table {
        let base = [&old, &new].map(|ca| node(ca, Role::Manager, "c", BEGIN));
        let own = base.iter().find_map(|own| own.trusting(trust.clone()).ok()).unwrap();
        let verifier = NodesOnly::new(&own, Arc::new(ring::default_provider())).unwrap();
        for (certificate, believed) in shown.iter().zip(expected) {
            let said = peer_says(trust, certificate, None, after(DAY));
            assert_eq!(said == "ok", believed, "client: {said}");
            let (leaf, others) = certificate.shown().split_first().unwrap();
            let said = verifier.verify_client_cert(leaf, others, after(DAY));
            assert_eq!(said.is_ok(), believed, "server: {said:?}");
        }
    }
}

#[test]
fn an_expired_root_is_no_reason_to_refuse_what_the_other_has_signed() {
    let old = RootCa::create(BEGIN).unwrap();
    let new = RootCa::create(BEGIN.after(19 * YEAR)).unwrap();
    let both = Trust::both(old.certificate().clone(), new.certificate().clone());
    let late = BEGIN.after(20 * YEAR);
    let [of_old, of_new] = [&old, &new].map(|ca| node(ca, Role::Manager, "c", late));
    assert_eq!(peer_says(&both, &of_new, None, after(20 * YEAR + DAY)), "ok");
    assert_ne!(peer_says(&both, &of_old, None, after(20 * YEAR + DAY)), "ok");
}
