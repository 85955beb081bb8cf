//! Starting a container: its bundle on disk, then its shim.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::caps::capabilities;
use crate::disk::{read_json, remove_file, write_atomic, write_json};
use crate::error::{IoContext, RuntimeError};
use crate::files;
use crate::health::Health;
use crate::info::ContainerState;
use crate::memory;
use crate::monitor;
use crate::oci;
use crate::runtime::{Container, Life, Shared, blocking, start_error};
use crate::shim::ShimConfig;
use crate::spec::{ContainerSpec, Mount, short};
use crate::user;
use crate::wire::{Failure, Reply};

/// How long a shim may take to start a container. Normal is a tenth of a second.
const PATIENCE: Duration = Duration::from_secs(60);
/// The least memory limit, bytes (Docker's): below it nothing starts.
const MIN_MEMORY: i64 = 6 << 20;

/// Checks what can be checked without image or kernel.
pub(crate) fn check(spec: &ContainerSpec) -> Result<(), RuntimeError> {
    let invalid = |field, reason: String| Err(RuntimeError::Invalid { field, reason });
    let hex = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
    if spec.id.len() != 64 || !spec.id.bytes().all(hex) {
        return invalid("id", format!("{:?} is not 64 hex digits", spec.id));
    }
    let name = spec.name.as_bytes();
    let inner = |b: &u8| b.is_ascii_alphanumeric() || b"_.-".contains(b);
    if name.len() < 2 || !name[0].is_ascii_alphanumeric() || !name.iter().all(inner) {
        let reason = format!("({}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed", spec.name);
        return invalid("name", reason);
    }
    capabilities(&spec.cap_add, &spec.cap_drop, true)
        .map_err(|reason| RuntimeError::Invalid { field: "capabilities", reason })?;
    if spec.memory.is_some_and(|m| m < MIN_MEMORY) {
        return invalid("memory limit", "minimum memory limit allowed is 6MB".to_owned());
    }
    if spec.nano_cpus.is_some_and(|n| n <= 0) {
        return invalid("CPU limit", "must be more than 0".to_owned());
    }
    if spec.oom_score_adj.is_some_and(|o| !(-1000..=1000).contains(&o)) {
        return invalid("OOM score", "range for oom score adj is [-1000, 1000]".to_owned());
    }
    let hostname = spec.hostname.as_deref().unwrap_or("x");
    if hostname.is_empty() || hostname.len() > 64 || hostname.contains(['/', '\n']) {
        let reason = format!("{hostname:?} must have 1 to 64 characters, no '/' and no line break");
        return invalid("host name", reason);
    }
    if spec.hosts.iter().any(|(_, name)| name.contains(['\n', '#']) || name.is_empty()) {
        return invalid("hosts entry", "a name is empty or has a line break or '#'".to_owned());
    }
    for mount in &spec.mounts {
        let target = mount.target();
        if !target.is_absolute() || target.parent().is_none() {
            return invalid("mount", format!("target {target:?} must be an absolute path below /"));
        }
        if let Mount::Bind { source, .. } = mount
            && !source.is_absolute()
        {
            return invalid("mount", format!("source {source:?} must be an absolute path"));
        }
    }
    files::check(spec)
}

/// Starts a container and begins to watch it.
pub(crate) async fn start(
    shared: Arc<Shared>,
    container: Arc<Container>,
) -> Result<(), RuntimeError> {
    let _busy = container.busy.lock().await;
    if container.running() {
        return Err(RuntimeError::AlreadyRunning { id: container.id().to_owned() });
    }
    if shared.find(container.id()).is_err() {
        return Err(RuntimeError::NotFound { reference: container.id().to_owned() });
    }
    let result = launch(&shared, &container).await;
    let (own, it) = (Arc::clone(&shared), Arc::clone(&container));
    match result {
        Ok(()) => {
            let started = blocking(move || read_json(&it.dirs.started())).await?;
            let life = Life { state: ContainerState::Running, started };
            let health = container.stored.health.as_ref().map(|_| Health::default());
            container.health.send_replace(health);
            container.life.send_replace(life);
            tokio::spawn(monitor::watch(shared, Arc::clone(&container)));
            Ok(())
        }
        Err(e) => {
            // What the shim wrote down, if it came that far; else the container is as before.
            let life = blocking(move || monitor::recover(&own, &it)).await?;
            container.life.send_replace(life);
            Err(e)
        }
    }
}

async fn launch(shared: &Arc<Shared>, container: &Arc<Container>) -> Result<(), RuntimeError> {
    let (own, it) = (Arc::clone(shared), Arc::clone(container));
    let lock = blocking(move || prepare(&own, &it)).await?;
    let mut shim = spawn(shared, container, lock)?;
    let report = shim.stdout.take().expect("standard output was asked for");
    let mut line = String::new();
    let mut reader = BufReader::new(report);
    let read = tokio::time::timeout(PATIENCE, reader.read_line(&mut line)).await;
    let reply = match read {
        Ok(Ok(_)) => serde_json::from_str(&line).unwrap_or_else(|_| {
            let log = container.dirs.shim_log();
            let reason = format!("its shim ended without a word; its log is {}", log.display());
            Reply::Failed(Failure { reason, code: 125 })
        }),
        Ok(Err(e)) => Reply::Failed(Failure { reason: e.to_string(), code: 125 }),
        Err(_) => {
            shim.start_kill().at("kill the shim in", &container.dirs.bundle)?;
            let reason = format!("its shim did not answer within {} s", PATIENCE.as_secs());
            Reply::Failed(Failure { reason, code: 125 })
        }
    };
    match reply {
        Reply::Ok => {
            // Reaps it when it ends.
            tokio::spawn(async move { drop(shim.wait().await) });
            Ok(())
        }
        Reply::Failed(failure) => {
            shim.wait().await.at("wait for the shim in", &container.dirs.bundle)?;
            Err(start_error(container, failure.reason, failure.code))
        }
    }
}

