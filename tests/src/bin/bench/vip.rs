//! Through the VIP against the address of the only task behind it: the same way, less the VIP.

use crate::report::{Aim, Row, median};
use anyhow::{Context as _, ensure};
use shoal_images::testimage::busybox_archive;
use shoal_tests::{Cluster, Outcome, RunningTask, busybox, patiently, wait_for};
use std::{
    env, fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::Command,
};

const IMAGE: &str = "shoal-bench:1";
const IPERF_PORT: u16 = 5201;
const ACCEPT_PORT: u16 = 5202;
/// The VIP costs once per connection: throughput must not suffer beyond noise.
const THROUGHPUT_AIM: f64 = 0.95;
/// One look-up and one rewrite more per connection.
const CONNECTIONS_AIM: f64 = 0.90;

struct Plan {
    runs: usize,
    seconds: u64,
}

pub(crate) fn run(quick: bool) -> anyhow::Result<Vec<Row>> {
    let plan = if quick { Plan { runs: 1, seconds: 1 } } else { Plan { runs: 5, seconds: 5 } };
    let cluster = Cluster::builder().nodes(2).swarm().start()?;
    cluster.load_image(&image()?)?;
    let docker = |args: &[&str]| cluster.node(0).docker(args)?.ok();
    docker(&["network", "create", "-d", "overlay", "bench"])?;
    let create = ["service", "create", "-d", "--network", "bench", "--name"];
    docker(&[&create[..], &["server", IMAGE]].concat())?;
    docker(&[&create[..], &["asker", "--replicas", "2", IMAGE, "sleep", "1000000"]].concat())?;
    let server = cluster.wait_for_tasks("server", 1, patiently())?.remove(0);
    let askers = cluster.wait_for_tasks("asker", 2, patiently())?;
    let direct = server.address_on(&cluster.network_id("bench")?)?;
    let vip = cluster.vip("server", "bench")?;
    let mut rows = Vec::new();
    for (place, same) in [("same node", true), ("other node", false)] {
        let asker = askers.iter().find(|asker| (asker.node == server.node) == same);
        let asker = asker.context("the askers are not one on each node")?;
        wait_for("the VIP to answer", patiently(), || connections(&cluster, asker, vip, 1))?;
        rows.push(compare(
            format!("TCP throughput, {place}"),
            "Gbit/s",
            THROUGHPUT_AIM,
            &plan,
            |address| throughput(&cluster, asker, address, plan.seconds),
            (vip, direct),
        )?);
        rows.push(compare(
            format!("TCP connections, {place}"),
            "1/s",
            CONNECTIONS_AIM,
            &plan,
            |address| connections(&cluster, asker, address, plan.seconds),
            (vip, direct),
        )?);
    }
    let left = cluster.remove();
    ensure!(left.0.is_empty(), "not removed: {}", left.0.join(", "));
    Ok(rows)
}

/// Runs ours and the peer's in turn, so that a change of the machine's mood meets both.
fn compare(
    what: String,
    unit: &'static str,
    aim: f64,
    plan: &Plan,
    measure: impl Fn(Ipv4Addr) -> anyhow::Result<f64>,
    (vip, direct): (Ipv4Addr, Ipv4Addr),
) -> anyhow::Result<Row> {
    let (mut ours, mut peer) = (Vec::new(), Vec::new());
    for run in 1..=plan.runs {
        ours.push(measure(vip).with_context(|| format!("{what}, run {run}, VIP"))?);
        peer.push(measure(direct).with_context(|| format!("{what}, run {run}, direct"))?);
    }
    let aim = Aim::Ratio { peer: median(peer)?, least: aim };
    Ok(Row { what, unit, ours: median(ours)?, aim })
}

fn throughput(
    cluster: &Cluster,
    from: &RunningTask,
    to: Ipv4Addr,
    seconds: u64,
) -> anyhow::Result<f64> {
    let script = format!("iperf3 -J -c {to} -p {IPERF_PORT} -t {seconds}");
    let report: serde_json::Value = serde_json::from_str(&cluster.exec(from, &script)?.ok()?)?;
    let bits = report.pointer("/end/sum_received/bits_per_second").and_then(|bits| bits.as_f64());
    Ok(bits.with_context(|| format!("iperf3 measured nothing: {report}"))? / 1e9)
}

fn connections(
    cluster: &Cluster,
    from: &RunningTask,
    to: Ipv4Addr,
    seconds: u64,
) -> anyhow::Result<f64> {
    let script = format!("shoal-bench connect {to}:{ACCEPT_PORT} {seconds}");
    cluster.exec(from, &script)?.ok()?.parse().context("shoal-bench printed no number")
}

/// Busybox, iperf3 and this program, with the libraries of the latter two.
fn image() -> anyhow::Result<Vec<u8>> {
    let me = env::current_exe()?;
    let iperf = Path::new("/usr/bin/iperf3");
    let mut files = vec![("usr/bin/iperf3".to_owned(), fs::read(iperf)?)];
    files.push(("usr/bin/shoal-bench".to_owned(), fs::read(&me)?));
    let mut libraries = libraries(iperf)?;
    libraries.extend(self::libraries(&me)?);
    libraries.sort();
    libraries.dedup();
    for library in libraries {
        let inside = library.to_string_lossy().trim_start_matches('/').to_owned();
        files.push((inside, fs::read(&library)?));
    }
    let files: Vec<(&str, &[u8], u32)> =
        files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice(), 0o755)).collect();
    let command = format!(
        "export PATH=$PATH:/usr/bin; trap 'exit 0' TERM; iperf3 -s -p {IPERF_PORT} & \
         shoal-bench accept {ACCEPT_PORT} & wait"
    );
    busybox_archive(busybox()?, IMAGE, &["/bin/sh", "-c", &command], &files)
        .context("the benchmark's image cannot be made")
}

/// The shared libraries of a program, and its loader, as ldd finds them.
fn libraries(program: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let listing = Outcome::of(Command::new("ldd").arg(program))?.ok()?;
    let paths = listing.split_whitespace().filter(|word| word.starts_with('/'));
    Ok(paths.map(PathBuf::from).collect())
}
