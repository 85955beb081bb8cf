//! A runtime of its own for each test, gone with it also when the test fails.

#![allow(dead_code, reason = "each test binary uses a part of this")]
#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use shoal_containers::{
    ContainerSpec, ExecSession, ExecSpec, LogOptions, Runtime, RuntimeConfig, Stream,
    cgroup_v2_root, new_id, remove_cgroup_parent,
};
use shoal_images::{ImageStore, testimage};
use tempfile::TempDir;

/// Image used by all tests.
pub(crate) const IMAGE: &str = "bb:1";

/// Files that processes of containers may have open; fewer than this process may.
pub(crate) const OPEN_FILES: u64 = 777;

pub(crate) struct Home {
    pub(crate) dir: TempDir,
    pub(crate) cgroup_parent: String,
    pub(crate) images: Arc<ImageStore>,
}

impl Home {
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let dir = TempDir::new().unwrap();
        let images = ImageStore::open(&dir.path().join("images")).unwrap();
        let extra: &[(&str, &[u8], u32)] =
            &[("bad", b"\x7fELF nonsense", 0o755), ("plain", b"x", 0o644)];
        let archive =
            testimage::busybox_archive(Path::new("/bin/busybox"), IMAGE, &["sh"], extra).unwrap();
        images.load(archive.as_slice()).unwrap();
        let cgroup_parent = format!("shoal-test-{}-{number}", std::process::id());
        Self { dir, cgroup_parent, images: Arc::new(images) }
    }

    pub(crate) async fn runtime(&self) -> Runtime {
        let shim = env!("CARGO_BIN_EXE_shoal-shim-test");
        let config = RuntimeConfig {
            data_root: self.dir.path().join("containers"),
            exec_root: self.dir.path().join("run"),
            cgroup_parent: self.cgroup_parent.clone(),
            shim_command: vec![shim.into(), "shim".into()],
            exec_command: vec![shim.into(), "shim-exec".into()],
            open_files: Some(OPEN_FILES),
        };
        Runtime::open(config, Arc::clone(&self.images)).await.unwrap()
    }

    /// The container's node in the version 2 hierarchy.
    pub(crate) fn v2_node(&self, id: &str) -> PathBuf {
        cgroup_v2_root().unwrap().join(&self.cgroup_parent).join(id)
    }

    /// Where containers' files are mounted on the host now.
    pub(crate) fn file_mounts(&self) -> Vec<PathBuf> {
        let all = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let places = all.lines().filter_map(|l| l.split(' ').nth(4)).map(PathBuf::from);
        places.filter(|p| p.starts_with(self.dir.path()) && p.ends_with("files")).collect()
    }

    pub(crate) fn bundle(&self, id: &str) -> PathBuf {
        self.dir.path().join("run").join(id)
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let parent = cgroup_v2_root().unwrap().join(&self.cgroup_parent);
        let nodes = || fs::read_dir(&parent).into_iter().flatten().flatten().map(|e| e.path());
        for node in nodes().filter(|n| n.is_dir()) {
            let _ = fs::write(node.join("cgroup.kill"), "1");
        }
        // The shims clean up after their containers.
        let end = Instant::now() + Duration::from_secs(10);
        while nodes().any(|n| n.is_dir()) && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(20));
        }
        for entry in fs::read_dir(self.dir.path().join("images/snapshots")).unwrap().flatten() {
            let flags = rustix::mount::UnmountFlags::DETACH;
            let _ = rustix::mount::unmount(entry.path().join("merged"), flags);
        }
        for mount in self.file_mounts() {
            let _ = rustix::mount::unmount(mount, rustix::mount::UnmountFlags::DETACH);
        }
        let _ = remove_cgroup_parent(&self.cgroup_parent);
    }
}

/// A container that runs a shell script.
pub(crate) fn script(name: &str, script: &str) -> ContainerSpec {
    ContainerSpec {
        id: new_id(),
        name: name.to_owned(),
        image: IMAGE.to_owned(),
        command: Some(["sh", "-c", script].map(str::to_owned).to_vec()),
        ..ContainerSpec::default()
    }
}

/// Makes and starts; gives the id.
pub(crate) async fn run(runtime: &Runtime, spec: ContainerSpec) -> String {
    let id = runtime.create(spec).await.unwrap().id;
    runtime.start(&id).await.unwrap();
    id
}

/// Runs to the end; gives exit code and (stdout, stderr).
pub(crate) async fn run_to_end(runtime: &Runtime, spec: ContainerSpec) -> (i32, String, String) {
    let id = run(runtime, spec).await;
    let status = tokio::time::timeout(Duration::from_secs(30), runtime.wait(&id)).await;
    let code = status.unwrap().unwrap().code;
    (code, logs(runtime, &id, Stream::Stdout).await, logs(runtime, &id, Stream::Stderr).await)
}

pub(crate) async fn logs(runtime: &Runtime, id: &str, stream: Stream) -> String {
    let options = LogOptions {
        stdout: stream == Stream::Stdout,
        stderr: stream == Stream::Stderr,
        ..LogOptions::default()
    };
    let entries: Vec<_> = runtime.logs(id, options).unwrap().collect().await;
    let bytes: Vec<u8> = entries.into_iter().flat_map(|e| e.unwrap().line.to_vec()).collect();
    String::from_utf8(bytes).unwrap()
}

pub(crate) fn shell(script: &str) -> ExecSpec {
    let cmd = ["sh", "-c", script].map(str::to_owned).to_vec();
    ExecSpec { cmd, ..ExecSpec::default() }
}

/// Runs an exec to its end: exit code, stdout, stderr.
pub(crate) async fn exec(runtime: &Runtime, id: &str, spec: ExecSpec) -> (i32, String, String) {
    finish(runtime.exec(id, spec).await.unwrap()).await
}

pub(crate) async fn finish(mut session: ExecSession) -> (i32, String, String) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let all = async {
        while let Some((stream, bytes)) = session.output.recv().await {
            match stream {
                Stream::Stdout => out.extend_from_slice(&bytes),
                Stream::Stderr => err.extend_from_slice(&bytes),
            }
        }
        (&mut session.exit).await.unwrap()
    };
    let code = tokio::time::timeout(Duration::from_secs(30), all).await.unwrap();
    (code, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
}

/// Waits until the container's log has this text.
pub(crate) async fn logged(runtime: &Runtime, id: &str, text: &str) {
    let options = LogOptions { follow: true, ..LogOptions::default() };
    let mut entries = Box::pin(runtime.logs(id, options).unwrap());
    let found = async {
        let mut all = String::new();
        while let Some(entry) = entries.next().await {
            all.push_str(&String::from_utf8_lossy(&entry.unwrap().line));
            if all.contains(text) {
                return;
            }
        }
        panic!("the log ended without {text:?}: {all}");
    };
    tokio::time::timeout(Duration::from_secs(20), found).await.unwrap();
}
