//! Three managers and a worker: what is acknowledged stays, somebody leads soon again, and traffic does
//! not notice. A cluster of their own, which each test leaves whole.

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use shoal_tests::{Cluster, Node, WEB_IMAGE, patiently, wait_for, web_image};
use std::{
    collections::BTreeSet,
    fs,
    process::{Child, Stdio},
    sync::{
        Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

pub(super) const MANAGERS: usize = 3;
/// The index of the worker.
pub(super) const WORKER: usize = 3;

/// From the loss of a leader to the next write accepted. About a second; this machine may be busy.
const SOON: Duration = Duration::from_secs(8);

/// The cluster, one test at a time.
pub(super) fn cluster() -> MutexGuard<'static, Cluster> {
    static SHARED: OnceLock<Mutex<Cluster>> = OnceLock::new();
    let shared = SHARED.get_or_init(|| {
        let cluster = Cluster::builder().nodes(MANAGERS + 1).start().unwrap();
        let first = cluster.node(0);
        let addr = first.addr().to_string();
        first.docker(&["swarm", "init", "--advertise-addr", &addr]).unwrap().ok().unwrap();
        for (index, node) in cluster.nodes().iter().enumerate().skip(1) {
            let role = if index < MANAGERS { "manager" } else { "worker" };
            let token = first.docker(&["swarm", "join-token", "-q", role]).unwrap().ok().unwrap();
            // By way of the one that joined last.
            let via = format!("{}:2377", cluster.node(index.min(MANAGERS) - 1).addr());
            let joined = node.docker(&["swarm", "join", "--token", &token, &via]).unwrap().ok();
            assert_eq!(joined.unwrap(), format!("This node joined a swarm as a {role}."));
        }
        cluster.load_image(&web_image().unwrap()).unwrap();
        whole(&cluster);
        Mutex::new(cluster)
    });
    let cluster = shared.lock().unwrap_or_else(PoisonError::into_inner);
    whole(&cluster);
    cluster
}

/// Waits until every node is ready and the managers are what they shall be, as all of them see it.
pub(super) fn whole(cluster: &Cluster) {
    wait_for("a whole cluster", patiently(), || {
        for manager in &cluster.nodes()[..MANAGERS] {
            let seen = statuses(manager)?;
            ensure!(seen.len() == MANAGERS + 1, "{seen:?}");
            ensure!(seen.iter().all(|(_, status, _)| status == "Ready"), "{seen:?}");
            let with = |word: &str| seen.iter().filter(|(_, _, role)| role == word).count();
            ensure!(with("Leader") == 1 && with("Reachable") == MANAGERS - 1, "{seen:?}");
        }
        Ok(())
    })
    .unwrap();
}

/// Host name, status and manager status of each node, as one manager sees them.
pub(super) fn statuses(manager: &Node) -> anyhow::Result<Vec<(String, String, String)>> {
    let format = "{{.Hostname}}|{{.Status}}|{{.ManagerStatus}}";
    let listing = manager.docker(&["node", "ls", "--format", format])?.ok()?;
    let line = |line: &str| {
        let mut words = line.split('|').map(str::to_owned);
        Some((words.next()?, words.next()?, words.next()?))
    };
    Ok(listing.lines().filter_map(line).collect())
}

/// The index of the leader, as a manager sees it.
pub(super) fn leader(cluster: &Cluster, seen_by: usize) -> anyhow::Result<usize> {
    let seen = statuses(cluster.node(seen_by))?;
    let name = seen.iter().find(|(_, _, role)| role == "Leader").context("no leader")?.0.clone();
    cluster.nodes().iter().position(|n| n.name() == name).context("a leader of another cluster")
}

/// Makes a service without tasks and gives how the API answered.
pub(super) fn write(node: &Node, name: &str) -> anyhow::Result<(u16, String)> {
    let spec = json!({
        "Name": name,
        "TaskTemplate": { "ContainerSpec": { "Image": WEB_IMAGE } },
        "Mode": { "Replicated": { "Replicas": 0 } },
    });
    let answer = node.api("POST", "/services/create", &spec.to_string())?;
    Ok((answer.status, answer.body))
}

pub(super) fn services(node: &Node) -> anyhow::Result<BTreeSet<String>> {
    let listing = node.docker(&["service", "ls", "--format", "{{.Name}}"])?.ok()?;
    Ok(listing.lines().map(str::to_owned).collect())
}

/// Writes one after another, by whichever manager answers, and what was acknowledged when.
pub(super) struct Writes {
    prefix: &'static str,
    acknowledged: Mutex<Vec<(String, Instant)>>,
    /// Answers to those that were not acknowledged.
    failed: Mutex<Vec<String>>,
    stop: AtomicBool,
}

impl Writes {
    pub(super) fn new(prefix: &'static str) -> Self {
        let stop = AtomicBool::new(false);
        Self { prefix, acknowledged: Mutex::default(), failed: Mutex::default(), stop }
    }

    /// Until told to stop.
    fn run(&self, cluster: &Cluster, through: &[usize]) {
        for count in 0.. {
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            let name = format!("{}-{count}", self.prefix);
            let node = cluster.node(through[count % through.len()]);
            match write(node, &name) {
                Ok((201, _)) => self.acknowledged.lock().unwrap().push((name, Instant::now())),
                other => self.failed.lock().unwrap().push(format!("{name}: {other:?}")),
            }
        }
    }

    /// Writes while `act` runs, and gives what it gives.
    pub(super) fn during<R>(
        &self,
        cluster: &Cluster,
        through: &[usize],
        act: impl FnOnce() -> anyhow::Result<R>,
    ) -> anyhow::Result<R> {
        thread::scope(|scope| {
            scope.spawn(|| self.run(cluster, through));
            let result = act();
            self.stop.store(true, Ordering::Relaxed);
            result
        })
    }

    /// What was answered to writes that were not acknowledged.
    pub(super) fn failed(&self) -> Vec<String> {
        self.failed.lock().unwrap().clone()
    }

    pub(super) fn count(&self) -> usize {
        self.acknowledged.lock().unwrap().len()
    }

    /// How long after `instant` the next write was acknowledged that began after it.
    pub(super) fn next_after(&self, instant: Instant) -> anyhow::Result<Duration> {
        wait_for("a write to be accepted", patiently(), || {
            let all = self.acknowledged.lock().unwrap();
            // One may have been under way.
            let later = all.iter().filter(|(_, at)| *at > instant).nth(1);
            later.map(|(_, at)| *at - instant).context("none yet")
        })
    }

    /// Every write that was acknowledged is there, by every manager; then they are removed.
    pub(super) fn check(&self, cluster: &Cluster) {
        let names: Vec<String> =
            self.acknowledged.lock().unwrap().iter().map(|(name, _)| name.clone()).collect();
        assert!(!names.is_empty(), "nothing was written");
        for manager in &cluster.nodes()[..MANAGERS] {
            let there = services(manager).unwrap();
            let lost: Vec<&String> = names.iter().filter(|name| !there.contains(*name)).collect();
            assert!(lost.is_empty(), "{} of {}: {lost:?}", lost.len(), names.len());
        }
        let there = services(cluster.node(0)).unwrap();
        for name in there.iter().filter(|name| name.starts_with(self.prefix)) {
            let removed = cluster.node(0).api("DELETE", &format!("/services/{name}"), "").unwrap();
            assert_eq!(removed.status, 200, "{name}: {}", removed.body);
        }
    }
}

/// Requests through a VIP from a container on the worker, one after another.
pub(super) struct Traffic<'a> {
    cluster: &'a Cluster,
    container: String,
    client: Child,
}

