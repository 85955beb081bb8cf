//! Writes through the API of three managers: one after another, and from many clients at once.

use super::{fleet, peers};
use crate::report::{Aim, Row, median};
use anyhow::{Context as _, bail, ensure};
use shoal_tests::{Cluster, WEB_IMAGE, in_network_of};
use std::{
    io::{BufRead as _, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

const CLIENTS: usize = 64;
/// Ours against Docker's, one after another.
const SWARM_AIM: f64 = 3.0;
/// Ours against etcd's, from 64 clients.
const ETCD_AIM: f64 = 1.0;
/// Length of a value that etcd stores: about what a service without tasks takes with us.
const VALUE_BYTES: usize = 256;

/// Names must not repeat.
static MADE: AtomicU64 = AtomicU64::new(0);

pub(super) fn rows(runs: usize, quick: bool) -> anyhow::Result<Vec<Row>> {
    let period = Duration::from_secs(if quick { 1 } else { 5 });
    let ours = fleet::cluster(3, 0)?;
    let sockets: Vec<PathBuf> = ours.nodes().iter().map(|node| node.api_socket()).collect();
    let (swarm, docker_sockets) = peers::swarm()?;
    let (etcd, ends) = peers::etcd()?;
    let holder = etcd.node(0).holder();
    let (mut one, mut docker_one) = (Vec::new(), Vec::new());
    let (mut many, mut etcd_many) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        one.push(rate(1, period, |_| Ok(Service::through(&sockets[0])))?);
        docker_one.push(rate(1, period, |_| Ok(Service::through(&docker_sockets[0])))?);
        many.push(rate(CLIENTS, period, |i| Ok(Service::through(&sockets[i % 3])))?);
        etcd_many.push(rate(CLIENTS, period, |i| Put::to(holder, ends[i % 3]))?);
    }
    for cluster in [ours, swarm, etcd] {
        gone(cluster)?;
    }
    Ok(vec![
        Row {
            what: "services created one after another, 3 managers (peer: Docker Swarm)".to_owned(),
            unit: "1/s",
            ours: median(one)?,
            aim: Aim::Ratio { peer: median(docker_one)?, least: SWARM_AIM },
        },
        Row {
            what: format!("writes from {CLIENTS} clients, 3 managers (services; peer: etcd, keys)"),
            unit: "1/s",
            ours: median(many)?,
            aim: Aim::Ratio { peer: median(etcd_many)?, least: ETCD_AIM },
        },
    ])
}

fn gone(cluster: Cluster) -> anyhow::Result<()> {
    let left = cluster.remove();
    ensure!(left.0.is_empty(), "not removed: {}", left.0.join(", "));
    Ok(())
}

/// Writes one thing and waits until it is acknowledged.
trait Write1: Send {
    fn write(&mut self) -> anyhow::Result<()>;
}

/// Writes acknowledged a second by so many clients, each one after another.
fn rate<W: Write1>(
    clients: usize,
    period: Duration,
    client: impl Fn(usize) -> anyhow::Result<W>,
) -> anyhow::Result<f64> {
    let clients: Vec<W> = (0..clients).map(client).collect::<Result<_, _>>()?;
    let start = Instant::now();
    let count = thread::scope(|scope| {
        let all: Vec<_> = clients
            .into_iter()
            .map(|mut client| {
                scope.spawn(move || -> anyhow::Result<u64> {
                    let mut count = 0;
                    while start.elapsed() < period {
                        client.write()?;
                        count += 1;
                    }
                    Ok(count)
                })
            })
            .collect();
        let counts = all.into_iter().map(|t| t.join().ok().context("a client panicked")?);
        counts.sum::<anyhow::Result<u64>>()
    })?;
    Ok(count as f64 / start.elapsed().as_secs_f64())
}

/// Creates services without tasks over one connection to a Docker API.
struct Service {
    socket: PathBuf,
    connection: Option<BufReader<UnixStream>>,
}

impl Service {
    fn through(socket: &Path) -> Self {
        Self { socket: socket.to_owned(), connection: None }
    }
}

impl Write1 for Service {
    fn write(&mut self) -> anyhow::Result<()> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            empty => empty.insert(BufReader::new(UnixStream::connect(&self.socket)?)),
        };
        let body = serde_json::json!({
            "Name": format!("s{}", MADE.fetch_add(1, Ordering::Relaxed)),
            "TaskTemplate": { "ContainerSpec": { "Image": WEB_IMAGE } },
            "Mode": { "Replicated": { "Replicas": 0 } },
        });
        post(connection, "/services/create", &body.to_string())
    }
}

/// Puts keys into etcd over one connection to its JSON gateway.
struct Put(BufReader<TcpStream>);

impl Put {
    fn to(holder: u32, end: SocketAddr) -> anyhow::Result<Self> {
        let stream = in_network_of(holder, || TcpStream::connect(end))??;
        stream.set_nodelay(true)?;
        Ok(Self(BufReader::new(stream)))
    }
}

impl Write1 for Put {
    fn write(&mut self) -> anyhow::Result<()> {
        // Both are base64, of which digits and letters in fours are always some.
        let key = format!("{:016}", MADE.fetch_add(1, Ordering::Relaxed));
        let body = serde_json::json!({ "key": key, "value": "A".repeat(VALUE_BYTES / 3 * 4) });
        post(&mut self.0, "/v3/kv/put", &body.to_string())
    }
}

/// One request on a connection that stays, and its answer, which must be a success.
fn post<S: Read + Write>(
    connection: &mut BufReader<S>,
    path: &str,
    body: &str,
) -> anyhow::Result<()> {
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    connection.get_mut().write_all(request.as_bytes())?;
    let mut status = String::new();
    connection.read_line(&mut status)?;
    let (mut length, mut line) = (None, String::new());
    loop {
        line.clear();
        ensure!(connection.read_line(&mut line)? > 0, "the connection ended in {status:?}");
        let header = line.trim_end().to_ascii_lowercase();
        if header.is_empty() {
            break;
        }
        if let Some(value) = header.strip_prefix("content-length:") {
            length = Some(value.trim().parse::<usize>()?);
        }
    }
    let mut answer = vec![0; length.context("an answer without Content-Length")?];
    connection.read_exact(&mut answer)?;
    match status.split(' ').nth(1) {
        Some("200" | "201") => Ok(()),
        _ => bail!("POST {path}: {} {}", status.trim_end(), String::from_utf8_lossy(&answer)),
    }
}
