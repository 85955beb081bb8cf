//! What a node is told, taken in with as little work as it can be. Pure.
//!
//! An agent reads every row and puts them all together. Here only the node's own tasks are read; of
//! rows about others there is a digest, so that a new session begins as an agent's does. That a
//! difference fits what was told before is checked, too.

use anyhow::Context as _;
use shoal_model::{NodeAssignment, Row, RowKey, TaskState, WrongBase, row_digest};
use shoal_rpc::{Assignment, Section};
use std::{
    collections::{BTreeMap, HashMap},
    hash::{BuildHasherDefault, DefaultHasher, Hash as _, Hasher},
    sync::{LazyLock, Mutex, MutexGuard, PoisonError},
};

/// What the node is to do with a task.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Wish {
    pub(crate) task: String,
    pub(crate) desired: TaskState,
    /// What the manager knows of it.
    pub(crate) known: TaskState,
}

/// What came of a message that completed a difference.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Told {
    pub(crate) generation: u64,
    /// What is not named is not to be done any more.
    pub(crate) whole: bool,
    pub(crate) wishes: Vec<Wish>,
    pub(crate) gone: Vec<String>,
}

/// What a node was told so far.
#[derive(Debug, Default)]
pub(crate) struct Intake {
    generation: u64,
    /// Parts so far of a difference that is not complete.
    parts: Option<Told>,
    /// The whole was asked for.
    asked: bool,
    /// By number of their names.
    sections: BTreeMap<u32, Rows>,
}

/// Number of the row that is none.
const NONE: u32 = 0;

/// Rows of a section: by number of their keys there, what they say.
#[derive(Debug, Default)]
struct Rows {
    sum: u64,
    rows: Vec<u32>,
}

impl Rows {
    /// Puts a row or takes it away; gives what it said before.
    fn put(&mut self, key: u32, row: u32) -> u32 {
        let key = key as usize;
        if key >= self.rows.len() {
            if row == NONE {
                return NONE;
            }
            // A little at a time: thousands of nodes do so at the same moment.
            let more = (self.rows.len() / 8).clamp(16, 512).max(key + 1 - self.rows.len());
            if key >= self.rows.capacity() {
                self.rows.reserve_exact(more);
            }
            self.rows.resize(key + 1, NONE);
        }
        std::mem::replace(&mut self.rows[key], row)
    }
}

/// A row that many nodes get, by numbers.
#[derive(Clone, Copy)]
struct Shared {
    section: u32,
    key: u32,
    row: u32,
}

/// What many nodes are told alike, read when the first of them hears it. All nodes of a network have the same
/// rows: with maps of their own ten thousand nodes would have gigabytes, and reading each row once for each
/// node is more than all the rest.
struct Known {
    sections: HashMap<String, u32>,
    /// Their names, and how many keys they have.
    names: Vec<(String, u32)>,
    /// By digest of section and key, its number in the section.
    keys: HashMap<u64, u32, BuildHasherDefault<AsItIs>>,
    /// Digests of rows by their numbers, and the rows by them.
    digests: Vec<u64>,
    rows: HashMap<u64, Shared, BuildHasherDefault<AsItIs>>,
}

impl Default for Known {
    fn default() -> Known {
        Known {
            sections: HashMap::new(),
            names: Vec::new(),
            keys: HashMap::default(),
            digests: vec![0], // of none
            rows: HashMap::default(),
        }
    }
}

static KNOWN: LazyLock<Mutex<Known>> = LazyLock::new(Mutex::default);

