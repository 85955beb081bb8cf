//! What has happened, and the rules about it that hold at any time.

use serde::{Deserialize, Serialize};
use shoal_store::outside::Content;
use std::{collections::BTreeMap, ops::AddAssign, time::Duration};

/// Lines of the story that a report ends with.
const STORY: usize = 80;

/// An object a client has asked for.
#[derive(Clone, Debug)]
pub(crate) struct Wish {
    pub(crate) id: String,
    /// Wishes of the same number were made at once; those of the next when all of these were known to be
    /// there.
    pub(crate) round: u64,
    /// What the acknowledgement said, and of which attempt it was.
    pub(crate) version: Option<u64>,
    pub(crate) attempt: u32,
    /// It is there for certain.
    pub(crate) there: bool,
}

/// Figures of a run.
#[derive(Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, Debug)]
pub struct Figures {
    /// Writes known to be there.
    pub writes: u64,
    /// Reads that were answered.
    pub reads: u64,
    /// Leaderships.
    pub leaders: u64,
    /// Snapshots that managers took from others or found at their start.
    pub snapshots: u64,
    /// Faults.
    pub faults: u64,
    /// Starts of a manager.
    pub starts: u64,
    /// Changes of the managers that were made.
    pub members: u64,
    /// Simulated time.
    pub time: Duration,
}

impl AddAssign for Figures {
    fn add_assign(&mut self, other: Figures) {
        self.writes += other.writes;
        self.reads += other.reads;
        self.leaders += other.leaders;
        self.snapshots += other.snapshots;
        self.faults += other.faults;
        self.starts += other.starts;
        self.members += other.members;
        self.time += other.time;
    }
}

#[derive(Default)]
pub(crate) struct History {
    pub(crate) figures: Figures,
    pub(crate) wishes: BTreeMap<String, Vec<Wish>>,
    /// By index, as the first manager applied it.
    entries: BTreeMap<u64, (Content, usize)>,
    /// The last index each manager has applied since its start.
    applied: BTreeMap<usize, u64>,
    /// By term.
    leaders: BTreeMap<u64, usize>,
    violation: Option<String>,
    story: Vec<String>,
    pub(crate) aloud: bool,
    /// Where the disks are: its name is another each time, and not told.
    pub(crate) folder: String,
    fingerprint: u64,
    pub(crate) now: Duration,
}

impl History {
    /// The first rule that was broken.
    pub(crate) fn violation(&self) -> Option<&String> {
        self.violation.as_ref()
    }

    pub(crate) fn violate(&mut self, what: String) {
        let what = self.nameless(what);
        self.note(format!("VIOLATION: {what}"));
        self.violation.get_or_insert(what);
    }

    fn nameless(&self, text: String) -> String {
        text.replace(&self.folder, "")
    }

    /// Of all that has happened.
    pub(crate) fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    pub(crate) fn story(&self) -> &[String] {
        &self.story[self.story.len().saturating_sub(STORY)..]
    }

    /// Something that a reader of the story wants to know.
    pub(crate) fn note(&mut self, what: String) {
        let what = self.nameless(what);
        let line = format!("{:9.3} {what}", self.now.as_secs_f64());
        self.mix(&line);
        if self.aloud {
            println!("{line}");
        }
        self.story.push(line);
    }