/// Mounts the root file system and writes the bundle. Gives the lock for the shim.
fn prepare(shared: &Shared, container: &Container) -> Result<File, RuntimeError> {
    let dirs = &container.dirs;
    let spec = &container.stored.spec;
    let lock =
        dirs.lock_soon()?.ok_or_else(|| RuntimeError::AlreadyRunning { id: spec.id.clone() })?;
    check_host_paths(spec)?;
    memory::check(dirs, &spec.id, &spec.files)?;
    let image = shared.images.resolve(&container.stored.image_id)?;
    let rootfs = shared.images.prepare(&image, &spec.id)?;
    check_targets(spec, &rootfs)?;
    let user = user::resolve_in(&rootfs, &container.stored.process.user)
        .map_err(|reason| start_error(container, reason, 125))?;
    let capabilities = container_capabilities(shared, container)?;
    write_atomic(&dirs.data.join("hosts"), oci::hosts(spec).as_bytes())?;
    let hostname = spec.hostname.as_deref().unwrap_or_else(|| short(&spec.id));
    write_atomic(&dirs.data.join("hostname"), format!("{hostname}\n").as_bytes())?;
    if let Some(text) = &spec.resolv_conf {
        write_atomic(&dirs.data.join("resolv.conf"), text.as_bytes())?;
    }
    for name in ["hosts", "hostname", "resolv.conf"] {
        world_readable(&dirs.data.join(name))?;
    }
    let parts = oci::Parts {
        spec,
        process: &container.stored.process,
        user: &user,
        capabilities: &capabilities,
        rootfs: &rootfs,
        cgroup: &container.cgroup,
        data: &dirs.data,
        files: &dirs.files(),
        unified: !shared.cgroups.hybrid(),
    };
    write_json(&dirs.bundle.join("config.json"), &oci::config(&parts))?;
    let text = |words: &[std::ffi::OsString]| {
        words.iter().map(|w| w.to_string_lossy().into_owned()).collect::<Vec<_>>()
    };
    let shim = ShimConfig {
        id: spec.id.clone(),
        data: dirs.data.clone(),
        cgroup: container.cgroup.clone(),
        tty: spec.tty,
        open_stdin: spec.open_stdin,
        log: spec.log,
        exec_command: text(&shared.config.exec_command),
        open_files: shared.config.open_files,
    };
    write_json(&dirs.bundle.join("shim.json"), &shim)?;
    remove_file(&dirs.started())?;
    remove_file(&dirs.exit())?;
    Ok(lock)
}

/// The capabilities a container's processes get.
pub(crate) fn container_capabilities(
    shared: &Shared,
    container: &Container,
) -> Result<BTreeSet<String>, RuntimeError> {
    let spec = &container.stored.spec;
    // Without the BPF device filter that a unified host needs, nothing but this keeps root in a
    // container from the host's disks.
    capabilities(&spec.cap_add, &spec.cap_drop, shared.cgroups.hybrid())
        .map_err(|reason| RuntimeError::Invalid { field: "capabilities", reason })
}

fn check_host_paths(spec: &ContainerSpec) -> Result<(), RuntimeError> {
    for mount in &spec.mounts {
        if let Mount::Bind { source, .. } = mount
            && !source.exists()
        {
            let source = source.display();
            let reason = format!("bind source path does not exist: {source}; create it first");
            return Err(RuntimeError::Invalid { field: "mount", reason });
        }
    }
    if let Some(netns) = &spec.netns
        && !netns.exists()
    {
        let reason = format!("{} does not exist", netns.display());
        return Err(RuntimeError::Invalid { field: "network namespace", reason });
    }
    Ok(())
}

/// Files cannot lie over folders. libcontainer would only say that it could not prepare a root.
fn check_targets(spec: &ContainerSpec, rootfs: &Path) -> Result<(), RuntimeError> {
    let folder = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(rootfs, folder, Mode::empty()).at("open", rootfs)?;
    for target in spec.files.iter().map(|f| &f.target) {
        let hidden = spec.mounts.iter().any(|m| target.starts_with(m.target()));
        let inside = ResolveFlags::IN_ROOT;
        if !hidden && openat2(&root, target, folder, Mode::empty(), inside).is_ok() {
            let reason = format!("{} is a folder in the image", target.display());
            return Err(RuntimeError::Invalid { field: "file", reason });
        }
    }
    Ok(())
}

/// Temporary files are private; what users in the container read must not be.
fn world_readable(path: &Path) -> Result<(), RuntimeError> {
    use std::os::unix::fs::PermissionsExt;
    match fs::set_permissions(path, fs::Permissions::from_mode(0o644)) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other.at("set the mode of", path),
    }
}

fn spawn(shared: &Shared, container: &Container, lock: File) -> Result<Child, RuntimeError> {
    let path = container.dirs.shim_log();
    let log = File::options().create(true).append(true).open(&path).at("open", &path)?;
    let invalid =
        |reason: &str| RuntimeError::Invalid { field: "shim command", reason: reason.into() };
    let [program, args @ ..] = shared.config.shim_command.as_slice() else {
        return Err(invalid("it is empty"));
    };
    Command::new(program)
        .args(args)
        .arg("--bundle")
        .arg(&container.dirs.bundle)
        // Handed over locked: at no moment is a shim alive and the lock free.
        .stdin(lock)
        .stdout(Stdio::piped())
        .stderr(log)
        .env_clear()
        .spawn()
        .at("start the shim", Path::new(program))
}
