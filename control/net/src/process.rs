//! The process itself.
//!
//! Tasks: one per control connection (they end with their connection), and the name servers. All
//! state is behind one lock, held while a table is applied, so tables are applied one by one.
use crate::{
    protocol::{NetEndpoint, NetStatus, NetTable, PeerReport, Reply, Request, codec},
    resolvers,
};
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use rustix::fs::{FlockOperation, flock};
use shoal_dns::{Forwarder, NAME_SERVER, NameServer, Names, Served};
use shoal_links::{Links, NetNs};
use shoal_overlay::{
    Ends, Engine, EngineConfig, Peer, UserspaceEngine, decode_public_key, encode_public_key,
    load_or_create_key,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File, OpenOptions},
    io::{self, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::{
    net::{UnixListener, UnixStream},
    sync::{Mutex, Notify, watch},
    time::timeout,
};
use tokio_util::codec::Framed;

/// Seconds between signs of life to a silent peer. A node that was restarted so has its sessions
/// again before anybody waits for them.
const KEEPALIVE: u16 = 25;

/// How long a question for other silent peers waits for them. Less than the daemon's patience.
const SILENCE_WAIT: Duration = Duration::from_secs(5);

/// How often it is seen whether the engine still runs.
const LIFE_CHECK: Duration = Duration::from_millis(500);

/// How the process is started.
#[derive(Clone, Debug)]
pub struct NetArguments {
    /// Control socket to listen at.
    pub socket: PathBuf,
    /// Folder for the private key; survives a reboot.
    pub state: PathBuf,
    /// Folder for the last table; need not survive a reboot.
    pub runtime: PathBuf,
    /// Name of the overlay device.
    pub device: String,
    /// UDP port.
    pub port: u16,
    /// MTU of the overlay device, bytes; longer packets are cut to it.
    pub mtu: u32,
    /// Resolvers for names that are not the cluster's. With none, those of `/etc/resolv.conf`, read
    /// anew with every table, as Docker does with every container.
    pub resolvers: Vec<SocketAddr>,
}

/// Why the process ended or could not start.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// A file or socket.
    #[error("cannot use {path}")]
    File {
        /// The path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another one works on the folder.
    #[error("another shoal net process works on {0}; stop it, or use another --exec-root")]
    Running(PathBuf),
    /// The private key.
    #[error(transparent)]
    Key(#[from] shoal_overlay::KeyError),
    /// The engine.
    #[error(transparent)]
    Engine(#[from] shoal_overlay::OverlayError),
    /// Links.
    #[error(transparent)]
    Links(#[from] shoal_links::LinksError),
    /// The engine's thread ended: no packet is carried any more. The daemon starts another process.
    #[error("the overlay engine of {0} ended")]
    EngineEnded(String),
    /// The resolver.
    #[error("cannot use the host's resolvers: {0}")]
    Resolver(String),
}

struct Process {
    engine: UserspaceEngine,
    links: Links,
    names: Arc<Names>,
    device: String,
    table_file: PathBuf,
    /// Whether the host's resolvers are to be asked, whichever they are.
    follow_host: bool,
    state: Mutex<Applied>,
    /// Sees every change of who is silent.
    silence: watch::Receiver<()>,
    stop: Notify,
}

#[derive(Default)]
struct Applied {
    table: NetTable,
    ifindex: u32,
    resolvers: Vec<SocketAddr>,
    served: BTreeMap<String, (NetEndpoint, Served)>,
    failed: BTreeMap<String, String>,
}

/// Runs until told to stop.
///
/// # Errors
/// When it cannot start.
pub async fn run(arguments: NetArguments) -> Result<(), NetError> {
    let at = |path: &Path| {
        let path = path.to_owned();
        move |source| NetError::File { path, source }
    };
    for folder in [&arguments.state, &arguments.runtime] {
        fs::create_dir_all(folder).map_err(at(folder))?;
        let private = fs::Permissions::from_mode(0o700);
        fs::set_permissions(folder, private).map_err(at(folder))?;
    }
    let _lock = lock(&arguments.runtime)?;
    let key = load_or_create_key(&arguments.state.join("wireguard.key"))?;
    let resolvers = match arguments.resolvers.as_slice() {
        [] => resolvers::of_host(),
        given => given.to_vec(),
    };
    let forwarder = Forwarder::new(&resolvers);
    let forwarder = forwarder.map_err(|e| NetError::Resolver(e.to_string()))?;
    let (silences, silence) = watch::channel(());
    let engine = UserspaceEngine::start(EngineConfig {
        device: arguments.device.clone(),
        listen_port: arguments.port,
        private_key: key,
        mtu: arguments.mtu,
        silence_changed: Some(Arc::new(move || silences.send_replace(()))),
    })?;
    let process = Arc::new(Process {
        engine,
        links: Links::new()?,
        names: Arc::new(Names::new(forwarder)),
        device: arguments.device,
        table_file: arguments.runtime.join("table.json"),
        follow_host: arguments.resolvers.is_empty(),
        state: Mutex::new(Applied { resolvers, ..Applied::default() }),
        silence,
        stop: Notify::new(),
    });
    process.resume(arguments.mtu).await?;
    let listener = listen(&arguments.socket).map_err(at(&arguments.socket))?;
    loop {
        tokio::select! {
            () = process.stop.notified() => break,
            () = tokio::time::sleep(LIFE_CHECK) => {
                if !process.engine.is_running() {
                    return Err(NetError::EngineEnded(process.device.clone()));
                }
            }
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => drop(tokio::spawn(serve(Arc::clone(&process), stream))),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept on the control socket");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
        }
    }
    // The node has left: nothing of the table is to be found by a later one.
    let _ = fs::remove_file(&process.table_file);
    let _ = fs::remove_file(&arguments.socket);
    Ok(())
}

/// One process for one folder; the lock goes with the process.
fn lock(folder: &Path) -> Result<File, NetError> {
    let path = folder.join("lock");
    let open = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
    let file = open.map_err(|source| NetError::File { path, source })?;
    flock(&file, FlockOperation::NonBlockingLockExclusive)
        .map_err(|_| NetError::Running(folder.to_owned()))?;
    Ok(file)
}

fn listen(socket: &Path) -> io::Result<UnixListener> {
    match fs::remove_file(socket) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let listener = UnixListener::bind(socket)?;
    fs::set_permissions(socket, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

async fn serve(process: Arc<Process>, stream: UnixStream) {
    let mut frames = Framed::new(stream, codec());
    while let Some(Ok(frame)) = frames.next().await {
        let (reply, stop) = match serde_json::from_slice(&frame) {
            Ok(Request::Apply(table)) => match process.apply(*table).await {
                Ok(()) => (Reply::Done, false),
                Err(reason) => (Reply::Refused(reason), false),
            },
            Ok(Request::Status) => (Reply::Status(Box::new(process.status().await)), false),
            Ok(Request::Silent(known)) => {
                (Reply::Silent(process.other_silent(&known).await), false)
            }
            Ok(Request::Stop) => (Reply::Done, true),
            Err(e) => (Reply::Refused(format!("not a request: {e}")), false),
        };
        let Ok(bytes) = serde_json::to_vec(&reply) else { return };
        if frames.send(Bytes::from(bytes)).await.is_err() {
            return;
        }
        if stop {
            process.stop.notify_one();
        }
    }
}

impl Process {
    /// Works from the last table again, if there is one.
    async fn resume(&self, mtu: u32) -> Result<(), NetError> {
        let last = fs::read(&self.table_file).ok();
        let table: Option<NetTable> = last.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        match table {
            Some(table) => {
                if let Err(reason) = self.apply(table).await {
                    tracing::warn!(reason, "the last table could not be applied; waiting for one");
                }
            }
            None => {
                let ifindex = self.links.set_up(&self.device, mtu, &[]).await?;
                self.state.lock().await.ifindex = ifindex;
            }
        }
        Ok(())
    }

    async fn apply(&self, table: NetTable) -> Result<(), String> {
        let mut state = self.state.lock().await;
        if table.generation < state.table.generation {
            return Err(format!(
                "table of generation {} is older than the one in force, {}",
                table.generation, state.table.generation
            ));
        }
        let text = |e: &dyn std::error::Error| match e.source() {
            Some(source) => format!("{e}: {source}"),
            None => e.to_string(),
        };
        let set_up = self.links.set_up(&self.device, table.mtu, &table.addresses).await;
        state.ifindex = set_up.map_err(|e| text(&e))?;
        let own = table.addresses.iter().find_map(|address| match address {
            IpAddr::V4(v4) => Some(*v4),
            IpAddr::V6(_) => None,
        });
        let peers: Result<Vec<Peer>, _> = table.peers.iter().map(|p| peer(p, own)).collect();
        self.engine.set_peers(peers?).map_err(|e| text(&e))?;
        self.names.set(table.names.clone());
        self.follow_host(&mut state);
        self.serve_endpoints(&mut state, &table.endpoints);
        keep(&self.table_file, &table)
            .map_err(|e| format!("cannot keep the table at {}: {e}", self.table_file.display()))?;
        state.table = table;
        Ok(())
    }

    /// Asks the host's present resolvers from now on. With unusable ones the last go on.
    fn follow_host(&self, state: &mut Applied) {
        let now = if self.follow_host { resolvers::of_host() } else { return };
        if now == state.resolvers {
            return;
        }
        match Forwarder::new(&now) {
            Ok(forwarder) => {
                self.names.set_forwarder(forwarder);
                state.resolvers = now;
            }
            Err(error) => tracing::warn!(%error, "the host's new resolvers cannot be used"),
        }
    }

    /// Starts and ends name servers. One that cannot be started is reported in the status, and does
    /// not hold up the others.
    fn serve_endpoints(&self, state: &mut Applied, wanted: &[NetEndpoint]) {
        state.served.retain(|_, (have, _)| wanted.contains(have));
        state.failed.clear();
        for endpoint in wanted {
            if state.served.contains_key(&endpoint.task) {
                continue;
            }
            match self.serve_endpoint(endpoint) {
                Ok(served) => {
                    state.served.insert(endpoint.task.clone(), (endpoint.clone(), served));
                }
                Err(reason) => {
                    tracing::warn!(task = endpoint.task, reason, "no name server in a container");
                    state.failed.insert(endpoint.task.clone(), reason);
                }
            }
        }
    }

    fn serve_endpoint(&self, endpoint: &NetEndpoint) -> Result<Served, String> {
        let netns = NetNs::open(&endpoint.netns).map_err(|e| e.to_string())?;
        let sockets = netns
            .run_in(|| Ok((UdpSocket::bind(NAME_SERVER)?, TcpListener::bind(NAME_SERVER)?)))
            .map_err(|e| e.to_string())?;
        let (udp, tcp) =
            sockets.map_err(|e: io::Error| format!("cannot bind {NAME_SERVER}: {e}"))?;
        let server = NameServer::new(Arc::clone(&self.names), endpoint.networks.clone());
        server.serve(udp, tcp).map_err(|e| e.to_string())
    }

    /// The silent peers, when they are others than those known, or after [`SILENCE_WAIT`].
    async fn other_silent(&self, known: &BTreeSet<String>) -> BTreeSet<String> {
        let mut changes = self.silence.clone();
        let silent =
            || -> BTreeSet<String> { self.engine.silent().iter().map(encode_public_key).collect() };
        let differs = async { while silent() == *known && changes.changed().await.is_ok() {} };
        let _ = timeout(SILENCE_WAIT, differs).await;
        silent()
    }

    async fn status(&self) -> NetStatus {
        let state = self.state.lock().await;
        let engine = self.engine.status();
        let (questions, forwarded) = self.names.counts();
        let peers = engine.peers.into_iter().map(|peer| {
            let public_key = encode_public_key(&peer.public_key);
            let known = state.table.peers.iter().find(|p| p.public_key == public_key);
            PeerReport {
                hostname: known.map(|p| p.hostname.clone()).unwrap_or_default(),
                public_key,
                endpoint: peer.endpoint,
                last_handshake: peer.last_handshake.map(|age| age.as_secs_f64()),
                handshakes: peer.handshakes,
                rx_bytes: peer.rx_bytes,
                tx_bytes: peer.tx_bytes,
                silent: peer.silent,
            }
        });
        NetStatus {
            pid: std::process::id(),
            public_key: encode_public_key(&self.engine.public_key()),
            ifindex: state.ifindex,
            generation: state.table.generation,
            peers: peers.collect(),
            drops: engine.drops.into_iter().map(|(k, v)| (k.to_owned(), v)).collect(),
            questions,
            forwarded,
            failed_endpoints: state.failed.clone(),
        }
    }
}

fn peer(peer: &crate::NetPeer, own: Option<Ipv4Addr>) -> Result<Peer, String> {
    let public_key = decode_public_key(&peer.public_key)
        .map_err(|e| format!("public key of node {}: {e}", peer.hostname))?;
    Ok(Peer {
        public_key,
        endpoint: Some(peer.endpoint),
        allowed_ips: peer.allowed_ips.clone(),
        keepalive: Some(KEEPALIVE),
        ends: own.zip(peer.overlay).map(|(own, theirs)| Ends { own, theirs }),
    })
}

/// Written aside and renamed, so that a crash leaves the old or the new one.
fn keep(path: &Path, table: &NetTable) -> io::Result<()> {
    let aside = path.with_extension("new");
    let mut file =
        OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&aside)?;
    file.write_all(&serde_json::to_vec(table)?)?;
    file.sync_data()?;
    fs::rename(aside, path)
}
