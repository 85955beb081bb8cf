//! What happened, in numbers.
use crate::faults::Kind;

macro_rules! counts {
    ($($name:ident $word:literal,)*) => {
        /// What is counted.
        #[derive(Clone, Copy)]
        pub(crate) enum Count { $($name,)* }

        const WORDS: &[&str] = &[$($word,)*];
    };
}

counts! {
    Events "events",
    Applied "entries applied",
    Elections "elections begun",
    Leaders "leaders elected",
    MessagesLost "messages lost",
    MessagesDoubled "messages doubled",
    Flushes "disk flushes",
    TornWrites "torn writes",
    SnapshotsMade "snapshots made",
    SnapshotsSent "snapshots sent",
    SnapshotsInstalled "snapshots installed",
    Sessions "sessions begun",
    CertificatesIssued "certificates issued",
    RotationsEnded "rotations of the root ended",
    TasksMoved "tasks moved to spread a service",
    Assignments "assignments sent",
    TasksWaited "tasks that waited for a session, as what they refer to is in no file",
    TasksMissed "tasks refused as what they refer to is gone",
    TasksSupplied "containers given secrets or configs",
    TasksStarted "containers started",
    StartsFailed "starts failed",
    PreparationsFailed "preparations failed",
    Exits "containers ended by themselves",
    Requests "client requests",
    Acknowledged "requests acknowledged",
    Refused "requests refused",
    Unanswered "requests without an answer",
}

/// Sums over one seed, or many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stats {
    counts: Vec<u64>,
    faults: Vec<u64>,
    /// Simulated time, nanoseconds.
    pub simulated: u64,
    /// Seeds.
    pub seeds: u64,
}

impl Default for Stats {
    fn default() -> Stats {
        let counts = vec![0; WORDS.len()];
        Stats { counts, faults: vec![0; Kind::ALL.len()], simulated: 0, seeds: 0 }
    }
}

impl Stats {
    pub(crate) fn add(&mut self, count: Count) {
        self.add_many(count, 1);
    }

    pub(crate) fn add_many(&mut self, count: Count, n: u64) {
        self.counts[count as usize] += n;
    }

    pub(crate) fn fault(&mut self, kind: Kind) {
        self.faults[kind as usize] += 1;
    }

    /// Adds another's sums.
    pub fn merge(&mut self, other: &Stats) {
        let pairs = self.counts.iter_mut().zip(&other.counts);
        pairs.chain(self.faults.iter_mut().zip(&other.faults)).for_each(|(a, b)| *a += b);
        self.simulated += other.simulated;
        self.seeds += other.seeds;
    }

    /// Simulated cluster-hours.
    pub fn hours(&self) -> f64 {
        self.simulated as f64 / 3.6e12
    }

    /// Everything counted, with its word; faults come last.
    pub fn rows(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        let counts = WORDS.iter().copied().zip(self.counts.iter().copied());
        counts.chain(Kind::ALL.iter().map(|k| k.word()).zip(self.faults.iter().copied()))
    }

    /// How often something of this word happened; 0 for a word there is not.
    pub fn of(&self, word: &str) -> u64 {
        self.rows().find(|(w, _)| *w == word).map_or(0, |(_, n)| n)
    }
}
