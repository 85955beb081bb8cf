//! The seven steps. Each fails at the first thing that is not as it should be.

use crate::{
    load::{self, AT_ONCE, Load},
    stage::{Stage, seconds},
};
use anyhow::{Context as _, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use shoal_tests::{
    Cluster, Page, Recording, RunningTask, WEB_IMAGE, metric_series, nslookup, patiently, wait_for,
    web_image,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    process::Stdio,
    time::Instant,
};

/// Connections a node has balanced, by the service's name.
const CONNECTIONS: &str = "shoal_lb_connections_total";
/// Requests of step 3.
const REQUESTS: usize = 300;
/// The published port.
const PORT: u16 = 8080;

/// Samples of [`CONNECTIONS`] by node and series.
type Counts = BTreeMap<(String, String), f64>;

/// What later steps need of earlier ones.
struct Demo<'a> {
    cluster: &'a Cluster,
    /// The container on `app` that asks.
    probe: RunningTask,
    /// The container that is not on `app`.
    outsider: RunningTask,
    /// What was counted when counting began: series of each node, by the node's name.
    counts: Counts,
    /// Connections counted in steps 3 and 4.
    counted: f64,
    /// Connections made in steps 3 and 4.
    sent: usize,
}

pub(crate) fn all(cluster: &Cluster) -> anyhow::Result<()> {
    form(cluster).context("step 1")?;
    let mut demo = serve(cluster).context("step 2")?;
    let recording = demo.inside().context("step 3")?;
    demo.outside().context("step 4")?;
    on_the_wire(&recording).context("step 5")?;
    demo.replace().context("step 6")?;
    demo.metrics().context("step 7")
}

fn form(cluster: &Cluster) -> anyhow::Result<()> {
    let mut stage = Stage::start(1, "Three hosts become a swarm");
    let first = cluster.node(0);
    let addr = first.addr().to_string();
    stage.docker(first, &["swarm", "init", "--advertise-addr", &addr])?;
    let token = stage.docker(first, &["swarm", "join-token", "-q", "worker"])?;
    for node in &cluster.nodes()[1..] {
        stage.docker(node, &["swarm", "join", "--token", &token, &format!("{addr}:2377")])?;
    }
    wait_for("three Ready nodes", patiently(), || {
        let states = first.docker(&["node", "ls", "--format", "{{.Status}}"])?.ok()?;
        ensure!(states.lines().filter(|s| *s == "Ready").count() == 3, "they are: {states}");
        Ok(())
    })?;
    let nodes = stage.docker(first, &["node", "ls"])?;
    stage.show(&nodes);
    stage.tick("three nodes are Ready");
    stage.done();
    Ok(())
}

fn serve(cluster: &Cluster) -> anyhow::Result<Demo<'_>> {
    let mut stage = Stage::start(2, "A service with three replicas on a network of its own");
    let first = cluster.node(0);
    stage.command("each node", &format!("docker load -i {}.tar", WEB_IMAGE.replace(':', "-")));
    cluster.load_image(&web_image()?)?;
    stage.docker(first, &["network", "create", "-d", "overlay", "app"])?;
    stage.docker(first, &["network", "create", "-d", "overlay", "other"])?;
    for (service, network) in [("probe", "app"), ("outsider", "other")] {
        stage.docker(
            first,
            &["service", "create", "-d", "--name", service, "--network", network, WEB_IMAGE],
        )?;
    }
    let [probe, outsider] = ["probe", "outsider"].map(|name| -> anyhow::Result<RunningTask> {
        let mut tasks = cluster.wait_for_tasks(name, 1, patiently())?;
        tasks.pop().context("it has a task")
    });
    let (probe, outsider) = (probe?, outsider?);
    stage.tick("a container on app and one that is not on it are there to ask");

    // Asks without a pause from before the request until the first answer.
    let mut waiter = cluster.node(probe.node).docker_command();
    let script =
        "until timeout 1 wget -q -O /dev/null http://web/ 2>/dev/null; do usleep 5000; done";
    waiter.args(["exec", &probe.container, "timeout", "120", "sh", "-c", script]);
    let mut waiter = waiter.stdout(Stdio::null()).spawn().context("cannot start docker exec")?;
    let request = Instant::now();
    stage.docker(
        first,
        &[
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
            WEB_IMAGE,
        ],
    )?;
    ensure!(waiter.wait()?.success(), "no answer from http://web/ within 120 s");
    let first_answer = request.elapsed();
    stage
        .tick(&format!("first answer through the VIP {} after the request", seconds(first_answer)));
    let tasks = cluster.wait_for_tasks("web", 3, patiently())?;
    let listing = stage.docker(first, &["service", "ps", "web"])?;
    stage.show(&listing);
    let nodes: BTreeSet<usize> = tasks.iter().map(|task| task.node).collect();
    ensure!(nodes.len() == 3, "the three tasks are on {} nodes", nodes.len());
    stage.tick("one task a node, running");
    stage.done();
    Ok(Demo { cluster, probe, outsider, counts: Counts::new(), counted: 0.0, sent: 0 })
}

