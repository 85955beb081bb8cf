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
fn an_attached_update_ends_by_itself_and_its_status_is_shown() {
    let s = server();
    ok(&s, &["service", "create", "-d", "--name", "web", "--replicas", "3", "img:1"]);
    let update = ["service", "update", "--update-monitor", "1s", "--image", "img:2", "web"];
    let out = ok(&s, &update);
    assert!(out.contains("overall progress: 3 out of 3 tasks"), "{out}");
    let state = "{{.UpdateStatus.State}}: {{.UpdateStatus.Message}}";
    let shown = ok(&s, &["service", "inspect", "-f", state, "web"]);
    assert!(["updating: update in progress\n", "completed: update completed\n"].contains(&&*shown));
    assert!(ok(&s, &["service", "inspect", "--pretty", "web"]).contains("UpdateStatus:"));
}

#[test]
fn a_failing_update_pauses_or_goes_back_and_the_client_says_so() {
    let s = server();
    ok(&s, &["service", "create", "-d", "--name", "web", "--replicas", "2", "img:1"]);
    let text = refused(&s, &["service", "update", "--image", "fail:2", "web"]);
    assert!(
        text.contains(
            "service update paused: update paused due to failure or early termination of task"
        ),
        "{text}"
    );
    let back = [
        "service",
        "update",
        "--image",
        "fail:3",
        "--update-failure-action",
        "rollback",
        "--update-monitor",
        "1s",
        "--rollback-monitor",
        "1s",
        "web",
    ];
    ok(&s, &["service", "update", "-d", "--rollback", "web"]);
    let out = ok(&s, &back);
    assert!(out.contains("rollback: update rolled back due to failure"), "{out}");
    assert_eq!(
        ok(&s, &["service", "inspect", "-f", "{{.Spec.TaskTemplate.ContainerSpec.Image}}", "web"]),
        "img:1\n"
    );
    let ps = ok(&s, &["service", "ps", "--no-trunc", "web"]);
    assert!(ps.contains("\"task: non-zero exit (1)\""), "{ps}");
}

#[test]
fn rollback_leads_back_and_forth_and_is_refused_without_a_specification_before() {
    let s = server();
    ok(&s, &["service", "create", "-d", "--name", "web", "img:1"]);
    let text = refused(&s, &["service", "rollback", "-d", "web"]);
    assert!(text.contains("does not have a previous spec"), "{text}");
    ok(&s, &["service", "update", "-d", "--image", "img:2", "web"]);
    let image = || {
        ok(&s, &["service", "inspect", "-f", "{{.Spec.TaskTemplate.ContainerSpec.Image}}", "web"])
    };
    for expected in ["img:1\n", "img:2\n"] {
        ok(&s, &["service", "rollback", "-d", "web"]);
        assert_eq!(image(), expected);
        let message = ok(&s, &["service", "inspect", "-f", "{{.UpdateStatus.Message}}", "web"]);
        assert_eq!(message, "manually requested rollback\n");
    }
}

#[test]
fn a_global_service_has_a_task_on_each_node_and_follows_drain() {
    let s = server();
    let out = ok(&s, &["service", "create", "--name", "agent", "--mode", "global", "img"]);
    assert!(out.contains("overall progress: 3 out of 3 tasks"), "{out}");
    assert!(ok(&s, &["service", "ls"]).contains("agent     global    3/3"));
    let ps = ok(&s, &["service", "ps", "agent"]);
    for node in ["alpha", "beta", "gamma"] {
        assert!(ps.contains(node), "{ps}");
    }
    ok(&s, &["node", "update", "--availability", "drain", "beta"]);
    assert!(ok(&s, &["service", "ls"]).contains("agent     global    2/2"));
    ok(&s, &["node", "update", "--availability", "active", "beta"]);
    assert!(ok(&s, &["service", "ls"]).contains("agent     global    3/3"));
    assert!(
        refused(&s, &["service", "scale", "agent=2"]).contains("can only be used with replicated")
    );
}

#[test]
fn jobs_run_to_their_end_and_again_when_forced() {
    let s = server();
    let create =
        ["service", "create", "--name", "job", "--mode", "replicated-job", "--replicas", "3"];
    let out = ok(&s, &[&create[..], &["--max-concurrent", "2", "img"]].concat());
    assert!(out.contains("job complete"), "{out}");
    assert!(ok(&s, &["service", "ls"]).contains("replicated job   0/2 (3/3 completed)"));
    let out = ok(&s, &["service", "create", "--name", "all", "--mode", "global-job", "img"]);
    assert!(out.contains("job complete"), "{out}");
    assert!(ok(&s, &["service", "ls"]).contains("global job       0/0 (3/3 completed)"));
    let ps = ok(&s, &["service", "ps", "--format", "{{.DesiredState}} {{.CurrentState}}", "job"]);
    assert!(ps.lines().all(|l| l.starts_with("Complete Complete")), "{ps}");
    let iteration =
        || ok(&s, &["service", "inspect", "-f", "{{.JobStatus.JobIteration.Index}}", "job"]);
    assert_eq!(iteration(), "0\n");
    let out = ok(&s, &["service", "update", "--force", "job"]);
    assert!(out.contains("job complete"), "{out}");
    assert_eq!(iteration(), "1\n");
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
        &["network", "create", "bridged"],
    ] {
        let text = refused(&s, args);
        assert!(text.contains("not supported in this version"), "{args:?}: {text}");
    }
    assert!(refused(&s, &["inspect", "nothing"]).contains("No such object: nothing"));
}

#[test]
fn events_of_secrets_are_shown_while_they_happen_and_afterwards() {
    let s = server();
    // The client cuts times to whole seconds: until the one that goes on is over.
    let past = ["events", "--since", "1h", "--until=-1s", "--filter", "type=secret"];
    // What was before the server's first look is no news.
    let shown = (0..100).find_map(|round| {
        let name = format!("key-{round}");
        let made =
            s.docker_with(&["secret", "create", "--label", "a=b", &name, "-"], b"x").unwrap();
        assert!(made.status.success(), "{made:?}");
        std::thread::sleep(std::time::Duration::from_millis(200));
        let shown = ok(&s, &past);
        shown.contains(&format!("(name={name})")).then_some(shown)
    });
    assert!(shown.unwrap().contains(" secret create "));
    // A few seconds of what is to come.
    let listening = ["events", "--until=-4s", "--filter", "event=remove", "--filter", "label=a=b"];
    let heard = std::thread::scope(|scope| {
        let listener = scope.spawn(|| ok(&s, &listening));
        std::thread::sleep(std::time::Duration::from_millis(1_000));
        ok(&s, &["secret", "rm", "key-0"]);
        listener.join().unwrap()
    });
    assert!(heard.contains(" secret remove ") && heard.ends_with("(name=key-0)\n"), "{heard}");
    assert!(refused(&s, &["events", "--filter", "container=x"]).contains("not supported"));
}
