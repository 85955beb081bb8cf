//! The managers' side: who signs, for whom, and who is let in.
use super::{BACKDATE, Certificate, Tls};
use crate::{event::Event, stats::Count, world::World};
use shoal_model::{
    Cluster, NodeTls, Role, State, Timestamp,
    bugs::{self, Bug},
};

/// What a node gets.
#[derive(Clone)]
pub(crate) struct Issued(pub(super) Option<Box<Tls>>);

impl Issued {
    pub(crate) fn digest(&self) -> u64 {
        self.0.as_ref().map_or(0, |tls| tls.certificate.end.0.unsigned_abs())
    }
}

/// The root that signs, and those that are to be trusted, the one in force first.
pub(crate) fn roots(cluster: &Cluster) -> (String, Vec<String>) {
    let present = cluster.root_certificate.clone();
    match &cluster.root_rotation {
        Some(next) => (next.digest.clone(), vec![present, next.digest.clone()]),
        None => (present.clone(), vec![present]),
    }
}

/// What a node says of its connections, as far as the roots of a cluster prove it.
pub(crate) fn proof(cluster: &Cluster, tls: &Tls) -> NodeTls {
    let (signing, root) = (roots(cluster).0, &tls.certificate.root);
    let known = *root == signing || *root == cluster.root_certificate;
    NodeTls { root: known.then(|| root.clone()), trust: tls.trust.clone() }
}

/// Whether a manager may let a node in that shows a good certificate.
pub(crate) fn is_member(state: &State, node: &str) -> bool {
    let removed = state.cluster.as_ref().is_some_and(|c| c.removed_nodes.contains_key(node));
    state.nodes.contains_key(node) && !removed || bugs::active(Bug::TrustRemovedNode)
}

impl World {
    /// Signs for a node, as manager `m` knows the cluster; a leader that is none any more does not.
    pub(crate) fn sign(&self, m: usize, node: &str, role: Role) -> Option<Tls> {
        if !self.still_leads(m) {
            return None;
        }
        let cluster = self.peers[m].state.cluster.as_ref()?;
        self.signed(cluster, node, role, self.wall(m))
    }

    pub(super) fn signed(
        &self,
        cluster: &Cluster,
        node: &str,
        role: Role,
        now: Timestamp,
    ) -> Option<Tls> {
        let lifetime = self.identities.as_ref()?.lifetime;
        let (root, trust) = roots(cluster);
        let crossed = cluster.root_rotation.is_some().then(|| cluster.root_certificate.clone());
        let certificate = Certificate {
            node: node.to_owned(),
            role,
            root,
            crossed,
            begin: Timestamp(now.0 - BACKDATE),
            end: Timestamp(now.0 + lifetime),
        };
        Some(Tls { certificate, trust })
    }

    /// Lets a host in that joins: it has its certificate before its node is there.
    pub(crate) fn let_join(&mut self, host: usize, m: usize) -> bool {
        let node = self.agents[host].node_id.clone();
        let Some(tls) = self.sign(m, &node, Role::Worker) else { return false };
        self.stats.add(Count::CertificatesIssued);
        self.put_in_force(host, tls);
        true
    }

    /// A worker tries now and then what managers may do alone; one that was a manager with the certificate it
    /// had then.
    pub(crate) fn pretend(&mut self) {
        let Some(identities) = self.identities.as_mut().filter(|_| self.calm.is_none()) else {
            return;
        };
        let workers = self.config.hosts - self.config.managers;
        let worker = self.config.managers + identities.dice.index(workers);
        let m = identities.dice.index(self.config.managers);
        let next = identities.dice.between(self.config.fault_gap / 8, self.config.fault_gap);
        self.after(next, Event::Pretend);
        let reaches = workers > 0 && self.hosts[worker].up && self.net.clear(worker, m);
        if !reaches || !self.hosts[m].up || !self.shake_hands(worker, m) {
            return;
        }
        let keeper = self.identities.as_ref().and_then(|i| i.keepers.get(worker));
        let Some(shown) = keeper.and_then(|k| k.former.clone().or(k.tls.clone())) else { return };
        if self.lets_in(m, &shown) && self.obeys(m, worker, &shown) {
            self.check_obeyed(&shown, m);
        }
    }

    /// Whether a manager does what a host asks for as a manager.
    fn obeys(&self, m: usize, host: usize, tls: &Tls) -> bool {
        let node = &tls.certificate.node;
        let state = &self.peers[m].state;
        let removed = state.cluster.as_ref().is_some_and(|c| c.removed_nodes.contains_key(node));
        let of_manager = tls.certificate.role == Role::Manager || bugs::active(Bug::AcceptWorker);
        let leader = self.peers[m].leader;
        let standing = match state.nodes.get(node).map(|n| n.role) {
            Some(Role::Manager) => true,
            Some(Role::Worker) if bugs::active(Bug::ObeyDemoted) => true,
            // Without a leader, or with this one as the leader, its promotion may not be known here.
            Some(Role::Worker) => leader.is_none_or(|leader| leader == host),
            None => !self.serves(m),
        };
        of_manager && standing && !removed
    }

    /// A node's request for its next certificate arrives at a manager, which asks the leader.
    pub(crate) fn hear_issue(&mut self, host: usize, boot: u32, m: usize) {
        let refused = Issued(None);
        if !self.hosts[m].up || !self.shake_hands(host, m) {
            return self.answer_issue(m, host, boot, refused);
        }
        let leader = if self.serves(m) { Some(m) } else { self.peers[m].leader };
        let asked = leader.filter(|l| {
            *l == m || self.net.clear(m, *l) && self.serves(*l) && self.shake_hands(m, *l)
        });
        let node = self.agents[host].node_id.clone();
        let tls = asked.and_then(|leader| {
            let state = &self.peers[leader].state;
            let gone = bugs::active(Bug::TrustRemovedNode).then_some(Role::Worker);
            let role = state.nodes.get(&node).map(|n| n.role).or(gone)?;
            self.sign(leader, &node, role)
        });
        if tls.is_some() {
            self.stats.add(Count::CertificatesIssued);
            self.checks.let_in(&node, self.now);
        }
        self.answer_issue(m, host, boot, Issued(tls.map(Box::new)));
    }

    fn answer_issue(&mut self, m: usize, host: usize, boot: u32, issued: Issued) {
        // What does not arrive is given up by the node's own patience.
        if self.hosts[m].power && self.net.clear(m, host) {
            let delay = self.net.delay(m, host);
            self.after(delay, Event::Issued { host, boot, issued });
        }
    }
}