    /// Something that only the fingerprint wants to know: FNV-1a.
    pub(crate) fn mix(&mut self, what: &str) {
        for byte in what.bytes() {
            self.fingerprint = (self.fingerprint ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    /// A manager's process begins.
    pub(crate) fn started(&mut self, manager: usize) {
        self.figures.starts += 1;
        self.applied.remove(&manager);
    }

    /// A manager applies an entry: the one after the last, and the same as all others at that index.
    pub(crate) fn applying(&mut self, manager: usize, index: u64, content: Content) {
        self.mix(&format!("{:?} m{manager} {index} {content:?}", self.now));
        if let Some(leader) = content.leader.strip_prefix('m').and_then(|n| n.parse().ok()) {
            self.leads(leader, content.term);
        }
        let expected = self.applied.get(&manager).map_or(0, |last| last + 1);
        if index != expected {
            self.violate(format!("m{manager} applies entry {index}, not {expected}"));
        }
        self.applied.insert(manager, index);
        match self.entries.get(&index) {
            None => drop(self.entries.insert(index, (content, manager))),
            Some((known, _)) if *known == content => {}
            Some((known, first)) => {
                let differ = format!(
                    "m{manager} applies {content:?} at {index}, where m{first} applied {known:?}"
                );
                self.violate(differ);
            }
        }
    }

    /// A manager's state is that of a snapshot: not of an older one than the state it replaces.
    pub(crate) fn installed(&mut self, manager: usize, index: u64) {
        self.figures.snapshots += 1;
        self.note(format!("m{manager} has a snapshot up to {index}"));
        let last = self.applied.insert(manager, index);
        if let Some(last) = last.filter(|last| *last > index) {
            self.violate(format!("m{manager} goes back from {last} to a snapshot up to {index}"));
        }
    }

    /// A manager believes that it leads: nobody else ever did in this term.
    pub(crate) fn leads(&mut self, manager: usize, term: u64) {
        match self.leaders.get(&term) {
            None => {
                self.leaders.insert(term, manager);
                self.figures.leaders += 1;
                self.note(format!("m{manager} leads in term {term}"));
            }
            Some(first) if *first == manager => {}
            Some(first) => {
                let first = *first;
                self.violate(format!("m{first} and m{manager} lead in term {term}"));
            }
        }
    }

    /// How many objects of each client are there for certain.
    pub(crate) fn acknowledged(&self) -> BTreeMap<String, u64> {
        let there = |wishes: &Vec<Wish>| wishes.iter().filter(|wish| wish.there).count() as u64;
        self.wishes.iter().map(|(client, wishes)| (client.clone(), there(wishes))).collect()
    }

    /// A read that began when so many were acknowledged sees them.
    pub(crate) fn read(&mut self, began: &BTreeMap<String, u64>, seen: &BTreeMap<String, u64>) {
        self.figures.reads += 1;
        for (client, least) in began {
            let found = seen.get(client).copied().unwrap_or(0);
            if found < *least {
                self.violate(format!(
                    "a read sees {found} objects of {client}, of which {least} were acknowledged \
                     before it began"
                ));
            }
        }
    }

    /// Once all is well: every acknowledged write is in the state, with its version, in its order.
    pub(crate) fn judge(&mut self, state: &shoal_model::State) {
        for (client, wishes) in self.wishes.clone() {
            // The greatest version of the rounds before, and of this one.
            let (mut before, mut round) = ((0, String::new()), (0, String::new()));
            let mut number = 0;
            for (at, wish) in wishes.iter().enumerate() {
                let found = state.nodes.get(&wish.id).map(|node| node.meta.version);
                let Some(version) = found else {
                    if wish.there {
                        self.violate(format!("{} is lost, which was acknowledged", wish.id));
                    }
                    continue;
                };
                if wish.version.is_some_and(|acknowledged| acknowledged != version) {
                    self.violate(format!(
                        "{} has version {version}, not {:?} as acknowledged",
                        wish.id, wish.version
                    ));
                }
                if wish.round != number {
                    number = wish.round;
                    before = std::mem::take(&mut round).max(before);
                }
                if version <= before.0 {
                    self.violate(format!(
                        "{client} wrote {} after {}, it has version {version}, not more than {}",
                        wish.id, before.1, before.0
                    ));
                }
                let earlier = wishes[..at]
                    .iter()
                    .rev()
                    .find(|w| w.round == wish.round && w.attempt == wish.attempt);
                if let Some(earlier) = earlier
                    && let (Some(first), Some(second)) = (earlier.version, wish.version)
                    && first >= second
                {
                    self.violate(format!(
                        "{client} asked for {} before {}, they have versions {first} and {second}",
                        earlier.id, wish.id
                    ));
                }
                round = round.max((version, wish.id.clone()));
            }
        }
    }
}
