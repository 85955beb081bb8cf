//! TLS and gRPC on loopback: who gets in, and who does not.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod common;

use common::{DAY, TestCluster, before, now};
use shoal_identity::{
    IdentityError, Lane, Members, NodeCertificate, Peer, Standing, client_config, connect,
    fetch_root, lane_config, peer_config, serve, server_config,
};
use shoal_model::{Role, Timestamp};
use shoal_rpc::{
    AgentMessage, IssueReply, IssueRequest, LeaveReply, LeaveRequest, LogAck, LogBatch,
    ManagerMessage, RootReply, RootRequest,
    certificates_client::CertificatesClient,
    certificates_server::{Certificates, CertificatesServer},
    dispatcher_client::DispatcherClient,
    dispatcher_server::{Dispatcher, DispatcherServer},
};
use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use tokio::{
    io::AsyncReadExt,
    net::{TcpListener, TcpStream},
    sync::{oneshot, watch},
    task::JoinHandle,
};
use tonic::{Code, Request, Response, Status, Streaming, service::Routes, transport::Channel};

/// Answers `Root`, and `Leave` by whoever calls; holds `Session` open.
struct Manager {
    root: String,
}

#[tonic::async_trait]
impl Certificates for Manager {
    async fn root(&self, _: Request<RootRequest>) -> Result<Response<RootReply>, Status> {
        Ok(Response::new(RootReply { certificate: self.root.clone() }))
    }

    async fn issue(&self, request: Request<IssueRequest>) -> Result<Response<IssueReply>, Status> {
        let peer = Peer::of(&request)?;
        let node_id = peer.identity.as_ref().map(|i| i.node_id.clone()).unwrap_or_default();
        Ok(Response::new(IssueReply { node_id, ..IssueReply::default() }))
    }
}

#[tonic::async_trait]
impl Dispatcher for Manager {
    type SessionStream = tokio_stream::Pending<Result<ManagerMessage, Status>>;

    async fn session(
        &self,
        _: Request<Streaming<AgentMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        Ok(Response::new(tokio_stream::pending()))
    }

    async fn publish_logs(
        &self,
        _: Request<Streaming<LogBatch>>,
    ) -> Result<Response<LogAck>, Status> {
        Ok(Response::new(LogAck {}))
    }

    async fn leave(&self, request: Request<LeaveRequest>) -> Result<Response<LeaveReply>, Status> {
        let peer = Peer::of(&request)?;
        assert!(peer.addr.ip().is_loopback());
        // The reply is empty; the identity comes back as metadata.
        let mut response = Response::new(LeaveReply {});
        response.metadata_mut().insert("node", peer.node()?.node_id.parse().unwrap());
        Ok(response)
    }
}

/// Everybody is a member, but the one named.
#[derive(Clone, Default)]
struct AllBut(Arc<Mutex<String>>);

impl Members for AllBut {
    fn standing(&self, node_id: &str) -> Standing {
        match *self.0.lock().unwrap() == node_id {
            true => Standing::Gone,
            false => Standing::Unsure,
        }
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(2)
    }
}

struct Server {
    addr: SocketAddr,
    removed: AllBut,
    tls: watch::Sender<Arc<rustls::ServerConfig>>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), IdentityError>>,
}

async fn start(node: &NodeCertificate) -> Server {
    start_with(node, None).await
}

async fn start_with(node: &NodeCertificate, lane: Option<Lane>) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let root = node.trust().pem().to_owned();
    let routes = Routes::new(CertificatesServer::new(Manager { root: root.clone() }))
        .add_service(DispatcherServer::new(Manager { root }));
    let (tls, newest) = watch::channel(server_config(node).unwrap());
    let (stop, stopped) = oneshot::channel();
    let removed = AllBut::default();
    let task =
        tokio::spawn(serve(listener, newest, routes, lane, Arc::new(removed.clone()), async {
            let _ = stopped.await;
        }));
    Server { addr, removed, tls, stop, task }
}

