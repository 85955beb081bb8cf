//! The cluster's certificates come from outside.
#![expect(clippy::unwrap_used, reason = "where a test cannot be set up it fails")]

use crate::{
    cfssl::{Cfssl, Manners},
    rotation::{change, cluster, own_agent, says, worker},
    support::*,
};
use shoal_identity::{RootCa, RootCertificate};
use shoal_manager::{InitRequest, Manager};
use shoal_model::docker;
use std::sync::atomic::Ordering;

type External = docker::SwarmSpecCaConfigExternalCas;

fn external(url: &str, root: Option<&RootCa>) -> External {
    External {
        protocol: Some(docker::SwarmSpecCaConfigExternalCasProtocolEnum::CFSSL),
        url: Some(url.to_owned()),
        options: None,
        ca_cert: root.map(|root| root.certificate().pem().to_owned()),
    }
}

/// Until the rotation is over and every node has told that it trusts the new root alone.
async fn ended(manager: &Manager) {
    until(manager, "an end", |s| s.cluster.as_ref().unwrap().root_rotation.is_none()).await;
    let root = RootCertificate::from_pem(&cluster(manager).root_certificate).unwrap();
    let trust = vec![root.digest().to_string()];
    until(manager, "one root trusted", |s| {
        s.nodes.values().all(|n| n.tls.as_ref().is_some_and(|tls| tls.trust == trust))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_moves_to_an_external_ca_and_back_and_does_not_keep_its_key() {
    let dir = tempfile::tempdir().unwrap();
    let manager = init(dir.path()).await;
    let addr = manager.listening();
    let (own, first) = (own_agent(&manager).await, worker(&manager).await);
    let before = RootCa::from_pem(&cluster(&manager).root_certificate, &cluster(&manager).root_key);
    let (before, outside) = (before.unwrap(), RootCa::create(now()).unwrap());
    let server = Cfssl::start(&outside, &[&before, &outside]).await;
    let pem = outside.certificate().pem().to_owned();
    let dead = "https://127.0.0.1:1/sign";
    // One that is dead is no matter while another answers.
    change(&manager, |ca| {
        ca.signing_ca_cert = Some(pem.clone());
        ca.external_cas =
            Some(vec![external(dead, Some(&outside)), external(&server.url, Some(&outside))]);
    })
    .await
    .unwrap();
    ended(&manager).await;
    let after = cluster(&manager);
    assert_eq!((after.root_certificate.as_str(), after.root_key.as_str()), (&*pem, ""));
    assert_eq!(server.asked.load(Ordering::Relaxed), 2, "one for each node");
    assert!(says(addr, &first.node).await.is_err(), "the old root counts no more");
    let second = worker(&manager).await;
    for agent in [&own, &first, &second] {
        assert!(agent.ended.borrow().is_none());
        assert!(says(addr, &agent.certificate.borrow()).await.is_ok());
    }
    // Without it nobody gets in, and is told why.
    server.behave(Manners::Answers(200, r#"{"success":false,"errors":[{"message":"closed"}]}"#));
    let refused = join(addr, &worker_token(&manager)).await.unwrap_err();
    let words = format!("the external CA {} did not sign: closed", server.url);
    assert!(refused.message().contains(&words), "{refused}");
    // To another one there is no way, nor without any.
    let third = RootCa::create(now()).unwrap();
    let another = Cfssl::start(&third, &[&outside, &third]).await;
    let refused = change(&manager, |ca| {
        ca.signing_ca_cert = Some(third.certificate().pem().to_owned());
        ca.external_cas.get_or_insert_default().push(external(&another.url, Some(&third)));
    });
    let refused = refused.await.unwrap_err();
    assert!(refused.message.contains("to a different external CA is not supported"), "{refused}");
    let refused = change(&manager, |ca| ca.external_cas = None).await.unwrap_err();
    let words = "external CA corresponding to the current CA certificate: none is named for it";
    assert!(refused.message.contains(words), "{refused}");
    // With its key the cluster signs by itself again.
    change(&manager, |ca| {
        ca.signing_ca_cert = Some(pem.clone());
        ca.signing_ca_key = Some(outside.key_pem().to_string());
        ca.external_cas = None;
    })
    .await
    .unwrap();
    assert_eq!(cluster(&manager).root_key, *outside.key_pem().as_str());
    worker(&manager).await;
    manager.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_swarm_is_made_with_the_root_of_an_external_ca() {
    let dir = tempfile::tempdir().unwrap();
    let outside = RootCa::create(now()).unwrap();
    let server = Cfssl::open(&outside).await;
    let mut request = InitRequest::default();
    let mut with = |ca: External| {
        let spec = request.request.spec.get_or_insert_default();
        spec.ca_config.get_or_insert_default().external_cas = Some(vec![ca]);
        Manager::init(config(dir.path(), loopback()), request.clone())
    };
    let refused = with(external(&server.url, None)).await.err().unwrap();
    assert!(refused.to_string().contains("add cacert=FILE to --external-ca"), "{refused}");
    let refused = with(external("https://127.0.0.1:1/", Some(&outside))).await.err().unwrap();
    assert!(refused.to_string().contains("https://127.0.0.1:1/ cannot be reached"), "{refused}");
    let manager = with(external(&server.url, Some(&outside))).await.unwrap();
    let made = cluster(&manager);
    assert_eq!(made.root_certificate, outside.certificate().pem());
    assert_eq!((made.root_key.as_str(), server.asked.load(Ordering::Relaxed)), ("", 1));
    worker(&manager).await;
    manager.shutdown().await;
}
