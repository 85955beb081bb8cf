//! The agent: owns the data plane, the session and one runner per task.
//!
//! Tasks: [`Plane::run`], the session, the dispatcher below, and the runners. All end with
//! [`Agent::shutdown`]; containers, traffic and names go on.
use crate::{
    container::TASK_LABEL,
    dispatch::{dispatch, last},
    managers::{Book, kept},
    node::Node,
    plane::{OVERLAY, Plane, PlanePaths, overlay_mtu},
    reports::Reports,
    runner::Crew,
    session::{Session, SessionConfig, SessionState, WantedTls, say_leave},
    supervisor::{NetCommand, NetSupervisor},
};
use anyhow::{Context, Result, bail};
use shoal_containers::Runtime;
use shoal_identity::NodeCertificate;
use shoal_lb::{Counters, Lb, LbConfig};
use shoal_links::Links;
use shoal_model::{NodeAssignment, NodeDescription, Role, TaskState};
use shoal_net::NetStatus;
use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{sync::watch, task::JoinSet, time::timeout};

/// File in the state folder with the managers this node knows.
const BOOK: &str = "managers.json";

/// How an agent is set up.
#[derive(Debug)]
pub struct AgentConfig {
    /// The node's folder for cluster state.
    pub state_dir: PathBuf,
    /// Run-time folder.
    pub exec_root: PathBuf,
    /// BPF file system folder for pins.
    pub bpf_root: PathBuf,
    /// cgroup (v2) folder above all containers.
    pub cgroup: PathBuf,
    /// Program and first arguments of the `shoal net` process.
    pub net_program: Vec<OsString>,
    /// Resolvers for names outside the cluster; none: the host's own, as they change.
    pub resolvers: Vec<SocketAddr>,
    /// The node's certificate, renewed from time to time.
    pub certificate: watch::Receiver<Arc<NodeCertificate>>,
    /// Managers' control addresses, to begin with.
    pub managers: Vec<SocketAddr>,
    /// What the node says of itself.
    pub description: NodeDescription,
    /// Address other nodes reach this one at.
    pub advertise: IpAddr,
    /// UDP port of the overlay.
    pub data_path_port: u16,
}

/// A running agent.
pub struct Agent {
    crew: Arc<Crew>,
    config: SessionConfig,
    session: watch::Receiver<SessionState>,
    assignments: watch::Receiver<Option<Arc<NodeAssignment>>>,
    tasks: Mutex<JoinSet<()>>,
    state_dir: PathBuf,
    assignment_file: PathBuf,
}

impl Agent {
    /// Starts the node's part in the cluster, and takes up what an earlier daemon left running.
    ///
    /// # Errors
    /// When the programs cannot be loaded, or the `shoal net` process does not start.
    pub async fn start(config: AgentConfig, runtime: Runtime) -> Result<Agent> {
        let node_id = config.certificate.borrow().identity().node_id.clone();
        let lb_config =
            LbConfig { bpf_root: config.bpf_root.clone(), cgroup: config.cgroup.clone() };
        let lb = tokio::task::block_in_place(|| Lb::open(&lb_config))?;
        let uplink = Links::new()?.uplink_for(config.advertise).await?;
        let net = NetSupervisor::new(net_command(&config, overlay_mtu(uplink.mtu)));
        let paths = PlanePaths {
            netns: config.exec_root.join("netns"),
            endpoints: config.exec_root.join("endpoints"),
        };
        let plane = Plane::new(paths, lb, net, node_id.clone(), config.advertise)?;
        let plane = Arc::new(plane);
        let status = plane.start_net().await.context("cannot start the overlay")?;
        let crew = Arc::new(Crew {
            node_id,
            description: config.description.clone(),
            payloads: watch::Sender::new(None),
            runtime,
            plane: Arc::clone(&plane),
            reports: Reports::default(),
            released: watch::Sender::new(Default::default()),
        });
        let assignment_file = config.state_dir.join("assignment.json");
        let (assignments, assigned) = watch::channel(last(&assignment_file));
        let (state, session) = watch::channel(SessionState::default());
        let book_file = config.state_dir.join(BOOK);
        let book = Book::new(kept(&book_file), &config.managers);
        let session_config = SessionConfig {
            book: Arc::new(Mutex::new(book)),
            book_file: Some(book_file),
            certificate: config.certificate,
            role: watch::Sender::new(None),
            tls: watch::Sender::default(),
            description: config.description,
            public_key: status.public_key,
            data_path_addr: config.advertise.to_string(),
            data_path_port: config.data_path_port,
        };
        let body = Arc::new(Node { crew: Arc::clone(&crew), assignments });
        let session_task = Session { config: session_config.clone(), body, state };
        let mut tasks = JoinSet::new();
        tasks.spawn(plane.clone().listen_for_silence());
        tasks.spawn(plane.run());
        tasks.spawn(session_task.run());
        tasks.spawn(dispatch(Arc::clone(&crew), assigned.clone(), assignment_file.clone()));
        Ok(Agent {
            crew,
            config: session_config,
            session,
            assignments: assigned,
            tasks: Mutex::new(tasks),
            state_dir: config.state_dir,
            assignment_file,
        })
    }

