//! Whether a peer that is sent something is there at all.
//!
//! WireGuard itself says so only after 15 s. Here a peer that was sent a packet and from which nothing
//! authentic came within [`WATCH`] is asked for an echo, again and again; after [`SILENT_AFTER`] without a
//! sign it counts as silent, until one comes. A peer that is sent nothing is not asked anything, so
//! that the cost is that of the peers in use.

use std::time::{Duration, Instant};

/// How often peers that owe a sign are looked at, and asked.
pub(crate) const WATCH: Duration = Duration::from_millis(100);

/// Four questions without an answer, on networks that are far slower than a data centre's.
pub(crate) const SILENT_AFTER: Duration = Duration::from_millis(500);

/// How often a silent peer is asked, so that it is heard when it is back.
const ASK_SILENT: Duration = Duration::from_secs(1);

/// What is known of one peer.
#[derive(Default, Debug)]
pub(crate) struct Liveness {
    sent: bool,
    heard: bool,
    /// Since when it owes a sign.
    since: Option<Instant>,
    asked: Option<Instant>,
    silent: bool,
}

/// What a look at a peer says.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Look {
    /// Whether it owes a sign: look again after [`WATCH`].
    pub(crate) owes: bool,
    /// Whether it is to be asked for an echo now.
    pub(crate) ask: bool,
    /// Whether it became silent, or is so no more.
    pub(crate) changed: bool,
}

impl Liveness {
    /// It was sent a packet that somebody wants delivered.
    pub(crate) fn sent(&mut self) {
        self.sent = true;
    }

    /// Something authentic came from it.
    pub(crate) fn heard(&mut self) {
        self.heard = true;
    }

    pub(crate) fn is_silent(&self) -> bool {
        self.silent
    }

    /// `late`: the looker itself was held up, and may not have heard what came.
    pub(crate) fn look(&mut self, now: Instant, late: bool) -> Look {
        let sent = std::mem::take(&mut self.sent);
        if std::mem::take(&mut self.heard) {
            // What was sent in the same moment is not waited for; what follows is.
            let changed = std::mem::take(&mut self.silent);
            (self.since, self.asked) = (None, None);
            return Look { changed, ..Look::default() };
        }
        if sent && self.since.is_none() || late && self.since.is_some() && !self.silent {
            self.since = Some(now);
        }
        let Some(since) = self.since else { return Look::default() };
        let waited = now.saturating_duration_since(since);
        let changed = !self.silent && waited >= SILENT_AFTER;
        self.silent |= changed;
        let pause = if self.silent { ASK_SILENT } else { WATCH };
        let rested = self.asked.is_none_or(|at| now.saturating_duration_since(at) >= pause);
        let ask = waited >= WATCH && rested;
        if ask {
            self.asked = Some(now);
        }
        Look { owes: true, ask, changed }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks every [`WATCH`] for so many milliseconds; gives when it was asked, and when it changed.
    fn watch(peer: &mut Liveness, from: Instant, ms: u64) -> (Vec<u64>, Vec<u64>) {
        let (mut asked, mut changed) = (Vec::new(), Vec::new());
        for at in (0..=ms).step_by(100) {
            let look = peer.look(from + Duration::from_millis(at), false);
            asked.extend(look.ask.then_some(at));
            changed.extend(look.changed.then_some(at));
        }
        (asked, changed)
    }

    #[test]
    fn a_peer_that_is_sent_nothing_is_never_asked() {
        let mut peer = Liveness::default();
        let (asked, changed) = watch(&mut peer, Instant::now(), 10_000);
        assert!(asked.is_empty() && changed.is_empty() && !peer.is_silent());
    }

    #[test]
    fn one_that_owes_a_sign_is_asked_and_then_silent_and_still_asked_now_and_then() {
        let mut peer = Liveness::default();
        peer.sent();
        let (asked, changed) = watch(&mut peer, Instant::now(), 3_000);
        assert_eq!(asked, [100, 200, 300, 400, 1_400, 2_400]);
        assert_eq!(changed, [500]);
        assert!(peer.is_silent());
    }

    #[test]
    fn any_sign_ends_it() {
        let start = Instant::now();
        let mut peer = Liveness::default();
        peer.sent();
        watch(&mut peer, start, 400);
        peer.heard();
        let (asked, changed) = watch(&mut peer, start + Duration::from_millis(450), 2_000);
        assert!(asked.is_empty() && changed.is_empty());

        peer.sent();
        watch(&mut peer, start + Duration::from_secs(10), 1_000);
        assert!(peer.is_silent());
        peer.heard();
        let look = peer.look(start + Duration::from_secs(12), false);
        assert_eq!(look, Look { owes: false, ask: false, changed: true });
        assert!(!peer.is_silent());
    }

    #[test]
    fn a_looker_that_was_held_up_blames_nobody() {
        let start = Instant::now();
        let mut peer = Liveness::default();
        peer.sent();
        peer.look(start, false);
        let look = peer.look(start + Duration::from_secs(2), true);
        assert!(look.owes && !look.changed);
        assert!(!peer.is_silent());
    }
}
