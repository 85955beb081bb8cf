//! Rotation of the root: what a request asks for, and which node gets its next certificate when.
//!
//! ```text
//!                  Generate, Begin                   every node's certificate
//!   one root ───────────────────────▶ rotating ─────────────────────────────▶ one root, the next
//!      ▲                               │  │  ▲       is signed by the next
//!      └───────────── Adopt ───────────┘  └──┘
//!                                      Generate, Begin: towards another root
//!                                      Rekey: the same root, by another key or an external CA
//! ```
//!
//! What there is to know is in the cluster's object ([`shoal_model::RootRotation`]) and in the nodes'
//! ([`shoal_model::NodeTls`]), so a new leader goes on where the last one was. Only which nodes were told
//! to renew is remembered by the leader alone: a node that is told twice does nothing the second time.
use shoal_model::{
    Cluster, JoinTokens, NodeState, State, Timestamp,
    bugs::{self, Bug},
};
use std::{collections::BTreeMap, time::Duration};

/// Nodes that renew at a time (swarmkit's).
pub const MOST_RENEWING: usize = 30;

/// A node that has not renewed so long after it was told is told again, and others meanwhile.
pub const RENEWAL_PATIENCE: Duration = Duration::from_secs(3);

/// A certificate is renewed at a point between these parts of its life (swarmkit's), in percent.
const RENEWED_FROM: i64 = 50;
const RENEWED_UNTIL: i64 = 80;

/// Certificates begin so much before they are signed, for clocks that are behind (`shoal_identity`).
const BACKDATE: Duration = Duration::from_secs(3600);

/// When a node renews a certificate with these two ends. Its life counts from when it was signed: with
/// the shortest there is, of one hour, half of the whole is over at that moment already, and the node
/// would renew without a pause.
///
/// The id is random and the same after a restart, so the renewal is not put off by restarting.
pub fn renewal_at(node_id: &str, [begin, end]: [Timestamp; 2]) -> Timestamp {
    let dice =
        node_id.bytes().fold(0_u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
    let choices = RENEWED_UNTIL.abs_diff(RENEWED_FROM) + 1;
    let percent = RENEWED_FROM + i64::try_from(dice % choices).unwrap_or(0);
    let whole = end.since(begin);
    let signed = begin.after(BACKDATE.min(whole / 2));
    let left = i64::try_from(end.since(signed).as_nanos()).unwrap_or(i64::MAX);
    Timestamp(signed.0.saturating_add(left / 100 * percent))
}

/// What a user gives for the root.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RootWish<'a> {
    /// Certificate in PEM form, written as the cluster writes them.
    pub certificate: Option<&'a str>,
    /// Whether its key is given, too.
    pub key: bool,
    /// `ForceRotate`: another number than the present one asks for a new root.
    pub force: u64,
}

/// What becomes of the root.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RootChange {
    /// Nothing.
    Keep,
    /// The cluster makes a new one and rotates towards it.
    Generate,
    /// It rotates towards the one given.
    Begin,
    /// The one given is the present one: a rotation is given up, and the key is what was given.
    Adopt,
    /// The one given is the one it rotates towards: only the key is replaced.
    Rekey,
}

/// Whose external CA has to be there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Needed {
    /// The present root's: the cluster does not have its key.
    Current,
    /// That of the root given, whose key was not given.
    Desired,
    /// That of the root under way.
    Next,
}

impl Needed {
    /// Docker's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Needed::Current => "current",
            Needed::Desired => "desired",
            Needed::Next => "next",
        }
    }
}

/// Who certifies the next root.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CrossSigner {
    /// The present root's key, which the cluster has.
    Key,
    /// The present root's external CA.
    External,
}

/// What a request comes to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RootPlan {
    /// What becomes of the root.
    pub change: RootChange,
    /// External CAs without which it is refused.
    pub needed: Vec<Needed>,
    /// For [`RootChange::Generate`] and [`RootChange::Begin`].
    pub signer: Option<CrossSigner>,
}

/// Why a root cannot be changed as asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RootRefusal {
    /// Docker's text.
    #[error("if a signing CA key is provided, the signing CA cert must also be provided")]
    KeyAlone,
    /// Docker's text: neither key is at hand, so nobody can certify the next root.
    #[error(
        "rotating from one external CA to a different external CA is not supported; rotate to a root \
         whose key you give first"
    )]
    BothExternal,
}