/// One line for each request.
const REQUESTS: &str = "while [ ! -e /tmp/stop ]; do \
     if timeout 4 wget -q -O /dev/null http://mgr-web/; then echo ok; else echo fail; fi; \
     nslookup mgr-web >/dev/null || echo noname; done";

impl<'a> Traffic<'a> {
    /// `constraint`: where the tasks that answer run.
    pub(super) fn start(cluster: &'a Cluster, constraint: &str) -> Self {
        let docker = |args: &[&str]| cluster.node(0).docker(args).unwrap().ok().unwrap();
        docker(&["network", "create", "-d", "overlay", "mgr-net"]);
        let fixed = ["service", "create", "-d", "--network", "mgr-net"];
        let web = ["--name", "mgr-web", "--replicas", "3", "--constraint", constraint, WEB_IMAGE];
        docker(&[&fixed[..], &web].concat());
        let probe = ["--name", "mgr-probe", "--constraint", "node.hostname==node4", WEB_IMAGE];
        docker(&[&fixed[..], &probe].concat());
        cluster.wait_for_tasks("mgr-web", 3, patiently()).unwrap();
        let probe = cluster.wait_for_tasks("mgr-probe", 1, patiently()).unwrap().remove(0);
        wait_for("an answer", patiently(), || {
            cluster.exec(&probe, "timeout 4 wget -q -O - http://mgr-web/")?.ok()
        })
        .unwrap();
        let output = fs::File::create(cluster.folder().join("traffic")).unwrap();
        let mut command = cluster.node(WORKER).docker_command();
        command.args(["exec", &probe.container, "sh", "-c", REQUESTS]);
        let client = command.stdin(Stdio::null()).stdout(output).spawn().unwrap();
        Self { cluster, container: probe.container, client }
    }

