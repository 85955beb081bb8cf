//! The managers a node knows, and which of them it tries next. Pure, but for [`keep`] and [`kept`].
use anyhow::Result;
use serde::{Deserialize, Serialize};
use shoal_model::Role;
use shoal_rpc::Bearings;
use std::{fs, net::SocketAddr, path::Path, time::Duration};

/// Pause before the second attempt (swarmkit's). It doubles with each round in which no manager took the
/// node, to what suits the cluster's size.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// Part of a period by which a beat may come earlier or later (swarmkit: 0.5 s of 5 s).
const BEAT_JITTER: f64 = 0.1;

/// The longest pause while managers answer that nobody leads: somebody will within a second or so.
const ELECTION_PAUSE: Duration = Duration::from_millis(500);

/// Attempts at a leader that is busy, before the others are asked whether it still leads. To ask them costs a connection
/// to each, and where thousands of nodes come at once that is what managers are busy with.
const BUSY: usize = 4;

/// Managers remembered; a cluster has up to seven.
const MOST: usize = 32;

/// A manager.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Known {
    /// Node id; empty when only the address is known, from the command line.
    pub(crate) id: String,
    pub(crate) addr: SocketAddr,
}

/// What became of an attempt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Attempt {
    /// There was a session.
    Held,
    /// The manager answered that another leads, or nobody.
    Redirected,
    /// It ended the connection before that was made: it has too much to do.
    Busy,
    /// It did not answer, or refused.
    Failed,
}

/// The managers in the order they are tried.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Book {
    managers: Vec<Known>,
    leader: Option<String>,
    next: usize,
    /// Attempts since the last session.
    failed: usize,
    /// Those in a row in which the leader was busy.
    busy: usize,
}

impl Book {
    /// What was known before and what is told at the start, in this order.
    pub(crate) fn new(before: Vec<Known>, told: &[SocketAddr]) -> Book {
        let mut managers = before;
        for addr in told {
            if managers.iter().all(|m| m.addr != *addr) {
                managers.push(Known { id: String::new(), addr: *addr });
            }
        }
        managers.truncate(MOST);
        Book { managers, leader: None, next: 0, failed: 0, busy: 0 }
    }

    /// All of them.
    pub(crate) fn all(&self) -> &[Known] {
        &self.managers
    }

    /// The leader's node id, as far as is known.
    pub(crate) fn leader(&self) -> Option<&str> {
        self.leader.as_deref()
    }

    /// Where to go now: to the leader if one is known and was not just tried, else to the next in turn.
    pub(crate) fn target(&self) -> Option<SocketAddr> {
        let leader = self.leader.as_ref().and_then(|l| self.managers.iter().find(|m| m.id == *l));
        let next = || self.managers.get(self.next % self.managers.len().max(1));
        leader.or_else(next).map(|m| m.addr)
    }

    /// Takes down what a manager said. `true` when the list has changed.
    pub(crate) fn learn(&mut self, bearings: &Bearings) -> bool {
        let told = bearings
            .managers
            .iter()
            .filter_map(|m| Some(Known { id: m.node_id.clone(), addr: m.addr.parse().ok()? }));
        let told: Vec<Known> = told.take(MOST).collect();
        self.leader = Some(bearings.leader.clone()).filter(|leader| !leader.is_empty());
        if told.is_empty() || told == self.managers {
            return false;
        }
        self.managers = told;
        true
    }

