//! Plays many nodes to real managers, to measure what a large cluster costs them.
//!
//! Each node joins with the token, has a key, a certificate and a connection of its own, and keeps
//! the agent's own session: hello, beats, reports, what it has applied, redirections, pauses. What
//! is behind the session is not real: no containers, no data plane, and of the tables only a sample
//! of the nodes puts all rows together as an agent does; the others keep digests of them (a machine of
//! a real cluster has one agent, this one all of them).
//!
//! It prints a line of JSON whenever something changed, and ends with its standard input.

mod body;
mod intake;

use anyhow::{Context as _, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use body::{Counters, Simulated};
use clap::Parser;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use shoal_agent::{Joined, Session, SessionConfig, SessionState, join};
use shoal_model::{Availability, NodeDescription, Plugin, PluginKind};
use shoal_tests::Progress;
use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{Semaphore, watch},
    time::{interval, sleep},
};

/// Files a node needs at most: its connection, and the one it joins with.
const FILES: u64 = 2;

/// Files of the program itself.
const OTHER_FILES: u64 = 64;

/// Between two lines.
const PACE: Duration = Duration::from_millis(100);

/// Before a node that was refused asks again.
const PAUSE: Duration = Duration::from_millis(500);

/// What a node of the cluster has: enough for any number of tasks.
const CORES: i64 = 64;
const MEMORY: i64 = 256 << 30;

/// Play nodes.
#[derive(Parser)]
struct Options {
    /// A manager's address; several times for more
    #[arg(long = "manager", required = true)]
    managers: Vec<SocketAddr>,
    /// The workers' join token
    #[arg(long)]
    token: String,
    /// How many nodes
    #[arg(long)]
    count: usize,
    /// How many join at a time
    #[arg(long, default_value_t = 32)]
    at_once: usize,
    /// Every so many nodes one puts its whole table together
    #[arg(long, default_value_t = 100)]
    whole_every: usize,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let _ = rustls::crypto::ring::default_provider().install_default();
    allow_files(options.count as u64)?;
    let counters = Arc::new(Counters::default());
    let states = Arc::new(Mutex::new(Vec::new()));
    let nodes = Arc::new(Nodes {
        places: Semaphore::new(options.at_once),
        counters: Arc::clone(&counters),
        states: Arc::clone(&states),
        joined: AtomicU64::new(0),
        refused: AtomicU64::new(0),
        reason: Mutex::default(),
        options,
    });
    for index in 0..nodes.options.count {
        tokio::spawn(Arc::clone(&nodes).live(index));
    }
    let ended = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()));
    tokio::select! {
        told = tell(&nodes) => told,
        ended = ended => Ok(ended?.map(drop)?),
    }
}

/// What all nodes share.
struct Nodes {
    options: Options,
    places: Semaphore,
    counters: Arc<Counters>,
    states: Arc<Mutex<Vec<watch::Receiver<SessionState>>>>,
    joined: AtomicU64,
    refused: AtomicU64,
    /// Why a node was refused last.
    reason: Mutex<String>,
}

impl Nodes {
    /// One node, for ever.
    async fn live(self: Arc<Self>, index: usize) {
        let joined = self.join().await;
        self.joined.fetch_add(1, Ordering::Relaxed);
        let mut key = [0; 32];
        key[..8].copy_from_slice(&(index as u64 + 1).to_be_bytes());
        // Nothing is ever sealed with it; it only has to be another than any other node's.
        rand::fill(&mut key[8..]);
        let (_certificates, certificate) = watch::channel(Arc::new(joined.certificate));
        let managers = &self.options.managers;
        let config =
            SessionConfig::new(certificate, managers, description(index), STANDARD.encode(key));
        let whole = index.is_multiple_of(self.options.whole_every.max(1));
        let (state, seen) = watch::channel(SessionState::default());
        self.states.lock().unwrap_or_else(PoisonError::into_inner).push(seen);
        let body = Simulated::new(Arc::clone(&self.counters), whole);
        Session { config, body, state }.run().await;
    }

    async fn join(&self) -> Joined {
        loop {
            let place = self.places.acquire().await;
            let joined =
                join(&self.options.managers, &self.options.token, Availability::Active).await;
            drop(place);
            match joined {
                Ok(joined) => return joined,
                Err(error) => {
                    self.refused.fetch_add(1, Ordering::Relaxed);
                    *self.reason.lock().unwrap_or_else(PoisonError::into_inner) =
                        format!("{error:#}");
                }
            }
            sleep(PAUSE).await;
        }
    }

    fn progress(&self) -> Progress {
        let states = self.states.lock().unwrap_or_else(PoisonError::into_inner);
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let lost = states.iter().find_map(|state| {
            let state = state.borrow();
            (!state.connected && !state.error.is_empty()).then(|| state.error.clone())
        });
        let refused = self.reason.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (most_peers, strangers) = self.counters.tables();
        Progress {
            joined: read(&self.joined),
            refused: read(&self.refused),
            sessions: states.iter().filter(|state| state.borrow().connected).count() as u64,
            begun: read(&self.counters.begun),
            running: read(&self.counters.running),
            stopped: read(&self.counters.stopped),
            messages: read(&self.counters.messages),
            rows: read(&self.counters.rows),
            bytes: read(&self.counters.bytes),
            most_peers,
            strangers,
            complaint: lost.unwrap_or(refused),
        }
    }
}

/// Prints how far it is, whenever that changed.
async fn tell(nodes: &Nodes) -> anyhow::Result<()> {
    let mut last = None;
    let mut ticks = interval(PACE);
    loop {
        ticks.tick().await;
        let progress = nodes.progress();
        if last.as_ref() == Some(&progress) {
            continue;
        }
        let line = serde_json::to_string(&progress)?;
        let mut out = std::io::stdout().lock();
        writeln!(out, "{line}").and_then(|()| out.flush()).context("nobody listens")?;
        last = Some(progress);
    }
}

fn description(index: usize) -> NodeDescription {
    let plugins = [(PluginKind::Log, "json-file"), (PluginKind::Network, "overlay")];
    NodeDescription {
        hostname: format!("sim{index}"),
        os: "linux".to_owned(),
        architecture: std::env::consts::ARCH.to_owned(),
        nano_cpus: CORES * 1_000_000_000,
        memory_bytes: MEMORY,
        engine_version: env!("CARGO_PKG_VERSION").to_owned(),
        engine_labels: BTreeMap::new(),
        plugins: plugins.map(|(kind, name)| Plugin { kind, name: name.to_owned() }).to_vec(),
        generic_resources: Vec::new(),
    }
}

/// Raises the limit of open files to so many, or to the highest this process may have, which must
/// do for a connection of each node and some that are being made.
fn allow_files(nodes: u64) -> anyhow::Result<()> {
    let wanted = nodes * FILES + OTHER_FILES;
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= wanted) {
        return Ok(());
    }
    let more = limit.maximum.map(|most| most.max(wanted));
    let beyond = Rlimit { current: Some(wanted), maximum: more };
    if setrlimit(Resource::Nofile, beyond).is_err() {
        let most = Rlimit { current: limit.maximum, maximum: limit.maximum };
        setrlimit(Resource::Nofile, most).context("cannot raise the limit of open files")?;
    }
    let now = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let least = nodes + nodes / 4 + OTHER_FILES;
    ensure!(now >= least, "{nodes} nodes need {least} open files; the limit is {now}");
    Ok(())
}
