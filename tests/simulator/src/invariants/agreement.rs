//! State equal at equal index; one leader a term; what is applied is never taken back.
use super::{Verdict, present};
use crate::log::{Entry, Payload, Txn};
use shoal_model::{ApplyError, Object, State};
use std::{collections::BTreeMap, rc::Rc};

#[derive(Default)]
pub(super) struct Agreement {
    /// The true state.
    pub(super) state: State,
    index: u64,
    /// What each entry did.
    record: BTreeMap<u64, Deed>,
    leaders: BTreeMap<u64, usize>,
}

struct Deed {
    entry: Rc<Entry>,
    results: Vec<Option<u64>>,
    /// The objects it changed, as they were behind it; in order of the changes, the last one counts.
    objects: Vec<Option<Object>>,
    version: u64,
}

impl Agreement {
    pub(super) fn elected(&mut self, m: usize, term: u64) -> Verdict {
        match self.leaders.insert(term, m) {
            Some(other) => {
                Err(format!("managers {other} and {m} were both elected in term {term}"))
            }
            None => Ok(()),
        }
    }

    pub(super) fn is_next(&self, index: u64) -> bool {
        index == self.index + 1
    }

    pub(super) fn begin(&mut self, entry: &Rc<Entry>) {
        self.index = entry.index;
        let deed = Deed {
            entry: entry.clone(),
            results: Vec::new(),
            objects: Vec::new(),
            version: self.state.version,
        };
        self.record.insert(entry.index, deed);
    }

    /// Applies a transaction to the true state.
    pub(super) fn apply(&mut self, txn: &Txn) -> bool {
        let version = self.state.version + 1;
        let done = self.state.apply(version, txn.now, txn.changes.clone()).is_ok();
        if let Some(deed) = self.record.get_mut(&self.index) {
            deed.results.push(done.then_some(version));
        }
        done
    }

    pub(super) fn end(&mut self, entry: &Entry) {
        let Payload::Batch(batch) = &entry.payload else { return };
        let changes = batch.iter().flat_map(|txn| &txn.changes);
        let objects = changes.map(|c| present(&self.state, c)).collect();
        if let Some(deed) = self.record.get_mut(&entry.index) {
            deed.objects = objects;
            deed.version = self.state.version;
        }
    }

    /// A manager has applied an entry: the same one, with the same result, to the same state.
    pub(super) fn holds(
        &self,
        m: usize,
        entry: &Entry,
        state: &State,
        results: &[Result<u64, ApplyError>],
    ) -> Verdict {
        let index = entry.index;
        let Some(deed) = self.record.get(&index) else {
            return Err(format!("manager {m} applied entry {index}, and nobody the one before it"));
        };
        if *deed.entry != *entry {
            let term = entry.term;
            return Err(format!("manager {m} applied another entry {index} (of term {term})"));
        }
        if deed.version != state.version {
            let (is, due) = (state.version, deed.version);
            return Err(format!("manager {m} is at version {is} with entry {index}, not at {due}"));
        }
        let same =
            results.iter().map(|r| r.as_ref().ok().copied()).eq(deed.results.iter().copied());
        if !same {
            return Err(format!("entry {index} had another result at manager {m}"));
        }
        let Payload::Batch(batch) = &entry.payload else { return Ok(()) };
        let changes = batch.iter().flat_map(|txn| &txn.changes);
        for (change, due) in changes.zip(&deed.objects) {
            let is = present(state, change);
            if is != *due {
                let name = is.as_ref().or(due.as_ref()).map_or("an object", |o| o.id());
                return Err(format!("manager {m} has another {name} with entry {index}"));
            }
        }
        Ok(())
    }

    pub(super) fn installed(&self, m: usize, state: &State, index: u64) -> Verdict {
        let due = self.record.get(&index).map(|d| d.version);
        match due {
            Some(version) if version == state.version => Ok(()),
            _ => Err(format!(
                "manager {m} installed a snapshot of entry {index} that is not its state"
            )),
        }
    }

    pub(super) fn finally(&self, m: usize, state: &State) -> Verdict {
        match *state == self.state {
            true => Ok(()),
            false => Err(format!("in the end manager {m} has another state than the cluster")),
        }
    }
}

/// A manager replaces entries from an index on.
pub(super) fn truncated(m: usize, from: u64, applied: u64) -> Verdict {
    match from <= applied {
        true => Err(format!("manager {m} replaces entry {from}, and has applied up to {applied}")),
        false => Ok(()),
    }
}
