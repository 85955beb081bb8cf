//! The cluster that all tests share, and what one test puts on it.

use shoal_tests::{Cluster, RunningTask, WEB_IMAGE, patiently, web_image};
use std::{
    ops::Deref,
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
    thread,
};

/// Members of the shared swarm. One more node is there that belongs to none.
pub(crate) const MEMBERS: usize = 3;
/// The index of that node.
pub(crate) const SPARE: usize = 3;

/// The shared cluster, held by one test.
pub(crate) struct Shared {
    cluster: MutexGuard<'static, Cluster>,
    /// Length of each node's log when the test began.
    logged: Vec<usize>,
}

/// The shared cluster, one test at a time. The guardian removes it when the process ends.
pub(crate) fn cluster() -> Shared {
    static SHARED: OnceLock<Mutex<Cluster>> = OnceLock::new();
    let shared = SHARED.get_or_init(|| {
        let cluster = Cluster::builder().nodes(MEMBERS + 1).clients(1).start().unwrap();
        cluster.form_swarm(MEMBERS).unwrap();
        cluster.load_image(&web_image().unwrap()).unwrap();
        Mutex::new(cluster)
    });
    // A test that failed has cleaned up its own things.
    let cluster = shared.lock().unwrap_or_else(PoisonError::into_inner);
    let logged = cluster.nodes().iter().map(|node| node.logs().len()).collect();
    Shared { cluster, logged }
}

impl Deref for Shared {
    type Target = Cluster;

    fn deref(&self) -> &Cluster {
        &self.cluster
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        /// Lines shown of each node's log.
        const LINES: usize = 80;
        if !thread::panicking() {
            return;
        }
        for (node, before) in self.cluster.nodes().iter().zip(&self.logged) {
            let log = node.logs();
            let lines: Vec<&str> = log.get(*before..).unwrap_or_default().lines().collect();
            let shown = &lines[lines.len().saturating_sub(LINES)..];
            eprintln!("--- {}, logged in this test:\n{}", node.name(), shown.join("\n"));
        }
    }
}

/// Services and networks of one test; they go with it.
pub(crate) struct Scene<'a> {
    pub(crate) cluster: &'a Cluster,
    services: Vec<String>,
    networks: Vec<String>,
}

impl<'a> Scene<'a> {
    pub(crate) fn on(cluster: &'a Cluster) -> Self {
        Self { cluster, services: Vec::new(), networks: Vec::new() }
    }

    /// Runs the docker client on the first node; it must succeed.
    pub(crate) fn docker(&self, args: &[&str]) -> String {
        self.cluster.node(0).docker(args).unwrap().ok().unwrap()
    }

    /// Makes an overlay network.
    pub(crate) fn network(&mut self, name: &str, options: &[&str]) {
        self.networks.push(name.to_owned());
        let args = [&["network", "create", "-d", "overlay"], options, &[name]].concat();
        self.docker(&args);
    }

    /// Makes a service of the web image and waits for its tasks. `command` may be empty.
    pub(crate) fn service(
        &mut self,
        name: &str,
        replicas: usize,
        options: &[&str],
        command: &[&str],
    ) -> Vec<RunningTask> {
        self.services.push(name.to_owned());
        let replicas_text = replicas.to_string();
        let fixed = ["service", "create", "-d", "--name", name, "--replicas", &replicas_text];
        self.docker(&[&fixed, options, &[WEB_IMAGE], command].concat());
        self.cluster.wait_for_tasks(name, replicas, patiently()).unwrap()
    }

    /// A service that was made otherwise goes with this, too.
    pub(crate) fn mine(&mut self, service: &str) {
        self.services.push(service.to_owned());
    }

    /// A service with one task that does nothing, to run things in.
    pub(crate) fn probe(&mut self, name: &str, network: &str) -> RunningTask {
        self.service(name, 1, &["--network", network], &[]).remove(0)
    }
}

impl Drop for Scene<'_> {
    fn drop(&mut self) {
        // Best effort: what stays has names that no other test uses.
        let node = self.cluster.node(0);
        for service in self.services.drain(..) {
            node.docker(&["service", "rm", &service]).ok();
        }
        for network in self.networks.drain(..) {
            shoal_tests::wait_for("the network to be free", patiently(), || {
                node.docker(&["network", "rm", &network])?.ok()
            })
            .ok();
        }
    }
}
