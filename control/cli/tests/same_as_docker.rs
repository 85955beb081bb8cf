//! The same commands given to `docker` and to this command line print the same.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]
use shoal_api::{
    memory::MemorySwarm,
    testserver::{TestServer, run},
};
use std::{
    collections::BTreeSet,
    process::{Command, Output},
    thread,
    time::{Duration, Instant},
};

fn ours(server: &TestServer, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shoal-cli-test"));
    command.env("SHOAL_HOST", server.host()).args(args);
    run(command, b"").unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn ok(server: &TestServer, args: &[&str]) -> String {
    let out = ours(server, args);
    assert!(out.status.success(), "{args:?}: {}{}", text(&out.stdout), text(&out.stderr));
    text(&out.stdout)
}

/// Spans of time move on between two runs, and column widths with them.
fn steady(text: &str) -> String {
    let lines = text.lines().map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let span = words.iter().position(|w| *w == "ago");
        match span {
            Some(end) => {
                let start = words[..end].iter().rposition(|w| {
                    w.parse::<u32>().is_ok() || ["Less", "less", "About", "about"].contains(w)
                });
                let start = start.unwrap_or(end);
                [&words[..start], &["SPAN"], &words[end..]].concat().join(" ")
            }
            None => line.to_owned(),
        }
    });
    lines.collect::<Vec<_>>().join("\n").replace("docker swarm", "shoal swarm")
}

#[track_caller]
fn same(server: &TestServer, args: &[&str]) {
    let docker = server.docker(args).unwrap();
    let ours = ours(server, args);
    assert_eq!(steady(&text(&ours.stdout)), steady(&text(&docker.stdout)), "stdout of {args:?}");
    let (a, b) = (steady(&text(&ours.stderr)), steady(&text(&docker.stderr)));
    // docker 28 adds a line of its own to some refusals.
    assert_eq!(
        a.trim(),
        b.trim_end().trim_end_matches("exit status 1").trim(),
        "stderr of {args:?}"
    );
    assert_eq!(ours.status.code(), docker.status.code(), "exit code of {args:?}");
}

fn cluster() -> TestServer {
    let s = TestServer::start(MemorySwarm::three_nodes()).unwrap();
    ok(&s, &["network", "create", "--label", "a=b", "app"]);
    let create = [
        "service",
        "create",
        "-d",
        "--name",
        "web",
        "--network",
        "app",
        "--replicas",
        "3",
        "-p",
        "8080:80",
        "img:1",
        "serve",
        "--all",
    ];
    ok(&s, &create);
    ok(&s, &["service", "create", "-d", "--name", "web10", "img:2"]);
    s
}

#[test]
fn tables_are_the_same() {
    let s = cluster();
    for args in [
        &["node", "ls"][..],
        &["node", "ls", "-q"],
        &["node", "ls", "--filter", "role=worker"],
        &["node", "ps", "self"],
        &["service", "ls"],
        &["service", "ls", "-q"],
        &["service", "ps", "web"],
        &["service", "ps", "--no-trunc", "web"],
        &["network", "ls"],
        &["network", "ls", "--no-trunc", "-f", "label=a"],
        &["images"],
        &["ps"],
        &["ps", "-a"],
    ] {
        same(&s, args);
    }
}

#[test]
fn secrets_and_configs_are_made_used_and_removed_alike() {
    let s = cluster();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("content");
    std::fs::write(&file, b"content\n").unwrap();
    let file = file.to_str().unwrap();
    for kind in ["secret", "config"] {
        ok(&s, &[kind, "create", "-l", "a=b", "key", file]);
        s.docker(&[kind, "create", "--template-driver", "golang", "other", file]).unwrap();
        for args in [
            &[kind, "ls"][..],
            &[kind, "ls", "-q"],
            &[kind, "ls", "-f", "label=a"],
            &[kind, "inspect", "key", "other"],
            &[kind, "inspect", "none"],
            &[kind, "create", "key", file],
            &[kind, "create", "-", file],
            &[kind, "rm", "none"],
        ] {
            same(&s, args);
        }
    }
    let flags = [
        "--secret",
        "key",
        "--secret",
        "source=other,target=/etc/other,uid=5,gid=6,mode=0400",
        "--config",
        "src=key,target=/etc/key",
    ];
    let create = |name: &'static str| {
        [&["service", "create", "-d", "--name", name][..], &flags, &["img:1"]].concat()
    };
    ok(&s, &create("ours"));
    s.docker(&create("theirs")).unwrap();
    // docker's client sends them in an order of its own each time.
    let references = |name: &str| {
        let shown = ok(&s, &["service", "inspect", name]);
        let service: serde_json::Value = serde_json::from_str(&shown).unwrap();
        let container = &service[0]["Spec"]["TaskTemplate"]["ContainerSpec"];
        [&container["Secrets"], &container["Configs"]].map(|all| {
            let all = all.as_array().into_iter().flatten();
            all.map(|one| one.to_string()).collect::<BTreeSet<_>>()
        })
    };
    assert_eq!(references("ours")[0].len(), 2);
    assert_eq!(references("ours"), references("theirs"));
    let change =
        ["--secret-rm", "other", "--secret-add", "source=key,target=second", "--config-rm", "key"];
    ok(&s, &[&["service", "update", "-d"][..], &change, &["ours"]].concat());
    s.docker(&[&["service", "update", "-d"][..], &change, &["theirs"]].concat()).unwrap();
    assert_eq!(references("ours"), references("theirs"));
    same(&s, &["secret", "rm", "key"]);
    same(&s, &["service", "create", "-d", "--secret", "none", "img:1"]);
    same(&s, &["service", "create", "-d", "--config", "none", "img:1"]);
    ok(&s, &["secret", "rm", "other"]);
    s.docker(&["config", "rm", "other"]).unwrap();
    same(&s, &["secret", "ls"]);
    same(&s, &["config", "ls"]);
}

