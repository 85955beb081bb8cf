//! The root is rotated while sessions go on; who may come in before, meanwhile and afterwards.
#![expect(clippy::unwrap_used, reason = "where a test cannot be set up it fails")]

use crate::support::*;
use shoal_identity::{
    JoinToken, NodeCertificate, RootCa, RootCertificate, Trust, client_config, connect,
};
use shoal_manager::Manager;
use shoal_model::{Cluster, ControlError, NodeState, Rotations, State, docker};
use shoal_rpc::{
    RootRequest, certificates_client::CertificatesClient, dispatcher_client::DispatcherClient,
};
use std::{net::SocketAddr, time::Duration};
use tokio::time::{sleep, timeout};

pub(crate) fn cluster(manager: &Manager) -> Cluster {
    manager.store().read(|s| s.cluster.clone().unwrap())
}

/// Asks for a change of the root CA.
pub(crate) async fn change(
    manager: &Manager,
    edit: impl FnOnce(&mut docker::SwarmSpecCaConfig),
) -> Result<(), ControlError> {
    let cluster = cluster(manager);
    let mut spec = cluster.spec;
    edit(spec.ca_config.get_or_insert_default());
    manager.update_swarm(cluster.meta.version, spec, Rotations::default()).await
}

async fn rotate(manager: &Manager) {
    let next = |ca: &mut docker::SwarmSpecCaConfig| {
        ca.force_rotate = Some(ca.force_rotate.unwrap_or(0) + 1);
    };
    change(manager, next).await.unwrap();
}

/// The manager's own agent, whose certificate is the manager's, too.
pub(crate) async fn own_agent(manager: &Manager) -> Agent {
    let agent = Agent::start(manager.listening(), manager.certificate()).await;
    let (mut certificate, manager) = (agent.certificate.clone(), manager.clone());
    tokio::spawn(async move {
        while certificate.changed().await.is_ok() {
            manager.renewed(certificate.borrow_and_update().clone()).unwrap();
        }
    });
    agent
}

pub(crate) async fn worker(manager: &Manager) -> Agent {
    let addr = manager.listening();
    Agent::start(addr, join(addr, &worker_token(manager)).await.unwrap()).await
}

fn renewed(state: &State, id: &str) -> bool {
    let rotation = state.cluster.as_ref().and_then(|c| c.root_rotation.as_ref());
    let root = rotation.map(|r| r.digest.clone());
    root.is_some() && state.nodes[id].tls.as_ref().and_then(|t| t.root.clone()) == root
}

