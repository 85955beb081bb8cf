//! Three managers and two workers: a host loses its power (every process of it is killed at once).

use super::fleet::{PORT, cluster, leader, node_id, post, remove, running, spec, until, whole};
use crate::report::{Aim, Row, median};
use anyhow::{Context as _, ensure};
use serde_json::json;
use shoal_tests::{Cluster, WEB_IMAGE};
use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

const MANAGERS: usize = 3;
const WORKERS: usize = 2;
const REPLICAS: u64 = 10;
const NAME: &str = "web";

const WRITE_AIM_S: f64 = 1.0;
const MOVED_AIM_S: f64 = 5.0;
const AVOIDED_AIM_S: f64 = 1.0;

/// What one loss cost, in seconds.
struct Cost {
    write: f64,
    moved: f64,
    avoided: f64,
}

pub(super) fn rows(runs: usize) -> anyhow::Result<Vec<Row>> {
    let cluster = cluster(MANAGERS, WORKERS)?;
    let (mut led, mut worked) = (Vec::new(), Vec::new());
    for run in 0..runs {
        led.push(lose(&cluster, leader(&cluster, 0)?)?);
        worked.push(lose(&cluster, MANAGERS + run % WORKERS)?);
    }
    let left = cluster.remove();
    ensure!(left.0.is_empty(), "not removed: {}", left.0.join(", "));
    let row = |what: &str, costs: &[Cost], of: fn(&Cost) -> f64, aim| -> anyhow::Result<Row> {
        let ours = median(costs.iter().map(of).collect())?;
        Ok(Row { what: what.to_owned(), unit: "s", ours, aim: Aim::AtMost(aim) })
    };
    Ok(vec![
        row("leader killed → next write accepted", &led, |c| c.write, WRITE_AIM_S)?,
        row("leader's host killed → its tasks run elsewhere", &led, |c| c.moved, MOVED_AIM_S)?,
        row("worker killed → its tasks run elsewhere", &worked, |c| c.moved, MOVED_AIM_S)?,
        row("worker killed → last connection to it", &worked, |c| c.avoided, AVOIDED_AIM_S)?,
    ])
}

/// Kills a host that runs its share of a service, measures, and brings it back.
fn lose(cluster: &Cluster, victim: usize) -> anyhow::Result<Cost> {
    let witness = (0..MANAGERS).find(|index| *index != victim).context("three managers")?;
    post(cluster, witness, "/services/create", &spec(NAME, REPLICAS, 1))?;
    until("the tasks to run", Instant::now(), || {
        let count = running(cluster, witness, NAME)?.len() as u64;
        ensure!(count == REPLICAS, "{count} run");
        Ok(())
    })?;
    let id = node_id(cluster, witness, victim)?;
    let before = running(cluster, witness, NAME)?.iter().filter(|task| task.node == id).count();
    ensure!(before > 0, "nothing ran on {}", cluster.node(victim).name());
    let client = Client::new(SocketAddr::new(cluster.node(witness).addr(), PORT));
    let cost = thread::scope(|scope| {
        let asking = scope.spawn(|| cluster.client(0).in_network(|| client.ask()));
        thread::sleep(Duration::from_millis(500));
        let cost = measure(cluster, victim, witness, &id, &client);
        client.stop.store(true, Ordering::Relaxed);
        asking.join().ok().context("the client ended")???;
        cost
    })?;
    cluster.node(victim).start_daemon()?;
    whole(cluster, MANAGERS)?;
    remove(cluster, NAME)?;
    Ok(cost)
}

fn measure(
    cluster: &Cluster,
    victim: usize,
    witness: usize,
    id: &str,
    client: &Client,
) -> anyhow::Result<Cost> {
    let start = Instant::now();
    cluster.node(victim).power_off()?;
    // Once for each loss; a name that is there would be refused.
    let name = format!("after-{}", start.elapsed().as_nanos());
    let write = json!({
        "Name": name,
        "TaskTemplate": { "ContainerSpec": { "Image": WEB_IMAGE } },
        "Mode": { "Replicated": { "Replicas": 0 } },
    });
    let write = until("a write to be accepted", start, || {
        post(cluster, witness, "/services/create", &write)
    })?;
    let moved = until("its tasks to run elsewhere", start, || {
        let tasks = running(cluster, witness, NAME)?;
        let elsewhere = tasks.iter().filter(|task| task.node != id).count() as u64;
        ensure!(elsewhere == REPLICAS, "{elsewhere} run elsewhere");
        Ok(())
    })?;
    // Long enough to see that none fails any more.
    thread::sleep(Duration::from_secs(2));
    let failed = client.failed.lock().map_err(|_| anyhow::anyhow!("the client panicked"))?;
    let last =
        failed.iter().max().map_or(0.0, |at| at.saturating_duration_since(start).as_secs_f64());
    cluster.node(witness).docker(&["service", "rm", &name])?.ok()?;
    Ok(Cost { write, moved, avoided: last })
}

/// Asks again and again, each time over a new connection, and notes when those began that failed.
struct Client {
    to: SocketAddr,
    failed: Mutex<Vec<Instant>>,
    stop: AtomicBool,
}

/// How long a connection and its answer may take: far more than one on this machine does.
const PATIENCE: Duration = Duration::from_millis(300);

impl Client {
    fn new(to: SocketAddr) -> Self {
        Self { to, failed: Mutex::default(), stop: AtomicBool::new(false) }
    }

    fn ask(&self) -> anyhow::Result<()> {
        while !self.stop.load(Ordering::Relaxed) {
            let start = Instant::now();
            if self.once().is_err() {
                let mut failed = self.failed.lock().map_err(|_| anyhow::anyhow!("poisoned"))?;
                failed.push(start);
            }
        }
        Ok(())
    }

    fn once(&self) -> anyhow::Result<()> {
        let mut stream = TcpStream::connect_timeout(&self.to, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
        let mut first = [0; 1];
        stream.read_exact(&mut first)?;
        Ok(())
    }
}
