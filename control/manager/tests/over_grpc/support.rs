//! A cluster on the loopback interface: a real manager, and agents that speak the real protocol but
//! have no containers.
#![expect(clippy::unwrap_used, reason = "where a test cannot be set up it fails")]
use base64::{Engine, engine::general_purpose::STANDARD};
use shoal_identity::{
    Identity, JoinToken, NodeCertificate, NodeKey, Trust, client_config, connect, fetch_root,
};
use shoal_manager::{InitRequest, Manager, ManagerConfig};
use shoal_model::{
    Difference, NodeAssignment, NodeDescription, Row, Rows, State, Task, TaskState, TaskStatus,
    Timestamp, docker,
};
use shoal_rpc::{
    AgentMessage, Applied, Assignment, Heartbeat, Hello, IssueRequest, LogSubscription,
    TaskStatuses, Tls, agent_message::Kind as ToManager, certificates_client::CertificatesClient,
    dispatcher_client::DispatcherClient, manager_message::Kind as FromManager,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::{interval, sleep, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, transport::Channel};

pub(crate) fn config(dir: &Path, listen: SocketAddr) -> ManagerConfig {
    let advertise = "127.0.0.1:2377".parse().unwrap();
    ManagerConfig { state_dir: dir.to_owned(), listen, advertise, unlock_key: None }
}

pub(crate) fn loopback() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

pub(crate) async fn init(dir: &Path) -> Manager {
    Manager::init(config(dir, loopback()), InitRequest::default()).await.unwrap()
}

pub(crate) fn worker_token(manager: &Manager) -> String {
    manager.store().read(|s| s.cluster.as_ref().unwrap().join_tokens.worker.clone())
}

/// Joins as `swarm join` does: root by digest, then a certificate by token.
pub(crate) async fn join(addr: SocketAddr, token: &str) -> Result<NodeCertificate, Status> {
    let digest = JoinToken::parse(token).unwrap().digest();
    let root = fetch_root(addr, digest).await.map_err(|e| Status::unknown(e.to_string()))?;
    let tls = client_config(&root.into(), None).unwrap();
    let mut client = CertificatesClient::new(connect(addr, tls).await.unwrap());
    let key = NodeKey::create().unwrap();
    let request = IssueRequest {
        csr: key.csr_pem().unwrap(),
        token: token.to_owned(),
        availability: String::new(),
    };
    let reply = client.issue(request).await?.into_inner();
    let trust = Trust::from_pem(&reply.root).unwrap();
    assert_eq!(trust.present().digest(), digest);
    Ok(NodeCertificate::new(key, &reply.certificate, trust).unwrap())
}

/// Gets another certificate, as a node does that is told to.
pub(crate) async fn renew(addr: SocketAddr, present: &NodeCertificate) -> NodeCertificate {
    let tls = client_config(present.trust(), Some(present)).unwrap();
    let mut client = CertificatesClient::new(connect(addr, tls).await.unwrap());
    let key = NodeKey::create().unwrap();
    let request = IssueRequest { csr: key.csr_pem().unwrap(), ..Default::default() };
    let reply = client.issue(request).await.unwrap().into_inner();
    NodeCertificate::new(key, &reply.certificate, Trust::from_pem(&reply.root).unwrap()).unwrap()
}

fn tls_of(node: &NodeCertificate) -> Tls {
    Tls { certificate: node.pem().to_owned(), trust: node.trust().pem() }
}

pub(crate) async fn dispatcher(
    addr: SocketAddr,
    node: &NodeCertificate,
) -> DispatcherClient<Channel> {
    let tls = client_config(node.trust(), Some(node)).unwrap();
    DispatcherClient::new(connect(addr, tls).await.unwrap())
}

pub(crate) fn hello(node: &Identity) -> AgentMessage {
    let description = NodeDescription {
        hostname: format!("host-{}", &node.node_id[..4]),
        os: "linux".to_owned(),
        architecture: "x86_64".to_owned(),
        nano_cpus: 2_000_000_000,
        memory_bytes: 1 << 30,
        ..Default::default()
    };
    let mut key = [7; 32];
    key[..25].copy_from_slice(node.node_id.as_bytes());
    message(ToManager::Hello(Hello {
        description: serde_json::to_vec(&description).unwrap(),
        public_key: STANDARD.encode(key),
        data_path_addr: "127.0.0.1".to_owned(),
        data_path_port: 0,
        tls: None,
        known: Vec::new(),
    }))
}

pub(crate) fn message(kind: ToManager) -> AgentMessage {
    AgentMessage { kind: Some(kind) }
}

pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Timestamp(since.as_nanos().try_into().unwrap())
}

