//! The daemon's side: makes, starts, stops, removes and finds containers.
//!
//! A [`Runtime`] is a handle to a table of containers. Each running container has one task that watches
//! its shim (see `monitor`). Changes of one container are serialised by its own lock; `start` and
//! `remove` run as tasks of their own, so that a caller who goes away does not leave them half done.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use shoal_images::ImageStore;
use tokio::sync::watch;
use tokio::task::spawn_blocking;

use crate::cgroup::Hierarchies;
use crate::disk::{Dirs, read_json, remove_tree, write_json};
use crate::error::{IoContext, RuntimeError};
use crate::files;
use crate::health::{Health, HealthCheck};
use crate::info::{ContainerInfo, ContainerState, ExitStatus, Started};
use crate::memory;
use crate::monitor;
use crate::process::{self, Process};
use crate::spec::{ContainerSpec, short};
use crate::start;
use crate::wire::{Request, Size};

/// Most containers on a node, ended ones included.
const MAX_CONTAINERS: usize = 10_000;
/// Prefix of a container's lasting folder while it is being removed: a crash in the middle is then
/// finished by the next `open`.
const REMOVING: &str = ".removing-";

/// Where a runtime keeps its things and what it starts.
#[derive(Debug, Clone)]
pub struct RuntimeConfig {
    /// Lasting state, one folder per container.
    pub data_root: PathBuf,
    /// Fleeting state (a tmpfs will do), one folder per container.
    pub exec_root: PathBuf,
    /// Cgroup under which every container gets its own, in each hierarchy: `shoal` or `shoal/node1`.
    pub cgroup_parent: String,
    /// Program and arguments that end in [`shim_main`](crate::shim_main).
    pub shim_command: Vec<OsString>,
    /// Program and arguments that end in [`exec_main`](crate::exec_main).
    pub exec_command: Vec<OsString>,
    /// How many files a container's processes may have open, until they ask for more; `None`: as many
    /// as this process.
    pub open_files: Option<u64>,
}

impl RuntimeConfig {
    /// With this very program as shim and exec helper (sub-commands `shim` and `shim-exec`).
    pub fn new(data_root: PathBuf, exec_root: PathBuf, cgroup_parent: String) -> Self {
        let own = |sub: &str| vec!["/proc/self/exe".into(), sub.into()];
        let (shim_command, exec_command) = (own("shim"), own("shim-exec"));
        Self { data_root, exec_root, cgroup_parent, shim_command, exec_command, open_files: None }
    }
}

/// The containers of one node. Cheap to clone; all clones are the same runtime.
#[derive(Clone)]
pub struct Runtime {
    pub(crate) shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) config: RuntimeConfig,
    pub(crate) images: Arc<ImageStore>,
    pub(crate) cgroups: Hierarchies,
    containers: Mutex<BTreeMap<String, Arc<Container>>>,
}

/// One container in the table.
pub(crate) struct Container {
    pub(crate) dirs: Dirs,
    pub(crate) stored: Stored,
    /// `/<parent>/<id>`.
    pub(crate) cgroup: String,
    pub(crate) life: watch::Sender<Life>,
    /// `None` before the first start, and without a health check.
    pub(crate) health: watch::Sender<Option<Health>>,
    /// Held while its state is being changed.
    pub(crate) busy: tokio::sync::Mutex<()>,
}

/// Content of `container.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Stored {
    pub(crate) spec: ContainerSpec,
    pub(crate) image_id: String,
    pub(crate) process: Process,
    #[serde(default)]
    pub(crate) health: Option<HealthCheck>,
    pub(crate) created: DateTime<Utc>,
}

/// Where a container is in its life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Life {
    pub(crate) state: ContainerState,
    pub(crate) started: Option<Started>,
}

impl Container {
    pub(crate) fn id(&self) -> &str {
        &self.stored.spec.id
    }

    pub(crate) fn running(&self) -> bool {
        self.life.borrow().state == ContainerState::Running
    }
}

