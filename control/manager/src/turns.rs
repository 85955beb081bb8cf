//! Who is told something now: so many nodes at a time.
//!
//! Where there is more to tell than the manager, the network or the nodes can take, nothing else
//! would hold it up but buffers that fill, and beats and certificates would wait behind them until
//! nodes count as down. A node has its turn from when what is new for it is looked up until it has
//! applied that; meanwhile what comes for the others is gathered, and told as one difference.
use shoal_identity::{Place, Places};
use std::{
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::time::Instant;
use tokio_util::sync::PollSemaphore;

/// Nodes that are told at a time of what concerns them in particular, at most. Clusters of fewer nodes never wait
/// where the manager keeps up.
const CONCERNED: usize = 256;

/// Nodes that are told at a time of what concerns everybody, or all there is as their sessions begin.
const EVERYBODY: usize = 64;

/// The longest turn. Slow and silent nodes cost the others no more than this.
const LONGEST: Duration = Duration::from_millis(250);

pub(crate) struct Turns {
    pub(crate) concerned: Arc<Places>,
    everybody: Arc<Places>,
}

impl Default for Turns {
    fn default() -> Self {
        Turns { concerned: Places::new(CONCERNED), everybody: Places::new(EVERYBODY) }
    }
}

impl Turns {
    /// A node's turns. While `concerned` is set what is new for it goes before what everybody is told.
    pub(crate) fn of_node(self: &Arc<Self>, concerned: Arc<AtomicBool>) -> Turn {
        let waits = PollSemaphore::new(self.everybody.queue());
        Turn { turns: Arc::clone(self), concerned, waits, for_concerned: false, held: None }
    }
}

/// The turns of one node.
pub(crate) struct Turn {
    turns: Arc<Turns>,
    concerned: Arc<AtomicBool>,
    /// Keeps its place in the queue while other things are looked at.
    waits: PollSemaphore,
    for_concerned: bool,
    held: Option<Held>,
}

struct Held {
    _place: Place,
    until: Instant,
    /// What the node was last told in this turn.
    told: Option<u64>,
}

impl Turn {
    /// Waits until it is the node's turn. May be given up and asked again without losing the place.
    pub(crate) async fn mine(&mut self) {
        poll_fn(|context| self.poll_mine(context)).await;
    }

    fn poll_mine(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.held.is_some() {
            return Poll::Ready(());
        }
        if self.concerned.load(Ordering::Relaxed) && !self.for_concerned {
            self.wait_among(true); // the place in the other queue is given up with it
        }
        let permit = ready!(self.waits.poll_acquire(context));
        let place = permit.map(|permit| self.among(self.for_concerned).taken(permit));
        self.wait_among(false);
        let until = Instant::now() + LONGEST;
        self.held = place.map(|place| Held { _place: place, until, told: None });
        Poll::Ready(())
    }

    fn wait_among(&mut self, concerned: bool) {
        self.waits = PollSemaphore::new(self.among(concerned).queue());
        self.for_concerned = concerned;
    }

    fn among(&self, concerned: bool) -> &Arc<Places> {
        if concerned { &self.turns.concerned } else { &self.turns.everybody }
    }

    /// When the turn that goes on has taken too long.
    pub(crate) fn until(&self) -> Option<Instant> {
        self.held.as_ref().map(|held| held.until)
    }

    /// Whether the node was told nothing yet in the turn that goes on. More follows in another one: one that
    /// has not applied what it was told gets what happens until then as one difference.
    pub(crate) fn is_fresh(&self) -> bool {
        self.held.as_ref().is_some_and(|held| held.told.is_none())
    }

    /// The node is told a generation.
    pub(crate) fn tells(&mut self, generation: u64) {
        if let Some(held) = &mut self.held {
            held.told = Some(generation);
        }
    }

    /// The node has applied a generation.
    pub(crate) fn applied(&mut self, generation: u64) {
        let told = self.held.as_ref().and_then(|held| held.told);
        if told.is_some_and(|told| told <= generation) {
            self.over();
        }
    }

    /// The turn is over.
    pub(crate) fn over(&mut self) {
        self.held = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turns(concerned: usize, everybody: usize) -> Arc<Turns> {
        Arc::new(Turns { concerned: Places::new(concerned), everybody: Places::new(everybody) })
    }

    async fn now(turn: &mut Turn) -> bool {
        tokio::time::timeout(Duration::from_millis(1), turn.mine()).await.is_ok()
    }

    #[tokio::test]
    async fn one_after_another_in_the_order_they_asked() {
        let turns = turns(1, 1);
        let mut all: Vec<Turn> = (0..3).map(|_| turns.of_node(Arc::default())).collect();
        assert!(now(&mut all[0]).await);
        assert!(!now(&mut all[2]).await);
        assert!(!now(&mut all[1]).await);
        all[0].over();
        assert!(!now(&mut all[1]).await, "the other asked first, and kept its place");
        assert!(now(&mut all[2]).await);
        drop(all.remove(2));
        assert!(now(&mut all[1]).await);
    }

    #[tokio::test]
    async fn what_concerns_a_node_in_particular_does_not_wait_for_what_everybody_is_told() {
        let turns = turns(1, 1);
        let concerned = Arc::new(AtomicBool::new(false));
        let mut everybody = turns.of_node(Arc::default());
        let mut one = turns.of_node(Arc::clone(&concerned));
        assert!(now(&mut everybody).await);
        assert!(!now(&mut one).await);
        concerned.store(true, Ordering::Relaxed);
        assert!(now(&mut one).await);
        concerned.store(false, Ordering::Relaxed);
        one.over();
        everybody.over();
        assert!(now(&mut turns.of_node(Arc::default())).await, "its place was given up");
    }

    #[tokio::test]
    async fn a_node_that_does_not_answer_holds_up_the_others_for_a_bounded_time() {
        let turns = turns(1, 1);
        let (mut silent, mut other) =
            (turns.of_node(Arc::default()), turns.of_node(Arc::default()));
        silent.mine().await;
        silent.tells(1);
        assert!(silent.until().is_some_and(|until| until <= Instant::now() + LONGEST));
        assert!(!now(&mut other).await);
        silent.over();
        assert!(now(&mut other).await);
    }

    #[tokio::test]
    async fn a_turn_ends_with_what_was_told_in_it() {
        let mut turn = turns(1, 1).of_node(Arc::default());
        turn.mine().await;
        turn.applied(6);
        assert!(turn.is_fresh(), "it was told nothing yet");
        turn.tells(7);
        turn.applied(6);
        assert!(turn.until().is_some() && !turn.is_fresh());
        turn.applied(7);
        assert!(turn.until().is_none());
    }
}
