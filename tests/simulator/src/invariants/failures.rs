//! Failures of an update, counted anew: while there are too many nothing more is replaced, and what was
//! asked for follows, that or `continue`. Without them it neither stops nor goes back; a way back is never
//! turned.
use super::{Invariant, Rest, Step, Verdict};
use crate::log::Author;
use shoal_model::{
    Change, MadeBy, Object, ObjectKind, Service, Task, TaskState, Timestamp, UpdateState,
    UpdateStatus, docker,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// Docker's default.
const DEFAULT_MONITOR: Duration = Duration::from_secs(5);

/// Of each service, the failures of the way (forth or back) it is on.
#[derive(Default)]
pub(super) struct Failures {
    of: BTreeMap<String, Way>,
}

#[derive(Default)]
struct Way {
    /// Version of the specification, and when it was begun.
    key: (u64, Option<Timestamp>),
    /// Failed tasks.
    failed: BTreeMap<String, Failed>,
}

/// From which version on a failure is there, and from which it is not any more: a decision counts what
/// there was in the version it read.
struct Failed {
    told: u64,
    gone: Option<u64>,
}

impl Way {
    fn forget(&mut self, task: &str, version: u64) {
        if let Some(failed) = self.failed.get_mut(task) {
            failed.gone.get_or_insert(version);
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Action {
    Pause,
    Continue,
    Rollback,
}

struct Asked {
    action: Action,
    monitor: Duration,
    ratio: f32,
}

impl Asked {
    fn of(service: &Service) -> Asked {
        use docker::{
            ServiceSpecRollbackConfigFailureActionEnum as Back,
            ServiceSpecUpdateConfigFailureActionEnum as Forth,
        };
        let spec = &service.spec;
        let (action, monitor, ratio) = if is_back(service) {
            let config = spec.rollback_config.as_ref();
            let continues = config.and_then(|c| c.failure_action) == Some(Back::CONTINUE);
            (
                if continues { Action::Continue } else { Action::Pause },
                config.and_then(|c| c.monitor),
                config.and_then(|c| c.max_failure_ratio),
            )
        } else {
            let config = spec.update_config.as_ref();
            let action = match config.and_then(|c| c.failure_action) {
                Some(Forth::CONTINUE) => Action::Continue,
                Some(Forth::ROLLBACK) => Action::Rollback,
                _ => Action::Pause,
            };
            (action, config.and_then(|c| c.monitor), config.and_then(|c| c.max_failure_ratio))
        };
        let monitor = u64::try_from(monitor.unwrap_or(0)).unwrap_or(0);
        let monitor = if monitor == 0 { DEFAULT_MONITOR } else { Duration::from_nanos(monitor) };
        // Docker compares single floats.
        #[expect(clippy::cast_possible_truncation, reason = "as Docker does")]
        let ratio = ratio.unwrap_or(0.0) as f32;
        Asked { action, monitor, ratio }
    }
}

fn is_back(service: &Service) -> bool {
    service.update_status.as_ref().is_some_and(UpdateStatus::is_rollback)
}

fn key(service: &Service) -> (u64, Option<Timestamp>) {
    (service.spec_version, service.update_status.as_ref().map(|u| u.began))
}

impl Invariant for Failures {
    fn name(&self) -> &'static str {
        "failures"
    }

    fn applied(&mut self, step: &Step<'_>) -> Verdict {
        if step.txn.author == Author::Orchestrator {
            self.is_as_asked(step)?;
        }
        for change in &step.txn.changes {
            match change {
                Change::Delete(ObjectKind::Service, id) => drop(self.of.remove(id)),
                Change::Delete(ObjectKind::Task, id) => {
                    self.of.values_mut().for_each(|way| way.forget(id, step.state.version));
                }
                _ => {}
            }
        }
        for (_, task) in step.tasks_put() {
            let Some(service) = step.state.services.get(&task.service_id) else { continue };
            let way = self.of.entry(service.id.clone()).or_default();
            if way.key != key(service) {
                *way = Way { key: key(service), failed: BTreeMap::new() };
            }
            if task.desired == TaskState::Remove {
                way.forget(&task.id, step.state.version);
            } else if has_failed(service, task) {
                let failed = Failed { told: step.state.version, gone: None };
                way.failed.entry(task.id.clone()).or_insert(failed);
            }
        }
        Ok(())
    }

    fn at_rest(&mut self, rest: &Rest<'_>) -> Verdict {
        for service in rest.state.services.values() {
            let Some(status) = service.update_status.as_ref().filter(|u| u.in_progress()) else {
                continue;
            };
            let failed = self.failed(service, rest.state.version);
            if are_too_many(status, failed, &Asked::of(service)) {
                return Err(format!("{} goes on with {failed} failures", service.name()));
            }
        }
        Ok(())
    }
}

/// Whether the update made the task, and it ended before it ran or too soon after.
fn has_failed(service: &Service, task: &Task) -> bool {
    let began = service.update_status.as_ref().map(|u| u.began);
    let own = task.made_by == MadeBy::Update
        && task.spec_version == service.spec_version
        && began.is_some_and(|began| task.meta.created >= began);
    let Some(ended) = task.times.ended.filter(|_| own) else { return false };
    let monitor = Asked::of(service).monitor;
    task.times.running.is_none_or(|ran| ended.since(ran) <= monitor)
}

fn are_too_many(status: &UpdateStatus, failed: usize, asked: &Asked) -> bool {
    let all = status.slots.unwrap_or(0).max(1) as f32;
    asked.action != Action::Continue && failed > 0 && failed as f32 / all > asked.ratio
}

impl Failures {
    /// Failures of the service's present way that one knows of who read version `read`.
    fn failed(&self, service: &Service, read: u64) -> usize {
        self.left(service, read, &BTreeSet::new())
    }

    /// The same without tasks that are removed.
    fn left(&self, service: &Service, read: u64, removed: &BTreeSet<&str>) -> usize {
        let way = self.of.get(&service.id).filter(|way| way.key == key(service));
        let there = |(task, f): &(&String, &Failed)| {
            let gone = f.gone.is_some_and(|gone| gone <= read) || removed.contains(task.as_str());
            f.told <= read && !gone
        };
        way.map_or(0, |way| way.failed.iter().filter(there).count())
    }

    fn is_as_asked(&self, step: &Step<'_>) -> Verdict {
        let read = step.txn.read;
        // A failure is forgotten with its task, also by who removes it and goes on at the same time.
        let removed = step.txn.changes.iter().filter_map(|change| match change {
            Change::Delete(ObjectKind::Task, id) => Some(id.as_str()),
            _ => None,
        });
        let removed: BTreeSet<&str> = removed.collect();
        for (change, old) in step.txn.changes.iter().zip(step.old) {
            if let (Change::Put(Object::Service(new)), Some(Object::Service(old))) = (change, old) {
                self.decided(old, new, read, &removed)?;
            }
        }
        for (old, task) in step.tasks_put() {
            let service = step.state.services.get(&task.service_id);
            // Changed since the orchestrator looked: then it could not know.
            let Some(service) = service.filter(|s| s.meta.version <= read) else { continue };
            let replaces = old.is_none() && task.made_by == MadeBy::Update;
            let status = service.update_status.as_ref().filter(|u| u.in_progress());
            let failed = self.left(service, read, &removed);
            if let Some(status) = status.filter(|_| replaces)
                && are_too_many(status, failed, &Asked::of(service))
            {
                return Err(format!("{} goes on with {failed} failures", service.name()));
            }
        }
        Ok(())
    }

    /// The orchestrator gave an update another state.
    fn decided(
        &self,
        old: &Service,
        new: &Service,
        read: u64,
        removed: &BTreeSet<&str>,
    ) -> Verdict {
        use UpdateState as S;
        let state = |s: &Service| s.update_status.as_ref().map(|u| u.state);
        let (from, to) = (state(old), state(new));
        if from == to {
            return Ok(());
        }
        let asked = Asked::of(old);
        let failed = self.failed(old, read);
        let status = old.update_status.as_ref();
        let are_too_many =
            |failed| status.is_some_and(|status| are_too_many(status, failed, &asked));
        let (too_many, still) = (are_too_many(failed), are_too_many(self.left(old, read, removed)));
        let good = match (from, to) {
            (None, Some(S::Updating)) => true,
            (Some(S::Updating), Some(S::Completed))
            | (Some(S::RollbackStarted), Some(S::RollbackCompleted)) => !still,
            (Some(S::Updating), Some(S::Paused)) => {
                // There may be nothing to go back to.
                too_many && (asked.action == Action::Pause || old.previous_spec.is_none())
            }
            (Some(S::Updating), Some(S::RollbackStarted)) => {
                too_many
                    && asked.action == Action::Rollback
                    && old.previous_spec.as_ref() == Some(&new.spec)
                    && new.previous_spec.is_none()
                    && old.previous_spec_version == new.spec_version
            }
            (Some(S::RollbackStarted), Some(S::RollbackPaused)) => too_many,
            _ => false,
        };
        match good {
            true => Ok(()),
            false => Err(format!(
                "{} went from {from:?} to {to:?} with {failed} failures, asked to {:?}",
                old.name(),
                asked.action
            )),
        }
    }
}