impl Runtime {
    /// Opens the runtime and finds the containers of an earlier one again: those that still run are
    /// watched, those that ended meanwhile are known as ended.
    pub async fn open(
        config: RuntimeConfig,
        images: Arc<ImageStore>,
    ) -> Result<Self, RuntimeError> {
        let shared = blocking(move || {
            let cgroups =
                Hierarchies::find().at("find the cgroups in", "/proc/self/mountinfo".as_ref())?;
            for folder in [&config.data_root, &config.exec_root] {
                fs::create_dir_all(folder).at("create", folder)?;
            }
            let parent = cgroups.v2_node(&config.cgroup_parent);
            fs::create_dir_all(&parent).at("create", &parent)?;
            let containers = Mutex::default();
            let shared = Shared { config, images, cgroups, containers };
            shared.find_containers()?;
            Ok(shared)
        })
        .await?;
        let shared = Arc::new(shared);
        let found: Vec<_> = shared.table().values().cloned().collect();
        for container in found.into_iter().filter(|c| c.running()) {
            tokio::spawn(monitor::watch(Arc::clone(&shared), container));
        }
        Ok(Self { shared })
    }

    /// Makes a container: checks everything that can be checked, resolves image and command, and
    /// writes it down. Nothing runs yet.
    pub async fn create(&self, spec: ContainerSpec) -> Result<ContainerInfo, RuntimeError> {
        let shared = Arc::clone(&self.shared);
        blocking(move || shared.create(spec)).await
    }

    /// Starts a container. When this returns, its program has been found and is being executed.
    pub async fn start(&self, reference: &str) -> Result<(), RuntimeError> {
        let (shared, container) = (Arc::clone(&self.shared), self.shared.find(reference)?);
        whole(async move { start::start(shared, container).await }).await
    }

    /// Sends a signal to a container's first process.
    pub async fn signal(&self, reference: &str, signal: i32) -> Result<(), RuntimeError> {
        let container = self.shared.find(reference)?;
        monitor::ask(&container, &Request::Signal(signal)).await
    }

    /// Sets the size of a container's terminal, in characters.
    pub async fn resize(
        &self,
        reference: &str,
        rows: u16,
        columns: u16,
    ) -> Result<(), RuntimeError> {
        let container = self.shared.find(reference)?;
        monitor::ask(&container, &Request::Resize(Size { rows, columns })).await
    }

    /// Sends the container's stop signal, waits for `grace` (its own if `None`), then kills it. A
    /// container that does not run is stopped already.
    pub async fn stop(&self, reference: &str, grace: Option<Duration>) -> Result<(), RuntimeError> {
        let container = self.shared.find(reference)?;
        if !container.running() {
            return Ok(());
        }
        let grace = grace.unwrap_or(container.stored.spec.stop_grace);
        let signal = container.stored.process.stop_signal;
        tolerate_end(monitor::ask(&container, &Request::Signal(signal)).await)?;
        if tokio::time::timeout(grace, ended(&container)).await.is_err() {
            tolerate_end(monitor::ask(&container, &Request::Signal(libc::SIGKILL)).await)?;
            ended(&container).await;
        }
        Ok(())
    }

    /// Waits until a container has ended; at once if it has. One that was never started is waited for
    /// until it is started and has ended.
    pub async fn wait(&self, reference: &str) -> Result<ExitStatus, RuntimeError> {
        let container = self.shared.find(reference)?;
        let mut life = container.life.subscribe();
        let life = life.wait_for(|l| matches!(l.state, ContainerState::Exited(_))).await;
        match life.map(|l| l.state.clone()) {
            Ok(ContainerState::Exited(status)) => Ok(status),
            _ => Err(RuntimeError::NotFound { reference: reference.to_owned() }),
        }
    }

    /// How a container is, as it changes: `None` before its first start, and always without a health
    /// check.
    pub fn health(&self, reference: &str) -> Result<watch::Receiver<Option<Health>>, RuntimeError> {
        Ok(self.shared.find(reference)?.health.subscribe())
    }

    /// Removes a container and all it wrote. A running one only by force: it is killed first.
    pub async fn remove(&self, reference: &str, force: bool) -> Result<(), RuntimeError> {
        let (shared, container) = (Arc::clone(&self.shared), self.shared.find(reference)?);
        whole(async move {
            let _busy = container.busy.lock().await;
            if container.running() {
                if !force {
                    let name = container.stored.spec.name.clone();
                    return Err(RuntimeError::RemoveRunning { name });
                }
                tolerate_end(monitor::ask(&container, &Request::Signal(libc::SIGKILL)).await)?;
                ended(&container).await;
            }
            let own = Arc::clone(&container);
            blocking(move || shared.remove(&own)).await
        })
        .await
    }

