//! What hosts suffer: clocks that jump and disks that fill up, under a load of writes and of traffic. On
//! the cluster of [`super::managers`], which each test leaves whole.

use super::managers::{
    MANAGERS, Traffic, WORKER, Writes, cluster, leader, services, statuses, whole, write,
};
use anyhow::{Context as _, ensure};
use shoal_tests::{Clock, Cluster, Node, WEB_IMAGE, metric_sum, patiently, wait_for};
use std::{
    collections::BTreeSet,
    thread,
    time::{Duration, Instant},
};

const HOUR: i64 = 3_600;

/// Longer than a silent node is waited for.
const LONG: Duration = Duration::from_secs(5);

/// Nobody may be down meanwhile.
fn stays_whole(cluster: &Cluster, seen_by: usize) -> anyhow::Result<()> {
    let until = Instant::now() + LONG;
    while Instant::now() < until {
        let seen = statuses(cluster.node(seen_by))?;
        ensure!(seen.iter().all(|(_, status, _)| status != "Down"), "{seen:?}");
        thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

/// All tasks of the services that make the traffic, with what they died of.
fn tasks(cluster: &Cluster) -> BTreeSet<String> {
    let format = "{{.ID}} {{.Name}} on {{.Node}}: {{.DesiredState}} {{.Error}}";
    let ps = ["service", "ps", "--no-trunc", "--format", format, "mgr-web", "mgr-probe"];
    let tasks = cluster.node(0).docker(&ps).unwrap().ok().unwrap();
    tasks.lines().map(str::to_owned).collect()
}

/// The daemon itself says what time it is.
fn is_off(node: &Node, offset: i64) -> anyhow::Result<()> {
    let says = node.docker(&["info", "--format", "{{.SystemTime}}"])?.ok()?;
    let seconds = |time: &str| -> anyhow::Result<i64> {
        Ok(node.run(&["date", "-ud", time, "+%s"])?.ok()?.trim().parse()?)
    };
    let off = seconds(&says)? - seconds("now")?;
    ensure!((off - offset).abs() < 60, "it says {says}, which is {off} s off and not {offset}");
    Ok(())
}

/// A service with a task is made while clocks differ; it runs, and is removed.
fn a_service_starts(cluster: &Cluster, name: &str) -> anyhow::Result<()> {
    let docker = |args: &[&str]| cluster.node(0).docker(args)?.ok();
    docker(&["service", "create", "-d", "--name", name, "--replicas", "2", WEB_IMAGE])?;
    cluster.wait_for_tasks(name, 2, patiently())?;
    docker(&["service", "rm", name]).map(drop)
}

#[test]
fn clocks_that_jump_cost_neither_nodes_nor_tasks_nor_writes() {
    let cluster = cluster();
    let clocks: Vec<Clock> =
        cluster.nodes().iter().map(|n| Clock::new(cluster.folder(), n.name()).unwrap()).collect();
    for (node, clock) in cluster.nodes().iter().zip(&clocks) {
        node.stop_daemon().unwrap();
        clock.start_daemon(node).unwrap();
    }
    whole(&cluster);
    let first = leader(&cluster, 0).unwrap();
    // The leader's daemon is killed in the end, and what it had may be moved then.
    let elsewhere = format!("node.hostname!={}", cluster.node(first).name());
    let traffic = Traffic::start(&cluster, &elsewhere);
    let before = tasks(&cluster);
    let other = (first + 1) % MANAGERS;
    let writes = Writes::new("mgr-clock");
    let jumped = writes.during(&cluster, &[0, 1, 2], || {
        // The leader's, forward and back behind all others', and then the worker's.
        for (host, offset) in [(first, HOUR), (first, -HOUR), (WORKER, HOUR), (WORKER, -HOUR)] {
            clocks[host].set(offset)?;
            is_off(cluster.node(host), offset)?;
            let at = Instant::now();
            writes.next_after(at)?;
            stays_whole(&cluster, other)?;
        }
        a_service_starts(&cluster, "mgr-clock-behind")?;
        // The next leader's clock is an hour ahead of the last one's.
        cluster.node(first).kill_daemon()?;
        writes.next_after(Instant::now())?;
        clocks[first].start_daemon(cluster.node(first))?;
        a_service_starts(&cluster, "mgr-clock-ahead")
    });
    let now = jumped.map(|()| tasks(&cluster));
    for (node, clock) in cluster.nodes().iter().zip(&clocks) {
        clock.set(0).unwrap();
        node.restart_daemon().unwrap();
    }
    assert_eq!(now.unwrap(), before, "a task was replaced because a clock was set");
    whole(&cluster);
    writes.check(&cluster);
    traffic.stop();
}

/// The folder of a manager's store, moved to a small disk of its own and back.
struct SmallDisk<'a> {
    node: &'a Node,
    folder: String,
    mounted: bool,
}

impl<'a> SmallDisk<'a> {
    /// The daemon does not run.
    fn under(node: &'a Node) -> Self {
        let folder = node.data_root().join("swarm").display().to_string();
        let disk = Self { node, folder, mounted: true };
        let mount = "mount -t tmpfs -o size=24m,mode=700 disk $1";
        disk.run(&format!("cp -a $1 $1.kept && {mount} && cp -a $1.kept/. $1"));
        disk
    }

    fn fill(&self) {
        // Until nothing fits any more.
        self.run("! dd if=/dev/zero of=$1/filler bs=4k 2>/dev/null; sync $1/filler");
    }

    fn make_room(&self) {
        self.run("rm $1/filler");
    }

    /// The daemon does not run.
    fn remove(mut self) {
        self.run("rm -r $1.kept && cp -a $1 $1.kept && umount $1 && cp -a $1.kept/. $1");
        self.run("rm -r $1.kept");
        self.mounted = false;
    }

    fn run(&self, script: &str) {
        let command = ["sh", "-ec", script, "sh", &self.folder];
        self.node.run(&command).unwrap().ok().unwrap();
    }
}

impl Drop for SmallDisk<'_> {
    /// A test that fails leaves the cluster whole for the next one: with what is on the small disk.
    fn drop(&mut self) {
        if self.mounted {
            let script = "rm -f $1/filler; cp -a $1 $1.now && umount $1 && rm -r $1.kept $1/* && \
                          cp -a $1.now/. $1 && rm -r $1.now";
            let _ = self.node.stop_daemon();
            let _ = self.node.run(&["sh", "-ec", script, "sh", &self.folder]);
            let _ = self.node.start_daemon();
        }
    }
}