/// A network name server's answer to a name, asked in a container.
fn look_up(cluster: &Cluster, from: &RunningTask, name: &str) -> anyhow::Result<BTreeSet<IpAddr>> {
    // Its exit status also tells that there is no IPv6 address, which is no failure here.
    Ok(nslookup(&cluster.exec(from, &format!("nslookup {name}"))?.stdout))
}

impl Demo<'_> {
    /// All nodes' counts at this moment.
    fn read_counts(&self) -> anyhow::Result<Counts> {
        let mut counts = Counts::new();
        for node in self.cluster.nodes() {
            let series = metric_series(&node.metrics()?, CONNECTIONS, &[("service", "web")])?;
            let name = |series| (node.name().to_owned(), series);
            counts.extend(series.into_iter().map(|(series, value)| (name(series), value)));
        }
        Ok(counts)
    }

    /// Counting begins, or begins anew: a backend's series go with it.
    fn begin_to_count(&mut self) -> anyhow::Result<()> {
        self.counts = self.read_counts()?;
        Ok(())
    }

    /// Adds what was counted since it began.
    fn end_to_count(&mut self) -> anyhow::Result<()> {
        for (series, value) in self.read_counts()? {
            self.counted += value - self.counts.get(&series).unwrap_or(&0.0);
        }
        Ok(())
    }

    fn inside(&mut self) -> anyhow::Result<Recording> {
        let mut stage = Stage::start(3, "From inside: by name, through the VIP, to all three");
        let cluster = self.cluster;
        self.begin_to_count()?;
        let capture = cluster.capture()?;
        let tasks = cluster.running_tasks("web")?;
        let vip = cluster.vip("web", "app")?;

        stage.command("probe", "nslookup web");
        let found = look_up(cluster, &self.probe, "web")?;
        ensure!(found == BTreeSet::from([vip.into()]), "web is {found:?}, its VIP is {vip}");
        stage.tick(&format!("web is {vip}, the service's VIP"));

        let script = format!(
            "i=0; while [ $i -lt {REQUESTS} ]; do timeout 5 wget -q -O - http://web/; i=$((i+1)); done"
        );
        stage.command("probe", &script);
        let pages = cluster.exec(&self.probe, &script)?.ok()?;
        self.sent += REQUESTS;
        let spread = spread(&pages)?;
        let counts: Vec<String> = spread.iter().map(|(task, n)| format!("{task} {n}")).collect();
        stage.show(&counts.join("\n"));
        let even = REQUESTS / 3;
        let within = |count: &usize| count.abs_diff(even) * 10 <= even;
        ensure!(spread.len() == 3, "{} tasks answered", spread.len());
        ensure!(spread.values().sum::<usize>() == REQUESTS, "not every request was answered");
        ensure!(spread.values().all(within), "not within 10 % of even: {spread:?}");
        stage.tick(&format!("{REQUESTS} requests reached all three, within 10 % of even"));

        stage.command("probe", "nslookup tasks.web");
        let found = look_up(cluster, &self.probe, "tasks.web")?;
        let app = cluster.network_id("app")?;
        let addresses: Vec<_> =
            tasks.iter().map(|task| task.address_on(&app)).collect::<anyhow::Result<_>>()?;
        let expected: BTreeSet<IpAddr> = addresses.iter().copied().map(IpAddr::from).collect();
        ensure!(expected.len() == 3, "the tasks share addresses: {tasks:?}");
        ensure!(found == expected, "tasks.web is {found:?}, the tasks have {expected:?}");
        stage.tick("tasks.web lists three addresses");

        self.outsider_gets_nothing(&mut stage, &tasks, vip.into(), &expected)?;
        let recording = capture.finish()?;
        stage.done();
        Ok(recording)
    }

    fn outsider_gets_nothing(
        &self,
        stage: &mut Stage,
        tasks: &[RunningTask],
        vip: IpAddr,
        addresses: &BTreeSet<IpAddr>,
    ) -> anyhow::Result<()> {
        let (cluster, outsider) = (self.cluster, &self.outsider);
        stage.command("outsider", "nslookup web");
        let found = look_up(cluster, outsider, "web")?;
        ensure!(found.is_empty(), "a container that is not on app finds web at {found:?}");
        let found = look_up(cluster, outsider, "outsider")?;
        ensure!(!found.is_empty(), "nor does it find its own service: its DNS does not work");
        stage.tick("a container that is not on app has no name web");

        let own = outsider.address_on(&cluster.network_id("other")?)?;
        let captures: Vec<_> =
            tasks.iter().map(|t| cluster.capture_of(t.pid)).collect::<anyhow::Result<_>>()?;
        for address in addresses.iter().chain([&vip]) {
            let script =
                format!("timeout 1 wget -q -O - http://{address}/; ping -c 1 -W 1 {address}");
            stage.command("outsider", &script);
            let outcome = cluster.exec(outsider, &script)?;
            ensure!(
                !outcome.status.success() && !outcome.stdout.contains("task="),
                "{address} answers a container that is not on its network: {}",
                outcome.stdout
            );
        }
        for capture in captures {
            let packets = capture.finish()?.packets(&format!("host {own}"))?;
            ensure!(packets.is_empty(), "packets got through: {packets:?}");
        }
        stage.tick("no packet of it gets to a task, by address or by VIP");
        Ok(())
    }

    fn outside(&mut self) -> anyhow::Result<()> {
        let mut stage = Stage::start(4, "From outside: any node answers, and sees the real client");
        let (cluster, first) = (self.cluster, self.cluster.node(0));
        self.ask_every_node(&mut stage)?;
        self.end_to_count()?;
        stage.docker(first, &["service", "scale", "-d", "web=2"])?;
        let tasks = cluster.wait_for_tasks("web", 2, patiently())?;
        let without = (0..3).find(|node| tasks.iter().all(|task| task.node != *node));
        let without = cluster.node(without.context("every node has a task of two")?).name();
        stage.tick(&format!("scaled to 2: {without} has no task of web"));
        self.begin_to_count()?;
        self.ask_every_node(&mut stage)?;
        self.end_to_count()?;
        stage.done();
        Ok(())
    }

    fn ask_every_node(&mut self, stage: &mut Stage) -> anyhow::Result<()> {
        let client = self.cluster.client(0);
        let own = shoal_tests::address(shoal_tests::Segment::Clients, 0).0;
        for node in self.cluster.nodes() {
            let url = format!("http://{}:{PORT}/", node.addr());
            stage.command(client.name(), &format!("curl {url}"));
            let response = client.http_get(&url)?;
            self.sent += 1;
            ensure!(response.status == 200, "{} answers {}", node.name(), response.status);
            stage.show(&response.body);
            let page = Page::parse(&response.body)?;
            ensure!(page.client == own, "the page saw {}, the client is {own}", page.client);
        }
        stage.tick(&format!("each node answers, and the page names {own} as its client"));
        Ok(())
    }

    fn replace(&self) -> anyhow::Result<()> {
        let mut stage = Stage::start(6, "A task dies and is replaced; nobody else notices");
        let (cluster, first) = (self.cluster, self.cluster.node(0));
        stage.docker(first, &["service", "scale", "-d", "web=6"])?;
        let tasks = cluster.wait_for_tasks("web", 6, patiently())?;
        stage.tick("six tasks run");
        let load = Load::start(cluster, &self.probe, "http://web/")?;
        // Some requests before and after, so that it is seen that they are answered.
        std::thread::sleep(std::time::Duration::from_secs(1));
        let victim = &tasks[0];
        stage.command(cluster.node(victim.node).name(), &format!("kill -9 {}", victim.pid));
        let pid = Pid::from_raw(i32::try_from(victim.pid)?).context("process 0")?;
        let killed = load::now()?;
        kill_process(pid, Signal::KILL)?;
        wait_for("its replacement", patiently(), || {
            let tasks = cluster.running_tasks("web")?;
            ensure!(tasks.iter().all(|task| task.id != victim.id), "it is not seen to be dead");
            ensure!(tasks.len() == 6, "{} run", tasks.len());
            Ok(())
        })?;
        stage.tick("the killed task is replaced");
        let requests = load.stop()?;
        let failed: Vec<_> = requests.iter().filter(|request| !request.answered).collect();
        let excused = failed.iter().filter(|request| request.spans(killed)).count();
        ensure!(
            failed.len() == excused && excused <= AT_ONCE,
            "{} of {} requests failed, {excused} of them under way at the kill (at {killed}): \
             {failed:?}",
            failed.len(),
            requests.len()
        );
        stage.tick(&format!(
            "{} requests through the VIP meanwhile; {excused} failed, on the killed task already",
            requests.len()
        ));
        stage.done();
        Ok(())
    }

    fn metrics(&self) -> anyhow::Result<()> {
        let mut stage = Stage::start(7, "Every node counts what it balances");
        let node = self.cluster.node(self.probe.node);
        stage.command(node.name(), "curl http://127.0.0.1:9323/metrics");
        let text = node.metrics()?;
        let lines = text.lines().filter(|line| line.starts_with(CONNECTIONS));
        stage.show(&lines.collect::<Vec<_>>().join("\n"));
        let (sent, counted) = (self.sent, self.counted);
        // Counts of connections are whole, and far below 2^53.
        ensure!(
            counted == sent as f64,
            "steps 3 and 4 made {sent} connections, all nodes together counted {counted}"
        );
        stage.tick(&format!("{counted} connections counted in steps 3 and 4, {sent} were made"));
        stage.done();
        Ok(())
    }
}