/// For numbers that are digests already.
#[derive(Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn write(&mut self, _: &[u8]) {
        unreachable!("only numbers are hashed");
    }

    fn write_u64(&mut self, digest: u64) {
        self.0 = digest;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

impl Known {
    fn get() -> MutexGuard<'static, Known> {
        KNOWN.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn section(&mut self, name: &str) -> u32 {
        if let Some(number) = self.sections.get(name) {
            return *number;
        }
        let number = u32::try_from(self.names.len()).unwrap_or(u32::MAX);
        self.names.push((name.to_owned(), 0));
        self.sections.insert(name.to_owned(), number);
        number
    }

    fn key(&mut self, section: u32, kind: &str, id: &str) -> u32 {
        let mut hasher = DefaultHasher::new();
        (section, kind, id).hash(&mut hasher);
        let keys = &mut self.names[section as usize].1;
        *self.keys.entry(hasher.finish()).or_insert_with(|| {
            *keys += 1;
            *keys - 1
        })
    }

    fn row(&mut self, digest: u64, (section, kind, id): (&str, &str, &str)) -> Shared {
        let section = self.section(section);
        let key = self.key(section, kind, id);
        let row = u32::try_from(self.digests.len()).unwrap_or(u32::MAX);
        self.digests.push(digest);
        *self.rows.entry(digest).or_insert(Shared { section, key, row })
    }

    fn digest(&self, row: u32) -> u64 {
        self.digests.get(row as usize).copied().unwrap_or_default()
    }
}

impl Intake {
    /// A session begins. Says what was told in earlier ones.
    pub(crate) fn begin(&mut self) -> Vec<Section> {
        (self.parts, self.asked) = (None, false);
        let known = Known::get();
        let section = |(name, rows): (&u32, &Rows)| Section {
            network: known.names[*name as usize].0.clone(),
            digest: rows.sum,
        };
        let mut sections: Vec<Section> = self.sections.iter().map(section).collect();
        sections.sort_by(|a, b| a.network.cmp(&b.network));
        sections
    }

    /// Takes a message; gives what is to be done once it is all there.
    pub(crate) fn take(
        &mut self,
        part: &Assignment,
    ) -> anyhow::Result<Result<Option<Told>, WrongBase>> {
        let known = &mut *Known::get();
        let (generation, whole) = (part.generation, part.whole);
        let goes_on = |told: &Told| (told.generation, told.whole) == (generation, whole);
        let mut told = match self.parts.take().filter(goes_on) {
            Some(told) => told,
            None if !whole && part.base != self.generation => {
                let wrong = WrongBase { base: part.base, present: self.generation };
                let first = !std::mem::replace(&mut self.asked, true);
                return Ok(if first { Err(wrong) } else { Ok(None) });
            }
            None => {
                if whole {
                    let kept: Vec<u32> = part.kept.iter().map(|n| known.section(n)).collect();
                    self.sections.retain(|name, _| kept.contains(name));
                }
                Told { generation, whole, ..Told::default() }
            }
        };
        for key in &part.gone {
            match serde_json::from_slice(key).context("a bad key")? {
                // What tasks use is of no use here: none runs.
                RowKey::Node | RowKey::Dependency(..) => {}
                RowKey::Task(task) => told.gone.push(task),
                RowKey::Peer { network, node } => self.remove(known, (&network, "peer", &node)),
                RowKey::Network(id) => drop(self.sections.remove(&known.section(&id))),
                RowKey::Service { network, service } => {
                    self.remove(known, (&network, "service", &service));
                }
                RowKey::Member { network, task } => {
                    self.remove(known, (&network, "member", &task));
                }
            }
        }
        for row in part.rows.iter().flat_map(|rows| Row::split(rows)) {
            let row = row?;
            let digest = row_digest(row);
            if let Some(shared) = known.rows.get(&digest).copied() {
                self.put(known, shared);
                continue;
            }
            let about = match Row::read(row)? {
                Row::Node { .. } | Row::Dependency(_) => continue,
                Row::Peer(row) => (row.network_id, "peer", row.node_id),
                Row::Network(row) => (row.id.clone(), "network", row.id),
                Row::Service(row) => (row.network_id, "service", row.id),
                Row::Member(row) => (row.at.network_id, "member", row.id),
                Row::Task(own) => {
                    let task = own.task;
                    let known = task.status.state;
                    told.wishes.push(Wish { task: task.id, desired: task.desired, known });
                    continue;
                }
            };
            let (section, kind, id) = &about;
            let shared = known.row(digest, (section, kind, id));
            self.put(known, shared);
        }
        if part.more {
            self.parts = Some(told);
            return Ok(Ok(None));
        }
        (self.generation, self.asked) = (generation, false);
        Ok(Ok(Some(told)))
    }

    fn put(&mut self, known: &Known, Shared { section, key, row }: Shared) {
        let rows = self.sections.entry(section).or_default();
        let before = rows.put(key, row);
        let (before, now) = (known.digest(before), known.digest(row));
        rows.sum = rows.sum.wrapping_add(now).wrapping_sub(before);
    }

    fn remove(&mut self, known: &mut Known, (section, kind, id): (&str, &str, &str)) {
        let section = known.section(section);
        let Some(rows) = self.sections.get_mut(&section) else { return };
        let key = known.key(section, kind, id);
        let before = known.digest(rows.put(key, NONE));
        rows.sum = rows.sum.wrapping_sub(before);
    }
}

/// The same of an assignment that an agent put together.
pub(crate) fn told(assignment: &NodeAssignment) -> Told {
    let wishes = assignment.tasks.iter().map(|assigned| Wish {
        task: assigned.task.id.clone(),
        desired: assigned.task.desired,
        known: assigned.task.status.state,
    });
    Told {
        generation: assignment.generation,
        whole: true,
        wishes: wishes.collect(),
        gone: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shoal_agent::{Inbox, News};
    use shoal_model::{Meta, Timestamp, docker::TaskSpec};
    use std::sync::Arc;

    impl Intake {
        fn rows(&self, section: &str) -> usize {
            let rows = &self.sections[&Known::get().section(section)].rows;
            rows.iter().filter(|row| **row != NONE).count()
        }
    }

    fn own(id: &str) -> Vec<u8> {
        let spec: Arc<TaskSpec> = Arc::default();
        let row = serde_json::json!({ "Task": {
            "service_name": "web", "service_labels": {}, "networks": [],
            "task": {
                "id": id, "meta": Meta::default(), "service_id": "s", "slot": 1, "spec": spec,
                "spec_version": 1, "name": format!("web.1.{id}"), "desired": "Running",
                "not_before": Timestamp::default(), "networks": [],
                "status": {
                    "state": "Assigned", "since": Timestamp::default(), "message": "", "err": "",
                },
            },
        } });
        serde_json::from_value::<Row>(row).unwrap().write()
    }

    fn peer(id: &str, port: u16) -> Vec<u8> {
        let row = Row::Peer(shoal_model::PeerRow {
            network_id: "net".into(),
            node_id: id.into(),
            hostname: id.into(),
            public_key: "k".into(),
            endpoint: ([192, 0, 2, 1], port).into(),
            overlay: [10, 0, 0, 2].into(),
        });
        row.write()
    }

    fn part(generation: u64, base: Option<u64>, rows: Vec<Vec<u8>>, more: bool) -> Assignment {
        let (whole, base) = (base.is_none(), base.unwrap_or_default());
        let rows = rows.into_iter().map(Into::into).collect();
        Assignment { generation, whole, base, rows, more, ..Assignment::default() }
    }

    #[test]
    fn own_tasks_are_read_and_others_rows_kept_over_all_parts() {
        let mut intake = Intake::default();
        let first = part(5, None, vec![own("a"), peer("n", 1)], true);
        assert_eq!(intake.take(&first).unwrap(), Ok(None));
        let told = intake.take(&part(5, None, vec![peer("m", 1), own("b")], false)).unwrap();
        let told = told.unwrap().unwrap();
        let tasks: Vec<&str> = told.wishes.iter().map(|wish| wish.task.as_str()).collect();
        assert_eq!((tasks, intake.rows("net")), (vec!["a", "b"], 2));
        assert_eq!(told.wishes[0].known, TaskState::Assigned);
    }

    #[test]
    fn a_new_session_says_the_same_as_an_agents() {
        let (mut intake, mut inbox) = (Intake::default(), Inbox::default());
        let mut gone = part(6, Some(5), vec![peer("n", 2)], false);
        gone.gone = vec![
            serde_json::to_vec(&RowKey::Peer { network: "net".into(), node: "m".into() }).unwrap(),
        ];
        let all = [part(5, None, vec![peer("n", 1), peer("m", 1)], false), gone];
        for message in all {
            assert!(intake.take(&message).unwrap().unwrap().is_some());
            assert!(matches!(inbox.take(message, 0).unwrap(), Some(News::Assignment(_))));
        }
        assert_eq!(intake.begin(), inbox.begin());
        assert_eq!(intake.begin()[0].digest, row_digest(&peer("n", 2)));
        let kept = Assignment { kept: vec!["net".into()], ..part(9, None, vec![], false) };
        assert!(intake.take(&kept).unwrap().unwrap().is_some());
        assert_eq!(intake.rows("net"), 1);
        intake.take(&part(10, None, vec![], false)).unwrap().unwrap();
        assert!(intake.begin().is_empty());
    }

    #[test]
    fn a_difference_to_something_else_asks_for_the_whole_once() {
        let mut intake = Intake::default();
        let stray = part(6, Some(5), vec![own("a")], false);
        assert_eq!(intake.take(&stray).unwrap(), Err(WrongBase { base: 5, present: 0 }));
        assert_eq!(intake.take(&stray).unwrap(), Ok(None));
        assert!(intake.take(&part(7, None, vec![], false)).unwrap().unwrap().is_some());
        let next = intake.take(&part(9, Some(7), vec![own("b")], false)).unwrap().unwrap();
        assert_eq!(next.unwrap().generation, 9);
    }
}
