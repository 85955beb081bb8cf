//! The real `docker` against the server: each command of this version, by its exit code and words.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]
use shoal_api::{memory::MemorySwarm, testserver::TestServer};

fn server() -> TestServer {
    TestServer::start(MemorySwarm::three_nodes()).unwrap()
}

fn ok(server: &TestServer, args: &[&str]) -> String {
    let out = server.docker(args).unwrap();
    let (stdout, stderr) =
        (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "docker {args:?}: {}\n{stdout}{stderr}", out.status);
    stdout.into_owned()
}

fn refused(server: &TestServer, args: &[&str]) -> String {
    let out = server.docker(args).unwrap();
    assert!(!out.status.success(), "docker {args:?} was not refused");
    String::from_utf8_lossy(&out.stderr).into_owned()
}

#[test]
fn a_service_lives_through_create_scale_update_and_rm() {
    let s = server();
    ok(&s, &["network", "create", "-d", "overlay", "app"]);
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
        "img",
    ];
    ok(&s, &create);
    assert!(
        ok(&s, &["service", "ls"])
            .contains("web       replicated   3/3        img:latest   *:8080->80/tcp")
    );
    assert_eq!(ok(&s, &["service", "ps", "-q", "web"]).lines().count(), 3);
    let before = ok(&s, &["service", "ps", "-q", "--no-trunc", "web"]);
    ok(&s, &["service", "scale", "-d", "web=5"]);
    let after = ok(&s, &["service", "ps", "-q", "--no-trunc", "web"]);
    assert_eq!(after.lines().count(), 5, "scaling must replace no task");
    assert!(before.lines().all(|id| after.contains(id)), "scaling must replace no task");
    ok(&s, &["service", "update", "-d", "--label-add", "a=b", "web"]);
    assert_eq!(ok(&s, &["service", "inspect", "-f", "{{.Spec.Labels.a}}", "web"]), "b\n");
    assert!(ok(&s, &["service", "inspect", "--pretty", "web"]).contains("PublishedPort = 8080"));
    ok(&s, &["service", "update", "-d", "--rollback", "web"]);
    assert!(refused(&s, &["network", "rm", "app"]).contains("in use by service"));
    assert_eq!(ok(&s, &["inspect", "-f", "{{.Spec.Name}}", "web"]), "web\n");
    assert_eq!(
        ok(&s, &["service", "logs", "--raw", "web"])
            .lines()
            .filter(|l| l.starts_with("out of"))
            .count(),
        5
    );
    ok(&s, &["service", "rm", "web"]);
    ok(&s, &["network", "rm", "app"]);
    assert!(refused(&s, &["service", "inspect", "web"]).contains("no such service: web"));
}

#[test]
fn an_attached_create_waits_until_the_service_has_converged() {
    let s = server();
    let out = ok(&s, &["service", "create", "--name", "web", "--replicas", "2", "img"]);
    assert!(out.contains("overall progress: 2 out of 2 tasks"), "{out}");
    assert!(out.contains("converged"), "{out}");
}

#[test]
fn nodes_are_listed_inspected_updated_and_removed() {
    let s = server();
    let ls = ok(&s, &["node", "ls"]);
    assert!(ls.contains("*   alpha      Ready     Active         Leader           0.1.0"), "{ls}");
    assert!(ok(&s, &["node", "inspect", "--pretty", "self"]).contains("Issuer Subject"));
    ok(&s, &["node", "update", "--availability", "drain", "--label-add", "disk=ssd", "beta"]);
    let ls = ok(&s, &["node", "ls", "--filter", "node.label=disk=ssd"]);
    assert!(ls.contains("beta") && ls.contains("Drain") && !ls.contains("gamma"), "{ls}");
    assert!(refused(&s, &["node", "rm", "beta"]).contains("is not down and can't be removed"));
    ok(&s, &["node", "rm", "-f", "beta"]);
    ok(&s, &["node", "ps", "self"]);
    assert!(refused(&s, &["node", "inspect", "beta"]).contains("node beta not found"));
}

#[test]
fn a_cluster_is_made_shown_and_left() {
    let s = TestServer::start(MemorySwarm::new()).unwrap();
    assert!(refused(&s, &["node", "ls"]).contains("This node is not a swarm manager"));
    let init = ok(&s, &["swarm", "init"]);
    assert!(init.contains("docker swarm join --token SWMTKN-1-"), "{init}");
    assert!(refused(&s, &["swarm", "init"]).contains("already part of a swarm"));
    let token = ok(&s, &["swarm", "join-token", "-q", "worker"]);
    assert_ne!(ok(&s, &["swarm", "join-token", "-q", "--rotate", "worker"]), token);
    assert!(ok(&s, &["info"]).contains("Is Manager: true"));
    assert!(ok(&s, &["version"]).contains("Server: Shoal"));
    assert!(refused(&s, &["swarm", "leave"]).contains("--force"));
    ok(&s, &["swarm", "leave", "--force"]);
    let bad = ["swarm", "join", "--token", "nonsense", "127.0.0.1:2377"];
    assert!(refused(&s, &bad).contains("invalid join token"));
    let good = ["swarm", "join", "--token", "SWMTKN-1-x", "127.0.0.1:2377"];
    assert!(ok(&s, &good).contains("joined a swarm as a worker"));
    assert!(refused(&s, &["service", "ls"]).contains("Worker nodes can't be used"));
    assert!(!ok(&s, &["network", "ls"]).contains("ingress"));
}

#[test]
fn lists_of_what_is_not_there_are_empty_and_creating_it_is_refused() {
    let s = server();
    for list in
        [["secret", "ls"], ["config", "ls"], ["volume", "ls"], ["plugin", "ls"], ["stack", "ls"]]
    {
        assert_eq!(ok(&s, &list).lines().count(), 1, "{list:?}");
    }
    for args in [
        &["run", "-d", "img"][..],
        &["pull", "img"],
        &["volume", "create", "v"],
        &["secret", "create", "s", "/etc/hostname"],
        &["network", "create", "bridged"],
    ] {
        let text = refused(&s, args);
        assert!(text.contains("not supported in this version"), "{args:?}: {text}");
    }
    assert!(refused(&s, &["inspect", "nothing"]).contains("No such object: nothing"));
}