    /// All containers, by id.
    pub fn list(&self) -> Vec<ContainerInfo> {
        self.shared.table().values().map(|c| info(c)).collect()
    }

    /// One container, by id, name, or unique prefix of an id.
    pub fn inspect(&self, reference: &str) -> Result<ContainerInfo, RuntimeError> {
        Ok(info(&*self.shared.find(reference)?))
    }
}

impl Shared {
    pub(crate) fn table(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Container>>> {
        self.containers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Docker's order: full id, name, unique prefix of an id.
    pub(crate) fn find(&self, reference: &str) -> Result<Arc<Container>, RuntimeError> {
        let table = self.table();
        let name = reference.strip_prefix('/').unwrap_or(reference);
        if let Some(found) = table.get(reference) {
            return Ok(Arc::clone(found));
        }
        if let Some(found) = table.values().find(|c| c.stored.spec.name == name) {
            return Ok(Arc::clone(found));
        }
        let prefix = reference.to_owned();
        let mut found = table.range(prefix.clone()..).take_while(|(id, _)| id.starts_with(&prefix));
        match (found.next(), found.next()) {
            (Some((_, one)), None) if !prefix.is_empty() => Ok(Arc::clone(one)),
            (Some(_), Some(_)) if !prefix.is_empty() => Err(RuntimeError::Ambiguous { prefix }),
            _ => Err(RuntimeError::NotFound { reference: prefix }),
        }
    }

    fn create(&self, mut spec: ContainerSpec) -> Result<ContainerInfo, RuntimeError> {
        start::check(&spec)?;
        let image = self.images.resolve(&spec.image)?;
        let process = process::resolve(&spec, &image)?;
        let health = HealthCheck::resolve(spec.health.as_ref(), &image.config_json)?;
        let files = files::take(&mut spec);
        let stored = Stored { spec, image_id: image.id, process, health, created: Utc::now() };
        let life = Life { state: ContainerState::Created, started: None };
        let container = Arc::new(self.container(stored, life));
        // Nobody starts it before its files are there.
        let _busy = container.busy.blocking_lock();
        // The table is held over the write: a name can be taken only once.
        let mut table = self.table();
        if table.len() >= MAX_CONTAINERS {
            return Err(RuntimeError::TooMany { limit: MAX_CONTAINERS });
        }
        let name = &container.stored.spec.name;
        let same = table.values().find(|c| c.stored.spec.name == *name || c.id() == container.id());
        if let Some(other) = same {
            let (name, id) = (name.clone(), other.id().to_owned());
            return Err(RuntimeError::NameTaken { name, id });
        }
        let dirs = &container.dirs;
        fs::create_dir_all(&dirs.data).at("create", &dirs.data)?;
        if let Err(e) = write_json(&dirs.container(), &container.stored) {
            remove_tree(&dirs.data)?;
            return Err(e);
        }
        table.insert(container.id().to_owned(), Arc::clone(&container));
        drop(table);
        if let Err(e) = memory::keep(dirs, &files) {
            self.remove(&container)?;
            return Err(e);
        }
        Ok(info(&container))
    }

    fn container(&self, stored: Stored, life: Life) -> Container {
        let id = &stored.spec.id;
        let dirs =
            Dirs { data: self.config.data_root.join(id), bundle: self.config.exec_root.join(id) };
        let cgroup = format!("/{}/{id}", self.config.cgroup_parent.trim_matches('/'));
        Container {
            dirs,
            stored,
            cgroup,
            life: watch::Sender::new(life),
            health: watch::Sender::new(None),
            busy: Default::default(),
        }
    }

    fn remove(&self, container: &Container) -> Result<(), RuntimeError> {
        let id = container.id();
        let moved = self.config.data_root.join(format!("{REMOVING}{id}"));
        match fs::rename(&container.dirs.data, &moved) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                return Err(e).at("rename", &container.dirs.data);
            }
            _ => {}
        }
        self.table().remove(id);
        self.cgroups.kill(&container.cgroup);
        self.cgroups.remove(&container.cgroup);
        memory::release(&container.dirs)?;
        remove_tree(&container.dirs.bundle)?;
        self.images.release(id)?;
        remove_tree(&moved)
    }