#[test]
fn replaced_tasks_stand_below_their_successors() {
    let s = cluster();
    ok(&s, &["service", "update", "-d", "--image", "img:3", "web"]);
    same(&s, &["service", "ps", "web"]);
    assert!(ok(&s, &["service", "ps", "web"]).contains(" \\_ web.1"));
}

#[test]
fn services_of_all_modes_are_made_and_listed_alike() {
    let s = TestServer::start(MemorySwarm::three_nodes()).unwrap();
    for (name, flags) in [
        ("agent", &["--mode", "global"][..]),
        ("few", &["--replicas-max-per-node", "1", "--replicas", "2"]),
        ("job", &["--mode", "replicated-job", "--replicas", "3", "--max-concurrent", "2"]),
        ("alljob", &["--mode", "global-job"]),
        (
            "tuned",
            &[
                "--update-parallelism",
                "2",
                "--update-monitor",
                "2s",
                "--update-failure-action",
                "rollback",
                "--update-max-failure-ratio",
                "0.5",
                "--update-order",
                "start-first",
                "--rollback-delay",
                "1s",
                "--rollback-failure-action",
                "continue",
                "--restart-max-attempts",
                "3",
                "--restart-window",
                "1m",
            ],
        ),
    ] {
        let create = |name: &str| {
            [&["service", "create", "-d", "--name", name], flags, &["img"]]
                .concat()
                .into_iter()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        let theirs = create(&format!("{name}-d"));
        let theirs: Vec<&str> = theirs.iter().map(String::as_str).collect();
        assert!(s.docker(&theirs).unwrap().status.success(), "docker {theirs:?}");
        let own = create(&format!("{name}-s"));
        ok(&s, &own.iter().map(String::as_str).collect::<Vec<_>>());
        let spec = |of: &str| {
            let text = ok(&s, &["service", "inspect", &format!("{name}-{of}")]);
            let mut spec: serde_json::Value = serde_json::from_str(&text).unwrap();
            let mut spec = spec[0]["Spec"].take();
            spec["Name"].take();
            spec["TaskTemplate"]["ContainerSpec"]["Image"].take();
            spec
        };
        assert_eq!(spec("s"), spec("d"), "{name}");
    }
    // Both jobs, two tasks at a time; on a busy machine that may take a while.
    let patience = Instant::now() + Duration::from_secs(60);
    let done = "0/2 (3/3 completed)";
    while ok(&s, &["service", "ls"]).matches(done).count() < 2 {
        assert!(Instant::now() < patience, "{}", ok(&s, &["service", "ls"]));
        thread::sleep(Duration::from_millis(100));
    }
    for args in [&["service", "ls"][..], &["service", "ps", "agent-d"], &["service", "ps", "job-d"]]
    {
        same(&s, args);
    }
}

#[test]
fn flags_that_do_not_belong_to_the_mode_are_refused_alike() {
    let s = TestServer::start(MemorySwarm::three_nodes()).unwrap();
    for flags in [
        &["--mode", "global", "--replicas", "2"][..],
        &["--mode", "global", "--max-concurrent", "2"],
        &["--mode", "replicated", "--max-concurrent", "2"],
        &["--mode", "global-job", "--replicas-max-per-node", "2"],
        &["--mode", "replicated-job", "--update-delay", "2s"],
        &["--mode", "global-job", "--rollback-delay", "2s"],
    ] {
        same(&s, &[&["service", "create"], flags, &["img"]].concat());
    }
    ok(&s, &["service", "create", "-d", "--name", "agent", "--mode", "global", "img"]);
    same(&s, &["service", "update", "--replicas", "2", "agent"]);
}

#[test]
fn a_failed_update_ends_the_wait_with_docker_s_words() {
    let s = cluster();
    let update = ["service", "update", "--image", "fail:1", "web"];
    let out = ours(&s, &update);
    assert_eq!(out.status.code(), Some(1));
    let text = text(&out.stderr);
    assert!(
        text.starts_with(
            "service update paused: update paused due to failure or early termination of task"
        ),
        "{text}"
    );
}

#[test]
fn a_job_is_waited_for_until_it_is_done() {
    let s = cluster();
    let create = ["service", "create", "--mode", "replicated-job", "--replicas", "2", "img"];
    let out = ok(&s, &create);
    assert!(out.contains("job progress: 2 out of 2 complete\n"), "{out}");
    assert!(out.ends_with("job complete\n"), "{out}");
    let out = ok(&s, &["service", "create", "--mode", "global-job", "img"]);
    assert!(out.contains("job progress: 3 out of 3 complete\n"), "{out}");
}

#[test]
fn a_service_is_rebalanced_once_when_asked() {
    let s = cluster();
    s.docker(&["node", "update", "--availability", "drain", "gamma"]).unwrap();
    s.docker(&["node", "update", "--availability", "active", "gamma"]).unwrap();
    let on_gamma = || {
        let ps = ok(&s, &["service", "ps", "-f", "desired-state=running", "web"]);
        ps.lines().filter(|l| l.contains("gamma")).count()
    };
    assert_eq!(on_gamma(), 0, "by itself nothing comes back");
    ok(&s, &["service", "update", "-d", "--rebalance", "web"]);
    assert_eq!(on_gamma(), 1);
    let labels = ok(&s, &["service", "inspect", "web"]);
    assert!(!labels.contains("shoal.rebalance"), "the wish is taken off");
}

#[test]
fn inspected_objects_are_the_same() {
    let s = cluster();
    for args in [
        &["inspect", "web", "app", "alpha"][..],
        &["service", "inspect", "web"],
        &["network", "inspect", "app", "ingress"],
        &["node", "inspect", "self"],
    ] {
        let (docker, ours) = (s.docker(args).unwrap(), ours(&s, args));
        // docker reorders the keys of some kinds.
        let json = |out: &[u8]| serde_json::from_slice::<serde_json::Value>(out).unwrap();
        assert_eq!(json(&ours.stdout), json(&docker.stdout), "{args:?}");
        assert_eq!(text(&ours.stdout).lines().count(), text(&docker.stdout).lines().count());
    }
    same(&s, &["inspect", "nothing"]);
}

#[test]
fn logs_are_the_same() {
    let s = cluster();
    for args in [
        &["service", "logs", "web"][..],
        &["service", "logs", "-t", "--no-trunc", "web"],
        &["service", "logs", "--raw", "web"],
        &["service", "logs", "--no-task-ids", "web10"],
        &["service", "logs", "--no-resolve", "web10"],
    ] {
        let (docker, ours) = (s.docker(args).unwrap(), ours(&s, args));
        let sorted = |out: &[u8]| {
            let mut lines: Vec<String> = text(out).lines().map(str::to_owned).collect();
            lines.sort();
            lines
        };
        assert_eq!(sorted(&ours.stdout), sorted(&docker.stdout), "{args:?}");
        assert_eq!(sorted(&ours.stderr), sorted(&docker.stderr), "{args:?}");
    }
}

#[test]
fn refusals_are_the_same() {
    let s = cluster();
    for args in [
        &["network", "rm", "none"][..],
        &["node", "rm", "beta"],
        &["swarm", "leave"],
        &["swarm", "init"],
        &["service", "rm", "none"],
        &["logs", "none"],
        &["exec", "none", "true"],
        &["swarm", "join-token", "-q", "worker"],
        &["swarm", "join-token", "manager"],
    ] {
        same(&s, args);
    }
}

#[test]
fn an_attached_create_waits_and_says_so() {
    let s = cluster();
    let out = ok(&s, &["service", "create", "--name", "db", "--replicas", "2", "img"]);
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines[1], "overall progress: 2 out of 2 tasks", "{out}");
    assert!(lines[2].starts_with("verify: Waiting 5 seconds"), "{out}");
    assert_eq!(*lines.last().unwrap(), format!("verify: Service {} converged", lines[0]));
    assert!(ok(&s, &["service", "scale", "-d", "db=4", "web=1"]).contains("web scaled to 1"));
    assert!(!ours(&s, &["service", "scale", "-d", "db"]).status.success());
}