    /// Takes down what became of an attempt and says how long to wait before the next: at most
    /// `longest`.
    pub(crate) fn after(&mut self, attempt: Attempt, longest: Duration) -> Duration {
        if attempt == Attempt::Held {
            // Whoever it was may be gone: the others know better, and it is asked last of all.
            let leader = self.leader.take();
            let lost = self.managers.iter().position(|m| Some(&m.id) == leader.as_ref());
            self.next = lost.unwrap_or(self.next).wrapping_add(1);
            (self.failed, self.busy) = (0, 0);
            return FIRST_PAUSE;
        }
        self.failed += 1;
        match attempt {
            // Straight to the leader; but two managers may send a node to and fro.
            Attempt::Redirected if self.leader.is_some() && self.failed <= self.managers.len() => {
                return Duration::ZERO;
            }
            Attempt::Redirected => self.busy = 0,
            Attempt::Busy if self.leader.is_some() && self.busy < BUSY => self.busy += 1,
            _ => (self.leader, self.busy) = (None, 0),
        }
        self.next = self.next.wrapping_add(1);
        let rounds = self.failed / self.managers.len().max(1);
        let doubled = FIRST_PAUSE * 2_u32.pow(u32::try_from(rounds).unwrap_or(7).min(7));
        let last = if attempt == Attempt::Redirected { ELECTION_PAUSE } else { longest };
        doubled.min(last)
    }
}

/// Half of the pause, and a random part of the other half: `dice` is from 0 to 1. So a manager that
/// returns does not meet all nodes at once.
pub(crate) fn jittered(pause: Duration, dice: f64) -> Duration {
    pause.mul_f64(0.5 + dice.clamp(0.0, 1.0) / 2.0)
}

/// Time until the next beat: nodes that came back together do not beat together.
pub(crate) fn beat(period: Duration, dice: f64) -> Duration {
    period.mul_f64(1.0 + BEAT_JITTER * (2.0 * dice.clamp(0.0, 1.0) - 1.0))
}

/// The role a manager says this node shall have.
pub(crate) fn role(bearings: &Bearings) -> Option<Role> {
    match bearings.role.as_str() {
        "worker" => Some(Role::Worker),
        "manager" => Some(Role::Manager),
        _ => None,
    }
}

/// The list as an earlier daemon kept it; none if there is none that can be read.
pub(crate) fn kept(file: &Path) -> Vec<Known> {
    let bytes = fs::read(file).unwrap_or_default();
    serde_json::from_slice(&bytes).unwrap_or_default()
}

