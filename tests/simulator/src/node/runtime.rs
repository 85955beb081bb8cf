//! Containers, and the images that decide how they behave.
use crate::{
    dice::Dice,
    time::{MINUTE, MS, Ns, SEC},
};
use shoal_model::Payload;
use std::sync::Arc;

/// A container on a host.
pub(crate) struct Container {
    pub(crate) id: u64,
    pub(crate) state: ContainerState,
    /// Whether its network namespace is there: a host that lost its power has none left.
    pub(crate) netns: bool,
    /// Secrets and configs in its files, which are in memory and go when it ends.
    pub(crate) files: Vec<Arc<Payload>>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ContainerState {
    Created,
    Running,
    Exited(i64),
}

impl Container {
    pub(crate) fn lose_power(&mut self) {
        self.netns = false;
        self.files.clear();
        if self.state == ContainerState::Running {
            self.state = ContainerState::Exited(255);
        }
    }
}

/// How an image behaves: a word in front of its tag.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Image {
    /// Runs until it is told to stop.
    Stable,
    /// Fails now and then; only while there are faults.
    Flaky,
    /// Cannot be prepared; only while there are faults.
    Broken,
    /// Ends with success after a while.
    Once,
    /// Takes long to start.
    Slow,
    /// A job's: ends with success, soon enough for a calm cluster to see it.
    Task,
    /// A job's: as `Task`, but every other time it fails; only while there are faults.
    Moody,
}

impl Image {
    pub(crate) const ALL: [Image; 7] = [
        Image::Stable,
        Image::Flaky,
        Image::Broken,
        Image::Once,
        Image::Slow,
        Image::Task,
        Image::Moody,
    ];

    pub(crate) fn word(self) -> &'static str {
        match self {
            Image::Stable => "stable",
            Image::Flaky => "flaky",
            Image::Broken => "broken",
            Image::Once => "once",
            Image::Slow => "slow",
            Image::Task => "task",
            Image::Moody => "moody",
        }
    }

    pub(crate) fn of(name: &str) -> Image {
        let word = name.split(':').next().unwrap_or_default();
        Image::ALL.into_iter().find(|i| i.word() == word).unwrap_or(Image::Stable)
    }

    /// When it ends by itself, and its exit code; seldom where the time between faults is long.
    pub(crate) fn end(self, dice: &mut Dice, gap: Ns, calm: bool) -> Option<(Ns, i64)> {
        match self {
            Image::Flaky if !calm => Some((dice.spread(100 * MS + gap / 4, 5 * MINUTE + gap), 1)),
            Image::Once => Some((dice.spread(SEC + gap / 4, MINUTE + gap), 0)),
            Image::Task => Some((dice.spread(SEC, gap.clamp(10 * SEC, MINUTE)), 0)),
            Image::Moody => {
                let fails = !calm && dice.chance(500);
                Some((dice.spread(SEC, gap.clamp(10 * SEC, MINUTE)), i64::from(fails)))
            }
            _ => None,
        }
    }
}