#[test]
fn what_docker_made_can_be_changed_here_without_replacing_its_tasks() {
    let s = cluster();
    let create = [
        "service",
        "create",
        "-d",
        "--name",
        "d",
        "--restart-delay",
        "1s",
        "--limit-memory",
        "64m",
        "--env",
        "A=b",
        "img",
    ];
    assert!(s.docker(&create).unwrap().status.success());
    let before = ok(&s, &["service", "ps", "-q", "d"]);
    ok(&s, &["service", "scale", "-d", "d=2"]);
    let after = ok(&s, &["service", "ps", "-q", "--no-trunc", "d"]);
    assert_eq!(after.lines().count(), 2, "{before}{after}");
    ok(&s, &["service", "update", "-d", "--env-add", "C=d", "d"]);
    assert!(
        ok(&s, &["service", "inspect", "d"]).contains("\"A=b\",\n                        \"C=d\"")
    );
}

#[test]
fn without_a_daemon_the_error_names_the_socket() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shoal-cli-test"));
    command.args(["-H", "unix:///nonexistent/shoal.sock", "node", "ls"]);
    let out = run(command, b"").unwrap();
    assert_eq!(out.status.code(), Some(1));
    let text = text(&out.stderr);
    assert!(
        text.contains("Cannot connect to the Shoal daemon at unix:///nonexistent/shoal.sock"),
        "{text}"
    );
}
