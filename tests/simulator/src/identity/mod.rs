//! Certificates of nodes: who has signed them for whom and for how long, who is believed, when the next
//! one is asked for, and how the root is rotated. Keys and signatures are names here: a root is told by
//! its digest, and nobody forges anything.
//!
//! Of the product are [`shoal_cores::renewal_at`], [`shoal_cores::plan_root`], [`shoal_cores::Renewals`]
//! and [`shoal_cores::finished`]; mirrored are `control/identity` (who believes whom), `control/manager`
//! (`certificates.rs`, `standing.rs`, `rotation.rs`) and `control/shoal/src/role.rs` (the node's side).
mod authority;
mod renewal;
mod rotation;

pub(crate) use authority::{Issued, is_member, proof};
pub(crate) use rotation::{Rotation, rotated};

use crate::{
    config::Config,
    dice::Dice,
    event::Event,
    time::{EPOCH, Ns},
    world::World,
};
use shoal_cores::renewal_at;
use shoal_model::{Role, Timestamp};

/// Certificates begin so much before they are signed (`control/identity`).
const BACKDATE: i64 = 3_600_000_000_000;

/// The first root.
pub(crate) const FIRST_ROOT: &str = "root-0";

/// A node's certificate.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Certificate {
    pub(crate) node: String,
    pub(crate) role: Role,
    /// The root that has signed it.
    pub(crate) root: String,
    /// The root that has certified that one, if the certificate was made while it was rotated.
    pub(crate) crossed: Option<String>,
    pub(crate) begin: Timestamp,
    pub(crate) end: Timestamp,
}

impl Certificate {
    /// Whether it chains to one of these roots.
    pub(crate) fn chains_to(&self, trust: &[String]) -> bool {
        trust.iter().any(|root| *root == self.root || Some(root) == self.crossed.as_ref())
    }

    pub(crate) fn is_in_time(&self, now: Timestamp) -> bool {
        self.begin <= now && now <= self.end
    }
}

/// What a host's connections rest on. It is on disk, and outlives the daemon.
#[derive(Clone, Debug)]
pub(crate) struct Tls {
    pub(crate) certificate: Certificate,
    pub(crate) trust: Vec<String>,
}

/// A host's part, as its daemon has it in memory.
pub(crate) struct Keeper {
    /// `None` until it has joined.
    pub(crate) tls: Option<Tls>,
    /// A copy of the last one it had as a manager, which somebody has kept.
    former: Option<Tls>,
    /// When the next certificate is asked for, on the host's clock.
    renewal: Timestamp,
    /// The roots it was told to trust.
    wanted: Option<Vec<String>>,
    /// The role it was told to have.
    role: Option<Role>,
    /// Number of the armed timer; an event of another one is stale.
    timer: u64,
    /// Whether a request is under way, the managers asked so far, and the pause after the next failure.
    asking: bool,
    attempts: usize,
    pause: Ns,
}

/// Certificates of a simulation that has them.
pub(crate) struct Identities {
    pub(crate) keepers: Vec<Keeper>,
    pub(crate) dice: Dice,
    /// How long a node's certificate is valid.
    lifetime: i64,
}

impl Identities {
    /// All hosts have joined a moment ago; the first one signed.
    pub(crate) fn of(config: &Config, skews: &[i64]) -> Option<Identities> {
        let certs = config.certificates.as_ref()?;
        let now = Timestamp(EPOCH + skews.first().copied().unwrap_or(0));
        let keeper = |host: usize| {
            let role = if host < config.managers { Role::Manager } else { Role::Worker };
            let certificate = Certificate {
                node: format!("node-{host}"),
                role,
                root: FIRST_ROOT.to_owned(),
                crossed: None,
                begin: Timestamp(now.0 - BACKDATE),
                end: Timestamp(now.0 + certs.lifetime),
            };
            Keeper::of(Some(Tls { certificate, trust: vec![FIRST_ROOT.to_owned()] }))
        };
        Some(Identities {
            keepers: (0..config.hosts).map(keeper).collect(),
            dice: certs.dice.clone(),
            lifetime: certs.lifetime,
        })
    }
}

impl Keeper {
    fn of(tls: Option<Tls>) -> Keeper {
        let renewal = tls.as_ref().map_or(Timestamp(i64::MAX), due);
        Keeper {
            tls,
            former: None,
            renewal,
            wanted: None,
            role: None,
            timer: 0,
            asking: false,
            attempts: 0,
            pause: renewal::FIRST_PAUSE,
        }
    }
}

/// When a certificate is to be renewed.
fn due(tls: &Tls) -> Timestamp {
    let certificate = &tls.certificate;
    renewal_at(&certificate.node, [certificate.begin, certificate.end])
}

impl World {
    pub(crate) fn tls(&self, host: usize) -> Option<&Tls> {
        self.identities.as_ref()?.keepers.get(host)?.tls.as_ref()
    }

    fn keeper(&mut self, host: usize) -> Option<&mut Keeper> {
        self.identities.as_mut()?.keepers.get_mut(host)
    }

    /// Everybody has a certificate.
    pub(crate) fn begin_identities(&mut self) {
        if self.identities.is_none() {
            return;
        }
        for host in 0..self.config.hosts {
            self.arm(host);
            self.certificate_ends(host);
        }
        self.after(self.config.fault_gap, Event::Pretend);
    }

    /// Whoever runs the cluster helps those whose certificate has ended while they were away: a worker
    /// leaves and joins anew. So would a manager, but managers here are always the same; it is given
    /// another certificate.
    pub(crate) fn help_the_expired(&mut self) {
        let ended = |world: &World, host: usize| {
            let now = world.wall(host);
            world.tls(host).is_some_and(|tls| !tls.certificate.is_in_time(now))
        };
        let hosts: Vec<usize> = (0..self.config.hosts).filter(|h| ended(self, *h)).collect();
        for host in hosts {
            if host >= self.config.managers {
                self.rejoin(host);
                continue;
            }
            let Some(cluster) = self.checks.state().cluster.clone() else { continue };
            let node = self.agents[host].node_id.clone();
            let now = self.wall(host);
            if let Some(tls) = self.signed(&cluster, &node, Role::Manager, now) {
                self.put_in_force(host, tls);
            }
        }
    }

    /// Whether host `a` and the manager on host `m` let each other in, each by its own clock and roots.
    pub(crate) fn shake_hands(&self, a: usize, m: usize) -> bool {
        if self.identities.is_none() {
            return true;
        }
        let (Some(client), Some(server)) = (self.tls(a), self.tls(m)) else { return false };
        server.certificate.role == Role::Manager
            && self.believes(a, client, server)
            && self.lets_in(m, client)
    }

    fn believes(&self, host: usize, own: &Tls, other: &Tls) -> bool {
        other.certificate.chains_to(&own.trust) && other.certificate.is_in_time(self.wall(host))
    }

    /// Whether the manager on host `m` believes a client.
    fn lets_in(&self, m: usize, client: &Tls) -> bool {
        self.tls(m).is_some_and(|own| self.believes(m, own, client))
    }
}