/// Keeps the list for the next daemon.
pub(crate) fn keep(file: &Path, managers: &[Known]) -> Result<()> {
    let aside = file.with_extension("new");
    fs::write(&aside, serde_json::to_vec(managers)?)?;
    fs::rename(&aside, file)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use shoal_rpc::ManagerAddress;

    const LONGEST: Duration = Duration::from_secs(8);

    fn addr(n: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, n], 2377))
    }

    fn bearings(managers: &[u8], leader: &str) -> Bearings {
        let managers = managers
            .iter()
            .map(|n| ManagerAddress { node_id: format!("m{n}"), addr: addr(*n).to_string() });
        Bearings { managers: managers.collect(), leader: leader.to_owned(), role: String::new() }
    }

    #[test]
    fn a_redirection_is_followed_at_once_and_its_loss_leads_to_the_others() {
        let mut book = Book::new(Vec::new(), &[addr(1)]);
        assert_eq!(book.target(), Some(addr(1)));
        assert!(book.learn(&bearings(&[1, 2, 3], "m3")));
        assert_eq!(book.after(Attempt::Redirected, LONGEST), Duration::ZERO);
        assert_eq!(book.target(), Some(addr(3)));
        assert_eq!(book.after(Attempt::Held, LONGEST), FIRST_PAUSE);
        let mut tried = Vec::new();
        for _ in 0..3 {
            tried.extend(book.target());
            book.after(Attempt::Failed, LONGEST);
        }
        tried.sort_unstable();
        assert_eq!(tried, [addr(1), addr(2), addr(3)], "each in turn");
    }

    #[test]
    fn a_leader_that_was_lost_is_asked_last() {
        for (leader, others) in [("m1", [2, 3, 1]), ("m2", [3, 1, 2]), ("m3", [1, 2, 3])] {
            for other in 1..=3 {
                let mut book = Book::new(Vec::new(), &[addr(1), addr(2), addr(3)]);
                for _ in 0..other {
                    book.after(Attempt::Failed, LONGEST);
                }
                book.learn(&bearings(&[1, 2, 3], leader));
                book.after(Attempt::Held, LONGEST);
                let tried = others.map(|_| {
                    let target = book.target();
                    book.after(Attempt::Failed, LONGEST);
                    target
                });
                assert_eq!(tried, others.map(|n| Some(addr(n))), "{leader}");
            }
        }
    }

    #[test]
    fn pauses_grow_by_the_round_and_not_far_while_managers_answer() {
        let mut book = Book::new(Vec::new(), &[addr(1), addr(2)]);
        let pauses: Vec<u64> = (0..20)
            .map(|_| u64::try_from(book.after(Attempt::Failed, LONGEST).as_millis()).unwrap())
            .collect();
        assert_eq!(pauses[..5], [100, 200, 200, 400, 400]);
        assert_eq!(pauses[19], 8_000);
        book.learn(&bearings(&[1, 2], ""));
        assert_eq!(book.after(Attempt::Redirected, LONGEST), ELECTION_PAUSE, "nobody leads");
        assert_eq!(book.after(Attempt::Held, LONGEST), FIRST_PAUSE);
    }

    #[test]
    fn a_leader_that_is_busy_is_asked_again_but_not_for_ever() {
        let mut book = Book::new(Vec::new(), &[addr(1), addr(2), addr(3)]);
        book.learn(&bearings(&[1, 2, 3], "m2"));
        let mut pauses = Vec::new();
        for _ in 0..BUSY {
            pauses.push(book.after(Attempt::Busy, LONGEST));
            assert_eq!(book.target(), Some(addr(2)));
        }
        assert!(pauses.is_sorted() && pauses[BUSY - 1] > FIRST_PAUSE, "{pauses:?}");
        book.after(Attempt::Busy, LONGEST);
        assert_eq!(book.leader(), None, "another may lead");
        let others = [book.target(), {
            book.after(Attempt::Busy, LONGEST);
            book.target()
        }];
        assert_ne!(others[0], others[1], "of the others nobody is asked twice in a row");
        book.learn(&bearings(&[1, 2, 3], "m2"));
        book.after(Attempt::Failed, LONGEST);
        assert_eq!(book.leader(), None, "one that does not answer is not waited for");
    }

    #[test]
    fn managers_that_send_a_node_to_and_fro_do_not_make_it_spin() {
        let mut book = Book::new(Vec::new(), &[addr(1), addr(2)]);
        let mut at_once = 0;
        for leader in ["m2", "m1", "m2", "m1", "m2", "m1"] {
            book.learn(&bearings(&[1, 2], leader));
            at_once += usize::from(book.after(Attempt::Redirected, LONGEST).is_zero());
        }
        assert_eq!(at_once, 2, "as many as there are managers");
    }

    #[test]
    fn what_was_kept_comes_before_what_the_user_once_typed() {
        let known = |n: u8| Known { id: format!("m{n}"), addr: addr(n) };
        let folder = std::env::temp_dir().join(format!("shoal-book-{}", std::process::id()));
        keep(&folder, &[known(2), known(3)]).unwrap();
        let before = kept(&folder);
        fs::remove_file(&folder).unwrap();
        let book = Book::new(before, &[addr(1), addr(3)]);
        let ids: Vec<&str> = book.all().iter().map(|m| m.id.as_str()).collect();
        assert_eq!(ids, ["m2", "m3", ""]);
        assert!(kept(&folder).is_empty());
    }

    #[test]
    fn beats_keep_within_a_tenth_of_their_period() {
        let at = |dice| beat(Duration::from_secs(1), dice).as_millis();
        assert_eq!([at(0.0), at(0.5), at(1.0)], [900, 1_000, 1_100]);
    }

    #[test]
    fn jitter_stays_within_half_and_whole() {
        let pause = Duration::from_secs(8);
        assert_eq!(jittered(pause, 0.0), Duration::from_secs(4));
        assert_eq!(jittered(pause, 1.0), pause);
    }
}