/// Makes this manager the leader: it alone has the newest entry when a majority that includes it votes.
fn lead(cluster: &Cluster, index: usize) {
    let leads = leader(cluster, index).unwrap();
    if leads == index {
        return;
    }
    let (leads, third) = (cluster.node(leads), cluster.node(MANAGERS - index - leads));
    third.stop_daemon().unwrap();
    wait_for("a write the third does not have", patiently(), || {
        let (status, body) = write(leads, "mgr-full-newest")?;
        ensure!(status == 201 || status == 409, "{body}");
        Ok(())
    })
    .unwrap();
    leads.stop_daemon().unwrap();
    third.start_daemon().unwrap();
    wait_for("the lead to be taken", patiently(), || {
        ensure!(leader(cluster, index)? == index, "another leads");
        Ok(())
    })
    .unwrap();
    leads.start_daemon().unwrap();
    whole(cluster);
}

#[test]
fn a_leader_whose_disk_is_full_costs_a_moment_and_returns_when_there_is_room() {
    let cluster = cluster();
    let full = leader(&cluster, 0).unwrap();
    let node = cluster.node(full);
    let others: Vec<usize> = (0..MANAGERS).filter(|index| *index != full).collect();
    node.stop_daemon().unwrap();
    let disk = SmallDisk::under(node);
    node.start_daemon().unwrap();
    whole(&cluster);
    lead(&cluster, full);
    assert_eq!(leader(&cluster, full).unwrap(), full);
    let traffic = Traffic::start(&cluster, "node.id!=none");
    let before = tasks(&cluster);
    let writes = Writes::new("mgr-full");
    let seen = writes.during(&cluster, &others, || {
        wait_for("some writes", patiently(), || {
            ensure!(writes.count() > 10);
            Ok(())
        })?;
        disk.fill();
        let gap = writes.next_after(Instant::now())?;
        let info = ["info", "--format", "{{.Swarm.LocalNodeState}}: {{.Swarm.Error}}"];
        let said = wait_for("it to say so", patiently(), || {
            let said = node.docker(&info)?.ok()?;
            ensure!(said.starts_with("error: "), "{said}");
            Ok(said)
        })?;
        let leads = leader(&cluster, others[0])?;
        ensure!(leads != full, "it leads on with a full disk");
        // Through it one can still write, if the leader takes it.
        let through = write(node, "mgr-full-through")?;
        Ok((gap, said, through))
    });
    disk.make_room();
    node.stop_daemon().unwrap();
    disk.remove();
    node.start_daemon().unwrap();
    let (gap, said, (status, body)) = seen.context("with a full disk").unwrap();
    eprintln!("the next write after the leader's disk was full was accepted after {gap:?}");
    assert!(said.contains("No space left on device"), "{said}");
    whole(&cluster);
    assert_eq!(services(node).unwrap().contains("mgr-full-through"), status == 201, "{body}");
    writes.check(&cluster);
    assert_eq!(tasks(&cluster), before, "a task was replaced because a disk was full");
    traffic.stop();
}

