//! Elections and signs of life, on timers of their own.
//!
//! openraft's timers are off. They are coarse (a tick of one and a half heartbeats, one election
//! timeout for the process's life), and they stand still with its task while that waits for a slow
//! disk. So one task here, which ends with openraft's:
//!
//! - follows the leader. Whoever hears nothing for a random time between [`PATIENCE_MIN`] and
//!   [`PATIENCE_MAX`] asks the other voters first whether they would vote for it ([`RaftCall::Ask`],
//!   Raft's "pre-vote"), and calls an election only if more than half would. A manager that was cut
//!   off and returns therefore costs nobody the lead. Of two that ask at once one gives way, and who would vote for another
//!   waits a while before it asks itself ([`Candidacy`]).
//! - leads. Every [`HEARTBEAT`] openraft is told to send a sign of life. While it does not answer,
//!   because its disk is slow, this task sends one by itself ([`RaftCall::Alive`]), but no longer than
//!   [`STALL`]: a leader whose disk hangs must lose the lead. So it does to those that do not answer because their
//!   own disk is slow, who say so, but no longer than that either: with most disks hanging nobody leads.

use crate::{
    leadership::Metrics,
    network::Network,
    outside::random,
    transport::RaftCall,
    types::{LogId, ManagerId, Raft, Vote},
    wire,
};
use openraft::ServerState;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::Ordering,
    time::Duration,
};
use tokio::{
    sync::watch,
    task::{AbortHandle, JoinSet},
    time::{Instant, MissedTickBehavior},
};

/// Between two signs of life of a leader.
pub(crate) const HEARTBEAT: Duration = Duration::from_millis(100);

/// How long a voter that hears of a leader refuses to help another to the lead. openraft keeps the
/// same lease.
pub(crate) const LEASE: Duration = Duration::from_millis(402);

/// A follower that hears nothing for a random time between these wants to lead. The least is longer
/// than the lease and four heartbeats; the spread makes it improbable that two ask at once.
const PATIENCE_MIN: Duration = Duration::from_millis(450);
const PATIENCE_MAX: Duration = Duration::from_millis(750);

/// How long answers to [`RaftCall::Ask`] are waited for.
const ASKING: Duration = Duration::from_millis(150);

/// How long an attempt to lead goes on, in which another's gives way or not, by who has more of the log and the
/// greater id.
const ATTEMPT: Duration = Duration::from_millis(400);

/// One that lets another go first does so once in this time.
const STANDING_BACK: Duration = Duration::from_secs(3);

/// How long a leader whose own task does not answer, or whose disk does not write, goes on sending signs
/// of life.
pub(crate) const STALL: Duration = Duration::from_secs(5);

/// How often a follower looks at the clock.
const LOOK: Duration = Duration::from_millis(20);

/// Would you vote for me?
#[derive(Serialize, Deserialize)]
pub(crate) struct Ask {
    pub(crate) candidate: ManagerId,
    /// The end of the candidate's log.
    pub(crate) last_log_id: Option<LogId>,
}

/// The leader lives.
#[derive(Serialize, Deserialize)]
pub(crate) struct Alive {
    pub(crate) vote: Vote,
}

/// Whether a voter would help another to the lead. `rival`: itself, if it wants to lead at the same time; then only
/// one of the two gives way.
pub(crate) fn would_vote(
    own_last: Option<LogId>,
    ask: &Ask,
    leads: bool,
    since_leader: Option<Duration>,
    rival: Option<ManagerId>,
) -> bool {
    let leader_lost = since_leader.is_none_or(|since| since > LEASE);
    let goes_first = rival.is_none_or(|own| (ask.last_log_id, ask.candidate) > (own_last, own));
    !leads && leader_lost && ask.last_log_id >= own_last && goes_first
}

/// What this manager does about the lead that is free: so that two do not call elections at once, which neither wins.
#[derive(Default)]
pub(crate) struct Candidacy {
    /// Its own attempt goes on until then.
    until: Option<Instant>,
    /// It has let another go first.
    stood_back: Option<Instant>,
}

impl Candidacy {
    fn begin(&mut self, now: Instant) {
        self.until = Some(now + ATTEMPT);
    }

    /// Too few would vote for it, or there is a leader.
    fn end(&mut self) {
        self.until = None;
    }

    pub(crate) fn is_under_way(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| now < until)
    }

    /// Another is to lead, who has a while for it. Not again soon: one that asks and is not heard, or never wins, is not
    /// waited for for ever.
    pub(crate) fn stand_back(&mut self, now: Instant) {
        if self.stood_back.is_none_or(|at| now.duration_since(at) > STANDING_BACK) {
            self.stood_back = Some(now);
        }
    }
}