pub(crate) fn report(task: &str, state: TaskState, text: &str) -> AgentMessage {
    let status = TaskStatus {
        state,
        since: now(),
        message: text.to_owned(),
        err: String::new(),
        container: None,
    };
    let status = shoal_rpc::TaskStatus {
        task_id: task.to_owned(),
        status: serde_json::to_vec(&status).unwrap(),
    };
    message(ToManager::Statuses(TaskStatuses { statuses: vec![status] }))
}

/// How an agent behaves.
#[derive(Clone)]
pub(crate) struct Manners {
    /// Whether it brings what it is told into force at once.
    pub(crate) applies: watch::Receiver<bool>,
    /// Whether a task that is to stop does so before it is released.
    pub(crate) hasty: bool,
}

impl Default for Manners {
    fn default() -> Manners {
        Manners { applies: watch::channel(true).1, hasty: true }
    }
}

/// An agent in a session; it claims of each task what the manager wants of it. Dropping it cuts the
/// connection.
pub(crate) struct Agent {
    pub(crate) node: NodeCertificate,
    pub(crate) assignment: watch::Receiver<NodeAssignment>,
    /// Tasks the manager has released.
    pub(crate) released: watch::Receiver<BTreeSet<String>>,
    /// How many assignments came whole, and how many as differences.
    pub(crate) came: watch::Receiver<(usize, usize)>,
    /// How many beats the manager has answered.
    pub(crate) answered: watch::Receiver<usize>,
    pub(crate) say: mpsc::Sender<AgentMessage>,
    pub(crate) subscriptions: mpsc::Receiver<LogSubscription>,
    /// Why the session ended, once it has.
    pub(crate) ended: watch::Receiver<Option<Status>>,
    /// Its certificate, renewed when it is told to.
    pub(crate) certificate: watch::Receiver<NodeCertificate>,
    work: JoinHandle<()>,
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.work.abort();
    }
}

impl Agent {
    pub(crate) fn id(&self) -> String {
        self.node.identity().node_id.clone()
    }

    pub(crate) async fn start(addr: SocketAddr, node: NodeCertificate) -> Agent {
        Agent::with(addr, node, Manners::default()).await
    }

    pub(crate) async fn with(addr: SocketAddr, node: NodeCertificate, manners: Manners) -> Agent {
        let mut client = dispatcher(addr, &node).await;
        let (say, said) = mpsc::channel(64);
        say.send(hello(node.identity())).await.unwrap();
        let mut heard = client.session(ReceiverStream::new(said)).await.unwrap().into_inner();
        let (assign, assignment) = watch::channel(NodeAssignment::default());
        let (subscribe, subscriptions) = mpsc::channel(64);
        let (end, ended) = watch::channel(None);
        let (release, released) = watch::channel(BTreeSet::new());
        let (count, came) = watch::channel((0, 0));
        let (answer, answered) = watch::channel(0);
        let (mut own, (certified, certificate)) = (node.clone(), watch::channel(node.clone()));
        let tls = message(ToManager::Tls(tls_of(&own)));
        say.send(tls).await.unwrap();
        let Manners { mut applies, hasty } = manners;
        let out = say.clone();
        let work = tokio::spawn(async move {
            let mut claimed: BTreeMap<String, TaskState> = BTreeMap::new();
            let mut beat = interval(Duration::from_millis(300));
            let mut parts = Difference::default();
            let mut rows = Rows::default();
            let mut waits = false;
            loop {
                let message = tokio::select! {
                    _ = beat.tick() => {
                        let _ = out.send(message(ToManager::Heartbeat(Heartbeat {}))).await;
                        continue;
                    }
                    changed = applies.changed(), if waits => {
                        waits = changed.is_ok() && !*applies.borrow();
                        if !waits {
                            let generation = rows.assignment().generation;
                            let applied = ToManager::Applied(Applied { generation });
                            let _ = out.send(message(applied)).await;
                        }
                        continue;
                    }
                    message = heard.message() => message,
                };
                match message {
                    Ok(Some(message)) => match message.kind.unwrap() {
                        FromManager::Assignment(a) => {
                            let more = a.more;
                            gather(&mut parts, a);
                            if more {
                                continue;
                            }
                            let difference = std::mem::take(&mut parts);
                            count.send_modify(|(whole, part)| match difference.base {
                                None => *whole += 1,
                                Some(_) => *part += 1,
                            });
                            rows.apply(difference).unwrap();
                            let set = rows.assignment();
                            for task in set.tasks.iter().map(|t| &t.task) {
                                if !hasty && task.desired > TaskState::Running {
                                    continue;
                                }
                                if let Some(state) = claim(task, &mut claimed) {
                                    let _ = out.send(report(&task.id, state, "claimed")).await;
                                }
                            }
                            waits = !*applies.borrow_and_update();
                            if !waits {
                                let applied = Applied { generation: set.generation };
                                let _ = out.send(self::message(ToManager::Applied(applied))).await;
                            }
                            assign.send_replace(set);
                        }
                        FromManager::Release(r) => release.send_modify(|all| all.extend(r.tasks)),
                        FromManager::Subscribe(s) => subscribe.send(s).await.unwrap(),
                        FromManager::Welcome(w) => assert_eq!(w.heartbeat_period_ms, 1_000),
                        FromManager::Trust(trust) => {
                            let trust = Trust::from_pem(&trust.roots).unwrap();
                            own = own.trusting(trust).unwrap();
                            certified.send_replace(own.clone());
                            let _ = out.send(self::message(ToManager::Tls(tls_of(&own)))).await;
                        }
                        FromManager::Renew(renew) => {
                            if !own.is_signed_by(&renew.root) {
                                own = self::renew(addr, &own).await;
                            }
                            certified.send_replace(own.clone());
                            let _ = out.send(self::message(ToManager::Tls(tls_of(&own)))).await;
                        }
                        FromManager::Beat(_) => answer.send_modify(|answers| *answers += 1),
                        FromManager::Unsubscribe(_) | FromManager::Bearings(_) => {}
                    },
                    Ok(None) => return drop(end.send_replace(Some(Status::ok("")))),
                    Err(status) => return drop(end.send_replace(Some(status))),
                }
            }
        });
        Agent {
            node,
            assignment,
            released,
            came,
            answered,
            say,
            subscriptions,
            ended,
            certificate,
            work,
        }
    }
}

