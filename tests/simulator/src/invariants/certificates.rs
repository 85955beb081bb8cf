//! Certificates: nobody who was removed is let in, no worker acts as a manager, nor one that was demoted and
//! whose certificate still says otherwise; no two members refuse each other, a node that reaches its managers never lets its certificate end, and the root changes only when
//! every node has a certificate of the next one. In the end nothing of a rotation is left.
use super::{Checks, Invariant, Step, Verdict, Violation};
use crate::{
    event::Event,
    identity::Tls,
    time::{MINUTE, Ns, SEC},
    world::World,
};
use shoal_model::{Change, Object, ObjectKind, Role};
use std::collections::BTreeMap;

/// How long a manager may not know of a removal: a leader that is cut off leads for 1.5 s, and a request
/// takes its time.
const HEARSAY: Ns = 10 * SEC;
/// How long a node must have had its session for its certificate not to end meanwhile.
const TIME_ENOUGH: Ns = 8 * MINUTE;

/// When nodes were removed.
#[derive(Default)]
pub(super) struct Removed(BTreeMap<String, Ns>);

/// Since when nodes are workers.
#[derive(Default)]
pub(super) struct Workers(BTreeMap<String, Ns>);

impl Workers {
    pub(super) fn note(&mut self, changes: &[Change], now: Ns) {
        for change in changes {
            match change {
                Change::Put(Object::Node(node)) if node.role == Role::Manager => {
                    self.0.remove(&node.id);
                }
                Change::Put(Object::Node(node)) => {
                    self.0.entry(node.id.clone()).or_insert(now);
                }
                _ => {}
            }
        }
    }
}

impl Removed {
    pub(super) fn note(&mut self, changes: &[Change], now: Ns) {
        for change in changes {
            match change {
                Change::Delete(ObjectKind::Node, id) => {
                    self.0.insert(id.clone(), now);
                }
                Change::Put(Object::Node(node)) => {
                    self.0.remove(&node.id);
                }
                _ => {}
            }
        }
    }

    pub(super) fn let_in(&self, node: &str, now: Ns) -> Verdict {
        match self.0.get(node) {
            Some(at) if at + HEARSAY < now => {
                let ago = (now - at) / SEC;
                Err(format!("{node} is let in, and was removed {ago} s ago"))
            }
            _ => Ok(()),
        }
    }
}

/// The root.
pub(super) struct Roots;

impl Invariant for Roots {
    fn name(&self) -> &'static str {
        "certificates"
    }

    fn applied(&mut self, step: &Step<'_>) -> Verdict {
        for (change, old) in step.txn.changes.iter().zip(step.old) {
            let (Change::Put(Object::Cluster(new)), Some(Object::Cluster(old))) = (change, old)
            else {
                continue;
            };
            if new.root_certificate == old.root_certificate {
                continue;
            }
            let next = old.root_rotation.as_ref().map(|r| &r.digest);
            if next != Some(&new.root_certificate) || new.root_rotation.is_some() {
                return Err(format!("the root is {} without a rotation", new.root_certificate));
            }
            let of_it =
                |n: &&shoal_model::Node| n.tls.as_ref().and_then(|t| t.root.as_ref()) == next;
            if let Some(node) = step.state.nodes.values().find(|n| !of_it(n)) {
                let root = &new.root_certificate;
                return Err(format!("{root} is the root, and {} has none of its", node.id));
            }
        }
        Ok(())
    }
}

impl Checks {
    /// A node's session, or its request for a certificate, is accepted.
    pub(crate) fn let_in(&mut self, node: &str, now: Ns) {
        let verdict = self.removed.let_in(node, now);
        self.judge("certificates", verdict);
    }

    /// Whether a node has been a worker for long enough for everybody to know.
    fn is_known_as_worker(&self, node: &str, now: Ns) -> bool {
        self.workers.0.get(node).is_some_and(|since| since + HEARSAY < now)
    }
}

impl World {
    /// Manager `m` does what a node asks for that holds no log and shows this certificate. One that has no
    /// leader, or that has not heard of it, cannot tell that the node is a manager no more; what it can do by
    /// itself commits nothing.
    pub(crate) fn check_obeyed(&mut self, shown: &Tls, m: usize) {
        let (node, peer) = (shown.certificate.node.clone(), &self.peers[m]);
        let certified = shown.certificate.role == Role::Manager;
        let heard = peer.state.nodes.get(&node).is_some_and(|n| n.role == Role::Worker);
        let demoted =
            heard && peer.leader.is_some() && self.checks.is_known_as_worker(&node, self.now);
        let what = match (certified, demoted) {
            (false, _) => "it is a worker",
            (true, true) => "it was demoted",
            (true, false) => return,
        };
        let text = format!("manager {m} does what {node} asks as a manager, and {what}");
        self.checks.fail(Violation { invariant: "certificates", text });
    }

