//! What certificates say, and how they are kept.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod common;

use common::{DAY, TestCluster, now};
use rcgen::{CertificateParams, KeyPair, PKCS_ED25519};
use shoal_identity::{
    CertificateDir, IdentityError, NODE_VALIDITY, NodeCertificate, NodeKey, RootCa,
    RootCertificate, RootDigest, id,
};
use shoal_model::{Role, Timestamp};
use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
};
use x509_parser::prelude::{FromDer, X509Certificate};

fn with_certificate<R>(pem: &str, f: impl FnOnce(&X509Certificate<'_>) -> R) -> R {
    let (_, pem) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).unwrap();
    f(&X509Certificate::from_der(&pem.contents).unwrap().1)
}

#[test]
fn the_root_is_a_p256_authority_for_20_years() {
    let time = now();
    let ca = RootCa::create(time).unwrap();
    with_certificate(ca.certificate().pem(), |certificate| {
        assert_eq!(certificate.subject().to_string(), "CN=swarm-ca");
        assert_eq!(certificate.issuer(), certificate.subject());
        assert!(certificate.is_ca());
        let constraints = certificate.basic_constraints().unwrap().unwrap().value;
        // Its successor's certificate may stand between it and a node's.
        assert_eq!(constraints.path_len_constraint, Some(1));
        let usage = certificate.key_usage().unwrap().unwrap().value;
        assert!(usage.key_cert_sign() && usage.crl_sign() && !usage.digital_signature());
        let key = certificate.public_key().parsed().unwrap();
        assert_eq!(key.key_size(), 256);
        assert_eq!(
            certificate.signature_algorithm.algorithm,
            x509_parser::oid_registry::OID_SIG_ECDSA_WITH_SHA256
        );
    });
    let [begin, end] = ca.certificate().validity();
    assert_eq!(time.since(begin).as_secs(), 3600);
    assert_eq!(end.since(time).as_secs().div_ceil(DAY.as_secs()), 20 * 365);
}

#[test]
fn a_node_certificate_names_node_role_and_cluster_for_90_days() {
    let cluster = TestCluster::new();
    for (role, unit) in [(Role::Worker, "swarm-worker"), (Role::Manager, "swarm-manager")] {
        let time = now();
        let node = cluster.node_at(role, time);
        let identity = node.identity();
        assert_eq!((identity.role, &identity.cluster_id), (role, &cluster.id));
        assert!(id::is_valid(&identity.node_id));
        with_certificate(node.pem(), |certificate| {
            let subject = certificate.subject();
            let text = |it: Option<&x509_parser::x509::AttributeTypeAndValue<'_>>| {
                it.unwrap().as_str().unwrap().to_owned()
            };
            assert_eq!(text(subject.iter_common_name().next()), identity.node_id);
            assert_eq!(text(subject.iter_organizational_unit().next()), unit);
            assert_eq!(text(subject.iter_organization().next()), cluster.id);
            assert_eq!(certificate.issuer().to_string(), "CN=swarm-ca");
            assert!(!certificate.is_ca());
        });
        let [begin, end] = node.validity();
        assert_eq!(time.since(begin).as_secs(), 3600);
        assert_eq!(end.since(Timestamp(time.0 / 1_000_000_000 * 1_000_000_000)), NODE_VALIDITY);
    }
}

#[test]
fn what_a_request_asks_for_beyond_its_key_is_ignored() {
    let cluster = TestCluster::new();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["evil.example".to_owned()]).unwrap();
    params.distinguished_name.push(rcgen::DnType::CommonName, "someone-else");
    params.distinguished_name.push(rcgen::DnType::OrganizationalUnitName, "swarm-manager");
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let csr = params.serialize_request(&key).unwrap().pem().unwrap();
    let pem = cluster
        .ca
        .sign_node(&csr, "node1", Role::Worker, &cluster.id, now(), NODE_VALIDITY)
        .unwrap();
    let node = NodeCertificate::new(
        NodeKey::from_pem(&key.serialize_pem()).unwrap(),
        &pem,
        cluster.ca.certificate().clone(),
    )
    .unwrap();
    assert_eq!(node.identity().node_id, "node1");
    assert_eq!(node.identity().role, Role::Worker);
    with_certificate(&pem, |certificate| {
        assert!(!certificate.is_ca());
        assert!(certificate.subject_alternative_name().unwrap().is_none());
    });
}

