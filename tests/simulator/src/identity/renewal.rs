//! A node's side: renews its certificate in time and when it is told to, and trusts what it is told to.
use super::{Issued, Keeper, Tls, due};
use crate::{
    event::Event,
    node::Up,
    time::{Ns, SEC},
    world::World,
};
use shoal_model::{
    Role, Timestamp,
    bugs::{self, Bug},
};

/// Pauses after a failure. (The product pauses for a second each time; doubling costs less where a node
/// is cut off for hours.)
pub(super) const FIRST_PAUSE: Ns = SEC;
const LAST_PAUSE: Ns = 30 * SEC;
/// How long a node waits for its certificate (`control/agent/src/join.rs`).
const PATIENCE: Ns = 20 * SEC;

impl Keeper {
    fn misses_its_role(&self) -> bool {
        let has = self.tls.as_ref().map(|tls| tls.certificate.role);
        self.role.is_some_and(|role| has.is_some_and(|has| has != role))
    }
}

impl World {
    /// The daemon has started, and has what is on disk.
    pub(crate) fn start_keeper(&mut self, host: usize) {
        let Some(keeper) = self.keeper(host) else { return };
        let timer = keeper.timer;
        let former = keeper.former.take();
        *keeper = Keeper { timer, former, ..Keeper::of(keeper.tls.take()) };
        self.arm(host);
    }

    /// The host is another node from now on, which has no certificate yet.
    pub(crate) fn forget_identity(&mut self, host: usize) {
        let Some(keeper) = self.keeper(host) else { return };
        *keeper = Keeper { timer: keeper.timer + 1, ..Keeper::of(None) };
    }

    /// Has the renewal come when it is due by the host's clock; to be called when either changes.
    pub(crate) fn arm(&mut self, host: usize) {
        let (now, boot) = (self.wall(host), self.hosts[host].boot);
        let Some(keeper) = self.keeper(host).filter(|k| k.tls.is_some()) else { return };
        keeper.timer += 1;
        let (timer, left) = (keeper.timer, keeper.renewal.since(now));
        self.after(crate::time::ns(left), Event::Renew { host, boot, timer });
    }

    pub(crate) fn renewal_due(&mut self, host: usize, timer: u64) {
        let now = self.wall(host);
        let Some(keeper) = self.keeper(host).filter(|k| k.timer == timer) else { return };
        if keeper.asking {
            // The manager has not answered in time.
            keeper.asking = false;
            return self.ask_later(host);
        }
        if now < keeper.renewal {
            return self.arm(host);
        }
        let ordered = keeper.renewal == Timestamp::default();
        if bugs::active(Bug::NeverRenew) && !ordered {
            return;
        }
        self.ask_for_certificate(host);
    }

    fn ask_for_certificate(&mut self, host: usize) {
        let (managers, boot) = (self.config.managers, self.hosts[host].boot);
        let Some(keeper) = self.keeper(host) else { return };
        // Other managers first: its own may just be starting.
        keeper.attempts += 1;
        keeper.asking = true;
        keeper.timer += 1;
        let (m, timer) = ((host + keeper.attempts) % managers, keeper.timer);
        if self.net.clear(host, m) && self.hosts[m].power {
            // TCP and TLS take three ways before the request.
            let delay = (0..4).map(|_| self.net.delay(host, m)).sum();
            self.after(delay, Event::Issue { host, boot, m });
        }
        self.after(PATIENCE, Event::Renew { host, boot, timer });
    }

    fn ask_later(&mut self, host: usize) {
        let boot = self.hosts[host].boot;
        let Some(keeper) = self.keeper(host) else { return };
        keeper.timer += 1;
        let (timer, pause) = (keeper.timer, keeper.pause);
        keeper.pause = (pause * 2).min(LAST_PAUSE);
        self.after(pause, Event::Renew { host, boot, timer });
    }

    /// The answer to a request for a certificate.
    pub(crate) fn hear_issued(&mut self, host: usize, issued: Issued) {
        let node = self.agents[host].node_id.clone();
        let Some(keeper) = self.keeper(host).filter(|k| k.asking) else { return };
        keeper.asking = false;
        match issued.0.filter(|tls| tls.certificate.node == node) {
            Some(tls) => {
                keeper.pause = FIRST_PAUSE;
                self.put_in_force(host, *tls);
            }
            None => self.ask_later(host),
        }
    }

    /// Saves a certificate and uses it for all connections from now on.
    pub(crate) fn put_in_force(&mut self, host: usize, tls: Tls) {
        let Some(keeper) = self.keeper(host) else { return };
        keeper.renewal = due(&tls);
        let before = keeper.tls.replace(tls);
        if let Some(before) = before.filter(|tls| tls.certificate.role == Role::Manager) {
            keeper.former = Some(before);
        }
        let misses_its_role = keeper.misses_its_role();
        self.identity_changed(host);
        self.conform(host);
        if misses_its_role {
            self.renew_now(host);
            self.ask_later(host); // who signed did not know it yet
        }
    }

    fn renew_now(&mut self, host: usize) {
        if let Some(keeper) = self.keeper(host) {
            keeper.renewal = Timestamp::default();
        }
    }

    /// Told which role the node has.
    pub(crate) fn told_to_be(&mut self, host: usize, role: Role) {
        let Some(keeper) = self.keeper(host) else { return };
        keeper.role = Some(role);
        if keeper.misses_its_role() && !keeper.asking && !bugs::active(Bug::KeepRole) {
            self.renew_now(host);
            self.arm(host);
        }
    }

    fn identity_changed(&mut self, host: usize) {
        self.arm(host);
        self.certificate_ends(host);
        self.say_identity(host);
        self.check_handshakes(host);
    }

    /// Tells the manager which certificate the node has now.
    fn say_identity(&mut self, host: usize) {
        if let (Some(conn), Some(tls)) = (self.agents[host].session(), self.tls(host).cloned()) {
            self.send_up(conn, Up::Tls(Box::new(tls)));
        }
    }

    /// Told which roots to trust.
    pub(crate) fn told_to_trust(&mut self, host: usize, roots: Vec<String>) {
        let too_soon = bugs::active(Bug::TrustTooSoon);
        let roots = if too_soon { roots.into_iter().skip(1).collect() } else { roots };
        let Some(keeper) = self.keeper(host).filter(|_| !roots.is_empty()) else { return };
        keeper.wanted = Some(roots);
        self.conform(host);
    }

    /// Told to have a certificate of this root.
    pub(crate) fn told_to_renew(&mut self, host: usize, root: &str) {
        // Said again, in case it was lost what the node has.
        self.say_identity(host);
        let Some(keeper) = self.keeper(host) else { return };
        let has = keeper.tls.as_ref().is_some_and(|tls| tls.certificate.root == root);
        if !has && !keeper.asking {
            keeper.renewal = Timestamp::default();
            self.arm(host);
        }
    }

    /// Trusts what it was told to. A renewal that is due brings the roots along.
    fn conform(&mut self, host: usize) {
        let now = self.wall(host);
        let Some(keeper) = self.keeper(host).filter(|k| now < k.renewal) else { return };
        let (Some(wanted), Some(tls)) = (&keeper.wanted, &mut keeper.tls) else { return };
        let too_soon = bugs::active(Bug::TrustTooSoon);
        if *wanted != tls.trust && (tls.certificate.chains_to(wanted) || too_soon) {
            tls.trust.clone_from(wanted);
            self.identity_changed(host);
        }
    }
}