    /// Ends it; no request may have failed, and no name may have been unknown.
    pub(super) fn stop(mut self) {
        let args = ["exec", &self.container, "touch", "/tmp/stop"];
        self.cluster.node(WORKER).docker(&args).unwrap().ok().unwrap();
        self.client.wait().unwrap();
        let lines = fs::read_to_string(self.cluster.folder().join("traffic")).unwrap();
        let count = |word: &str| lines.lines().filter(|line| *line == word).count();
        let [ok, failed, unknown] = ["ok", "fail", "noname"].map(count);
        assert!(
            failed == 0 && unknown == 0 && ok > 10,
            "{ok} ok, {failed} failed, {unknown} unknown"
        );
        eprintln!("{ok} requests through the VIP");
    }
}

impl Drop for Traffic<'_> {
    fn drop(&mut self) {
        self.client.kill().ok();
        self.client.wait().ok();
        let node = self.cluster.node(0);
        node.docker(&["service", "rm", "mgr-web", "mgr-probe"]).ok();
        wait_for("the network to be free", patiently(), || {
            node.docker(&["network", "rm", "mgr-net"])?.ok()
        })
        .ok();
    }
}

#[test]
fn every_manager_shows_the_cluster_and_the_worker_knows_them_all() {
    let cluster = cluster();
    let leader = leader(&cluster, 0).unwrap();
    let follower = cluster.node((leader + 1) % MANAGERS);
    let info = |node: &Node, format: &str| node.docker(&["info", "--format", format]).unwrap().ok();
    let seen = info(follower, "{{.Swarm.Nodes}} {{.Swarm.Managers}} {{.Swarm.ControlAvailable}}");
    assert_eq!(seen.unwrap(), "4 3 true");
    let known =
        info(cluster.node(WORKER), "{{len .Swarm.RemoteManagers}} {{.Swarm.ControlAvailable}}");
    assert_eq!(known.unwrap(), "3 false");
    // What one manager was told, any other shows at once; logs come through any.
    let args = ["service", "create", "-d", "--name", "mgr-say", "--constraint"];
    let rest = ["node.hostname==node4", WEB_IMAGE, "sh", "-c", "echo hello; sleep 1000"];
    follower.docker(&[&args[..], &rest].concat()).unwrap().ok().unwrap();
    for manager in &cluster.nodes()[..MANAGERS] {
        assert!(services(manager).unwrap().contains("mgr-say"));
        wait_for("its line", patiently(), || {
            let logs = manager.docker(&["service", "logs", "--raw", "mgr-say"])?.ok()?;
            ensure!(logs == "hello", "{logs:?}");
            Ok(())
        })
        .unwrap();
    }
    follower.docker(&["service", "rm", "mgr-say"]).unwrap().ok().unwrap();
    let refused = follower.docker(&["swarm", "leave"]).unwrap().message().unwrap();
    assert!(
        refused.contains("You are attempting to leave the swarm on a node that is"),
        "{refused}"
    );
}

#[test]
fn a_killed_leader_costs_a_moment_and_nothing_that_was_acknowledged() {
    let cluster = cluster();
    let traffic = Traffic::start(&cluster, "node.id!=none");
    let leader = leader(&cluster, 0).unwrap();
    let others: Vec<usize> = (0..MANAGERS).filter(|index| *index != leader).collect();
    let writes = Writes::new("mgr-kill");
    let down = AtomicUsize::new(0);
    let gap = writes.during(&cluster, &others, || {
        wait_for("some writes", patiently(), || {
            ensure!(writes.count() > 10);
            Ok(())
        })?;
        cluster.node(leader).kill_daemon()?;
        let gap = writes.next_after(Instant::now())?;
        // The others' agents come back without being declared down.
        let until = Instant::now() + Duration::from_secs(5);
        let lost = cluster.node(leader).name();
        while Instant::now() < until {
            let seen = statuses(cluster.node(others[0]))?;
            let lost = seen.iter().filter(|(name, status, _)| name != lost && status == "Down");
            down.fetch_max(lost.count(), Ordering::Relaxed);
        }
        Ok(gap)
    });
    cluster.node(leader).start_daemon().unwrap();
    let gap = gap.unwrap();
    eprintln!("the next write after a killed leader was accepted after {gap:?}");
    assert!(gap < SOON, "{gap:?}");
    assert_eq!(down.into_inner(), 0, "a node was declared down because the leader changed");
    whole(&cluster);
    writes.check(&cluster);
    traffic.stop();
}

