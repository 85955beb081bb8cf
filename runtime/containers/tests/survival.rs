//! What outlives what: containers their daemon, the truth a killed shim.

mod common;

use std::fs;
use std::time::Duration;

use common::{Home, exec, logged, run, script, shell};
use shoal_containers::{ContainerState, Stream};

/// Runs `work` as a daemon would, and then ends all its tasks wherever they are.
fn daemon<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Runtime::new().expect("threads can be made").block_on(work)
}

#[test]
fn a_new_daemon_finds_what_runs_and_what_ended_meanwhile() {
    let home = Home::new();
    let (up, done, later, never, pid) = daemon(async {
        let runtime = home.runtime().await;
        let up = run(&runtime, script("up", "echo one; while :; do sleep 0.1; done")).await;
        let done = run(&runtime, script("done", "exit 3")).await;
        runtime.wait(&done).await.unwrap();
        let later = run(&runtime, script("later", "sleep 0.5; exit 4")).await;
        let never = runtime.create(script("never", "true")).await.unwrap().id;
        logged(&runtime, &up, "one").await;
        let pid = runtime.inspect(&up).unwrap().pid;
        (up, done, later, never, pid)
    });
    std::thread::sleep(Duration::from_millis(800));
    daemon(async {
        let runtime = home.runtime().await;
        let info = runtime.inspect("up").unwrap();
        assert_eq!((&info.state, info.pid), (&ContainerState::Running, pid));
        assert!(pid.is_some());
        assert_eq!(runtime.wait(&done).await.unwrap().code, 3);
        assert_eq!(runtime.wait(&later).await.unwrap().code, 4);
        assert_eq!(runtime.inspect(&never).unwrap().state, ContainerState::Created);
        assert_eq!(exec(&runtime, "up", shell("echo again")).await.1, "again\n");
        assert!(common::logs(&runtime, &up, Stream::Stdout).await.contains("one"));
        runtime.signal(&up, 9).await.unwrap();
        assert_eq!(runtime.wait(&up).await.unwrap().code, 137);
        let error = runtime.create(script("up", "true")).await.unwrap_err().to_string();
        assert!(error.starts_with("Conflict. The container name \"/up\""), "{error}");
    });
}

#[test]
fn a_daemon_that_dies_in_the_middle_of_a_start_leaves_a_container_that_is_found() {
    let home = Home::new();
    let mut found = Vec::new();
    for delay in [0, 2, 5, 10, 20, 40, 80, 160] {
        let id = daemon(async {
            let runtime = home.runtime().await;
            let spec = script(&format!("cut-{delay}"), "while :; do sleep 0.1; done");
            let id = runtime.create(spec).await.unwrap().id;
            let start = runtime.start(&id);
            let _ = tokio::time::timeout(Duration::from_millis(delay), start).await;
            id
        });
        daemon(async {
            let runtime = home.runtime().await;
            let state = runtime.inspect(&id).unwrap().state;
            match state {
                ContainerState::Created => runtime.start(&id).await.unwrap(),
                ContainerState::Running => {}
                ContainerState::Exited(status) => panic!("after {delay} ms: {status:?}"),
            }
            found.push(state);
            // It runs, whoever started it, and can be talked to as soon as it does.
            assert_eq!(exec(&runtime, &id, shell("echo hi")).await.1, "hi\n");
            let pid = async {
                while runtime.inspect(&id).unwrap().pid.is_none() {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            };
            tokio::time::timeout(Duration::from_secs(10), pid).await.unwrap();
            runtime.remove(&id, true).await.unwrap();
            assert!(!home.v2_node(&id).exists());
        });
    }
    assert!(
        found.contains(&ContainerState::Created),
        "no start was cut before its shim: {found:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_shim_takes_its_container_along_and_is_known_as_lost() {
    let home = Home::new();
    let runtime = home.runtime().await;
    let id = run(&runtime, script("victim", "echo ready; while :; do sleep 0.1; done")).await;
    logged(&runtime, &id, "ready").await;
    let init = runtime.inspect(&id).unwrap().pid.unwrap();
    // The shim is the parent of the container's first process.
    let status = fs::read_to_string(format!("/proc/{init}/status")).unwrap();
    let parent = status.lines().find_map(|l| l.strip_prefix("PPid:\t")).unwrap();
    let shim = rustix::process::Pid::from_raw(parent.parse().unwrap()).unwrap();
    rustix::process::kill_process(shim, rustix::process::Signal::KILL).unwrap();
    let wait = tokio::time::timeout(Duration::from_secs(20), runtime.wait(&id)).await;
    let status = wait.unwrap().unwrap();
    assert_eq!(status.code, 255);
    assert!(status.error.unwrap().contains("shim lost"));
    assert!(!home.v2_node(&id).exists(), "no process of it is left");
    // It can be started again.
    runtime.start(&id).await.unwrap();
    runtime.remove(&id, true).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_process_of_a_container_is_in_its_version_2_cgroup() {
    let home = Home::new();
    let runtime = home.runtime().await;
    let id = run(&runtime, script("member", "sleep 100 & echo ready; wait")).await;
    logged(&runtime, &id, "ready").await;
    let members = || fs::read_to_string(home.v2_node(&id).join("cgroup.procs")).unwrap();
    assert_eq!(members().lines().count(), 2);
    let session = runtime.exec(&id, shell("sleep 100 & echo in; wait")).await.unwrap();
    let mut output = session.output;
    output.recv().await.unwrap();
    // The shell, its child, and the helper that waits for it.
    assert_eq!(members().lines().count(), 5);
    runtime.remove(&id, true).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unfinished_removal_and_an_unfinished_creation_are_finished_by_the_next_runtime() {
    let home = Home::new();
    let runtime = home.runtime().await;
    let id = run(&runtime, script("gone", "true")).await;
    runtime.wait(&id).await.unwrap();
    drop(runtime);
    let containers = home.dir.path().join("containers");
    fs::rename(containers.join(&id), containers.join(format!(".removing-{id}"))).unwrap();
    fs::create_dir(containers.join("f".repeat(64))).unwrap();
    let runtime = home.runtime().await;
    assert!(runtime.list().is_empty());
    for folder in ["containers", "run", "images/snapshots"] {
        assert_eq!(fs::read_dir(home.dir.path().join(folder)).unwrap().count(), 0, "{folder}");
    }
}
