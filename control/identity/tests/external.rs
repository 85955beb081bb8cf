//! A certificate authority outside of the cluster, over real TLS.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

#[path = "common/cfssl.rs"]
mod cfssl;
mod common;

use cfssl::{Cfssl, Manners};
use common::{TestCluster, now};
use shoal_identity::{ExternalCa, ExternalUrl, Identity, NodeCertificate, NodeKey};
use shoal_model::Role;
use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

/// A worker of the cluster, by the name the tests use.
fn worker(cluster: &TestCluster) -> Identity {
    let node_id = "node1".to_owned();
    Identity { node_id, role: Role::Worker, cluster_id: cluster.id.clone() }
}

fn client(server: &Cfssl, cluster: &TestCluster, own: Option<&NodeCertificate>) -> ExternalCa {
    let url = ExternalUrl::parse(&server.url).unwrap();
    ExternalCa::new(url, &[cluster.ca.certificate().clone()], own).unwrap()
}

#[tokio::test]
async fn it_signs_what_it_is_asked_for_and_anything_else_is_refused() {
    let (cluster, other) = (TestCluster::new(), TestCluster::new());
    let server = Cfssl::start(&cluster.ca, &[&cluster.ca]).await;
    let own = cluster.node(Role::Manager);
    let ca = client(&server, &cluster, Some(&own));
    ca.reach().await.unwrap();
    let key = NodeKey::create().unwrap();
    let csr = key.csr_pem().unwrap();
    let (node, root) = (worker(&cluster), cluster.ca.certificate());
    let pem = ca.sign_node(&csr, &node, root, now()).await.unwrap();
    let made = NodeCertificate::new(key, &pem, root.clone()).unwrap();
    assert_eq!(*made.identity(), node);

    let stranger = NodeKey::create().unwrap().csr_pem().unwrap();
    let table = [
        (Manners::By(other.ca.clone()), "has not signed it"),
        (Manners::For("node2"), "it names node node2 as swarm-worker"),
        (Manners::AsManager, "it names node node1 as swarm-manager"),
        (Manners::Key(stranger), "it is for another key than the request's"),
        (Manners::EndsIn(Duration::from_secs(3_000)), "it ends within an hour"),
        (Manners::Answers(500, "no"), "unexpected status code 500 Internal Server Error: no"),
        (Manners::Answers(200, "{"), "its answer is not understood"),
        (
            Manners::Answers(200, r#"{"success":false,"errors":[{"code":5,"message":"not you"}]}"#),
            "did not sign: not you",
        ),
        (
            Manners::Answers(200, r#"{"success":true,"result":{"certificate":"x"}}"#),
            "it is not one certificate in PEM form",
        ),
    ];
    for (manners, reason) in table {
        server.behave(manners);
        let error = ca.sign_node(&csr, &node, root, now()).await.unwrap_err();
        let error = shoal_identity::chain(&error);
        assert!(error.contains(reason), "{error}, expected {reason}");
        assert!(error.contains(&server.url), "{error} names the CA");
    }
}

#[tokio::test]
async fn one_that_does_not_answer_is_given_up() {
    let cluster = TestCluster::new();
    let server = Cfssl::start(&cluster.ca, &[&cluster.ca]).await;
    server.behave(Manners::Hangs);
    let own = cluster.node(Role::Manager);
    let ca = client(&server, &cluster, Some(&own));
    let csr = NodeKey::create().unwrap().csr_pem().unwrap();
    let begun = Instant::now();
    let root = cluster.ca.certificate();
    let error = ca.sign_node(&csr, &worker(&cluster), root, now()).await.unwrap_err().to_string();
    assert!(error.contains("cannot be reached: no answer within 5s"), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn both_sides_check_who_the_other_is() {
    let (cluster, other) = (TestCluster::new(), TestCluster::new());
    let own = cluster.node(Role::Manager);
    let csr = NodeKey::create().unwrap().csr_pem().unwrap();
    let (node, root) = (worker(&cluster), cluster.ca.certificate());
    // A server of another root.
    let foreign = Cfssl::start(&other.ca, &[&cluster.ca]).await;
    let error = client(&foreign, &cluster, Some(&own)).reach().await.unwrap_err().to_string();
    assert!(error.contains("cannot be reached: invalid peer certificate"), "{error}");
    // A server that wants to see a certificate.
    let server = Cfssl::start(&cluster.ca, &[&cluster.ca]).await;
    for shown in [None, Some(other.node(Role::Manager))] {
        let ca = client(&server, &cluster, shown.as_ref());
        assert!(ca.sign_node(&csr, &node, root, now()).await.is_err());
    }
    assert_eq!(server.asked.load(Ordering::Relaxed), 0, "nothing was heard");
    // A host its certificate is not for.
    let url = server.url.replace("127.0.0.1", "localhost");
    let ca =
        ExternalCa::new(ExternalUrl::parse(&url).unwrap(), std::slice::from_ref(root), Some(&own))
            .unwrap();
    let error = ca.reach().await.unwrap_err().to_string();
    assert!(error.contains("not valid for name"), "{error}");
    // Nobody there.
    let url = ExternalUrl::parse("https://127.0.0.1:1/").unwrap();
    let error =
        ExternalCa::new(url, std::slice::from_ref(root), None).unwrap().reach().await.unwrap_err();
    assert!(error.to_string().contains("Connection refused"), "{error}");
}