/// Eight answers in a row, each over a connection of its own.
const STEADY: &str = "n=0; while [ $n -lt 8 ]; do \
     if timeout 1 wget -q -O /dev/null http://mgr-power/; then n=$((n+1)); else n=0; fi; done";

#[test]
fn tasks_of_a_node_without_power_are_avoided_until_it_answers_again() {
    let cluster = cluster();
    let docker = |args: &[&str]| cluster.node(0).docker(args).unwrap().ok().unwrap();
    docker(&["network", "create", "-d", "overlay", "mgr-power-net"]);
    let create = |name: &str, rest: &[&str]| {
        let fixed = ["service", "create", "-d", "--network", "mgr-power-net", "--name", name];
        docker(&[&fixed[..], rest, &[WEB_IMAGE]].concat());
    };
    create("mgr-power", &["--replicas", "4", "--replicas-max-per-node", "1"]);
    create("mgr-ask", &["--constraint", "node.hostname==node1"]);
    cluster.wait_for_tasks("mgr-power", 4, patiently()).unwrap();
    let ask = cluster.wait_for_tasks("mgr-ask", 1, patiently()).unwrap().remove(0);
    cluster.exec(&ask, STEADY).unwrap().ok().unwrap();
    let silent = |is: f64| {
        wait_for("the node's silence, or its end, to be seen", patiently(), || {
            let peer = [("peer", "node4")];
            let seen = metric_sum(&cluster.node(0).metrics()?, "shoal_overlay_peer_silent", &peer)?;
            ensure!(seen == is, "{seen}");
            Ok(())
        })
    };
    silent(0.0).unwrap();
    cluster.node(WORKER).power_off().unwrap();
    let begun = Instant::now();
    let steady = cluster.exec(&ask, STEADY).unwrap().ok();
    eprintln!("steady again {:?} after a node lost its power", begun.elapsed());
    let seen = silent(1.0);
    cluster.node(WORKER).start_daemon().unwrap();
    steady.unwrap();
    seen.unwrap();
    whole(&cluster);
    silent(0.0).unwrap();
    cluster.wait_for_tasks("mgr-power", 4, patiently()).unwrap();
    docker(&["service", "rm", "mgr-power", "mgr-ask"]);
    wait_for("the network to be free", patiently(), || {
        cluster.node(0).docker(&["network", "rm", "mgr-power-net"])?.ok()
    })
    .unwrap();
}