/// Adds a message to the parts before it.
fn gather(parts: &mut Difference, part: Assignment) {
    parts.base = (!part.whole).then_some(part.base);
    parts.generation = part.generation;
    parts.kept.extend(part.kept);
    parts.gone.extend(part.gone.iter().map(|key| serde_json::from_slice(key).unwrap()));
    parts.rows.extend(part.rows.iter().flat_map(|rows| Row::read_all(rows)).map(Result::unwrap));
}

/// What to report of a task, once for each state.
fn claim(task: &Task, claimed: &mut BTreeMap<String, TaskState>) -> Option<TaskState> {
    let state = match task.desired {
        TaskState::Ready => TaskState::Ready,
        TaskState::Running => TaskState::Running,
        _ => TaskState::Shutdown,
    };
    let before = claimed.insert(task.id.clone(), state);
    (before != Some(state) && task.status.state < state).then_some(state)
}

/// A service of `replicas` with a short restart delay.
pub(crate) fn service(name: &str, replicas: i64, networks: &[&str]) -> docker::ServiceSpec {
    let attach = |n: &&str| docker::NetworkAttachmentConfig {
        target: Some((*n).to_owned()),
        ..Default::default()
    };
    docker::ServiceSpec {
        name: Some(name.to_owned()),
        task_template: Some(docker::TaskSpec {
            container_spec: Some(docker::TaskSpecContainerSpec {
                image: Some("busybox".to_owned()),
                ..Default::default()
            }),
            restart_policy: Some(docker::TaskSpecRestartPolicy {
                delay: Some(200_000_000),
                ..Default::default()
            }),
            networks: Some(networks.iter().map(attach).collect()),
            ..Default::default()
        }),
        mode: Some(docker::ServiceSpecMode {
            replicated: Some(docker::ServiceSpecModeReplicated { replicas: Some(replicas) }),
            ..Default::default()
        }),
        ..Default::default()
    }
}

pub(crate) fn overlay(name: &str) -> docker::NetworkCreateRequest {
    docker::NetworkCreateRequest {
        name: name.to_owned(),
        driver: Some("overlay".to_owned()),
        ..Default::default()
    }
}

pub(crate) fn running(state: &State, service: &str) -> Vec<Task> {
    let tasks = state
        .tasks_of_service(service)
        .filter(|t| t.status.state == TaskState::Running && t.desired == TaskState::Running);
    tasks.cloned().collect()
}

/// Waits until the cluster's state is as asked.
pub(crate) async fn until(manager: &Manager, what: &str, holds: impl Fn(&State) -> bool) {
    let wait = async {
        while !manager.store().read(&holds) {
            sleep(Duration::from_millis(10)).await;
        }
    };
    if timeout(Duration::from_secs(20), wait).await.is_err() {
        let tasks = manager.store().read(|s| {
            let line =
                |t: &Task| format!("{} {:?} {:?} {:?}\n", t.name, t.desired, t.status, t.node_id);
            s.tasks.values().map(line).collect::<String>()
        });
        panic!("never came: {what}\n{tasks}");
    }
}
