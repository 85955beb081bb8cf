//! What a seed decides before anything happens: the cluster, its surroundings, how much goes wrong.
use crate::{
    EARLIER, FORMER, PLAIN,
    dice::Dice,
    number_of,
    time::{MINUTE, MS, Ns, SEC},
};
use shoal_model::GenericResource;

/// Hosts of the largest cluster.
const MOST_HOSTS: usize = 7;

/// A simulated cluster and its fate.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// Managers: 1, 3 or 5; the first hosts.
    pub(crate) managers: usize,
    /// Hosts, the managers included; each runs an agent.
    pub(crate) hosts: usize,
    /// Clients that change things at the same time.
    pub(crate) clients: usize,
    /// Most services at a time.
    pub(crate) services: usize,
    /// Most replicas of a service.
    pub(crate) replicas: u64,
    /// What else than plain replicated services is asked for; `None` in a [`PLAIN`] seed.
    pub(crate) broad: Option<Broad>,
    /// Whether services are spread anew, and which; `None` in most seeds.
    pub(crate) rebalance: Option<Rebalance>,
    /// Secrets and configs; `None` in most seeds.
    pub(crate) dependencies: Option<Dependencies>,
    /// Whether what services publish changes; in some seeds.
    pub(crate) republishes: bool,
    /// Whether hosts that hold no log are promoted and demoted; in some seeds.
    pub(crate) roles: bool,
    /// Objects a new leader reads at a time before there are tables to tell, and tasks its orchestrator looks at at a time
    /// at the beginning; all at once in most seeds.
    pub(crate) reading: usize,
    /// Certificates of nodes; `None` in most seeds: then everybody believes everybody.
    pub(crate) certificates: Option<Certificates>,
    /// Prefix length of networks: small ones run out of addresses.
    pub(crate) subnet_size: u8,
    /// `TaskHistoryRetentionLimit`.
    pub(crate) history: i64,
    /// Processors (10⁻⁹) and memory (bytes) of each host.
    pub(crate) sizes: Vec<(i64, i64)>,
    /// Zone label of each host.
    pub(crate) zones: Vec<&'static str>,
    /// How long the faults last.
    pub(crate) storm: Ns,
    /// Mean time between two faults, and between two operations of a client.
    pub(crate) fault_gap: Ns,
    pub(crate) client_gap: Ns,
    /// Weight of each kind of fault, in the order of [`crate::faults::Kind::ALL`]. Some kinds are
    /// absent from a seed, so that others are seen without their noise.
    pub(crate) fault_weights: Vec<u64>,
    pub(crate) net: NetConfig,
    pub(crate) disk: DiskConfig,
    /// Largest difference of a clock from the true time.
    pub(crate) skew: Ns,
    /// Entries between snapshots, and entries kept behind one.
    pub(crate) snapshot_every: u64,
    pub(crate) snapshot_keep: u64,
    pub(crate) runtime: RuntimeConfig,
    /// Whether every service gets a last update when the faults are over; else what a failed update
    /// left paused stays so.
    pub(crate) last_update: bool,
}

/// What users ask for beside replicated services.
#[derive(Clone, Debug)]
pub(crate) struct Broad {
    /// Weight of each mode of a service: replicated, global, replicated job, global job. Some are absent
    /// from a seed.
    pub(crate) modes: [u64; 4],
    /// Generic resources of each host: none, so many, or some with names.
    pub(crate) generic: Vec<Vec<GenericResource>>,
}

impl Broad {
    fn of(dice: &mut Dice) -> Broad {
        let mut weight = || if dice.chance(400) { 0 } else { dice.between(1, 4) };
        let modes = [3, weight(), weight(), weight()];
        let generic = (0..MOST_HOSTS).map(|_| generic(dice)).collect();
        Broad { modes, generic }
    }
}

/// Services are brought back to an even spread.
#[derive(Clone, Debug)]
pub(crate) struct Rebalance {
    /// Whether the cluster's label asks for it from the beginning, for all services.
    pub(crate) everywhere: bool,
}

/// Of a thousand seeds so many have what came after [`EARLIER`]'s, each thing by itself: so others go on
/// finding what they found.
const LATER: u64 = 400;

/// Dice of their own for each thing that came later, or seeds without it would not be what they were.
fn later(seed: u64, salt: u64) -> Option<Dice> {
    let mut dice = Dice::new(seed & !FORMER ^ salt);
    (seed & (PLAIN | EARLIER) == 0 && dice.chance(LATER)).then_some(dice)
}

impl Rebalance {
    fn of(seed: u64) -> Option<Rebalance> {
        let mut dice = later(seed, 0x5b7e_ad00)?;
        Some(Rebalance { everywhere: dice.chance(500) })
    }
}

/// Secrets and configs are made, used and removed.
#[derive(Clone, Debug)]
pub(crate) struct Dependencies {
    /// Of a thousand requests so many are about them, or about who uses them.
    pub(crate) share: u64,
    /// Names of each kind: few, so that clients want the same.
    pub(crate) names: u64,
}

impl Dependencies {
    fn of(seed: u64) -> Option<Dependencies> {
        let mut dice = later(seed, 0x5ec2_e700).filter(|_| seed & FORMER == 0)?;
        Some(Dependencies { share: dice.between(150, 500), names: dice.between(2, 5) })
    }
}

/// Nodes have certificates that end, and the root is rotated.
#[derive(Clone, Debug)]
pub(crate) struct Certificates {
    /// How long a node's is valid (`NodeCertExpiry`).
    pub(crate) lifetime: i64,
    pub(crate) dice: Dice,
}