/// When to ask. Pure: time comes in.
pub(crate) struct Timer {
    /// Counts from the last sign of life, or from the last attempt.
    from: Instant,
    patience: Duration,
}

impl Timer {
    pub(crate) fn new(now: Instant, random: f64) -> Timer {
        Timer { from: now, patience: PATIENCE_MIN + (PATIENCE_MAX - PATIENCE_MIN).mul_f64(random) }
    }

    /// A sign of life came at `at`.
    pub(crate) fn heard(&mut self, at: Instant) {
        self.from = self.from.max(at);
    }

    pub(crate) fn due(&self, now: Instant) -> bool {
        now.duration_since(self.from) >= self.patience
    }

    /// An attempt has failed: another after a pause that differs from the others'.
    pub(crate) fn again(&mut self, now: Instant, random: f64) {
        let pause = Duration::from_millis(50) + Duration::from_millis(250).mul_f64(random);
        (self.from, self.patience) = (now, pause);
    }
}

/// Signs of life on their way, one to each.
#[derive(Default)]
struct Signs {
    calls: JoinSet<()>,
    last: BTreeMap<ManagerId, AbortHandle>,
}

pub(crate) struct Elector {
    pub(crate) raft: Raft,
    pub(crate) network: Network,
}

impl Elector {
    /// Runs until the store is dropped or openraft has ended.
    pub(crate) async fn run(self, mut dropped: watch::Receiver<()>) {
        tokio::select! {
            _ = dropped.changed() => {}
            () = self.elect_and_lead() => {}
        }
    }

    async fn elect_and_lead(&self) {
        let metrics = self.raft.metrics();
        let mut timer = Timer::new(Instant::now(), random());
        while metrics.has_changed().is_ok() {
            let now = metrics.borrow().clone();
            if now.running_state.is_err() {
                return;
            }
            if now.state == ServerState::Leader {
                self.lead(now.vote).await;
                timer = Timer::new(Instant::now(), random());
                continue;
            }
            tokio::time::sleep(LOOK).await;
            let voters = now.membership_config.membership().voter_ids().collect::<BTreeSet<_>>();
            if !voters.contains(&now.id) {
                timer.heard(Instant::now());
                continue;
            }
            if let Some(at) = self.network.contacts.leader_heard() {
                timer.heard(at);
            }
            if let Some(at) = self.network.contacts.candidacy().stood_back {
                timer.heard(at);
            }
            // A single voter has nobody to wait for.
            let alone = voters.len() == 1 && now.state != ServerState::Candidate;
            if alone || timer.due(Instant::now()) {
                self.campaign(&now, &voters).await;
                timer.again(Instant::now(), random());
            }
        }
    }

    /// Asks the others, and calls an election if enough would vote for this manager.
    async fn campaign(&self, now: &Metrics, voters: &BTreeSet<ManagerId>) {
        self.network.contacts.candidacy().begin(Instant::now());
        let last_log_id = self.raft.data_metrics().borrow().last_log;
        let ask = Ask { candidate: now.id, last_log_id };
        let mut asked = JoinSet::new();
        for (id, peer) in now.membership_config.membership().nodes() {
            if *id == now.id || !voters.contains(id) {
                continue;
            }
            let (network, id, addr) = (self.network.clone(), *id, peer.addr.clone());
            let request = wire::encode(&ask);
            asked.spawn(async move {
                let Ok(request) = request else { return None };
                let answer = network.call(id, &addr, RaftCall::Ask, request);
                let answer = tokio::time::timeout(ASKING, answer).await.ok()?.ok()?;
                wire::decode::<bool>(&answer).ok()?.then_some(id)
            });
        }
        let mut willing = BTreeSet::from([now.id]);
        let membership = now.membership_config.membership();
        let enough = |willing: &BTreeSet<ManagerId>| {
            membership
                .get_joint_config()
                .iter()
                .all(|config| 2 * config.intersection(willing).count() > config.len())
        };
        while !enough(&willing) {
            match asked.join_next().await {
                Some(answer) => willing.extend(answer.ok().flatten()),
                None => {
                    self.network.contacts.candidacy().end();
                    return;
                }
            }
        }
        let heard = self.network.contacts.leader_heard();
        if voters.len() > 1 && heard.is_some_and(|at| at.elapsed() <= LEASE) {
            self.network.contacts.candidacy().end();
            return; // a leader came forward meanwhile
        }
        drop(self.raft.trigger().elect().await);
    }

