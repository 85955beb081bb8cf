//! Rotation of the root: what users ask for, and the leader's loop around [`shoal_cores::Renewals`].
use super::authority::roots;
use crate::{
    event::Event,
    log::Author,
    manager::{ATTEMPTS, Refusal, Waiter},
    node::Down,
    stats::Count,
    time::{MS, Ns, SEC, ns},
    world::World,
};
use shoal_cores::{Renewals, RootChange, RootWish, all_renewed, finished, plan_root};
use shoal_model::{Change, Cluster, JoinTokens, Object, RootRotation, State};
use std::mem;

/// Pauses of the loop (`control/manager/src/rotation.rs`).
const DEBOUNCE: Ns = 50 * MS;
const RETRY: Ns = SEC;

/// A leader's part in a rotation.
#[derive(Default)]
pub(crate) struct Rotation {
    renewals: Renewals,
    /// Whether a look is scheduled soon, and the number of the last one that is scheduled at all.
    soon: bool,
    look: u64,
}

/// The cluster with another root wished for: a new one, or the present one, which gives a rotation up.
pub(crate) fn rotated(present: &Cluster, back: bool, id: &str) -> Result<Cluster, Refusal> {
    let mut cluster = present.clone();
    let ca = cluster.spec.ca_config.get_or_insert_default();
    let forced = ca.force_rotate.unwrap_or(0);
    let wish = match back {
        true => RootWish { certificate: Some(&present.root_certificate), key: true, force: forced },
        false => RootWish { certificate: None, key: false, force: forced + 1 },
    };
    ca.force_rotate = Some(wish.force);
    match plan_root(present, wish).map_err(|_| Refusal::Other)?.change {
        RootChange::Generate => {
            let digest = format!("root-{id}");
            cluster.root_rotation = Some(RootRotation {
                certificate: digest.clone(),
                key: "key".to_owned(),
                cross_signed: format!("{digest} by {}", present.root_certificate),
                digest,
            });
        }
        RootChange::Adopt => cluster.root_rotation = None,
        _ => return Err(Refusal::Other),
    }
    Ok(cluster)
}

/// The rotation is over, if nobody is left to wait for.
fn over(state: &State) -> Option<Cluster> {
    let cluster = state.cluster.as_ref().filter(|_| all_renewed(state))?;
    finished(cluster, JoinTokens { worker: String::new(), manager: String::new() })
}

impl World {
    /// Something has changed, or this manager has just begun to lead.
    pub(crate) fn rotation_may_go_on(&mut self, m: usize) {
        let cluster = self.peers[m].state.cluster.as_ref();
        if self.identities.is_none() || cluster.is_none_or(|c| c.root_rotation.is_none()) {
            return;
        }
        let Some(lead) = &mut self.leads[m] else { return };
        if !mem::replace(&mut lead.rotation.soon, true) {
            self.look_at_rotation_after(m, DEBOUNCE);
        }
    }

    fn look_at_rotation_after(&mut self, m: usize, delay: Ns) {
        let Some(lead) = &mut self.leads[m] else { return };
        lead.rotation.look += 1;
        let event = Event::Rotate { m, lead: lead.id, look: lead.rotation.look };
        self.after(delay, event);
    }

    pub(crate) fn look_at_rotation(&mut self, m: usize, id: u64, look: u64) {
        let now = self.uptime();
        let Some(lead) = self.leads[m].as_mut().filter(|l| l.id == id) else { return };
        if lead.rotation.look != look {
            return;
        }
        lead.rotation.soon = false;
        let state = &self.peers[m].state;
        let step = lead.rotation.renewals.step(state, now);
        let rotation = state.cluster.as_ref().and_then(|c| c.root_rotation.as_ref());
        let root = rotation.map(|r| r.digest.clone()).unwrap_or_default();
        // A node without a session is told when it is looked at again.
        let told: Vec<u64> =
            step.tell.iter().filter_map(|node| lead.sessions.get(node).copied()).collect();
        for conn in told {
            self.send_down(conn, Down::Renew(root.clone()));
        }
        if let Some(due) = step.due {
            self.look_at_rotation_after(m, ns(due.since(now)) + DEBOUNCE);
        }
        if step.finish {
            self.finish_rotation(m, 1);
        }
    }

    fn finish_rotation(&mut self, m: usize, attempt: u32) {
        if let Some(cluster) = over(&self.peers[m].state) {
            let change = Change::Put(Object::Cluster(Box::new(cluster)));
            self.propose(m, Author::Manager, vec![change], Waiter::Rotation { attempt });
        }
    }

    pub(crate) fn rotation_answered(&mut self, m: usize, attempt: u32, good: bool) {
        if good {
            self.stats.add(Count::RotationsEnded);
        } else if attempt < ATTEMPTS {
            self.finish_rotation(m, attempt + 1);
        } else {
            self.look_at_rotation_after(m, RETRY);
        }
    }

    /// Tells a node which roots to trust, if it was not told already.
    pub(crate) fn tell_roots(&mut self, m: usize, id: u64) {
        if self.identities.is_none() {
            return;
        }
        let Some(cluster) = &self.peers[m].state.cluster else { return };
        let (_, trust) = roots(cluster);
        let Some(conn) = self.conns.get_mut(&id) else { return };
        if conn.roots.as_ref() != Some(&trust) {
            conn.roots = Some(trust.clone());
            self.send_down(id, Down::Trust(trust));
        }
    }

    pub(crate) fn tell_role(&mut self, m: usize, id: u64) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let node = &self.agents[conn.agent].node_id;
        let role = self.peers[m].state.nodes.get(node).map(|node| node.role);
        if !self.config.roles || self.identities.is_none() || conn.role == role {
            return;
        }
        conn.role = role;
        if let Some(role) = role {
            self.send_down(id, Down::Role(role));
        }
    }
}
