//! The same commands given to `docker` and to this command line print the same.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]
use shoal_api::{
    memory::MemorySwarm,
    testserver::{TestServer, run},
};
use std::process::{Command, Output};

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
fn replaced_tasks_stand_below_their_successors() {
    let s = cluster();
    ok(&s, &["service", "update", "-d", "--image", "img:3", "web"]);
    same(&s, &["service", "ps", "web"]);
    assert!(ok(&s, &["service", "ps", "web"]).contains(" \\_ web.1"));
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