    /// Sends signs of life as long as this manager leads with `vote`.
    async fn lead(&self, vote: Vote) {
        let metrics = self.raft.metrics();
        let mut beat = tokio::time::interval(HEARTBEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut answered = Instant::now();
        let mut waiting = None;
        let leads = |metrics: &watch::Receiver<Metrics>| {
            let metrics = metrics.borrow();
            metrics.running_state.is_ok()
                && metrics.state == ServerState::Leader
                && metrics.vote == vote
        };
        let mut alive = Signs::default();
        while leads(&metrics) && metrics.has_changed().is_ok() {
            let told = waiting.get_or_insert_with(|| Box::pin(self.tell()));
            tokio::select! {
                told = told => {
                    waiting = None;
                    if !told {
                        return;
                    }
                    answered = Instant::now();
                    // Its answers wait for the others' disks.
                    self.live(&mut alive, vote, |id| self.network.contacts.within(id, 2 * HEARTBEAT));
                    beat.tick().await;
                }
                _ = beat.tick() => {
                    if answered.elapsed() <= STALL {
                        self.live(&mut alive, vote, |_| false);
                    }
                }
            }
        }
    }

    /// Says to the others by itself that this leader lives, except to those that need not hear it: openraft waits
    /// for this manager's disk, or for theirs.
    fn live(&self, alive: &mut Signs, vote: Vote, need_not: impl Fn(ManagerId) -> bool) {
        let network = &self.network;
        if network.contacts.silent.load(Ordering::Relaxed) || network.written.hangs(STALL) {
            return;
        }
        while alive.calls.try_join_next().is_some() {}
        let members = self.raft.metrics().borrow().membership_config.clone();
        for (id, peer) in members.membership().nodes() {
            let (network, id, addr) = (network.clone(), *id, peer.addr.clone());
            let under_way = alive.last.get(&id).is_some_and(|call| !call.is_finished());
            if id == vote.leader_id.node_id || under_way || need_not(id) {
                continue;
            }
            let Ok(request) = wire::encode(&Alive { vote }) else { continue };
            let call = alive.calls.spawn(async move {
                let call = network.call(id, &addr, RaftCall::Alive, request);
                drop(tokio::time::timeout(LEASE, call).await);
            });
            alive.last.insert(id, call);
        }
    }

    /// Tells openraft to send signs of life, and waits until it has taken note. False: it has ended.
    async fn tell(&self) -> bool {
        let silent = self.network.contacts.silent.load(Ordering::Relaxed);
        (silent || self.raft.trigger().heartbeat().await.is_ok())
            && self.raft.with_raft_state(|_| ()).await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use openraft::CommittedLeaderId;

    fn last(index: u64) -> Option<LogId> {
        Some(LogId::new(CommittedLeaderId::new(1, 1.into()), index))
    }

    #[test]
    fn of_two_that_want_to_lead_at_once_one_gives_way_and_never_the_one_with_more_of_the_log() {
        for (one, other) in [(1, 2), (2, 1)].map(|(a, b)| (ManagerId::from(a), b.into())) {
            for (of_one, of_other) in [(7, 7), (7, 8), (8, 7)].map(|(a, b)| (last(a), last(b))) {
                let asks = |candidate, last_log_id| Ask { candidate, last_log_id };
                let to =
                    |own_last, ask: &Ask, own| would_vote(own_last, ask, false, None, Some(own));
                let one_leads = to(of_other, &asks(one, of_one), other);
                let other_leads = to(of_one, &asks(other, of_other), one);
                assert_ne!(one_leads, other_leads, "{of_one:?} {of_other:?}");
                assert_eq!(one_leads, (of_one, one) > (of_other, other));
                // Who does not want to lead helps whoever has as much.
                let helps = would_vote(of_other, &asks(one, of_one), false, None, None);
                assert_eq!(helps, of_one >= of_other);
            }
        }
    }

    #[test]
    fn an_attempt_ends_and_nobody_stands_back_for_ever() {
        let (begin, ms) = (Instant::now(), Duration::from_millis);
        let mut candidacy = Candidacy::default();
        assert!(!candidacy.is_under_way(begin));
        candidacy.begin(begin);
        assert!(candidacy.is_under_way(begin + ms(399)));
        assert!(!candidacy.is_under_way(begin + ms(400)));
        candidacy.begin(begin);
        candidacy.end();
        assert!(!candidacy.is_under_way(begin));
        for at in (0..3_000).step_by(100) {
            candidacy.stand_back(begin + ms(at));
            assert_eq!(candidacy.stood_back, Some(begin), "one that asks again and again");
        }
        candidacy.stand_back(begin + ms(3_001));
        assert_eq!(candidacy.stood_back, Some(begin + ms(3_001)));
    }
}