#[test]
fn bad_requests_are_refused_with_the_reason() {
    let cluster = TestCluster::new();
    let sign = |csr: &str| {
        cluster
            .ca
            .sign_node(csr, "n", Role::Worker, &cluster.id, now(), NODE_VALIDITY)
            .unwrap_err()
            .to_string()
    };
    let good = NodeKey::create().unwrap().csr_pem().unwrap();
    // Another letter in the last line, where the signature is.
    let mut lines: Vec<String> = good.lines().map(str::to_owned).collect();
    let line = lines.iter().rposition(|line| !line.starts_with('-')).unwrap();
    let other = if lines[line].starts_with('A') { "B" } else { "A" };
    lines[line].replace_range(..1, other);
    let tampered = lines.join("\n");
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    let ed25519 = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    let other_type = params.serialize_request(&ed25519).unwrap().pem().unwrap();
    for (csr, reason) in [
        ("", "certificate signing request is not valid"),
        (
            "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n",
            "not valid",
        ),
        (&"x".repeat(100_000), "too long"),
        (&tampered, "certificate signing request is not valid"),
        (&other_type, "not of type ECDSA P-256"),
    ] {
        let error = sign(csr);
        assert!(error.contains(reason), "{error}");
    }
}

#[test]
fn certificate_key_and_root_must_belong_together() {
    let (cluster, other) = (TestCluster::new(), TestCluster::new());
    let (node, stranger) = (cluster.node(Role::Worker), cluster.node(Role::Worker));
    let root = cluster.ca.certificate();
    let error = NodeCertificate::new(stranger.key().clone(), node.pem(), root.clone()).unwrap_err();
    assert!(matches!(error, IdentityError::KeyMismatch("node")), "{error}");
    let foreign = other.ca.certificate().clone();
    let error = NodeCertificate::new(node.key().clone(), node.pem(), foreign).unwrap_err();
    assert!(error.to_string().contains("the cluster's root has not signed it"), "{error}");
    // The root's own certificate names no node.
    let error = NodeCertificate::new(node.key().clone(), root.pem(), root.clone()).unwrap_err();
    assert!(error.to_string().contains("it has no role (OU)"), "{error}");
    // Roots.
    let error = RootCa::from_pem(root.pem(), other.ca.key_pem()).unwrap_err();
    assert!(matches!(error, IdentityError::KeyMismatch("root")), "{error}");
    let error = RootCertificate::from_pem(node.pem()).unwrap_err();
    assert!(error.to_string().contains("not a certificate authority's"), "{error}");
    let error = RootCertificate::from_pem("hello").unwrap_err();
    assert!(error.to_string().contains("not one certificate in PEM form"), "{error}");
    let again = RootCa::from_pem(root.pem(), cluster.ca.key_pem()).unwrap();
    assert_eq!(again.digest(), cluster.ca.digest());
}

#[test]
fn the_digest_is_that_of_the_root_alone() {
    let (a, b) = (TestCluster::new(), TestCluster::new());
    assert_ne!(a.ca.digest(), b.ca.digest());
    let (_, pem) = x509_parser::pem::parse_x509_pem(a.ca.certificate().pem().as_bytes()).unwrap();
    assert_eq!(RootDigest::of(&pem.contents), a.ca.digest());
}

