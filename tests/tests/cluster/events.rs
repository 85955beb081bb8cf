//! Events of the cluster's objects, as the real client shows them, on the managers' cluster.

use super::managers::{MANAGERS, Writes, cluster, leader, whole};
use anyhow::{Context as _, ensure};
use serde_json::Value;
use shoal_tests::{Cluster, Node, WEB_IMAGE, patiently, wait_for};
use std::{
    fs,
    path::PathBuf,
    process::{Child, Stdio},
    time::Duration,
};

/// How long an event may take before another is tried.
const SOON: Duration = Duration::from_secs(2);

/// `docker events` in the background.
struct Listener {
    child: Child,
    output: PathBuf,
}

impl Listener {
    /// Returns when it hears.
    fn start(cluster: &Cluster, index: usize) -> Self {
        let node = cluster.node(index);
        let output = cluster.folder().join(format!("events-{}", node.name()));
        let file = fs::File::create(&output).unwrap();
        let mut docker = node.docker_command();
        docker.args(["events", "--format", "json", "--filter", "scope=swarm"]);
        let child = docker.stdin(Stdio::null()).stdout(file).spawn().unwrap();
        let listener = Self { child, output };
        probe(node, || listener.find("secret", "create", "mgr-event-probe").map(drop));
        listener
    }

    fn heard(&self) -> Vec<Value> {
        let text = fs::read_to_string(&self.output).unwrap();
        // The last line may be half written.
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// The attributes of the first such event.
    fn find(&self, kind: &str, action: &str, name: &str) -> anyhow::Result<Value> {
        self.find_with(kind, action, name, |_| true)
    }

    fn find_with(
        &self,
        kind: &str,
        action: &str,
        name: &str,
        also: impl Fn(&Value) -> bool,
    ) -> anyhow::Result<Value> {
        let heard = self.heard();
        let attributes = |event: &Value| event["Actor"]["Attributes"].clone();
        let found = heard.iter().find(|event| {
            (&event["Type"], &event["Action"]) == (&kind.into(), &action.into())
                && attributes(event)["name"] == name
                && also(&attributes(event))
        });
        found.map(attributes).with_context(|| format!("no {kind} {action} of {name} in {heard:#?}"))
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Makes and removes a secret until its event is seen: what was before a daemon's first look is no news.
fn probe(node: &Node, seen: impl Fn() -> anyhow::Result<()>) {
    wait_for("the first event", patiently(), || {
        node.docker(&["secret", "create", "mgr-event-probe", "/etc/hostname"])?.ok()?;
        let result = wait_for("it to be told", SOON, &seen);
        node.docker(&["secret", "rm", "mgr-event-probe"])?.ok()?;
        result
    })
    .unwrap();
}

#[test]
fn every_manager_tells_what_happens_in_the_cluster_and_one_that_restarts_tells_nothing_twice() {
    let cluster = cluster();
    let first = leader(&cluster, 0).unwrap();
    let (asked, other) = (cluster.node(first), (first + 1) % MANAGERS);
    let third = cluster.node(MANAGERS - first - other);
    let listener = Listener::start(&cluster, other);
    let docker = |args: &[&str]| asked.docker(args).unwrap().ok().unwrap();
    docker(&["secret", "create", "mgr-event-key", "/etc/hostname"]);
    docker(&["config", "create", "mgr-event-conf", "/etc/hostname"]);
    docker(&["network", "create", "-d", "overlay", "mgr-event-net"]);
    let name = ["--name", "mgr-event-web", "--replicas", "1", WEB_IMAGE];
    docker(&[&["service", "create", "-d"][..], &name].concat());
    docker(&["service", "scale", "-d", "mgr-event-web=3"]);
    docker(&["service", "rm", "mgr-event-web"]);
    docker(&["secret", "rm", "mgr-event-key"]);
    docker(&["config", "rm", "mgr-event-conf"]);
    docker(&["network", "rm", "mgr-event-net"]);
    wait_for("all of it to be told", patiently(), || {
        for (kind, name) in [
            ("secret", "mgr-event-key"),
            ("config", "mgr-event-conf"),
            ("network", "mgr-event-net"),
            ("service", "mgr-event-web"),
        ] {
            listener.find(kind, "create", name)?;
            listener.find(kind, "remove", name)?;
        }
        let scaled = |told: &Value| told["replicas.old"] == "1" && told["replicas.new"] == "3";
        listener.find_with("service", "update", "mgr-event-web", scaled)
    })
    .unwrap();
    // The lead changes, and a node goes down.
    let writes = Writes::new("mgr-event");
    let told = writes.during(&cluster, &[other], || {
        asked.kill_daemon()?;
        let told = wait_for("the loss to be told", patiently(), || {
            let lost = |told: &Value| told["leader.old"] == "true" && told["leader.new"] == "false";
            listener.find_with("node", "update", asked.name(), lost)?;
            let down = |told: &Value| told["state.old"] == "ready" && told["state.new"] == "down";
            listener.find_with("node", "update", asked.name(), down)
        });
        asked.start_daemon()?;
        told
    });
    told.unwrap();
    whole(&cluster);
    writes.check(&cluster);
    // A manager that restarts is told its whole log again.
    third.restart_daemon().unwrap();
    whole(&cluster);
    let past = [
        "events",
        "--since",
        "1h",
        "--until=-1s",
        "--format",
        "{{.Type}} {{.Actor.Attributes.name}}",
    ];
    let since = || third.docker(&past)?.ok();
    probe(third, || {
        let told = since()?;
        ensure!(told.contains("secret mgr-event-probe"), "{told}");
        Ok(())
    });
    let told = since().unwrap();
    let old = |line: &&str| line.contains("mgr-event-") && !line.contains("mgr-event-probe");
    assert_eq!(told.lines().filter(old).collect::<Vec<_>>(), Vec::<&str>::new());
    let worker = cluster.node(MANAGERS).docker(&["events"]).unwrap().message().unwrap();
    assert!(worker.contains("this node is no manager"), "{worker}");
}

#[test]
fn a_manager_that_is_demoted_ends_its_streams() {
    let cluster = cluster();
    let lead = leader(&cluster, 0).unwrap();
    let other = (lead + 1) % MANAGERS;
    let name = cluster.node(other).name();
    let mut listener = Listener::start(&cluster, other);
    let docker = |args: &[&str]| cluster.node(lead).docker(args).unwrap().ok().unwrap();
    docker(&["node", "demote", name]);
    wait_for("the stream to end", patiently(), || {
        listener.child.try_wait()?.map(drop).context("it still listens")
    })
    .unwrap();
    docker(&["node", "promote", name]);
    whole(&cluster);
}