#[test]
fn tasks_of_a_worker_that_dies_with_the_leader_run_elsewhere_soon() {
    /// Aim: 5 s on a machine of its own.
    const BOUND: Duration = Duration::from_secs(10);
    let cluster = cluster();
    let leader = leader(&cluster, 0).unwrap();
    let asked = cluster.node((0..MANAGERS).find(|index| *index != leader).unwrap());
    let dead = [leader, WORKER].map(|index| cluster.node(index).name());
    let replicas = (MANAGERS + 1).to_string();
    let fixed = ["service", "create", "-d", "--name", "mgr-both", "--restart-delay", "0s"];
    asked
        .docker(&[&fixed[..], &["--replicas", &replicas, WEB_IMAGE]].concat())
        .unwrap()
        .ok()
        .unwrap();
    // Where they run that run and are to.
    let running = || {
        let format = "{{.Node}} {{.CurrentState}}";
        let wanted = ["service", "ps", "--filter", "desired-state=running", "--format", format];
        let listing = asked.docker(&[&wanted[..], &["mgr-both"]].concat())?.ok()?;
        let runs = |line: &&str| line.contains(" Running ");
        let place = |line: &str| line.split(' ').next().unwrap_or_default().to_owned();
        Ok::<Vec<String>, anyhow::Error>(listing.lines().filter(runs).map(place).collect())
    };
    wait_for("a task on every node", patiently(), || {
        let places: BTreeSet<String> = running()?.into_iter().collect();
        ensure!(places.len() == MANAGERS + 1, "{places:?}");
        Ok(())
    })
    .unwrap();
    cluster.node(WORKER).kill_daemon().unwrap();
    cluster.node(leader).kill_daemon().unwrap();
    let killed = Instant::now();
    let moved = wait_for("all tasks on the nodes that are left", patiently(), || {
        let places = running()?;
        let left = places.iter().filter(|place| !dead.contains(&place.as_str())).count();
        ensure!(left == MANAGERS + 1 && places.len() == left, "{places:?}");
        Ok(killed.elapsed())
    });
    for index in [leader, WORKER] {
        cluster.node(index).start_daemon().unwrap();
    }
    let moved = moved.unwrap();
    eprintln!(
        "the tasks of a dead leader's and a dead worker's node ran elsewhere after {moved:?}"
    );
    assert!(moved < BOUND, "{moved:?}");
    whole(&cluster);
    asked.docker(&["service", "rm", "mgr-both"]).unwrap().ok().unwrap();
}

#[test]
fn all_managers_are_restarted_one_after_another_under_load() {
    let cluster = cluster();
    let traffic = Traffic::start(&cluster, "node.id!=none");
    let writes = Writes::new("mgr-roll");
    let rolled = writes.during(&cluster, &[0, 1, 2], || {
        for index in 0..MANAGERS {
            cluster.node(index).restart_daemon()?;
            wait_for("it to be back", patiently(), || {
                let other = cluster.node((index + 1) % MANAGERS);
                let seen = statuses(other)?;
                let name = cluster.node(index).name();
                let own = seen.iter().find(|(n, _, _)| n == name).context("it is not listed")?;
                ensure!(own.1 == "Ready" && own.2 != "Unreachable", "{own:?}");
                statuses(cluster.node(index)).map(drop)
            })?;
        }
        Ok(())
    });
    rolled.unwrap();
    whole(&cluster);
    writes.check(&cluster);
    traffic.stop();
}