/// What a manager answers to a node with this certificate.
pub(crate) async fn says(addr: SocketAddr, node: &NodeCertificate) -> Result<(), String> {
    let tls = client_config(node.trust(), Some(node)).unwrap();
    let channel = connect(addr, tls).await.map_err(|e| e.to_string())?;
    let leave = async {
        let mut client = CertificatesClient::new(channel);
        client.root(RootRequest {}).await.map_err(|status| shoal_identity::chain(&status))
    };
    timeout(Duration::from_secs(5), leave).await.unwrap().map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_nodes_get_certificates_of_the_next_root_and_no_session_ends() {
    let dir = tempfile::tempdir().unwrap();
    let manager = init(dir.path()).await;
    let addr = manager.listening();
    let (own, first, away) =
        (own_agent(&manager).await, worker(&manager).await, worker(&manager).await);
    let before = [first.node.clone(), away.node.clone()];
    let (away_id, old) = (away.id(), cluster(&manager));
    drop(away);
    until(&manager, "a node away", |s| s.nodes[&away_id].status.state == NodeState::Down).await;
    rotate(&manager).await;
    let during = cluster(&manager);
    assert_eq!(during.root_certificate, old.root_certificate, "the one in force");
    assert!(during.join_tokens == old.join_tokens, "tokens are of the root in force");
    for id in [own.id(), first.id()] {
        until(&manager, "those who are there renew", |s| renewed(s, &id)).await;
    }
    // The one that is away holds it up. Who comes meanwhile has a certificate of the next root.
    sleep(Duration::from_millis(300)).await;
    assert!(cluster(&manager).root_rotation.is_some(), "not before all have");
    let second = worker(&manager).await;
    until(&manager, "a new node", |s| renewed(s, &second.id())).await;
    assert_eq!(second.node.trust().roots().len(), 2);
    assert!(says(addr, &before[0]).await.is_ok(), "the old root still counts");
    // It comes back with its old certificate, and is the last to renew.
    let back = Agent::start(addr, before[1].clone()).await;
    until(&manager, "an end", |s| s.cluster.as_ref().unwrap().root_rotation.is_none()).await;
    let after = cluster(&manager);
    assert_eq!(after.root_certificate, during.root_rotation.unwrap().certificate);
    assert_ne!(after.join_tokens.worker, old.join_tokens.worker);
    let root = RootCertificate::from_pem(&after.root_certificate).unwrap();
    let trust = vec![root.digest().to_string()];
    until(&manager, "one root trusted", |s| {
        s.nodes.values().all(|n| n.tls.as_ref().is_some_and(|tls| tls.trust == trust))
    })
    .await;
    for agent in [&own, &first, &second, &back] {
        assert!(agent.ended.borrow().is_none(), "{:?}", agent.ended.borrow());
        assert!(says(addr, &agent.certificate.borrow()).await.is_ok());
    }
    // An old certificate is refused, also by one that would trust the manager.
    for trust in [before[0].trust().clone(), Trust::both(before[0].trust().present().clone(), root)]
    {
        let refused = says(addr, &before[0].trusting(trust).unwrap()).await.unwrap_err();
        assert!(refused.contains("root CA was rotated while this node was away"), "{refused}");
        assert!(refused.contains("leave with `swarm leave --force` and join again"), "{refused}");
    }
    // So is an old token; a new one is not.
    let refused = join(addr, &old.join_tokens.worker).await.unwrap_err();
    assert!(refused.message().contains("remote CA does not match fingerprint"), "{refused}");
    let digest = JoinToken::parse(&after.join_tokens.worker).unwrap().digest();
    assert_eq!(digest.to_string(), trust[0]);
    assert_eq!(worker(&manager).await.node.trust().roots().len(), 1);
    manager.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_rotation_takes_the_first_one_s_place_and_giving_the_root_back_ends_it() {
    let dir = tempfile::tempdir().unwrap();
    let manager = init(dir.path()).await;
    let (own, stuck) = (own_agent(&manager).await, worker(&manager).await);
    // It says nothing of its certificate, as if it could not renew.
    let (before, id) = (stuck.node.clone(), stuck.id());
    drop(stuck);
    until(&manager, "a node away", |s| s.nodes[&id].status.state == NodeState::Down).await;
    let present = cluster(&manager);
    rotate(&manager).await;
    until(&manager, "a renewal", |s| renewed(s, &own.id())).await;
    let first = cluster(&manager).root_rotation.unwrap();
    rotate(&manager).await;
    let second = cluster(&manager).root_rotation.unwrap();
    assert_ne!(first.digest, second.digest);
    until(&manager, "another renewal", |s| renewed(s, &own.id())).await;
    // The root in force, with its key: the rotation is given up.
    let back = |ca: &mut docker::SwarmSpecCaConfig| {
        ca.signing_ca_cert = Some(format!("subject=CN = swarm-ca\n{}", present.root_certificate));
        ca.signing_ca_key = Some(present.root_key.clone());
    };
    change(&manager, back).await.unwrap();
    let after = cluster(&manager);
    assert!(after.root_rotation.is_none() && after.root_certificate == present.root_certificate);
    assert!(after.join_tokens == present.join_tokens);
    let ca = after.spec.ca_config.unwrap();
    assert_eq!((ca.signing_ca_cert, ca.signing_ca_key), (None, None), "neither is kept there");
    // All certificates still count: those of the roots given up, by way of the cross-signed ones.
    let addr = manager.listening();
    assert!(
        says(addr, &before).await.is_ok() && says(addr, &own.certificate.borrow()).await.is_ok()
    );
    let root = RootCertificate::from_pem(&present.root_certificate).unwrap();
    let only = Trust::from(root);
    let chained = own.certificate.borrow().trusting(only.clone()).unwrap();
    assert!(says(addr, &chained).await.is_ok());
    // And the next one ends as it should.
    let _back = Agent::start(addr, before).await;
    rotate(&manager).await;
    until(&manager, "an end", |s| s.cluster.as_ref().unwrap().root_rotation.is_none()).await;
    manager.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_root_that_is_given_is_taken_and_one_that_is_none_is_refused_in_docker_s_words() {
    let dir = tempfile::tempdir().unwrap();
    let manager = init(dir.path()).await;
    let own = own_agent(&manager).await;
    let year = Duration::from_secs(365 * 24 * 3600);
    let (given, other) = (RootCa::create(now()).unwrap(), RootCa::create(now()).unwrap());
    let at = |years: u32| {
        let past = i64::try_from((year * years).as_nanos()).unwrap();
        RootCa::create(shoal_model::Timestamp(now().0 - past)).unwrap()
    };
    let (expired, ending) = (at(21), at(19));
    let pem = |ca: &RootCa| ca.certificate().pem().to_owned();
    let key = |ca: &RootCa| ca.key_pem().to_string();
    let external = |url: &str, cacert: Option<String>| docker::SwarmSpecCaConfigExternalCas {
        protocol: Some(docker::SwarmSpecCaConfigExternalCasProtocolEnum::CFSSL),
        url: Some(url.to_owned()),
        options: None,
        ca_cert: cacert,
    };
    let dead = "https://127.0.0.1:9/sign";
    let no_ca = manager.certificate().pem().to_owned();
    let double = pem(&given) + &pem(&other);
    let table = [
        (String::new(), key(&given), vec![], "the signing CA cert must also be provided"),
        (no_ca, key(&given), vec![], "it is not a certificate authority's"),
        ("hello".to_owned(), key(&given), vec![], "it is not one certificate in PEM form"),
        (double, key(&given), vec![], "cannot contain multiple certificates"),
        (pem(&given), key(&other), vec![], "certificate key mismatch"),
        (pem(&given), "hello".to_owned(), vec![], "it is not a private key in PEM form"),
        (pem(&expired), key(&expired), vec![], "certificate has expired or is not yet valid"),
        (pem(&ending), key(&ending), vec![], "CA certificate expires too soon"),
        (pem(&given), String::new(), vec![], "corresponding to the desired CA certificate: none"),
        (
            pem(&given),
            String::new(),
            vec![external(dead, Some(pem(&given)))],
            "corresponding to the desired CA certificate: the external CA https://127.0.0.1:9/sign",
        ),
        (
            pem(&given),
            String::new(),
            vec![external(dead, None)], // of the present root, and so not of this one
            "corresponding to the desired CA certificate: none is named for it",
        ),
        (
            String::new(),
            String::new(),
            vec![external("http://127.0.0.1/", None)],
            "invalid HTTP scheme",
        ),
        (
            String::new(),
            String::new(),
            vec![external(dead, Some("hello".to_owned()))],
            "it is not one certificate in PEM form",
        ),
    ];
    let before = cluster(&manager);
    for (certificate, key, externals, words) in table {
        let refused = change(&manager, |ca| {
            ca.signing_ca_cert = Some(certificate);
            ca.signing_ca_key = Some(key);
            ca.external_cas = Some(externals);
        });
        let refused = refused.await.unwrap_err();
        assert!(refused.message.contains(words), "{refused}, expected {words}");
        assert_eq!(refused.kind, shoal_model::ErrorKind::InvalidArgument);
    }
    assert!(cluster(&manager) == before, "nothing was changed");
    change(&manager, |ca| {
        ca.signing_ca_cert = Some(pem(&given));
        ca.signing_ca_key = Some(key(&given));
    })
    .await
    .unwrap();
    until(&manager, "an end", |s| s.cluster.as_ref().unwrap().root_rotation.is_none()).await;
    let after = cluster(&manager);
    assert_eq!((after.root_certificate, after.root_key), (pem(&given), key(&given)));
    assert!(own.ended.borrow().is_none());
    let addr = manager.listening();
    let tls = client_config(&given.certificate().clone().into(), None).unwrap();
    DispatcherClient::new(connect(addr, tls).await.unwrap());
    manager.shutdown().await;
}