async fn dial(
    server: &Server,
    cluster: &TestCluster,
    node: Option<&NodeCertificate>,
) -> Result<Channel, IdentityError> {
    let trust = cluster.ca.certificate().clone().into();
    connect(server.addr, client_config(&trust, node).unwrap()).await
}

async fn leave(channel: Channel) -> Result<String, Status> {
    let reply = DispatcherClient::new(channel).leave(LeaveRequest {}).await?;
    Ok(reply.metadata().get("node").unwrap().to_str().unwrap().to_owned())
}

#[tokio::test]
async fn without_a_certificate_only_the_certificates_service_answers() {
    let cluster = TestCluster::new();
    let server = start(&cluster.node(Role::Manager)).await;
    let channel = dial(&server, &cluster, None).await.unwrap();
    let reply = CertificatesClient::new(channel.clone()).root(RootRequest {}).await.unwrap();
    assert_eq!(reply.into_inner().certificate, cluster.ca.certificate().pem());
    CertificatesClient::new(channel.clone()).issue(IssueRequest::default()).await.unwrap();
    let status = leave(channel.clone()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    assert!(status.message().contains("join the swarm first"), "{status}");
    let mut dispatcher = DispatcherClient::new(channel);
    let session = dispatcher.session(tokio_stream::iter([AgentMessage::default()]));
    assert_eq!(session.await.unwrap_err().code(), Code::Unauthenticated);
}

#[tokio::test]
async fn nodes_are_known_by_their_certificates() {
    let cluster = TestCluster::new();
    let server = start(&cluster.node(Role::Manager)).await;
    for role in [Role::Worker, Role::Manager] {
        let node = cluster.node(role);
        let channel = dial(&server, &cluster, Some(&node)).await.unwrap();
        assert_eq!(leave(channel.clone()).await.unwrap(), node.identity().node_id);
        let issue = CertificatesClient::new(channel).issue(IssueRequest::default()).await.unwrap();
        assert_eq!(issue.into_inner().node_id, node.identity().node_id);
    }
}

#[tokio::test]
async fn a_node_that_is_removed_is_refused_on_the_connection_it_has() {
    let cluster = TestCluster::new();
    let server = start(&cluster.node(Role::Manager)).await;
    let node = cluster.node(Role::Worker);
    let channel = dial(&server, &cluster, Some(&node)).await.unwrap();
    leave(channel.clone()).await.unwrap();
    server.removed.0.lock().unwrap().clone_from(&node.identity().node_id);
    let status = leave(channel).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    assert!(status.message().contains("is not in this swarm any more"), "{status}");
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_to_new_connections_and_a_peer_must_be_the_one_meant() {
    let cluster = TestCluster::new();
    let (first, second) = (cluster.node(Role::Manager), cluster.node(Role::Manager));
    let server = start(&first).await;
    let own = cluster.node(Role::Manager);
    let to = async |peer: &NodeCertificate| {
        let tls = peer_config(&own, &peer.identity().node_id).unwrap();
        connect(server.addr, tls).await.map(drop).map_err(|e| e.to_string())
    };
    to(&first).await.unwrap();
    let refused = to(&second).await.unwrap_err();
    assert!(refused.contains(&format!("it is node {}'s", first.identity().node_id)), "{refused}");
    server.tls.send_replace(server_config(&second).unwrap());
    to(&second).await.unwrap();
    to(&first).await.unwrap_err();
}

#[tokio::test]
async fn an_unknown_method_is_denied_even_to_managers() {
    let cluster = TestCluster::new();
    let server = start(&cluster.node(Role::Manager)).await;
    let channel = dial(&server, &cluster, Some(&cluster.node(Role::Manager))).await.unwrap();
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await.unwrap();
    let status = grpc
        .unary::<_, RootReply, _>(
            Request::new(RootRequest {}),
            "/shoal.v1.Certificates/Other".parse().unwrap(),
            tonic_prost::ProstCodec::<RootRequest, RootReply>::default(),
        )
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    assert!(status.message().contains("no such method"), "{status}");
}

/// Calls as `client` and expects not to get through; the server says so by closing.
async fn refused(server: &Server, cluster: &TestCluster, client: &NodeCertificate) {
    let called = match dial(server, cluster, Some(client)).await {
        // With TLS 1.3 the client may believe the handshake done before it is refused.
        Ok(channel) => leave(channel).await.map_err(|status| status.code()),
        Err(_) => Err(Code::Unavailable),
    };
    assert!(matches!(called, Err(Code::Unavailable | Code::Unknown)), "{called:?}");
}

#[tokio::test]
async fn certificates_of_another_root_or_out_of_date_are_refused() {
    let (cluster, other) = (TestCluster::new(), TestCluster::new());
    let server = start(&cluster.node(Role::Manager)).await;
    refused(&server, &cluster, &other.node(Role::Manager)).await;
    let expired = cluster.node_at(Role::Worker, before(now(), 91 * DAY));
    refused(&server, &cluster, &expired).await;
    let future = cluster.node_at(Role::Worker, now().after(DAY));
    refused(&server, &cluster, &future).await;
    // And the server is none the worse for it.
    let node = cluster.node(Role::Worker);
    leave(dial(&server, &cluster, Some(&node)).await.unwrap()).await.unwrap();
}

/// The reason a client gives for not trusting a server.
async fn distrust(server: &NodeCertificate, client: &TestCluster) -> String {
    let server = start(server).await;
    dial(&server, client, None).await.expect_err("must not be trusted").to_string()
}

#[tokio::test]
async fn clients_trust_only_managers_of_their_root() {
    let (cluster, other) = (TestCluster::new(), TestCluster::new());
    let worker = distrust(&cluster.node(Role::Worker), &cluster).await;
    assert!(worker.contains("it is a worker's"), "{worker}");
    assert!(worker.contains("cannot connect to the manager at 127.0.0.1:"), "{worker}");
    let foreign = distrust(&other.node(Role::Manager), &cluster).await;
    assert!(foreign.contains("invalid peer certificate"), "{foreign}");
    let expired = cluster.node_at(Role::Manager, before(now(), 91 * DAY));
    let expired = distrust(&expired, &cluster).await;
    assert!(expired.contains("expired"), "{expired}");
}

#[tokio::test]
async fn an_expired_or_future_root_is_not_trusted() {
    let old = TestCluster::made_at(before(now(), 20 * 365 * DAY + DAY));
    // Its managers can still make certificates that are valid by themselves.
    let manager = old.node(Role::Manager);
    let reason = distrust(&manager, &old).await;
    assert!(reason.contains("root certificate is not valid: it has expired"), "{reason}");
    let early = TestCluster::made_at(now().after(DAY));
    let reason = distrust(&early.node_at(Role::Manager, now()), &early).await;
    assert!(reason.contains("root certificate is not valid: it is not valid yet"), "{reason}");
}

#[tokio::test]
async fn a_root_with_another_digest_is_not_believed() {
    let (cluster, other) = (TestCluster::new(), TestCluster::new());
    let server = start(&cluster.node(Role::Manager)).await;
    let root = fetch_root(server.addr, cluster.ca.digest()).await.unwrap();
    assert_eq!(&root, cluster.ca.certificate());
    let error = fetch_root(server.addr, other.ca.digest()).await.unwrap_err();
    assert!(matches!(error, IdentityError::WrongRoot { .. }));
    let text = error.to_string();
    assert!(text.contains("remote CA does not match fingerprint"), "{text}");
    assert!(text.contains(&other.ca.digest().to_string()), "{text}");
}

#[tokio::test]
async fn a_silent_or_talkative_stranger_does_not_hold_others_up() {
    let cluster = TestCluster::new();
    let server = start(&cluster.node(Role::Manager)).await;
    let mut silent = Vec::new();
    for _ in 0..100 {
        silent.push(TcpStream::connect(server.addr).await.unwrap());
    }
    let mut plain = TcpStream::connect(server.addr).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut plain, b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let begun = Instant::now();
    let node = cluster.node(Role::Worker);
    leave(dial(&server, &cluster, Some(&node)).await.unwrap()).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"HTTP"), "nothing is spoken without TLS");
}

