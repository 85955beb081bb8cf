//! Containers for real: root, namespaces, cgroups, overlayfs.

mod common;

use std::fs;
use std::time::{Duration, Instant};

use common::{Home, exec, finish, logged, logs, run, run_to_end, script, shell};
use futures_util::StreamExt;
use shoal_containers::{
    ContainerSpec, ContainerState, ExecSpec, Health, HealthSpec, HealthStatus, LogLimits,
    LogOptions, Mount, Runtime, RuntimeError, Stream,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_container_runs_logs_and_ends_with_its_exit_code() {
    let home = Home::new();
    let runtime = home.runtime().await;
    let spec = script("one", "echo out; echo err >&2; hostname; cat /etc/hostname; exit 7");
    let id = spec.id.clone();
    let short = id[..12].to_owned();
    let (code, out, err) = run_to_end(&runtime, spec).await;
    assert_eq!((code, out, err.as_str()), (7, format!("out\n{short}\n{short}\n"), "err\n"));
    let info = runtime.inspect("/one").unwrap();
    assert!(matches!(&info.state, ContainerState::Exited(s) if s.code == 7 && s.signal.is_none()));
    assert!(info.started_at <= info.finished_at && info.pid.is_none());
    // Docker's file, byte for byte in form.
    let file = home.dir.path().join(format!("containers/{id}/{id}-json.log"));
    let text = fs::read_to_string(file).unwrap();
    let first = text.lines().find(|l| l.contains("\"out")).unwrap();
    assert!(first.starts_with(r#"{"log":"out\n","stream":"stdout","time":"20"#), "{first}");
    // Cgroups are gone; the container can be started again and removed.
    assert!(!home.v2_node(&id).exists());
    runtime.start(&id[..10]).await.unwrap();
    assert_eq!(runtime.wait(&id).await.unwrap().code, 7);
    runtime.remove("one", false).await.unwrap();
    assert_eq!(runtime.inspect(&id).unwrap_err().to_string(), format!("No such container: {id}"));
    for folder in ["containers", "run", "images/snapshots"] {
        assert_eq!(fs::read_dir(home.dir.path().join(folder)).unwrap().count(), 0, "{folder}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_has_dockers_environment_privileges_and_mounts() {
    let home = Home::new();
    let runtime = home.runtime().await;
    let mut spec = script(
        "env",
        "id; echo $HOME $EXTRA $HOSTNAME; grep -E 'Cap(Eff|Bnd|Inh|Amb)|Seccomp:|SigIgn|NoNewPrivs' \
         /proc/self/status; cat /proc/self/cgroup | grep ^0; wc -c < /proc/interrupts; \
         touch /proc/sys/kernel/domainname 2>&1; cat /etc/hosts /etc/resolv.conf; mount | grep cgroup; \
         cat /proc/sys/net/ipv4/ping_group_range; echo direct > /dev/stdout; umask; echo files $(ulimit -n); ls /proc/self/fd | tr '\\n' ' '",
    );
    spec.env = vec!["EXTRA=42".to_owned()];
    spec.hostname = Some("box".to_owned());
    spec.hosts = vec![("10.1.2.3".parse().unwrap(), "peer".to_owned())];
    spec.resolv_conf = Some("nameserver 127.0.0.11\n".to_owned());
    spec.user = Some("app".to_owned());
    let (code, out, err) = run_to_end(&runtime, spec).await;
    assert_eq!(code, 0, "{out}{err}");
    for line in [
        "uid=1000(app) gid=1000(app) groups=1000(app),2000(extra)",
        "/home 42 box",
        "CapEff:\t0000000000000000",
        "CapBnd:\t00000000a80425fb",
        "CapInh:\t0000000000000000",
        "Seccomp:\t2",
        "NoNewPrivs:\t0",
        "0::/\n",
        "\n0\n",
        "Read-only file system",
        "10.1.2.3\tpeer",
        "nameserver 127.0.0.11",
        "0\t2147483647",
        "direct",
        "files 777",
        "0022",
        // Its own listing is the fourth: nothing of the shim leaks in.
        "\n0 1 2 3 ",
    ] {
        assert!(out.contains(line), "{line:?} is not in:\n{out}{err}");
    }
    let ignored = out.lines().find_map(|l| l.strip_prefix("SigIgn:\t")).unwrap();
    assert_eq!(u64::from_str_radix(ignored, 16).unwrap() & 0x1000, 0, "SIGPIPE is ignored");
    assert!(!out.contains(" cgroup "), "no version 1 hierarchy may be mounted: {out}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exec_runs_in_the_same_namespaces_cgroups_and_filter() {
    let home = Home::new();
    let runtime = home.runtime().await;
    let id = run(&runtime, script("target", "echo 1 > /tmp/mark; exec sleep 100")).await;
    let probe = "cat /tmp/mark; grep -E 'Seccomp:|CapEff|CapBnd|SigIgn' /proc/self/status; \
                 cat /proc/self/cgroup; ls /proc/self/fd | tr '\\n' ' '; echo oops >&2; unshare -m true 2>&1; mount -t tmpfs x /mnt 2>&1; \
                 exit 9";
    let (code, out, err) = exec(&runtime, &id, shell(probe)).await;
    assert_eq!((code, err.as_str()), (9, "oops\n"), "{out}");
    for line in [
        "1\n",
        "0 1 2 3 ",
        "Seccomp:\t2",
        "CapEff:\t00000000a80425fb",
        "CapBnd:\t00000000a80425fb",
        "unshare: unshare(0x20000): Operation not permitted",
        "mount: permission denied",
    ] {
        assert!(out.contains(line), "{line:?} is not in:\n{out}");
    }
    // Every hierarchy's root, as seen from the container's cgroup namespace.
    for line in out.lines().filter(|l| l.contains(":/") && !l.contains("name=")) {
        assert!(line.ends_with(":/"), "outside the container's cgroup: {line}");
    }
    let user =
        ExecSpec { user: Some("app".to_owned()), ..shell("id -u; grep CapEff /proc/self/status") };
    let (_, out, _) = exec(&runtime, &id, user).await;
    assert_eq!(out, "1000\nCapEff:\t0000000000000000\n");
    let cwd = ExecSpec {
        working_dir: Some("/etc".to_owned()),
        env: vec!["A=b".to_owned()],
        ..shell("pwd; echo $A")
    };
    assert_eq!(exec(&runtime, &id, cwd).await.1, "/etc\nb\n");
    // Nothing of the sessions stays behind.
    let left = fs::read_dir(home.bundle(&id)).unwrap().flatten();
    let left: Vec<_> =
        left.filter(|e| e.file_name().to_string_lossy().starts_with("exec-")).collect();
    assert!(left.is_empty(), "{left:?}");
    runtime.remove(&id, true).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exec_has_a_standard_input_or_a_terminal() {
    let home = Home::new();
    let runtime = home.runtime().await;
    let id = run(&runtime, script("target", "exec sleep 100")).await;
    let session = runtime.exec(&id, ExecSpec { stdin: true, ..shell("wc -c") }).await.unwrap();
    session.input.write(&vec![b'x'; 200_000]).await.unwrap();
    session.input.close().await.unwrap();
    assert_eq!(finish(session).await, (0, "200000\n".to_owned(), String::new()));
    let (_, out, _) = exec(&runtime, &id, shell("wc -c")).await;
    assert_eq!(out, "0\n", "no input was asked for: it is at its end");
    let big = exec(&runtime, &id, shell("head -c 3000000 /dev/zero | tr '\\0' a")).await.1;
    assert_eq!(big.len(), 3_000_000);

    let tty =
        ExecSpec { tty: true, stdin: true, ..shell("tty; read x; stty size; echo got $x; exit 3") };
    let session = runtime.exec(&id, tty).await.unwrap();
    session.input.resize(33, 101).await.unwrap();
    session.input.write(b"hello\n").await.unwrap();
    let (code, out, _) = finish(session).await;
    assert_eq!(code, 3, "{out}");
    assert!(
        out.contains("/dev/pts/") && out.contains("33 101\r\n") && out.contains("got hello\r\n")
    );

    // A grandchild that keeps the output open does not keep the exec.
    let begin = Instant::now();
    assert_eq!(exec(&runtime, &id, shell("sleep 50 & echo done")).await.1, "done\n");
    assert!(begin.elapsed() < Duration::from_secs(10));
    runtime.remove(&id, true).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_executed_is_told_in_dockers_words() {
    let home = Home::new();
    let runtime = home.runtime().await;
    let command = |words: &[&str]| Some(words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>());
    for (name, program, words, want) in [
        ("c1", "nosuch", "exec: \"nosuch\": executable file not found in $PATH", 127),
        ("c2", "/nosuch", "exec: \"/nosuch\": stat /nosuch: no such file or directory", 127),
        ("c3", "/plain", "exec: \"/plain\": permission denied", 126),
        ("c4", "/etc", "exec: \"/etc\": is a directory", 126),
    ] {
        let spec = ContainerSpec { command: command(&[program]), ..script(name, "") };
        let id = runtime.create(spec).await.unwrap().id;
        match runtime.start(&id).await.unwrap_err() {
            RuntimeError::Start { reason, code, .. } => {
                assert_eq!((reason.as_str(), code), (words, want));
            }
            other => panic!("{other}"),
        }
        let ContainerState::Exited(status) = runtime.inspect(&id).unwrap().state else { panic!() };
        assert_eq!((status.code, status.error.as_deref()), (want, Some(words)));
        assert!(!home.v2_node(&id).exists());
        runtime.remove(&id, false).await.unwrap();
    }
    let spec = ContainerSpec { command: command(&["/bad"]), ..script("c5", "") };
    let (code, _, err) = run_to_end(&runtime, spec).await;
    assert_eq!(err, "exec /bad: exec format error\n");
    assert_ne!(code, 0);

    let id = run(&runtime, script("up", "exec sleep 100")).await;
    let spec = ExecSpec { cmd: command(&["nosuch"]).unwrap(), ..ExecSpec::default() };
    match runtime.exec(&id, spec).await.unwrap_err() {
        RuntimeError::Exec { reason, code } => {
            assert_eq!(reason, "exec: \"nosuch\": executable file not found in $PATH");
            assert_eq!(code, 127);
        }
        other => panic!("{other}"),
    }
    let spec = ExecSpec { user: Some("ghost".to_owned()), ..shell("true") };
    let error = runtime.exec(&id, spec).await.unwrap_err().to_string();
    assert!(error.contains("unable to find user ghost"), "{error}");
    runtime.remove(&id, true).await.unwrap();
    let error = runtime.exec("up", shell("true")).await.unwrap_err().to_string();
    assert_eq!(error, "No such container: up");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_is_a_signal_then_patience_then_a_kill() {
    let home = Home::new();
    let runtime = home.runtime().await;
    let polite = "trap 'echo bye; exit 5' TERM; echo ready; while :; do sleep 0.05; done";
    let id = run(&runtime, script("polite", polite)).await;
    logged(&runtime, &id, "ready").await;
    runtime.stop(&id, None).await.unwrap();
    assert_eq!(runtime.wait(&id).await.unwrap().code, 5);
    assert!(logs(&runtime, &id, Stream::Stdout).await.contains("bye"));

    let deaf = "trap '' TERM; echo ready; while :; do sleep 0.05; done";
    let id = run(&runtime, script("deaf", deaf)).await;
    logged(&runtime, &id, "ready").await;
    let begin = Instant::now();
    runtime.stop(&id, Some(Duration::from_millis(300))).await.unwrap();
    assert!(begin.elapsed() >= Duration::from_millis(300));
    let status = runtime.wait(&id).await.unwrap();
    assert_eq!((status.code, status.signal), (137, Some(9)));

    let mut spec = script("own", "trap 'exit 6' USR1; echo ready; while :; do sleep 0.05; done");
    spec.stop_signal = Some("SIGUSR1".to_owned());
    let id = run(&runtime, spec).await;
    logged(&runtime, &id, "ready").await;
    runtime.stop(&id, None).await.unwrap();
    assert_eq!(runtime.wait(&id).await.unwrap().code, 6);
    let error = runtime.signal(&id, 9).await.unwrap_err().to_string();
    assert_eq!(error, format!("container {id} is not running"));
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_unique_and_what_is_wrong_with_a_specification_is_named() {
    let home = Home::new();
    let runtime = home.runtime().await;
    let first = runtime.create(script("web", "true")).await.unwrap();
    let error = runtime.create(script("web", "true")).await.unwrap_err().to_string();
    let id = &first.id;
    let want =
        format!("Conflict. The container name \"/web\" is already in use by container \"{id}\".");
    assert!(error.starts_with(&want), "{error}");
    let bad = |change: fn(&mut ContainerSpec)| {
        let mut spec = script("other", "true");
        change(&mut spec);
        spec
    };
    for (spec, words) in [
        (bad(|s| s.name = "-x".into()), "only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"),
        (bad(|s| s.image = "nope".into()), "No such image: nope:latest"),
        (bad(|s| s.cap_add = vec!["FLY".into()]), "unknown capability: \"CAP_FLY\""),
        (bad(|s| s.memory = Some(1)), "minimum memory limit allowed is 6MB"),
        (bad(|s| s.stop_signal = Some("NOPE".into())), "unknown signal \"NOPE\""),
        (bad(|s| s.working_dir = Some("x".into())), "not an absolute path"),
        (bad(|s| s.command = Some(vec![])), "no command specified"),
    ] {
        let error = runtime.create(spec).await.unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
    let mut spec = script("mount", "true");
    let source = "/nonexistent-source".into();
    spec.mounts = vec![Mount::Bind { source, target: "/mnt".into(), read_only: true }];
    let id = runtime.create(spec).await.unwrap().id;
    let error = runtime.start(&id).await.unwrap_err().to_string();
    assert!(error.contains("bind source path does not exist: /nonexistent-source"), "{error}");
    assert_eq!(runtime.inspect(&id).unwrap().state, ContainerState::Created);
}

#[tokio::test(flavor = "multi_thread")]
async fn mounts_limits_and_a_read_only_root_are_what_was_asked_for() {
    let home = Home::new();
    let runtime = home.runtime().await;
    let shared = home.dir.path().join("shared");
    fs::create_dir(&shared).unwrap();
    let mut spec = script(
        "limits",
        "touch /x 2>&1; touch /ro/x 2>&1; echo hi > /rw/f; df -k /small | tail -1; echo t > /small/t; \
         cat /small/t",
    );
    spec.read_only = true;
    let bind = |target: &str, read_only| Mount::Bind {
        source: shared.clone(),
        target: target.into(),
        read_only,
    };
    let small = Mount::Tmpfs { target: "/small".into(), size: Some(1 << 20), mode: None };
    spec.mounts = vec![bind("/ro", true), bind("/rw", false), small];
    // The mount points must be in the image: its root cannot be written.
    let id = runtime.create(ContainerSpec { read_only: false, ..spec.clone() }).await.unwrap().id;
    runtime.start(&id).await.unwrap();
    assert_eq!(runtime.wait(&id).await.unwrap().code, 0);
    let out = logs(&runtime, &id, Stream::Stdout).await;
    assert!(out.contains("/ro/x: Read-only file system") && out.contains("1024"), "{out}");
    assert!(!out.contains("/x: Read-only") || out.contains("/ro/x"), "{out}");
    assert_eq!(fs::read_to_string(shared.join("f")).unwrap(), "hi\n");

    let mut spec = script("ro", "touch /x 2>&1; touch /dev/shm/ok && echo shm");
    spec.read_only = true;
    let (_, out, _) = run_to_end(&runtime, spec).await;
    assert!(out.contains("touch: /x: Read-only file system") && out.contains("shm\n"), "{out}");

    let mut spec = script("oom", "x=$(head -c 100000000 /dev/zero | tr '\\0' a); echo survived");
    spec.memory = Some(16 << 20);
    spec.pids = Some(20);
    spec.nano_cpus = Some(500_000_000);
    spec.oom_score_adj = Some(-500);
    let id = run(&runtime, spec).await;
    let status = runtime.wait(&id).await.unwrap();
    assert!(status.oom, "{status:?}");
    let out = logs(&runtime, &id, Stream::Stdout).await;
    assert!(!out.contains("survived"), "{out}");
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_can_be_cut_followed_and_rotated() {
    let home = Home::new();
    let runtime = home.runtime().await;
    let id = run(&runtime, script("slow", "for i in 1 2 3 4 5; do echo $i; sleep 0.1; done")).await;
    let options = LogOptions { follow: true, ..LogOptions::default() };
    let followed = runtime.logs(&id, options).unwrap().map(|e| e.unwrap().line).collect::<Vec<_>>();
    let followed = tokio::time::timeout(Duration::from_secs(20), followed).await.unwrap();
    assert_eq!(followed.concat(), b"1\n2\n3\n4\n5\n", "ends by itself, with everything");
    let options = LogOptions { tail: Some(2), ..LogOptions::default() };
    let all: Vec<_> = runtime.logs(&id, options).unwrap().map(|e| e.unwrap()).collect().await;
    assert_eq!(all.iter().map(|e| e.line.clone()).collect::<Vec<_>>().concat(), b"4\n5\n");
    let options = LogOptions { since: Some(all[1].time), ..LogOptions::default() };
    assert_eq!(runtime.logs(&id, options).unwrap().count().await, 1);
    let options = LogOptions { until: Some(all[0].time), ..LogOptions::default() };
    assert_eq!(runtime.logs(&id, options).unwrap().count().await, 4);

    let long = "head -c 40000 /dev/zero | tr '\\0' x; echo; echo short";
    let id = run(&runtime, script("long", long)).await;
    runtime.wait(&id).await.unwrap();
    let entries: Vec<_> = runtime.logs(&id, LogOptions::default()).unwrap().collect().await;
    let lengths: Vec<usize> = entries.iter().map(|e| e.as_ref().unwrap().line.len()).collect();
    assert_eq!(lengths, [16384, 16384, 40001 - 2 * 16384, 6]);

    let mut spec = script("rotate", "i=0; while [ $i -lt 500 ]; do echo line $i; i=$((i+1)); done");
    spec.log = LogLimits { max_size: Some(4096), max_file: 3 };
    let id = run(&runtime, spec).await;
    runtime.wait(&id).await.unwrap();
    let out = logs(&runtime, &id, Stream::Stdout).await;
    assert!(out.ends_with("line 498\nline 499\n") && !out.contains("line 0\n"), "{out}");
    let folder = home.dir.path().join("containers").join(&id);
    let files = fs::read_dir(folder).unwrap().flatten();
    let files: Vec<_> =
        files.filter(|e| e.file_name().to_string_lossy().contains("json.log")).collect();
    assert_eq!(files.len(), 3);
    assert!(files.iter().all(|f| f.metadata().unwrap().len() <= 4096));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_with_a_terminal_logs_it_as_one_stream() {
    let home = Home::new();
    let runtime = home.runtime().await;
    let mut spec = script("tty", "tty; echo err >&2; sleep 0.5; stty size");
    spec.tty = true;
    let id = run(&runtime, spec).await;
    runtime.resize(&id, 40, 90).await.unwrap();
    runtime.wait(&id).await.unwrap();
    let out = logs(&runtime, &id, Stream::Stdout).await;
    assert!(out.contains("err\r\n") && out.contains("40 90"), "{out}");
    assert_eq!(logs(&runtime, &id, Stream::Stderr).await, "");

    let mut spec = script("stdin", "read x && echo ended || echo at the end");
    spec.open_stdin = true;
    let id = run(&runtime, spec).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(runtime.inspect(&id).unwrap().state, ContainerState::Running, "it waits for input");
    runtime.remove(&id, true).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_capability_opens_what_the_filter_denies_otherwise() {
    let home = Home::new();
    let runtime = home.runtime().await;
    let probe = "mount -t tmpfs x /tmp && echo mounted; unshare -U true && echo user namespace";
    let (_, out, err) = run_to_end(&runtime, script("plain", probe)).await;
    assert_eq!(out, "", "{err}");
    assert!(err.contains("unshare(0x10000000): Operation not permitted"), "{err}");
    let mut spec = script("admin", probe);
    spec.cap_add = vec!["SYS_ADMIN".to_owned()];
    let id = run(&runtime, spec).await;
    runtime.wait(&id).await.unwrap();
    let (out, err) =
        (logs(&runtime, &id, Stream::Stdout).await, logs(&runtime, &id, Stream::Stderr).await);
    assert_eq!(out, "mounted\nuser namespace\n", "{err}");
    let mut spec = script("none", "exec sleep 100");
    spec.cap_drop = vec!["ALL".to_owned()];
    let id = run(&runtime, spec).await;
    let (code, out, err) =
        exec(&runtime, &id, shell("grep -E 'Cap(Bnd|Prm)' /proc/self/status")).await;
    assert_eq!(out, "CapPrm:\t0000000000000000\nCapBnd:\t0000000000000000\n", "{code} {err}");
    runtime.remove(&id, true).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_joins_the_network_namespace_it_is_given() {
    use std::os::unix::fs::MetadataExt;
    let home = Home::new();
    let runtime = home.runtime().await;
    let path = home.dir.path().join("netns");
    fs::write(&path, "").unwrap();
    let made = std::process::Command::new("unshare")
        .arg(format!("--net={}", path.display()))
        .args(["sh", "-c", "echo 7 > /proc/sys/net/ipv4/ip_default_ttl"])
        .status();
    assert!(made.unwrap().success());
    let mut spec = script(
        "net",
        "readlink /proc/self/ns/net; cat /proc/sys/net/ipv4/ip_default_ttl \
         /proc/sys/net/ipv4/ip_unprivileged_port_start",
    );
    spec.netns = Some(path.clone());
    let (_, out, err) = run_to_end(&runtime, spec).await;
    let inode = fs::metadata(&path).unwrap().ino();
    rustix::mount::unmount(&path, rustix::mount::UnmountFlags::DETACH).unwrap();
    assert_eq!(out, format!("net:[{inode}]\n7\n0\n"), "{err}");
    let mut spec = script("lost", "true");
    spec.netns = Some(home.dir.path().join("absent"));
    let id = runtime.create(spec).await.unwrap().id;
    let error = runtime.start(&id).await.unwrap_err().to_string();
    assert!(error.contains("network namespace") && error.contains("does not exist"), "{error}");
}

fn checked(name: &str, probe: &str, health: HealthSpec) -> ContainerSpec {
    let test = ["CMD-SHELL", probe].map(str::to_owned).to_vec();
    let health = HealthSpec { test, ..health };
    ContainerSpec { health: Some(health), ..script(name, "trap exit TERM; sleep 100 & wait") }
}

fn often() -> HealthSpec {
    HealthSpec { interval: Some(Duration::from_millis(100)), ..HealthSpec::default() }
}

#[expect(clippy::unwrap_used, reason = "a container without a health check fails its test")]
async fn becomes(runtime: &Runtime, id: &str, status: HealthStatus) -> Health {
    let mut health = runtime.health(id).unwrap();
    let becomes = health.wait_for(|h| h.as_ref().is_some_and(|h| h.status == status));
    let becomes = tokio::time::timeout(Duration::from_secs(20), becomes).await;
    becomes.expect("it takes too long").unwrap().clone().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_is_probed_by_exec_and_its_health_follows() {
    let home = Home::new();
    let runtime = home.runtime().await;
    let spec = checked("well", "echo looked; test -e /well", often());
    let id = runtime.create(spec).await.unwrap().id;
    assert_eq!(runtime.inspect(&id).unwrap().health, None);
    runtime.start(&id).await.unwrap();
    let begun = runtime.inspect(&id).unwrap().health.unwrap();
    assert_eq!((begun.status, begun.log.len()), (HealthStatus::Starting, 0));
    let health = becomes(&runtime, &id, HealthStatus::Unhealthy).await;
    assert_eq!((health.failing_streak, health.log.len()), (3, 3));
    assert_eq!((health.log[0].exit_code, health.log[0].output.as_str()), (1, "looked\n"));
    assert!(health.log[0].start <= health.log[0].end && health.log[0].end <= health.log[1].start);
    exec(&runtime, &id, shell("touch /well")).await;
    assert_eq!(becomes(&runtime, &id, HealthStatus::Healthy).await.failing_streak, 0);
    runtime.stop(&id, None).await.unwrap();
    let ended = runtime.inspect(&id).unwrap().health.unwrap();
    assert_eq!(ended.status, HealthStatus::Healthy, "what was known last stays");
    runtime.start(&id).await.unwrap();
    let again = runtime.inspect(&id).unwrap().health.unwrap();
    assert_eq!(again.status, HealthStatus::Starting);
    runtime.remove(&id, true).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_that_takes_too_long_is_killed_and_counts_as_failed() {
    let home = Home::new();
    let runtime = home.runtime().await;
    let health =
        HealthSpec { timeout: Some(Duration::from_millis(300)), retries: Some(1), ..often() };
    let id = run(&runtime, checked("slow", "echo begun; exec sleep 1234", health)).await;
    let health = becomes(&runtime, &id, HealthStatus::Unhealthy).await;
    let text = "Health check exceeded timeout (300ms): begun\n";
    assert_eq!((health.log[0].exit_code, health.log[0].output.as_str()), (-1, text));
    let (_, left, _) = exec(&runtime, &id, shell("ps | grep -c 'sleep 123[4]'")).await;
    assert!(left.trim().parse::<u32>().unwrap() <= 1, "probes pile up: {left}");
    runtime.remove(&id, true).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_taken_up_again_is_probed_again() {
    let home = Home::new();
    let runtime = home.runtime().await;
    let id = run(&runtime, checked("again", "true", often())).await;
    becomes(&runtime, &id, HealthStatus::Healthy).await;
    drop(runtime);
    let runtime = home.runtime().await;
    becomes(&runtime, &id, HealthStatus::Healthy).await;
    runtime.remove(&id, true).await.unwrap();
}
