//! The network between hosts (and clients): who reaches whom, and how long it takes.
use crate::{
    config::NetConfig,
    dice::Dice,
    time::{Ns, SEC},
};

/// A message held up for long takes up to this.
const LONGEST_HOLD: Ns = 2 * SEC;

pub(crate) struct Net {
    config: NetConfig,
    dice: Dice,
    /// How many faults cut the way from one place to another.
    cuts: Vec<Vec<u32>>,
    /// Faults that make every link bad.
    pub(crate) bad: u32,
}

/// What became of a datagram: when its copies arrive.
pub(crate) type Arrivals = Vec<Ns>;

impl Net {
    pub(crate) fn new(config: NetConfig, dice: Dice, places: usize) -> Net {
        Net { config, dice, cuts: vec![vec![0; places]; places], bad: 0 }
    }

    /// Whether messages pass from one place to another. A host always reaches itself.
    pub(crate) fn passes(&self, from: usize, to: usize) -> bool {
        from == to || self.cuts[from][to] == 0
    }

    /// Whether a connection between two places can make progress.
    pub(crate) fn clear(&self, a: usize, b: usize) -> bool {
        self.passes(a, b) && self.passes(b, a)
    }

    pub(crate) fn cut(&mut self, from: usize, to: usize) {
        self.cuts[from][to] += 1;
    }

    pub(crate) fn mend(&mut self, from: usize, to: usize) {
        self.cuts[from][to] = self.cuts[from][to].saturating_sub(1);
    }

    /// How long a message takes, if it arrives.
    pub(crate) fn delay(&mut self, from: usize, to: usize) -> Ns {
        if from == to {
            return 20_000;
        }
        let (low, high) = self.config.delay;
        let usual = self.dice.between(low, high);
        let held_up = if self.bad > 0 { 200 } else { self.config.held_up };
        if self.dice.chance(held_up) { usual + self.dice.below(LONGEST_HOLD) } else { usual }
    }

    /// A message that nobody sends again by itself: lost, once, or twice; in any order.
    pub(crate) fn datagram(&mut self, from: usize, to: usize) -> Arrivals {
        if !self.passes(from, to) {
            return Vec::new();
        }
        if from == to {
            return vec![self.delay(from, to)];
        }
        let (lost, doubled) = match self.bad > 0 {
            true => (300, 200),
            false => (self.config.lost, self.config.doubled),
        };
        if self.dice.chance(lost) {
            return Vec::new();
        }
        let copies = 1 + usize::from(self.dice.chance(doubled));
        (0..copies).map(|_| self.delay(from, to)).collect()
    }

    /// When a stalled connection goes on after its way is mended: a retransmission, backed off.
    pub(crate) fn retransmission(&mut self) -> Ns {
        self.dice.below(SEC)
    }
}
