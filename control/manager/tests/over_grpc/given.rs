//! A cluster that is made with a root a user gives.
#![expect(clippy::unwrap_used, reason = "where a test cannot be set up it fails")]

use crate::{
    cfssl::Cfssl,
    rotation::{change, cluster, worker},
    support::*,
};
use shoal_identity::{JoinToken, RootCa};
use shoal_manager::{InitRequest, Manager, ManagerError};
use shoal_model::{ControlError, ErrorKind, Timestamp, docker};
use std::{path::Path, sync::atomic::Ordering, time::Duration};

async fn init_with(
    dir: &Path,
    edit: impl FnOnce(&mut docker::SwarmSpecCaConfig),
) -> Result<Manager, ManagerError> {
    let mut request = InitRequest::default();
    edit(request.request.spec.get_or_insert_default().ca_config.get_or_insert_default());
    Manager::init(config(dir, loopback()), request).await
}

fn pem(ca: &RootCa) -> Option<String> {
    Some(ca.certificate().pem().to_owned())
}

fn key(ca: &RootCa) -> Option<String> {
    Some(ca.key_pem().to_string())
}

/// Made so many years ago.
fn old(years: u64) -> RootCa {
    let past = Duration::from_secs(years * 365 * 24 * 3600).as_nanos();
    RootCa::create(Timestamp(now().0 - i64::try_from(past).unwrap())).unwrap()
}

fn external(url: &str, root: Option<String>) -> docker::SwarmSpecCaConfigExternalCas {
    docker::SwarmSpecCaConfigExternalCas {
        protocol: Some(docker::SwarmSpecCaConfigExternalCasProtocolEnum::CFSSL),
        url: Some(url.to_owned()),
        options: None,
        ca_cert: root,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_swarm_is_made_with_a_given_root_and_its_nodes_are_of_it_from_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let given = RootCa::create(now()).unwrap();
    let manager = init_with(dir.path(), |ca| {
        // Files of users have words around the certificate.
        ca.signing_ca_cert = pem(&given).map(|pem| format!("subject=CN = swarm-ca\n{pem}"));
        ca.signing_ca_key = key(&given);
    })
    .await
    .unwrap();
    let made = cluster(&manager);
    assert_eq!((Some(made.root_certificate), Some(made.root_key)), (pem(&given), key(&given)));
    assert!(made.root_rotation.is_none(), "there is nothing to rotate");
    let ca = made.spec.ca_config.unwrap();
    assert_eq!((ca.signing_ca_cert, ca.signing_ca_key), (None, None), "neither is kept there");
    for token in [made.join_tokens.worker, made.join_tokens.manager] {
        assert_eq!(JoinToken::parse(&token).unwrap().digest(), given.digest());
    }
    assert!(manager.certificate().is_signed_by(&given.digest().to_string()));
    let worker = worker(&manager).await;
    assert!(worker.node.is_signed_by(&given.digest().to_string()));
    // The specification that is read is sent back with something else changed: the root stays.
    change(&manager, |ca| ca.node_cert_expiry = Some(7_200_000_000_000)).await.unwrap();
    let after = cluster(&manager);
    assert_eq!(Some(after.root_certificate), pem(&given));
    assert!(after.root_rotation.is_none());
    manager.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_given_root_that_cannot_serve_makes_no_swarm_and_is_refused_in_docker_s_words() {
    let dir = tempfile::tempdir().unwrap();
    let (given, other) = (RootCa::create(now()).unwrap(), RootCa::create(now()).unwrap());
    let (expired, ending) = (old(21), old(19));
    let manager = init(dir.path()).await;
    let no_ca = manager.certificate().pem().to_owned();
    manager.shutdown().await;
    let dead = "https://127.0.0.1:9/sign";
    let elsewhere = vec![external(dead, pem(&other))];
    let none = "external CA corresponding to the desired CA certificate: none is named for it";
    let table = [
        (None, key(&given), vec![], "the signing CA cert must also be provided"),
        (None, key(&given), elsewhere.clone(), "the signing CA cert must also be provided"),
        (Some(no_ca), key(&given), vec![], "it is not a certificate authority's"),
        (Some("hello".to_owned()), key(&given), vec![], "it is not one certificate in PEM form"),
        (
            pem(&given),
            key(&other),
            vec![],
            "certificate key mismatch: the key of the root does not",
        ),
        (pem(&given), Some("hello".to_owned()), vec![], "it is not a private key in PEM form"),
        (pem(&expired), key(&expired), vec![], "certificate has expired or is not yet valid"),
        (pem(&ending), key(&ending), vec![], "CA certificate expires too soon"),
        (pem(&given), None, vec![], none),
        (pem(&given), Some(" ".to_owned()), elsewhere, none),
    ];
    for (certificate, key, externals, words) in table {
        let dir = tempfile::tempdir().unwrap();
        let refused = init_with(dir.path(), |ca| {
            ca.signing_ca_cert = certificate;
            ca.signing_ca_key = key;
            ca.external_cas = Some(externals);
        });
        let refused = ControlError::from(refused.await.err().unwrap());
        assert!(refused.message.contains(words), "{refused}, expected {words}");
        assert_eq!(refused.kind, ErrorKind::InvalidArgument, "{words}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "{words}: something is left");
    }
    let dir = tempfile::tempdir().unwrap();
    let short = init_with(dir.path(), |ca| ca.node_cert_expiry = Some(1)).await.err().unwrap();
    let words = "minimum certificate expiry time must be: 1h0m0s";
    assert!(short.to_string().contains(words), "{short}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_given_root_without_its_key_is_its_external_ca_s() {
    let dir = tempfile::tempdir().unwrap();
    let outside = RootCa::create(now()).unwrap();
    let server = Cfssl::open(&outside).await;
    let manager = init_with(dir.path(), |ca| {
        ca.signing_ca_cert = pem(&outside);
        // One that names no root is that root's.
        ca.external_cas = Some(vec![external(&server.url, None)]);
    })
    .await
    .unwrap();
    let made = cluster(&manager);
    assert_eq!((Some(made.root_certificate), made.root_key.as_str()), (pem(&outside), ""));
    let worker = worker(&manager).await;
    assert!(worker.node.is_signed_by(&outside.digest().to_string()));
    assert_eq!(server.asked.load(Ordering::Relaxed), 2, "one for each node");
    manager.shutdown().await;
}
