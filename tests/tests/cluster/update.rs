//! Services that change under load, and nodes that lose their manager for a while.

use crate::fixture::{MEMBERS, Scene, cluster};
use anyhow::ensure;
use shoal_tests::{Cluster, RunningTask, metric_sum, patiently, wait_for};
use std::{
    collections::BTreeSet,
    process::{Child, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

/// A server that takes nothing more once it is told to stop, and finishes what it has begun: as an
/// application should, and without the patience that would hide a table that is late.
const SERVER: &str =
    "trap 'kill $server; sleep 1; exit 0' TERM; httpd -f -p 80 -h /www & server=$!; wait";

/// Requests through a VIP, without a pause, from inside a container.
struct Inside<'a> {
    cluster: &'a Cluster,
    from: &'a RunningTask,
    shell: Child,
}

impl<'a> Inside<'a> {
    fn start(cluster: &'a Cluster, from: &'a RunningTask, url: &str) -> Self {
        let one = format!(
            "while [ ! -e /tmp/stop ]; do \
             if e=$(timeout 5 wget -q -O /dev/null {url} 2>&1); then echo ok; else echo \"failed $e\"; fi; \
             done"
        );
        let script = format!("rm -f /tmp/stop; ( {one} ) & ( {one} ) & wait");
        let mut docker = cluster.node(from.node).docker_command();
        docker.args(["exec", &from.container, "sh", "-c", &script]);
        let shell = docker.stdout(Stdio::piped()).spawn().unwrap();
        Self { cluster, from, shell }
    }

    /// Number of requests answered, and what became of the others.
    fn stop(self) -> (usize, Vec<String>) {
        self.cluster.exec(self.from, "touch /tmp/stop").unwrap().ok().unwrap();
        let output = self.shell.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let (well, lost): (Vec<&str>, Vec<&str>) = text.lines().partition(|line| *line == "ok");
        (well.len(), lost.into_iter().map(str::to_owned).collect())
    }
}

/// Connections that were refused and tried again at another backend, on all nodes.
fn refused(cluster: &Cluster) -> f64 {
    let texts = cluster.nodes()[..MEMBERS].iter().map(|n| n.metrics().unwrap());
    let reason = [("reason", "syn_retried")];
    texts.map(|text| metric_sum(&text, "shoal_lb_drops_total", &reason).unwrap()).sum()
}

fn all_new(cluster: &Cluster, service: &str, before: &[RunningTask]) -> Vec<RunningTask> {
    let old: BTreeSet<&str> = before.iter().map(|task| task.id.as_str()).collect();
    wait_for("new tasks in place of all old ones", patiently(), || {
        let now = cluster.running_tasks(service)?;
        let fresh = now.iter().all(|task| !old.contains(task.id.as_str()));
        ensure!(now.len() == before.len() && fresh, "{now:?}");
        Ok(now)
    })
    .unwrap()
}

#[test]
fn no_request_is_lost_while_a_service_is_updated_and_scaled() {
    const PORT: u16 = 8141;
    const SLOW: Duration = Duration::from_millis(100);
    let cluster = cluster();
    let mut scene = Scene::on(&cluster);
    scene.network("upd-app", &[]);
    let probe = scene.probe("upd-probe", "upd-app");
    // Without a check a task is a backend as soon as its process is there, ready or not.
    let check = ["--health-cmd", "wget -q -O /dev/null http://127.0.0.1/"];
    let often = ["--health-interval", "500ms", "--health-retries", "30"];
    let options = ["--network", "upd-app", "-p", &format!("{PORT}:80")];
    let options = [&options[..], &check, &often].concat();
    let mut tasks = scene.service("upd-web", 3, &options, &["sh", "-c", SERVER]);
    let urls: Vec<String> = cluster.nodes()[..MEMBERS]
        .iter()
        .map(|node| format!("http://{}:{PORT}/", node.addr()))
        .collect();
    for url in &urls {
        wait_for("an answer", patiently(), || cluster.client(0).http_get(url)).unwrap();
    }
    // One node hears everything late, and is waited for.
    let slow = cluster.delay(2, SLOW).unwrap();
    let refused_before = refused(&cluster);
    let inside = Inside::start(&cluster, &probe, "http://upd-web/");
    let stop = AtomicBool::new(false);
    let client = cluster.client(0);
    let ask = |url: &String| {
        let (mut well, mut lost) = (0_usize, Vec::new());
        while !stop.load(Ordering::Relaxed) {
            match client.http_get(url) {
                Ok(response) if response.status == 200 => well += 1,
                other => lost.push(format!("{url}: {other:?}")),
            }
        }
        (well, lost)
    };
    let outside: Vec<(usize, Vec<String>)> = thread::scope(|scope| {
        let asking: Vec<_> = urls.iter().map(|url| scope.spawn(|| ask(url))).collect();
        for order in ["start-first", "stop-first"] {
            let update = ["service", "update", "-d", "--force", "--update-order", order, "upd-web"];
            scene.docker(&update);
            tasks = all_new(&cluster, "upd-web", &tasks);
        }
        for replicas in [1, 3] {
            scene.docker(&["service", "scale", "-d", &format!("upd-web={replicas}")]);
            cluster.wait_for_tasks("upd-web", replicas, patiently()).unwrap();
        }
        stop.store(true, Ordering::Relaxed);
        asking.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let inside = inside.stop();
    drop(slow);
    for (well, lost) in outside.iter().chain([&inside]) {
        assert!(lost.is_empty(), "{} of {} were lost: {lost:?}", lost.len(), lost.len() + well);
        // On the slow wire a request takes most of a second.
        assert!(*well > 5, "only {well} requests");
    }
    let all: usize = outside.iter().chain([&inside]).map(|(well, _)| well).sum();
    assert!(all > 200, "only {all} requests");
    eprintln!("{all} requests, none lost");
    let refused = refused(&cluster) - refused_before;
    assert!(refused == 0.0, "{refused} connections found a backend that was stopping");
}

#[test]
fn a_task_serves_while_it_is_healthy_and_is_replaced_when_it_is_not() {
    let cluster = cluster();
    let scene = &mut Scene::on(&cluster);
    scene.network("upd-well", &[]);
    let probe = scene.probe("upd-well-probe", "upd-well");
    let node = cluster.node(1);
    let health = ["--health-cmd", "test -e /tmp/well", "--health-interval", "200ms"];
    let place = ["--constraint", "node.hostname==node2", "--restart-delay", "0s"];
    let fixed = ["service", "create", "-d", "--name", "upd-well-web", "--network", "upd-well"];
    let retries = ["--health-retries", "3", "--health-start-period", "60s"];
    let start = ["--health-start-interval", "100ms", shoal_tests::WEB_IMAGE];
    let create = [&fixed[..], &health, &place, &retries, &start].concat();
    cluster.node(0).shoal(&create).unwrap().ok().unwrap();
    scene.mine("upd-well-web");
    let listed = || {
        let format = ["ps", "--filter", "name=upd-well-web", "--format", "{{.ID}} {{.Status}}"];
        node.docker(&format)?.ok()
    };
    let line = wait_for("a container that starts", patiently(), || {
        let listed = listed()?;
        ensure!(listed.contains("(health: starting)"), "{listed}");
        Ok(listed)
    })
    .unwrap();
    let container = line.split(' ').next().unwrap().to_owned();
    let ask = "timeout 2 wget -q -O - http://upd-well-web/";
    cluster.exec(&probe, ask).unwrap().message().unwrap();
    assert_eq!(cluster.running_tasks("upd-well-web").unwrap(), []);

    node.docker(&["exec", &container, "touch", "/tmp/well"]).unwrap().ok().unwrap();
    let task = cluster.wait_for_tasks("upd-well-web", 1, patiently()).unwrap().remove(0);
    assert!(task.container.starts_with(&container), "{task:?}");
    wait_for("an answer", patiently(), || cluster.exec(&probe, ask)?.ok()).unwrap();
    assert!(listed().unwrap().contains("(healthy)"), "{}", listed().unwrap());
    let format =
        "{{.State.Health.Status}} {{.State.Health.FailingStreak}} {{len .State.Health.Log}}";
    let health = node.docker(&["inspect", "-f", format, &container]).unwrap().ok().unwrap();
    assert!(health.starts_with("healthy 0 "), "{health}");

    node.docker(&["exec", &container, "rm", "/tmp/well"]).unwrap().ok().unwrap();
    wait_for("a replacement that starts", patiently(), || {
        let listed = listed()?;
        ensure!(!listed.contains(&container) && listed.contains("(health: starting)"), "{listed}");
        Ok(())
    })
    .unwrap();
    let format = "{{.CurrentState}} {{.Error}}";
    let ps = ["service", "ps", "--no-trunc", "--format", format, "upd-well-web"];
    let history = scene.docker(&ps);
    let unhealthy = |l: &str| l.starts_with("Failed") && l.contains("unhealthy container");
    assert!(history.lines().any(unhealthy), "{history}");
}

#[test]
fn nodes_without_a_manager_keep_their_tasks_and_are_taken_back_with_them() {
    /// Longer than the three beats after which a node is down.
    const AWAY: Duration = Duration::from_secs(6);
    let cluster = cluster();
    let mut scene = Scene::on(&cluster);
    scene.network("upd-alone", &[]);
    let options = ["--network", "upd-alone", "-p", "8142:80"];
    let mut before = scene.service("upd-alone-web", 3, &options, &[]);
    let url = format!("http://{}:8142/", cluster.node(1).addr());
    wait_for("an answer", patiently(), || cluster.client(0).http_get(&url)).unwrap();
    cluster.node(0).kill_daemon().unwrap();
    thread::sleep(AWAY);
    cluster.client(0).http_get(&url).unwrap();
    cluster.node(0).start_daemon().unwrap();
    wait_for("all to be ready", patiently(), || {
        let states = cluster.node(0).docker(&["node", "ls", "--format", "{{.Status}}"])?.ok()?;
        ensure!(states.lines().filter(|s| *s == "Ready").count() == MEMBERS, "{states}");
        Ok(())
    })
    .unwrap();
    // And one that loses it for less than that.
    cluster.cut(2).unwrap();
    thread::sleep(Duration::from_secs(2));
    cluster.heal(2).unwrap();
    thread::sleep(AWAY);
    let mut now = cluster.wait_for_tasks("upd-alone-web", 3, patiently()).unwrap();
    before.sort_by(|a, b| a.id.cmp(&b.id));
    now.sort_by(|a, b| a.id.cmp(&b.id));
    assert_eq!(now, before, "the same tasks in the same processes");
}
