//! Files a container is given (secrets, configs): how it sees them, and what is left of them.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use common::{Home, exec, logged, run, run_to_end, script, shell};
use rustix::mount::{MountFlags, UnmountFlags, unmount};
use shoal_containers::{
    ContainerSpec, ContainerState, FileSpec, Mount, Runtime, RuntimeConfig, Stream, new_id,
};
use shoal_images::ImageStore;

const SECRET: &str = "4f1c-correct-horse-battery-staple";

fn file(target: &str, content: &str) -> FileSpec {
    let content = content.as_bytes().to_vec().into();
    FileSpec { target: target.into(), uid: 0, gid: 0, mode: 0o444, content }
}

fn with_secret(name: &str, text: &str) -> ContainerSpec {
    ContainerSpec { files: vec![file("/run/secrets/word", SECRET)], ..script(name, text) }
}

/// Files below a folder that hold the secret.
fn leaks(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let (path, kind) = (entry.path(), entry.file_type());
        if kind.as_ref().is_ok_and(|k| k.is_dir()) {
            found.extend(leaks(&path));
        } else if kind.is_ok_and(|k| k.is_file())
            && fs::read(&path)
                .is_ok_and(|b| b.windows(SECRET.len()).any(|w| w == SECRET.as_bytes()))
        {
            found.push(path);
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn files_have_their_content_owner_and_mode_and_cannot_be_written_even_by_root() {
    let home = Home::new();
    let runtime = home.runtime().await;
    let mut spec = script(
        "files",
        "stat -c '%n %a %u:%g %s' /run/secrets/* /deep/er/app.conf /plain /empty; \
         cat /run/secrets/word /plain; /run/secrets/tool; \
         for f in /run/secrets/word /plain; do \
           (echo x > $f) 2>&1; chmod 777 $f 2>&1; rm -f $f 2>&1; mv $f /gone 2>&1; done; \
         su app -c 'cat /run/secrets/mine /run/secrets/roots' 2>&1; \
         grep ' /run/secrets/word ' /proc/self/mountinfo",
    );
    let of = |uid, gid, mode, file| FileSpec { uid, gid, mode, ..file };
    spec.files = vec![
        file("/run/secrets/word", "a word\n"),
        // Over a file of the image, with folders that are missing, and below a mount.
        file("/plain", "another plain\n"),
        of(33, 4242, 0o640, file("/deep/er/app.conf", "key = 1\n")),
        of(1000, 0, 0o400, file("/run/secrets/mine", "mine\n")),
        of(0, 0, 0o400, file("/run/secrets/roots", "roots\n")),
        of(0, 0, 0o555, file("/run/secrets/tool", "#!/bin/sh\necho it runs\n")),
        file("/empty", ""),
    ];
    spec.mounts = vec![Mount::Tmpfs { target: "/run".into(), size: None, mode: None }];
    let (_, out, err) = run_to_end(&runtime, spec).await;
    for line in [
        "/run/secrets/word 444 0:0 7\n",
        "/plain 444 0:0 14\n",
        "/deep/er/app.conf 640 33:4242 8\n",
        "/run/secrets/mine 400 1000:0 5\n",
        "/empty 444 0:0 0\n",
        "a word\nanother plain\nit runs\n",
        "mine\ncat: can't open '/run/secrets/roots': Permission denied\n",
    ] {
        assert!(out.contains(line), "{line:?} is not in:\n{out}{err}");
    }
    assert_eq!(out.matches("Read-only file system").count(), 4, "write and chmod: {out}{err}");
    assert_eq!(out.matches("resource busy").count(), 4, "rm and mv: {out}{err}");
    let mount = out.lines().last().unwrap();
    for option in ["ro,nosuid,nodev", " - tmpfs shoal ro,"] {
        assert!(mount.contains(option), "{option} is not in {mount}");
    }
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = kernel.split(['.', '-']).map(|n| n.parse::<u32>().unwrap_or(0));
    if (numbers.next(), numbers.next()) >= (Some(6), Some(4)) {
        assert!(mount.contains("noswap"), "{mount}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_on_no_disk_and_gone_when_its_container_has_ended() {
    let home = Home::new();
    let runtime = home.runtime().await;
    let text = "cat /run/secrets/word > /dev/null; touch /ready; sleep 100";
    let id = run(&runtime, with_secret("quiet", text)).await;
    exec(&runtime, &id, shell("until test -e /ready; do sleep 0.05; done")).await;
    let mounts = home.file_mounts();
    assert_eq!(mounts, [home.bundle(&id).join("files")]);
    assert_eq!(leaks(home.dir.path()), [mounts[0].join("0")], "in memory alone");
    assert!(
        Command::new("chroot")
            .args(["--userspec=1000:1000", "/", "cat"])
            .arg(mounts[0].join("0"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|s| !s.success()),
        "only root may look there"
    );
    let shown = format!("{:?}", runtime.inspect(&id).unwrap());
    assert!(shown.contains("/run/secrets/word") && !shown.contains(SECRET), "{shown}");
    runtime.signal(&id, 9).await.unwrap();
    runtime.wait(&id).await.unwrap();
    assert_eq!((home.file_mounts(), leaks(home.dir.path())), (vec![], vec![]));
    // Its files cannot come back.
    let error = runtime.start(&id).await.unwrap_err().to_string();
    assert!(error.contains("are gone") && error.contains(&id[..12]), "{error}");
    runtime.remove(&id, false).await.unwrap();
    let left: Vec<_> =
        fs::read_dir(home.dir.path().join("run")).unwrap().map(|e| e.unwrap().path()).collect();
    assert_eq!(left, Vec::<PathBuf>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_or_removed_before_its_start_leaves_no_mount() {
    let home = Home::new();
    let runtime = home.runtime().await;
    let id = runtime.create(with_secret("taken", "true")).await.unwrap().id;
    let first = home.file_mounts();
    assert_eq!(first.len(), 1);
    runtime.create(with_secret("taken", "true")).await.unwrap_err();
    let bad = FileSpec { mode: 0o7777, ..file("/a", SECRET) };
    let bad = ContainerSpec { files: vec![bad], ..script("bad", "true") };
    let error = runtime.create(bad).await.unwrap_err().to_string();
    assert!(error.contains("invalid container file: /a: mode 7777"), "{error}");
    assert_eq!(home.file_mounts(), first);
    // One whose program does not exist has ended.
    let nothing =
        ContainerSpec { command: Some(vec!["/nothing".to_owned()]), ..with_secret("nothing", "") };
    let failed = runtime.create(nothing).await.unwrap().id;
    runtime.start(&failed).await.unwrap_err();
    assert_eq!(home.file_mounts(), first);
    // A target that is a folder of the image.
    let folder = ContainerSpec { files: vec![file("/bin", SECRET)], ..script("folder", "true") };
    let folder = runtime.create(folder).await.unwrap().id;
    let error = runtime.start(&folder).await.unwrap_err().to_string();
    assert!(error.contains("file: /bin is a folder in the image"), "{error}");
    runtime.remove(&folder, false).await.unwrap();
    assert_eq!(home.file_mounts(), first);
    runtime.remove(&id, false).await.unwrap();
    assert_eq!(home.file_mounts(), Vec::<PathBuf>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_daemon_leaves_running_containers_their_files() {
    let home = Home::new();
    let runtime = home.runtime().await;
    let up = run(&runtime, with_secret("up", "echo ready; sleep 100")).await;
    logged(&runtime, &up, "ready").await;
    let created = runtime.create(with_secret("created", "cat /run/secrets/word")).await.unwrap().id;
    let lost = runtime.create(with_secret("lost", "cat /run/secrets/word")).await.unwrap().id;
    drop(runtime);
    // As after the host was started again.
    unmount(home.bundle(&lost).join("files"), UnmountFlags::DETACH).unwrap();
    // As left by a daemon that died in the middle of a creation and of a removal.
    let orphan = home.dir.path().join("run").join(new_id()).join("files");
    fs::create_dir_all(&orphan).unwrap();
    rustix::mount::mount("none", &orphan, "tmpfs", MountFlags::empty(), c"size=4096").unwrap();
    let gone = home.dir.path().join("containers").join(format!(".removing-{}", new_id()));
    fs::create_dir(gone).unwrap();

    let runtime = home.runtime().await;
    assert_eq!(home.file_mounts().len(), 2, "of up and created");
    let (code, out, _) = exec(&runtime, &up, shell("cat /run/secrets/word")).await;
    assert_eq!((code, out.as_str()), (0, SECRET));
    runtime.start(&created).await.unwrap();
    assert_eq!(runtime.wait(&created).await.unwrap().code, 0);
    assert_eq!(common::logs(&runtime, &created, Stream::Stdout).await, SECRET);
    let error = runtime.start(&lost).await.unwrap_err().to_string();
    assert!(error.contains("are gone"), "{error}");
    assert_eq!(runtime.inspect(&lost).unwrap().state, ContainerState::Created);
    for id in [&up, &created, &lost] {
        runtime.remove(id, true).await.unwrap();
    }
    assert_eq!(home.file_mounts(), Vec::<PathBuf>::new());
    // (The first daemon's watch over `up` goes on here, and may make its folder again.)
    assert!(!orphan.parent().unwrap().exists(), "what belongs to no container goes");
}

/// Tells the next test's second program which runtime to be the daemon of: its folder, its cgroup.
const VICTIM: [&str; 2] = ["SHOAL_TEST_VICTIM_FOLDER", "SHOAL_TEST_VICTIM_CGROUP"];

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_killed_at_any_moment_leaves_whole_files_or_none() {
    if let [Ok(folder), Ok(cgroup)] = VICTIM.map(std::env::var) {
        return create_until_killed(Path::new(&folder), cgroup).await;
    }
    let home = Home::new();
    let mut seen: BTreeMap<&str, u32> = BTreeMap::new();
    for n in 0..24_u64 {
        let name = "a_daemon_killed_at_any_moment_leaves_whole_files_or_none";
        let mut victim = Command::new(std::env::current_exe().unwrap())
            .args([name, "--exact", "--nocapture", "--test-threads=1"])
            .env(VICTIM[0], home.dir.path())
            .env(VICTIM[1], &home.cgroup_parent)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(victim.stdout.take().unwrap()).lines();
        let ready = lines.map_while(Result::ok).any(|line| line.contains("creating"));
        assert!(ready, "the victim did not come that far");
        std::thread::sleep(Duration::from_micros(n * 2_300));
        victim.kill().unwrap();
        victim.wait().unwrap();
        let runtime = home.runtime().await;
        for container in runtime.list() {
            let whole = match runtime.start(&container.id).await {
                Ok(()) => {
                    runtime.wait(&container.id).await.unwrap();
                    let out = Stream::Stdout;
                    let out = common::logs(&runtime, &container.id, out).await;
                    assert_eq!(out, SECRET.repeat(3), "all files or none");
                    "whole"
                }
                Err(e) => {
                    assert!(e.to_string().contains("are gone"), "{e}");
                    "none"
                }
            };
            *seen.entry(whole).or_default() += 1;
            runtime.remove(&container.id, true).await.unwrap();
        }
        assert_eq!(home.file_mounts(), Vec::<PathBuf>::new());
        let left: Vec<_> =
            fs::read_dir(home.dir.path().join("run")).unwrap().map(|e| e.unwrap().path()).collect();
        assert_eq!(left, Vec::<PathBuf>::new());
        assert_eq!(leaks(home.dir.path()), Vec::<PathBuf>::new());
    }
    assert!(seen.contains_key("whole"), "no container was made: {seen:?}");
}

#[expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]
async fn create_until_killed(folder: &Path, cgroup_parent: String) {
    let images = Arc::new(ImageStore::open(&folder.join("images")).unwrap());
    let config = RuntimeConfig {
        data_root: folder.join("containers"),
        exec_root: folder.join("run"),
        cgroup_parent,
        shim_command: vec!["/bin/false".into()],
        exec_command: vec!["/bin/false".into()],
        open_files: None,
    };
    let runtime = Runtime::open(config, images).await.unwrap();
    println!("creating");
    std::io::stdout().flush().unwrap();
    loop {
        let mut spec = script("victim", "cat /a /b /c");
        spec.files = ["/a", "/b", "/c"].map(|target| file(target, SECRET)).into();
        let id = runtime.create(spec).await.unwrap().id;
        runtime.remove(&id, true).await.unwrap();
    }
}