#[test]
fn saved_files_are_private_and_read_back() {
    let data_root = tempfile::tempdir().unwrap();
    let dir = CertificateDir::new(data_root.path());
    assert!(dir.load().unwrap().is_none());
    let cluster = TestCluster::new();
    // Twice: the second replaces the first.
    for _ in 0..2 {
        let node = cluster.node(Role::Manager);
        dir.save(&node).unwrap();
        let read = dir.load().unwrap().unwrap();
        assert_eq!((read.pem(), read.identity()), (node.pem(), node.identity()));
        assert_eq!(read.key().pem(), node.key().pem());
        assert_eq!(read.trust(), node.trust());
    }
    let mode =
        |name: &str| fs::metadata(dir.path().join(name)).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode("."), 0o700);
    assert_eq!(mode("swarm-node.key"), 0o600);
    assert_eq!(mode("swarm-node.crt"), 0o644);
    assert_eq!(mode("swarm-root-ca.crt"), 0o644);
    assert_eq!(fs::read_dir(data_root.path().join("swarm")).unwrap().count(), 1, "no leftovers");
    dir.remove().unwrap();
    dir.remove().unwrap();
    assert!(dir.load().unwrap().is_none());
}

#[test]
fn a_save_swaps_the_whole_folder_and_survives_an_interrupted_one() {
    let data_root = tempfile::tempdir().unwrap();
    let dir = CertificateDir::new(data_root.path());
    let cluster = TestCluster::new();
    let (old, new) = (cluster.node(Role::Worker), cluster.node(Role::Worker));
    dir.save(&old).unwrap();
    let inode = fs::metadata(dir.path()).unwrap().ino();
    // What an interrupted save leaves: a new folder with one file, not yet in place.
    let fresh = dir.path().with_extension("new");
    fs::create_dir(&fresh).unwrap();
    fs::write(fresh.join("swarm-node.key"), new.key().pem().as_bytes()).unwrap();
    assert_eq!(dir.load().unwrap().unwrap().pem(), old.pem());
    dir.save(&new).unwrap();
    assert_eq!(dir.load().unwrap().unwrap().pem(), new.pem());
    assert_ne!(fs::metadata(dir.path()).unwrap().ino(), inode, "the folder itself was replaced");
}

#[test]
fn missing_and_damaged_files_are_named() {
    let data_root = tempfile::tempdir().unwrap();
    let dir = CertificateDir::new(data_root.path());
    for name in ["swarm-node.key", "swarm-node.crt", "swarm-root-ca.crt"] {
        dir.save(&TestCluster::new().node(Role::Worker)).unwrap();
        fs::remove_file(dir.path().join(name)).unwrap();
        let error = dir.load().unwrap_err().to_string();
        assert!(error.contains(name) && error.contains("join the swarm again"), "{error}");
    }
    for (name, what) in [
        ("swarm-node.key", "node key is not valid"),
        ("swarm-node.crt", "node certificate is not valid"),
        ("swarm-root-ca.crt", "root certificate is not valid"),
    ] {
        dir.save(&TestCluster::new().node(Role::Worker)).unwrap();
        for content in ["", "junk", &"x".repeat(1 << 20)] {
            fs::write(dir.path().join(name), content).unwrap();
            let error = dir.load().unwrap_err().to_string();
            assert!(error.contains(what), "{error}");
        }
    }
}

#[test]
fn debug_shows_no_keys() {
    let cluster = TestCluster::new();
    let node = cluster.node(Role::Manager);
    let shown = format!("{:?} {:?} {:?}", cluster.ca, node, node.key());
    assert!(!shown.contains("PRIVATE"), "{shown}");
    for key in [cluster.ca.key_pem(), node.key().pem()] {
        // The private half; what follows in PKCS #8 is the public one, which certificates hold, too.
        let private: Vec<&str> = key.lines().skip(1).take(2).collect();
        assert_eq!(private.concat().len(), 128);
        for line in private {
            assert!(!shown.contains(line));
        }
    }
}