    fn find_containers(&self) -> Result<(), RuntimeError> {
        for name in names_in(&self.config.data_root)? {
            let folder = self.config.data_root.join(&name);
            if let Some(id) = name.strip_prefix(REMOVING) {
                self.images.release(id)?;
                remove_tree(&folder)?;
                continue;
            }
            let stored: Stored = match read_json(&folder.join("container.json")) {
                Ok(Some(stored)) => stored,
                // A crash between making the folder and writing the file: it never existed.
                Ok(None) => {
                    remove_tree(&folder)?;
                    continue;
                }
                Err(e) => {
                    // One damaged file must not keep the other containers from being looked after.
                    tracing::error!(error = %e, "a container is left out");
                    continue;
                }
            };
            let life = Life { state: ContainerState::Created, started: None };
            let container = self.container(stored, life);
            container.life.send_replace(monitor::recover(self, &container)?);
            self.table().insert(name, Arc::new(container));
        }
        for id in names_in(&self.config.exec_root)? {
            if !self.table().contains_key(&id) {
                let (data, bundle) =
                    (self.config.data_root.join(&id), self.config.exec_root.join(&id));
                let dirs = Dirs { data, bundle };
                if dirs.try_lock()?.is_some() {
                    memory::release(&dirs)?;
                    remove_tree(&dirs.bundle)?;
                }
            }
        }
        Ok(())
    }
}

pub(crate) fn info(container: &Container) -> ContainerInfo {
    let life = container.life.borrow().clone();
    let Stored { spec, image_id, process, health, created } = container.stored.clone();
    let finished_at = match &life.state {
        ContainerState::Exited(status) => Some(status.finished_at),
        _ => None,
    };
    let running = life.state == ContainerState::Running;
    ContainerInfo {
        id: spec.id.clone(),
        name: spec.name.clone(),
        image_id,
        image: spec.image.clone(),
        command: process.args,
        created,
        pid: life.started.as_ref().filter(|_| running).map(|s| s.pid),
        started_at: life.started.map(|s| s.started_at),
        finished_at,
        state: life.state,
        labels: spec.labels.clone(),
        log_path: container.dirs.log(container.id()),
        health_check: health,
        health: container.health.borrow().clone(),
        spec,
    }
}

/// Waits until a container does not run any more.
pub(crate) async fn ended(container: &Container) {
    let mut life = container.life.subscribe();
    // The sender lives in the container, which we hold: this cannot fail.
    let _ = life.wait_for(|l| l.state != ContainerState::Running).await;
}

/// A container that ended on its own is as good as one that was signalled.
fn tolerate_end(result: Result<(), RuntimeError>) -> Result<(), RuntimeError> {
    match result {
        Err(RuntimeError::NotRunning { .. } | RuntimeError::Shim { .. }) => Ok(()),
        other => other,
    }
}

/// Runs blocking work on tokio's threads for it.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, RuntimeError> + Send + 'static,
) -> Result<T, RuntimeError> {
    match spawn_blocking(work).await {
        Ok(result) => result,
        Err(e) => Err(RuntimeError::Io {
            action: "finish",
            path: "a blocking task".into(),
            source: io::Error::other(e),
        }),
    }
}

/// Runs work to its end even if the caller goes away.
async fn whole<T: Send + 'static>(
    work: impl Future<Output = Result<T, RuntimeError>> + Send + 'static,
) -> Result<T, RuntimeError> {
    match tokio::spawn(work).await {
        Ok(result) => result,
        Err(e) => Err(RuntimeError::Io {
            action: "finish",
            path: "a task".into(),
            source: io::Error::other(e),
        }),
    }
}

fn names_in(folder: &Path) -> Result<Vec<String>, RuntimeError> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).at("list", folder)? {
        names.push(entry.at("list", folder)?.file_name().to_string_lossy().into_owned());
    }
    Ok(names)
}

/// A failure with the container's short id.
pub(crate) fn start_error(container: &Container, reason: String, code: i32) -> RuntimeError {
    RuntimeError::Start { id: short(container.id()).to_owned(), reason, code }
}