/// What a request comes to in the present state, by swarmkit's rules.
pub fn plan_root(present: &Cluster, wish: RootWish<'_>) -> Result<RootPlan, RootRefusal> {
    let has_key = !present.root_key.is_empty();
    let rotation = present.root_rotation.as_ref();
    let forced = present.spec.ca_config.as_ref().and_then(|c| c.force_rotate).unwrap_or(0);
    let change = match wish.certificate {
        None if wish.key => return Err(RootRefusal::KeyAlone),
        None if wish.force != forced => RootChange::Generate,
        None => RootChange::Keep,
        Some(given) if given == present.root_certificate => RootChange::Adopt,
        Some(given) if rotation.is_some_and(|r| r.certificate == given) => RootChange::Rekey,
        Some(_) => RootChange::Begin,
    };
    let mut needed = Vec::new();
    let gets_key = change == RootChange::Adopt && wish.key;
    if !has_key && !gets_key {
        needed.push(Needed::Current);
    }
    if wish.certificate.is_some() && !wish.key {
        needed.push(Needed::Desired);
    }
    if change == RootChange::Keep && rotation.is_some_and(|r| r.key.is_empty()) {
        needed.push(Needed::Next);
    }
    let new_key = change == RootChange::Generate || wish.key;
    let signer = match change {
        RootChange::Generate | RootChange::Begin => Some(match (has_key, new_key) {
            (true, _) => CrossSigner::Key,
            (false, true) => CrossSigner::External,
            (false, false) => return Err(RootRefusal::BothExternal),
        }),
        _ => None,
    };
    Ok(RootPlan { change, needed, signer })
}

/// What is to be done now.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RenewalStep {
    /// Nodes that are to be told to renew.
    pub tell: Vec<String>,
    /// Every node's certificate is the next root's: it takes the present one's place.
    pub finish: bool,
    /// When to look again, if nothing changes before.
    pub due: Option<Timestamp>,
}

/// Which nodes were told to renew, and when. One for each term of a leader.
#[derive(Debug, Default)]
pub struct Renewals {
    /// Digest of the root they were told about.
    root: String,
    told: BTreeMap<String, Timestamp>,
}

impl Renewals {
    /// What is to be done in this state. Nodes that are not heard of are not told, but waited for.
    pub fn step(&mut self, state: &State, now: Timestamp) -> RenewalStep {
        let rotation = state.cluster.as_ref().and_then(|c| c.root_rotation.as_ref());
        let Some(rotation) = rotation else {
            self.told.clear();
            return RenewalStep::default();
        };
        if self.root != rotation.digest {
            self.root.clone_from(&rotation.digest);
            self.told.clear();
        }
        if all_renewed(state) {
            return RenewalStep { finish: true, ..RenewalStep::default() };
        }
        self.told.retain(|id, _| {
            let node = state.nodes.get(id);
            node.is_some_and(|n| !has_renewed(n, &self.root) && n.status.state == NodeState::Ready)
        });
        let is_waited_for = |at: &Timestamp| now.since(*at) < RENEWAL_PATIENCE;
        let renewing = self.told.values().filter(|at| is_waited_for(at)).count();
        let behind = state.nodes.values().filter(|n| {
            n.status.state == NodeState::Ready
                && !has_renewed(n, &self.root)
                && !self.told.get(&n.id).is_some_and(is_waited_for)
        });
        // Those that were never told come first, then the ones that have been silent longest.
        let mut behind: Vec<(Option<Timestamp>, &String)> =
            behind.map(|n| (self.told.get(&n.id).copied(), &n.id)).collect();
        behind.sort();
        let tell = behind.into_iter().take(MOST_RENEWING.saturating_sub(renewing));
        let tell: Vec<String> = tell.map(|(_, id)| id.clone()).collect();
        self.told.extend(tell.iter().map(|id| (id.clone(), now)));
        let first = self.told.values().filter(|at| is_waited_for(at)).min();
        RenewalStep { tell, finish: false, due: first.map(|at| at.after(RENEWAL_PATIENCE)) }
    }
}

/// Whether a rotation is under way that has nothing left to wait for.
pub fn all_renewed(state: &State) -> bool {
    let rotation = state.cluster.as_ref().and_then(|c| c.root_rotation.as_ref());
    let is_done = |node: &shoal_model::Node, root: &str| {
        has_renewed(node, root)
            || node.status.state == NodeState::Down && bugs::active(Bug::EndRotationEarly)
    };
    rotation.is_some_and(|r| state.nodes.values().all(|node| is_done(node, &r.digest)))
}

fn has_renewed(node: &shoal_model::Node, root: &str) -> bool {
    node.tls.as_ref().and_then(|tls| tls.root.as_deref()) == Some(root)
}

/// The cluster once its rotation is over: the next root is the root, the old one is trusted no more. The
/// tokens are new ones, since they carry the root's digest.
pub fn finished(cluster: &Cluster, join_tokens: JoinTokens) -> Option<Cluster> {
    let mut cluster = cluster.clone();
    let next = cluster.root_rotation.take()?;
    (cluster.root_certificate, cluster.root_key) = (next.certificate, next.key);
    cluster.join_tokens = join_tokens;
    Some(cluster)
}

#[cfg(test)]
mod tests;