impl Certificates {
    fn of(seed: u64) -> Option<Certificates> {
        let mut dice = later(seed, 0xce47_1f00)?;
        // The shortest there may be; Docker's.
        let hours = [1, 1, 2, 6, 90 * 24][dice.index(5)];
        Some(Certificates { lifetime: hours * 3_600_000_000_000, dice: dice.fork() })
    }
}

fn reading(seed: u64) -> usize {
    later(seed, 0x7ab1_e500).map_or(usize::MAX, |mut dice| dice.index(8) + 1)
}

/// The one kind of generic resource there is.
pub(crate) const KIND: &str = "gpu";

fn generic(dice: &mut Dice) -> Vec<GenericResource> {
    let kind = || KIND.to_owned();
    let named = |n| GenericResource::Named { kind: kind(), value: format!("gpu-{n}") };
    match dice.below(3) {
        0 => Vec::new(),
        1 => vec![GenericResource::Discrete { kind: kind(), value: dice.between(1, 3) as i64 }],
        _ => (0..dice.between(1, 3)).map(named).collect(),
    }
}

#[derive(Clone, Debug)]
pub(crate) struct NetConfig {
    /// One way, from and to.
    pub(crate) delay: (Ns, Ns),
    /// Of a thousand messages: held up for long, lost, doubled.
    pub(crate) held_up: u64,
    pub(crate) lost: u64,
    pub(crate) doubled: u64,
}

#[derive(Clone, Debug)]
pub(crate) struct DiskConfig {
    /// A flush takes from and to.
    pub(crate) flush: (Ns, Ns),
    /// Of a thousand flushes so many take up to a second.
    pub(crate) slow: u64,
}

#[derive(Clone, Debug)]
pub(crate) struct RuntimeConfig {
    /// Of a thousand tasks so many cannot be prepared, or started.
    pub(crate) unprepared: u64,
    pub(crate) unstarted: u64,
    /// Of a thousand starts so many take up to half a minute.
    pub(crate) slow: u64,
    /// Of a thousand stops so many take the whole grace period.
    pub(crate) stubborn: u64,
    /// Of a thousand tables so many need a second attempt.
    pub(crate) plane_fails: u64,
}

impl Config {
    pub(crate) fn of(seed: u64) -> Config {
        let plain = seed & PLAIN != 0;
        // Dice of their own, or plain seeds would not be what they were.
        let broad =
            (!plain).then(|| Broad::of(&mut Dice::new(seed & !(EARLIER | FORMER) ^ 0xb40a_d000)));
        let mut dice = Dice::new(number_of(seed) ^ 0x5ee0_c0f1);
        let managers = [1, 3, 5][dice.weighted(&[2, 6, 2])];
        let hosts = (managers + dice.index(4)).clamp(2, MOST_HOSTS);
        // From a storm that never lets go to days with a fault now and then.
        let tempo = dice.spread(SEC, 60 * MINUTE);
        let faults = dice.between(15, 45);
        let small = || -> (i64, i64) { (1_000_000_000, 512 << 20) };
        let large = || -> (i64, i64) { (4_000_000_000, 4 << 30) };
        let one_size = dice.chance(500);
        let sizes = (0..hosts)
            .map(|_| if one_size || dice.chance(600) { large() } else { small() })
            .collect();
        let zones = (0..hosts).map(|h| ["east", "west"][h % 2]).collect();
        let kinds = crate::faults::Kind::ALL.len();
        let fault_weights =
            (0..kinds).map(|_| if dice.chance(300) { 0 } else { dice.between(1, 5) }).collect();
        let wide = dice.chance(200);
        Config {
            managers,
            hosts,
            clients: dice.index(3) + 1,
            services: dice.index(4) + 2,
            replicas: dice.between(2, 6),
            broad,
            rebalance: Rebalance::of(seed),
            dependencies: Dependencies::of(seed),
            republishes: seed & FORMER == 0 && later(seed, 0x9047_5000).is_some(),
            roles: seed & FORMER == 0 && later(seed, 0x401e_5000).is_some(),
            reading: reading(seed),
            certificates: Certificates::of(seed),
            subnet_size: if dice.chance(300) { 28 } else { 24 },
            history: [5, 5, 2, 1, 0][dice.index(5)],
            sizes,
            zones,
            storm: tempo * faults,
            fault_gap: tempo,
            client_gap: tempo,
            fault_weights,
            net: NetConfig {
                delay: if wide { (5 * MS, 60 * MS) } else { (MS / 10, 2 * MS) },
                held_up: dice.between(0, 10),
                lost: [0, 5, 50][dice.index(3)],
                doubled: [0, 5, 50][dice.index(3)],
            },
            disk: DiskConfig {
                flush: if dice.chance(700) { (MS / 5, 5 * MS) } else { (2 * MS, 60 * MS) },
                slow: dice.between(0, 10),
            },
            skew: [0, 5 * MS, SEC, 90 * SEC][dice.weighted(&[3, 3, 2, 1])],
            snapshot_every: dice.between(15, 150),
            snapshot_keep: dice.between(0, 20),
            runtime: RuntimeConfig {
                unprepared: [0, 10, 100][dice.index(3)],
                unstarted: [0, 10, 100][dice.index(3)],
                slow: dice.between(0, 100),
                stubborn: dice.between(0, 200),
                plane_fails: dice.between(0, 50),
            },
            last_update: dice.chance(700),
        }
    }
}
