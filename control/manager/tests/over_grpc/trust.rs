//! Who gets in, and who may say what.

use crate::support::*;
use shoal_identity::{JoinToken, RootDigest, client_config, connect};
use shoal_manager::{InitRequest, Manager, ManagerError};
use shoal_model::{ErrorKind, NodeState, Rotations, TaskState};
use shoal_rpc::{
    IssueRequest, LeaveRequest, certificates_client::CertificatesClient,
    dispatcher_client::DispatcherClient,
};
use std::time::Duration;
use tokio::time::sleep;
use tonic::Code;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_is_wrong_foreign_or_rotated_says_which() {
    let dir = tempfile::tempdir().unwrap();
    let manager = init(dir.path()).await;
    let addr = manager.listening();
    let tokens = manager.store().read(|s| s.cluster.clone().unwrap().join_tokens);

    let foreign = JoinToken::new(RootDigest::of(b"another")).render().to_string();
    let refused = join(addr, &foreign).await.unwrap_err();
    assert!(refused.message().contains("remote CA does not match fingerprint"), "{refused}");

    // The same, by one that does not look at the digest.
    let own = manager.certificate();
    let tls = client_config(own.trust(), None).unwrap();
    let mut client = CertificatesClient::new(connect(addr, tls).await.unwrap());
    let csr = own.key().csr_pem().unwrap();
    let mut ask = async |token: &str| {
        let request =
            IssueRequest { csr: csr.clone(), token: token.to_owned(), availability: String::new() };
        client.issue(request).await.unwrap_err()
    };
    assert!(ask(&foreign).await.message().contains("it is for another swarm"));
    assert!(ask("SWMTKN-1-short").await.message().starts_with("invalid join token: "));
    assert_eq!(ask("").await.code(), Code::Unauthenticated, "nothing to renew");

    let manages = join(addr, &tokens.manager).await.unwrap();
    assert_eq!(manages.identity().role, shoal_model::Role::Manager);
    let node = join(addr, &tokens.worker).await.unwrap();
    let rotate = Rotations { worker_token: true, ..Default::default() };
    let (version, spec) = manager.store().read(|s| {
        let cluster = s.cluster.as_ref().unwrap();
        (cluster.meta.version, cluster.spec.clone())
    });
    manager.update_swarm(version, spec, rotate).await.unwrap();
    let refused = join(addr, &tokens.worker).await.unwrap_err();
    assert!(refused.message().starts_with("A valid join token is necessary to join this cluster"));
    join(addr, &worker_token(&manager)).await.unwrap();

    // Who is in stays in, and renews without a token, for the same node and role.
    let mut client = CertificatesClient::new(
        connect(addr, client_config(node.trust(), Some(&node)).unwrap()).await.unwrap(),
    );
    let csr = node.key().csr_pem().unwrap();
    let renewed =
        client.issue(IssueRequest { csr, ..Default::default() }).await.unwrap().into_inner();
    assert_eq!(renewed.node_id, node.identity().node_id);
    assert_eq!(renewed.role, "worker");
    manager.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_certificate_or_with_another_cluster_s_nothing_is_heard() {
    let (dir, other_dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let manager = init(dir.path()).await;
    let other = init(other_dir.path()).await;
    let tls = client_config(manager.certificate().trust(), None).unwrap();
    let mut nobody = DispatcherClient::new(connect(manager.listening(), tls).await.unwrap());
    let refused = nobody.session(tokio_stream::empty()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    assert_eq!(nobody.leave(LeaveRequest {}).await.unwrap_err().code(), Code::Unauthenticated);
    let tls = client_config(other.certificate().trust(), Some(&other.certificate())).unwrap();
    assert!(connect(manager.listening(), tls).await.is_err(), "another cluster's manager");
    manager.shutdown().await;
    other.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_reports_only_its_own_tasks_forward_and_in_states_it_owns() {
    let dir = tempfile::tempdir().unwrap();
    let manager = init(dir.path()).await;
    let addr = manager.listening();
    let owner = Agent::start(addr, manager.certificate().clone()).await;
    until(&manager, "ready", |s| s.nodes.values().all(|n| n.status.state == NodeState::Ready))
        .await;
    let web = manager.create_service(service("web", 1, &[])).await.unwrap();
    until(&manager, "running", |s| running(s, &web).len() == 1).await;
    let task = manager.store().read(|s| running(s, &web)[0].clone());
    let stranger = Agent::start(addr, join(addr, &worker_token(&manager)).await.unwrap()).await;
    stranger.say.send(report(&task.id, TaskState::Failed, "a lie")).await.unwrap();
    for state in [TaskState::Starting, TaskState::Orphaned, TaskState::Remove, TaskState::New] {
        owner.say.send(report(&task.id, state, "backwards")).await.unwrap();
    }
    sleep(Duration::from_millis(300)).await;
    assert_eq!(manager.store().read(|s| s.tasks[&task.id].clone()), task);
    owner.say.send(report(&task.id, TaskState::Running, "healthy")).await.unwrap();
    until(&manager, "the text", |s| s.tasks[&task.id].status.message == "healthy").await;
    manager.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_needs_hello_first_and_a_key_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let manager = init(dir.path()).await;
    let addr = manager.listening();
    let own = manager.certificate();
    let refusal = async |node: &shoal_identity::NodeCertificate, first| {
        let mut client = dispatcher(addr, node).await;
        let mut heard = client.session(tokio_stream::iter([first])).await.unwrap().into_inner();
        heard.message().await.unwrap_err()
    };
    let status = refusal(&own, report("x", TaskState::Running, "")).await;
    assert_eq!(status.message(), "the first message of a session must be hello");
    let _agent = Agent::start(addr, own.clone()).await;
    until(&manager, "ready", |s| s.nodes.values().all(|n| n.status.state == NodeState::Ready))
        .await;
    let node = join(addr, &worker_token(&manager)).await.unwrap();
    let status = refusal(&node, hello(own.identity())).await;
    assert!(status.message().contains("has the same WireGuard key"), "{status}");
    manager.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_hinders_a_start_is_named() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let manager = init(dir.path()).await;
    let taken = config(other.path(), manager.listening());
    let error = Manager::init(taken, InitRequest::default()).await.err().unwrap();
    assert!(error.to_string().starts_with("cannot listen on 127.0.0.1:"), "{error}");
    let own = manager.certificate().clone();
    let second = Manager::restart(config(dir.path(), loopback()), own.clone()).await.err().unwrap();
    assert!(second.to_string().contains("in use by another process"), "{second}");
    let wrong = [
        (Some(vec!["10.0.0.0/30".to_owned()]), None, "must have a prefix of 8 to 24"),
        (Some(vec!["nonsense".to_owned()]), None, "invalid CIDR address: nonsense"),
        (None, Some(40), "subnet size is out of range: 40"),
    ];
    for (default_addr_pool, subnet_size, text) in wrong {
        let mut request = InitRequest::default();
        request.request.default_addr_pool = default_addr_pool;
        request.request.subnet_size = subnet_size;
        let error = Manager::init(config(other.path(), loopback()), request).await.err().unwrap();
        let ManagerError::Request(refusal) = error else { panic!("{error}") };
        assert_eq!(refusal.kind, ErrorKind::InvalidArgument);
        assert!(refusal.message.contains(text), "{refusal}");
    }
    assert!(!other.path().join("raft").exists(), "nothing was made");
    manager.shutdown().await;
    Manager::restart(config(dir.path(), loopback()), own).await.unwrap().shutdown().await;
}