#[test]
fn a_leader_that_is_cut_off_refuses_writes_and_follows_when_it_is_back() {
    let cluster = cluster();
    // Tasks on nodes that live: the worker's own, so that none is on the node that is cut off.
    let traffic = Traffic::start(&cluster, "node.role==worker");
    let leader = leader(&cluster, 0).unwrap();
    let others: Vec<usize> = (0..MANAGERS).filter(|index| *index != leader).collect();
    let writes = Writes::new("mgr-cut");
    let (answers, answer) = mpsc::channel();
    let gap = writes.during(&cluster, &others, || {
        wait_for("some writes", patiently(), || {
            ensure!(writes.count() > 10);
            Ok(())
        })?;
        cluster.cut(leader)?;
        let gap = writes.next_after(Instant::now())?;
        let begun = Instant::now();
        let answer = write(cluster.node(leader), "mgr-lost")?;
        answers.send((answer, begun.elapsed()))?;
        Ok(gap)
    });
    cluster.heal(leader).unwrap();
    let gap = gap.unwrap();
    eprintln!("the next write after a leader was cut off was accepted after {gap:?}");
    assert!(gap < SOON, "{gap:?}");
    let ((status, body), took) = answer.recv().unwrap();
    assert_eq!(status, 503, "{body}");
    assert!(body.contains("The swarm does not have a leader."), "{body}");
    assert!(took < Duration::from_secs(20), "{took:?}");
    whole(&cluster);
    writes.check(&cluster);
    assert!(!services(cluster.node(leader)).unwrap().contains("mgr-lost"));
    traffic.stop();
}

#[test]
fn without_a_quorum_writes_fail_traffic_goes_on_and_all_is_there_when_it_returns() {
    let cluster = cluster();
    let traffic = Traffic::start(&cluster, "node.id!=none");
    let leader = leader(&cluster, 0).unwrap();
    let away: Vec<usize> = (0..MANAGERS).filter(|index| *index != leader).collect();
    let alone = cluster.node(leader);
    let writes = Writes::new("mgr-quorum");
    let seen = writes.during(&cluster, &[leader], || {
        wait_for("some writes", patiently(), || {
            ensure!(writes.count() > 10);
            Ok(())
        })?;
        for index in &away {
            cluster.node(*index).kill_daemon()?;
        }
        let refused = wait_for("writes to be refused", patiently(), || {
            let (status, body) = write(alone, "mgr-alone")?;
            ensure!(status == 503, "{status}: {body}");
            Ok(body)
        })?;
        let listing = alone.docker(&["service", "ls"])?.message()?;
        // Long enough for tasks to be moved, if anybody still did.
        thread::sleep(Duration::from_secs(2));
        let info = alone.docker(&["info", "--format", "{{.Swarm.LocalNodeState}}"])?.ok()?;
        for index in &away {
            cluster.node(*index).start_daemon()?;
        }
        writes.next_after(Instant::now())?;
        Ok((refused, listing, info))
    });
    let (refused, listing, info) = seen.unwrap();
    assert!(refused.contains("The swarm does not have a leader."), "{refused}");
    assert!(listing.contains("The swarm does not have a leader."), "{listing}");
    assert_eq!(info, "active");
    whole(&cluster);
    writes.check(&cluster);
    alone.docker(&["service", "rm", "mgr-alone"]).ok();
    traffic.stop();
}

#[test]
fn a_worker_is_promoted_manages_and_is_demoted_again() {
    let cluster = cluster();
    let docker = |args: &[&str]| cluster.node(0).docker(args).unwrap().ok().unwrap();
    let node = cluster.node(WORKER);
    let available = || node.docker(&["info", "--format", "{{.Swarm.ControlAvailable}}"])?.ok();
    assert_eq!(
        docker(&["node", "promote", "node4"]),
        "Node node4 promoted to a manager in the swarm."
    );
    wait_for("it to manage", patiently(), || {
        let seen = statuses(cluster.node(1))?;
        let own = seen.iter().find(|(name, _, _)| name == "node4").context("not listed")?;
        ensure!(own.2 == "Reachable" && available()? == "true", "{own:?}");
        Ok(())
    })
    .unwrap();
    let (status, body) = write(node, "mgr-promoted").unwrap();
    assert_eq!(status, 201, "{body}");
    assert!(services(cluster.node(0)).unwrap().contains("mgr-promoted"));
    // It is a manager after a restart, too.
    node.restart_daemon().unwrap();
    wait_for("it to manage again", patiently(), || node.docker(&["service", "ls"])?.ok()).unwrap();
    assert_eq!(docker(&["node", "demote", "node4"]), "Manager node4 demoted in the swarm.");
    wait_for("it to be a worker", patiently(), || {
        let seen = statuses(cluster.node(1))?;
        let own = seen.iter().find(|(name, _, _)| name == "node4").context("not listed")?;
        ensure!(own.2.is_empty() && available()? == "false", "{own:?}");
        ensure!(!node.data_root().join("swarm/raft").exists(), "its store is still there");
        Ok(())
    })
    .unwrap();
    let listing: Value = cluster.object("/info").unwrap();
    assert_eq!(listing.pointer("/Swarm/Managers"), Some(&Value::from(3)));
    docker(&["service", "rm", "mgr-promoted"]);
}