    /// State of the session with the manager.
    pub fn session(&self) -> SessionState {
        self.session.borrow().clone()
    }

    /// Waits until the leader has answered.
    ///
    /// # Errors
    /// Why the last attempt failed, when none succeeded in time.
    pub async fn connected(&self, patience: Duration) -> Result<()> {
        let mut session = self.session.clone();
        match timeout(patience, session.wait_for(|s| s.connected)).await {
            Ok(connected) => connected.map(drop).context("the session ended"),
            Err(_) => bail!("{}", self.session.borrow().error),
        }
    }

    /// The role the managers want this node to have; `None` until they have said.
    pub fn role(&self) -> watch::Receiver<Option<Role>> {
        self.config.role.subscribe()
    }

    /// What the managers want this node's certificate to be.
    pub fn tls(&self) -> watch::Receiver<WantedTls> {
        self.config.tls.subscribe()
    }

    /// The managers this node knows: id (empty when not known yet) and address.
    pub fn managers(&self) -> Vec<(String, SocketAddr)> {
        self.config.book().all().iter().map(|m| (m.id.clone(), m.addr)).collect()
    }

    /// What the manager said last.
    pub fn assignment(&self) -> Option<Arc<NodeAssignment>> {
        self.assignments.borrow().clone()
    }

    /// Tasks of this node by state.
    pub fn tasks_by_state(&self) -> BTreeMap<TaskState, u64> {
        self.crew.reports.by_state()
    }

    /// The load balancer's counters.
    ///
    /// # Errors
    /// When the maps cannot be read.
    pub fn counters(&self) -> Result<Counters> {
        self.crew.plane.counters()
    }

    /// State of the overlay and of DNS.
    pub fn net_status(&self) -> NetStatus {
        self.crew.plane.net_status()
    }

    /// Ends the agent; containers, traffic and names go on.
    pub async fn shutdown(&self) {
        let mut tasks =
            std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        tasks.shutdown().await;
    }

    /// Ends the agent and removes every trace of the cluster from the node.
    pub async fn leave(&self) {
        self.shutdown().await;
        if let Err(error) = say_leave(&self.config).await {
            tracing::warn!("the manager was not told that this node leaves: {error:#}");
        }
        let containers = self.crew.runtime.list();
        for container in containers.iter().filter(|c| c.labels.contains_key(TASK_LABEL)) {
            if let Err(error) = self.crew.runtime.remove(&container.id, true).await {
                tracing::error!(container = container.id, %error, "not removed");
            }
        }
        self.crew.plane.remove().await;
        let _ = fs::remove_file(&self.assignment_file);
        if let Some(file) = &self.config.book_file {
            let _ = fs::remove_file(file);
        }
        let _ = fs::remove_dir_all(self.state_dir.join("net"));
    }
}

fn net_command(config: &AgentConfig, mtu: u32) -> NetCommand {
    let socket = config.exec_root.join("net.sock");
    let mut program = config.net_program.clone();
    let mut flag = |name: &str, value: &Path| {
        program.push(name.into());
        program.push(value.into());
    };
    flag("--socket", &socket);
    flag("--state", &config.state_dir.join("net"));
    flag("--runtime", &config.exec_root.join("net"));
    flag("--device", Path::new(OVERLAY));
    flag("--port", Path::new(&config.data_path_port.to_string()));
    flag("--mtu", Path::new(&mtu.to_string()));
    for resolver in &config.resolvers {
        flag("--resolver", Path::new(&resolver.to_string()));
    }
    NetCommand { program, socket, log: config.exec_root.join("net.log") }
}
