//! The daemon: opens what is on disk, takes up membership and containers, serves API and metrics
//! until it is told to end. Ending leaves containers, traffic and names as they are.
use crate::{
    arguments::DaemonArguments,
    engine, generic, limits,
    membership::{Host, Membership},
    metrics,
};
use anyhow::{Context, Result, bail};
use rustix::fs::{FlockOperation, flock};
use shoal_api::{ApiContext, Events, Listener, metrics_router, serve};
use shoal_containers::{Runtime, RuntimeConfig};
use shoal_images::ImageStore;
use shoal_links::Links;
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio::{
    net::{TcpListener, UnixListener, UnixStream},
    signal::unix::{SignalKind, signal},
};

/// Port of DNS (RFC 1035).
const DNS_PORT: u16 = 53;

/// Runs until SIGTERM or SIGINT.
pub(crate) async fn run(arguments: DaemonArguments) -> Result<()> {
    check_host()?;
    // The only crypto provider; libraries that look for a default one find it.
    let _ = rustls::crypto::ring::default_provider().install_default();
    for folder in [&arguments.data_root, &arguments.exec_root] {
        fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
        let private = fs::Permissions::from_mode(0o711);
        fs::set_permissions(folder, private)
            .with_context(|| format!("protect {}", folder.display()))?;
    }
    let _lock = lock(&arguments.data_root)?;
    let labels = engine::labels(&arguments.labels)?;
    let mut engine = engine::gather(&arguments.data_root, labels, arguments.debug)?;
    engine.generic_resources = generic::parse(&arguments.node_generic_resources)
        .context("could not parse GenericResource")?;
    let engine = Arc::new(engine);
    let images = arguments.data_root.join("images");
    let images = tokio::task::block_in_place(|| ImageStore::open(&images))?;
    let images = Arc::new(images);
    let open_files = limits::allow_files();
    let mut runtime = RuntimeConfig::new(
        arguments.data_root.join("containers"),
        arguments.exec_root.join("containers"),
        arguments.cgroup_parent.clone(),
    );
    runtime.open_files = open_files;
    let runtime = Runtime::open(runtime, Arc::clone(&images)).await?;
    let cgroup = shoal_lb::cgroup_root().context("no cgroup v2 file system is mounted")?;
    let state_dir = arguments.data_root.join("swarm");
    fs::create_dir_all(&state_dir).with_context(|| format!("create {}", state_dir.display()))?;
    fs::set_permissions(&state_dir, fs::Permissions::from_mode(0o700))?;
    let membership = Membership::resume(Host {
        state_dir,
        data_root: arguments.data_root.clone(),
        exec_root: arguments.exec_root.clone(),
        bpf_root: arguments.bpf_root,
        cgroup: cgroup.join(&arguments.cgroup_parent),
        resolvers: arguments.dns.iter().map(|ip| SocketAddr::new(*ip, DNS_PORT)).collect(),
        default_advertise: arguments.swarm_default_advertise_addr,
        engine: Arc::clone(&engine),
        runtime: runtime.clone(),
        links: Links::new()?,
    })
    .await?;
    let membership = Arc::new(membership);
    let mut listeners = Vec::new();
    for host in &arguments.hosts {
        listeners.push(listen(host).await?);
    }
    let scraped = TcpListener::bind(arguments.metrics_addr).await.with_context(|| {
        format!("cannot serve metrics on {}; choose another --metrics-addr", arguments.metrics_addr)
    })?;
    let of_membership = Arc::clone(&membership);
    let scrape = axum::serve(scraped, metrics_router(move || metrics::text(&of_membership)));
    let scrape = tokio::spawn(scrape.into_future());
    if let Some(pidfile) = &arguments.pidfile {
        fs::write(pidfile, format!("{}\n", std::process::id()))
            .with_context(|| format!("write {}", pidfile.display()))?;
    }
    tracing::info!(hosts = ?arguments.hosts, "the daemon serves");
    let events = Events::default();
    let ctx = ApiContext { swarm: Arc::clone(&membership) as _, images, runtime, engine, events };
    let served = serve(listeners, ctx, told_to_end()?).await;
    scrape.abort();
    membership.shutdown().await;
    for path in arguments.hosts.iter().filter_map(|h| h.strip_prefix("unix://")) {
        let _ = fs::remove_file(path);
    }
    if let Some(pidfile) = &arguments.pidfile {
        let _ = fs::remove_file(pidfile);
    }
    Ok(served?)
}

/// Says everything the host lacks at once.
fn check_host() -> Result<()> {
    let problems = shoal_lb::check_host();
    if problems.is_empty() {
        return Ok(());
    }
    let lines: Vec<String> = problems.iter().map(|p| format!("\n  {p}")).collect();
    bail!("this host cannot run the daemon:{}", lines.concat())
}

/// One daemon for one state folder; the lock goes with the process.
fn lock(data_root: &Path) -> Result<File> {
    let path = data_root.join("lock");
    let open = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&path);
    let mut file = open.with_context(|| format!("open {}", path.display()))?;
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        let mut holder = String::new();
        // Only for the message: the lock is what counts.
        let _ = file.read_to_string(&mut holder);
        bail!(
            "another daemon (process {}) works on {}; stop it, or give this one another --data-root",
            holder.trim(),
            data_root.display()
        );
    }
    file.set_len(0)?;
    writeln!(file, "{}", std::process::id())
        .with_context(|| format!("write {}", path.display()))?;
    Ok(file)
}

async fn listen(host: &str) -> Result<Listener> {
    if let Some(path) = host.strip_prefix("unix://") {
        let path = PathBuf::from(path);
        if UnixStream::connect(&path).await.is_ok() {
            bail!("another daemon listens at {host}; stop it, or choose another --host");
        }
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                return Err(e).with_context(|| format!("replace {}", path.display()));
            }
            _ => {}
        }
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
        }
        let listener = UnixListener::bind(&path).with_context(|| format!("listen at {host}"))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o660))?;
        return Ok(Listener::Unix(listener));
    }
    let Some(address) = host.strip_prefix("tcp://") else {
        bail!("invalid --host {host:?}: want unix://PATH or tcp://LOOPBACK:PORT");
    };
    let listener = TcpListener::bind(address).await.with_context(|| format!("listen at {host}"))?;
    if !listener.local_addr()?.ip().is_loopback() {
        bail!(
            "--host {host} would let everybody on the network control this host: without TLS only \
             loopback addresses are served"
        );
    }
    Ok(Listener::Tcp(listener))
}

fn told_to_end() -> Result<impl Future<Output = ()>> {
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        tracing::info!("the daemon ends; containers and traffic go on");
    })
}
