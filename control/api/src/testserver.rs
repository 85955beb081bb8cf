//! The server over a [`MemorySwarm`] on a socket of its own, and the real `docker` against it. For
//! tests; needs root, since the container runtime makes a cgroup.
use crate::{ApiContext, EngineInfo, Events, Listener, memory::MemorySwarm, serve};
use shoal_containers::{Runtime, RuntimeConfig};
use shoal_images::ImageStore;
use std::{
    env, io,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    thread,
};
use tempfile::TempDir;
use tokio::{
    net::UnixListener,
    sync::{mpsc, oneshot},
};

/// A server in a thread; ends when dropped.
pub struct TestServer {
    folder: TempDir,
    cgroup: String,
    /// The cluster behind it.
    pub swarm: Arc<MemorySwarm>,
    /// What its handlers work with.
    pub ctx: ApiContext,
    /// Where its tokio runtime runs.
    pub handle: tokio::runtime::Handle,
    stop: mpsc::Sender<()>,
    thread: Option<thread::JoinHandle<()>>,
}

impl TestServer {
    /// Starts a server.
    pub fn start(swarm: MemorySwarm) -> io::Result<TestServer> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = tempfile::tempdir()?;
        let cgroup = format!("shoal-api-test-{}-{number}", std::process::id());
        let swarm = Arc::new(swarm);
        let (stop, mut stopped) = mpsc::channel(1);
        let (ready, started) = oneshot::channel();
        let (path, parent, cluster) = (folder.path().to_owned(), cgroup.clone(), swarm.clone());
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
            let runtime = runtime.expect("a tokio runtime can be made");
            runtime.block_on(async move {
                let ctx = context(&path, parent, cluster).await;
                let listener = UnixListener::bind(path.join("api.sock"));
                let listener = Listener::Unix(listener.expect("the folder is new"));
                let handle = tokio::runtime::Handle::current();
                // Nobody waits for it if the test has panicked meanwhile.
                let _ = ready.send((ctx.clone(), handle));
                let served = serve(vec![listener], ctx, async {
                    stopped.recv().await;
                });
                served.await.expect("there is a listener");
            });
            runtime.shutdown_background();
        });
        let (ctx, handle) = started.blocking_recv().map_err(io::Error::other)?;
        Ok(TestServer { folder, cgroup, swarm, ctx, handle, stop, thread: Some(thread) })
    }

    /// `unix://…`.
    pub fn host(&self) -> String {
        format!("unix://{}", self.folder.path().join("api.sock").display())
    }

    /// Runs the real `docker` against it, with `input` as its standard input.
    pub fn docker_with(&self, args: &[&str], input: &[u8]) -> io::Result<Output> {
        let mut command = Command::new(docker_program()?);
        command.env("DOCKER_HOST", self.host()).env("DOCKER_CONFIG", self.folder.path()).args(args);
        run(command, input)
    }

    /// Runs the real `docker` against it.
    pub fn docker(&self, args: &[&str]) -> io::Result<Output> {
        self.docker_with(args, b"")
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        // The thread may have ended by a panic already.
        let _ = self.stop.blocking_send(());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        if let Err(e) = shoal_containers::remove_cgroup_parent(&self.cgroup) {
            eprintln!("cgroup {} is left behind: {e}", self.cgroup);
        }
    }
}

/// Runs a program with an input to its end.
pub fn run(mut command: Command, input: &[u8]) -> io::Result<Output> {
    let pipes = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = pipes.spawn()?;
    let stdin = child.stdin.take();
    let input = input.to_vec();
    let writer = thread::spawn(move || {
        if let Some(mut stdin) = stdin {
            // A program that does not read its input closes it.
            let _ = io::Write::write_all(&mut stdin, &input);
        }
    });
    let output = child.wait_with_output();
    let _ = writer.join();
    output
}

/// The program that `SHOAL_DOCKER` names, else the one in `PATH`.
fn docker_program() -> io::Result<PathBuf> {
    if let Some(path) = env::var_os("SHOAL_DOCKER") {
        return Ok(path.into());
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&path).map(|p| p.join("docker")).find(|p| p.is_file());
    found.ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::NotFound,
            "no docker client: install Debian's docker-cli, or give its path in SHOAL_DOCKER",
        )
    })
}

async fn context(folder: &Path, cgroup: String, swarm: Arc<MemorySwarm>) -> ApiContext {
    let images = ImageStore::open(&folder.join("images"));
    let images = Arc::new(images.expect("a new image store can be made"));
    let config = RuntimeConfig::new(folder.join("data"), folder.join("exec"), cgroup);
    let runtime = Runtime::open(config, images.clone()).await;
    ApiContext {
        swarm,
        images,
        runtime: runtime.expect("a container runtime can be opened: run the tests as root"),
        engine: Arc::new(EngineInfo {
            id: "memory".into(),
            hostname: "alpha".into(),
            kernel_version: "6.1.0".into(),
            operating_system: "Linux".into(),
            architecture: "x86_64".into(),
            cpus: 2,
            memory_bytes: 4 << 30,
            data_root: folder.to_owned(),
            labels: Default::default(),
            plugins: Vec::new(),
            generic_resources: Vec::new(),
            version: "0.1.0".into(),
            git_commit: String::new(),
            debug: false,
        }),
        events: Events::default(),
    }
}