#[tokio::test]
async fn nobody_there_is_said_with_the_address() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    drop(listener);
    let error = fetch_root(addr, TestCluster::new().ca.digest()).await.unwrap_err().to_string();
    assert!(error.contains(&addr.to_string()) && error.contains("refused"), "{error}");
}

#[tokio::test]
async fn shutdown_ends_within_its_grace_even_with_a_session_open() {
    let cluster = TestCluster::new();
    let server = start(&cluster.node(Role::Manager)).await;
    let channel = dial(&server, &cluster, Some(&cluster.node(Role::Worker))).await.unwrap();
    let session = DispatcherClient::new(channel)
        .session(tokio_stream::pending::<AgentMessage>())
        .await
        .unwrap();
    let begun = Instant::now();
    server.stop.send(()).unwrap();
    server.task.await.unwrap().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    drop(session);
    assert!(TcpStream::connect(server.addr).await.is_err(), "nobody listens any more");
}

#[test]
fn managers_are_answered_in_their_lane_while_all_else_waits() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (cluster, lane) = (TestCluster::new(), tokio::runtime::Runtime::new().unwrap());
    let manager = cluster.node(Role::Manager);
    let routes = Routes::new(DispatcherServer::new(Manager { root: String::new() }));
    let lane_of = Lane { runtime: lane.handle().clone(), routes };
    // The server's own runtime has one thread, which is told to sleep.
    let (sleep, asleep) = std::sync::mpsc::channel::<Duration>();
    let (address, addr) = std::sync::mpsc::channel();
    let server = {
        let manager = manager.clone();
        std::thread::spawn(move || {
            runtime().block_on(async {
                let server = start_with(&manager, Some(lane_of)).await;
                address.send(server.addr).unwrap();
                loop {
                    match asleep.try_recv() {
                        Ok(time) => std::thread::sleep(time),
                        Err(std::sync::mpsc::TryRecvError::Empty) => {}
                        Err(std::sync::mpsc::TryRecvError::Disconnected) => break,
                    }
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                server.stop.send(()).unwrap();
                server.task.await.unwrap().unwrap();
            });
        })
    };
    let addr = addr.recv().unwrap();
    runtime().block_on(async {
        let id = &manager.identity().node_id;
        let ask = |role| {
            let node = cluster.node(role);
            async move { connect(addr, lane_config(&node, id).unwrap()).await.map(|c| (node, c)) }
        };
        let (worker, channel) = (cluster.node(Role::Worker), ask(Role::Manager).await);
        let (node, channel) = channel.unwrap();
        assert_eq!(leave(channel.clone()).await.unwrap(), node.identity().node_id);
        let root = CertificatesClient::new(channel.clone()).root(RootRequest {}).await;
        assert_eq!(root.unwrap_err().code(), Code::Unimplemented, "it is not of the lane");

        let ordinary = connect(addr, peer_config(&worker, id).unwrap()).await.unwrap();
        leave(ordinary.clone()).await.unwrap();
        sleep.send(Duration::from_secs(2)).unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        let begun = Instant::now();
        leave(channel).await.unwrap();
        let took = begun.elapsed();
        assert!(took < Duration::from_secs(1), "the lane waited, too: {took:?}");
        leave(ordinary).await.unwrap();
        assert!(begun.elapsed() > Duration::from_secs(1), "else the test shows nothing");

        let refused = ask(Role::Worker).await;
        assert!(refused.is_err(), "a worker got into the lane");
    });
    drop(sleep);
    server.join().unwrap();
}

#[test]
fn times_are_in_nanoseconds() {
    // Guards the helpers above: a wrong unit would make the tests of dates meaningless.
    assert_eq!(before(Timestamp(5_000_000_000), Duration::from_secs(2)), Timestamp(3_000_000_000));
}