fn on_the_wire(recording: &Recording) -> anyhow::Result<()> {
    let mut stage = Stage::start(5, "Between nodes, nothing but WireGuard");
    let encrypted = "udp port 51820";
    // mTLS of the control plane, and what any two hosts on a wire say to find each other.
    let others =
        format!("not ({encrypted} or tcp port 2377 or arp or icmp6 or ip6 multicast or igmp)");
    stage.command("wire", &format!("tcpdump -r capture-of-step-3 '{others}'"));
    let tunnel = recording.packets(encrypted)?.len();
    ensure!(tunnel > 0, "no WireGuard packet was seen: the capture proves nothing");
    let plain = recording.packets(&others)?;
    ensure!(plain.is_empty(), "other packets crossed the wire: {plain:?}");
    for byte_string in ["HTTP/1.", "GET /", "task="] {
        if recording.contains(byte_string) {
            bail!("{byte_string:?} crossed the wire in the clear");
        }
    }
    stage.tick(&format!("{tunnel} WireGuard packets, no other, no byte of HTTP"));
    stage.done();
    Ok(())
}

/// How often each task answered.
fn spread(pages: &str) -> anyhow::Result<BTreeMap<String, usize>> {
    let mut spread = BTreeMap::new();
    for line in pages.lines() {
        *spread.entry(Page::parse(line)?.task).or_default() += 1;
    }
    Ok(spread)
}