    /// After a certificate, or what is trusted, has changed on a host: members believe each other, be they
    /// there at the moment or not.
    pub(crate) fn check_handshakes(&mut self, host: usize) {
        if let Some(text) = self.refusal_between_members(host) {
            self.checks.fail(Violation { invariant: "certificates", text });
        }
    }

    fn refusal_between_members(&self, host: usize) -> Option<String> {
        let (members, now) = (&self.checks.state().nodes, self.wall(host));
        let member = |h: usize| {
            let tls = self.tls(h).filter(|tls| tls.certificate.is_in_time(now))?;
            members.contains_key(&self.agents[h].node_id).then_some(tls)
        };
        let own = member(host)?;
        // Workers have nothing to do with each other.
        let meets = |other: &usize| {
            *other != host && (host < self.config.managers || *other < self.config.managers)
        };
        let others = (0..self.config.hosts).filter(meets).filter_map(member);
        let pairs = others.flat_map(|other| [(own, other), (other, own)]);
        let refused = |(a, b): &(&Tls, &Tls)| !b.certificate.chains_to(&a.trust);
        pairs.into_iter().find(refused).map(|(a, b)| {
            let (certificate, trusts) = (&b.certificate, &a.trust);
            let (root, crossed) = (&certificate.root, &certificate.crossed);
            format!(
                "{} trusts {trusts:?}, and {} has a certificate of {root} (by {crossed:?})",
                a.certificate.node, certificate.node
            )
        })
    }

    /// A certificate is in force: it is looked at when it ends.
    pub(crate) fn certificate_ends(&mut self, host: usize) {
        let now = self.wall(host);
        let Some(tls) = self.tls(host) else { return };
        let (left, end) = (tls.certificate.end.since(now), tls.certificate.end);
        self.after(crate::time::ns(left) + 1, Event::CertificateEnds { host, end: end.0 });
    }

    /// A certificate may have ended that should have been renewed.
    pub(crate) fn check_ended(&mut self, host: usize, end: i64) {
        let Some(tls) = self.tls(host).filter(|t| t.certificate.end.0 == end) else { return };
        let now = self.wall(host);
        if tls.certificate.is_in_time(now) {
            return self.certificate_ends(host); // its clock was set back meanwhile
        }
        let session = self.agents[host].session();
        let since = session.filter(|c| self.flows(*c)).and_then(|c| self.conns.get(&c));
        if let Some(since) = since.and_then(|c| c.began)
            && since + TIME_ENOUGH < self.now
        {
            let minutes = (self.now - since) / MINUTE;
            let id = &self.agents[host].node_id;
            let text = format!("{id} has a session for {minutes} min, and its certificate ended");
            self.checks.fail(Violation { invariant: "certificates", text });
        }
    }

    /// In the end every node has a certificate of the one root, and trusts it alone.
    pub(super) fn identities_are_at_rest(&self, leader: usize) -> Verdict {
        let state = &self.peers[leader].state;
        let Some(cluster) = state.cluster.as_ref().filter(|_| self.identities.is_some()) else {
            return Ok(());
        };
        if let Some(next) = &cluster.root_rotation {
            return Err(format!("the rotation of the root to {} is not over", next.digest));
        }
        let root = &cluster.root_certificate;
        for host in 0..self.config.hosts {
            let id = &self.agents[host].node_id;
            let tls = self.tls(host).ok_or(format!("{id} has no certificate"))?;
            if !tls.certificate.is_in_time(self.wall(host)) {
                return Err(format!("the certificate of {id} has ended"));
            }
            if tls.trust != [root.clone()] {
                return Err(format!("{id} trusts {:?}, and the root is {root}", tls.trust));
            }
            let (has, role) = (tls.certificate.role, state.nodes.get(id).map(|n| n.role));
            if role.is_some_and(|role| role != has) {
                return Err(format!("{id} is {role:?}, and its certificate says {has:?}"));
            }
            let known = state.nodes.get(id).and_then(|n| n.tls.as_ref());
            let (known, is) = (known.and_then(|t| t.root.as_ref()), &tls.certificate.root);
            // A rotation that was given up leaves certificates of the root it went to.
            let chains = tls.certificate.chains_to(std::slice::from_ref(root));
            if !chains || known == Some(root) && is != root {
                return Err(format!("{id} has a certificate of {is}, and is known for {known:?}"));
            }
        }
        Ok(())
    }
}
