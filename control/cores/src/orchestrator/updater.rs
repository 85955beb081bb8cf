//! Replaces what is outdated, so many places at a time, and watches what comes of it.
//!
//! ```text
//! (none) ──something outdated──▶ Updating ──all replaced and watched──▶ Completed
//!                                   ├── too many failures, pause ─────▶ Paused
//!                                   └── too many failures, rollback ──▶ RollbackStarted ─▶ RollbackCompleted
//! rollback asked for by the user ─────────────────────────────────────────┘  └─────────▶ RollbackPaused
//! ```
//! A place is under way from the making of its new task until that runs or has ended, and for the
//! update's delay more. A new task that ends before it runs, or within the monitoring time after, is
//! a failure. All of that is read from the tasks the update made; only the number of places it began
//! with, and until when the last are watched, are kept with the service.
use super::{
    plan::{NewTask, Place, Plan},
    revision,
    slots::{Slots, live},
    tend::{Outdated, replacement},
};
use crate::spec::nanos;
use shoal_model::{
    MadeBy, Service, Task, TaskState, Timestamp, UpdateState, UpdateStatus,
    bugs::{self, Bug},
    docker,
};
use std::time::Duration;

/// Docker's default for how long a replaced task is watched.
const MONITOR: Duration = Duration::from_secs(5);

/// Where the delay is not shorter than the monitoring time, the last places are watched for so much
/// longer than the delay (swarmkit's rule).
const BEYOND_DELAY: Duration = Duration::from_secs(1);

/// What follows on too many failures.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Action {
    Pause,
    Continue,
    Rollback,
}

/// How a service is updated, or brought back.
pub(super) struct Settings {
    /// Places at a time.
    parallelism: usize,
    /// From when a replacement runs until its place counts as done.
    delay: Duration,
    monitor: Duration,
    pub(super) start_first: bool,
    action: Action,
    /// Part of the places that may fail before it follows.
    max_failure_ratio: f32,
}

impl Settings {
    /// Those of its update, or of its rollback while there is one.
    pub(super) fn of(service: &Service) -> Settings {
        match service.update_status.as_ref().is_some_and(UpdateStatus::is_rollback) {
            true => Settings::back(service.spec.rollback_config.as_ref()),
            false => Settings::forth(service.spec.update_config.as_ref()),
        }
    }

    fn forth(config: Option<&docker::ServiceSpecUpdateConfig>) -> Settings {
        use docker::{
            ServiceSpecUpdateConfigFailureActionEnum as Asked,
            ServiceSpecUpdateConfigOrderEnum as Order,
        };
        let action = match config.and_then(|c| c.failure_action) {
            Some(Asked::CONTINUE) => Action::Continue,
            Some(Asked::ROLLBACK) => Action::Rollback,
            _ => Action::Pause,
        };
        Settings {
            parallelism: parallelism(config.and_then(|c| c.parallelism)),
            delay: config.and_then(|c| c.delay).map_or(Duration::ZERO, nanos),
            monitor: monitor(config.and_then(|c| c.monitor)),
            start_first: config.and_then(|c| c.order) == Some(Order::START_FIRST),
            action,
            max_failure_ratio: ratio(config.and_then(|c| c.max_failure_ratio)),
        }
    }

    fn back(config: Option<&docker::ServiceSpecRollbackConfig>) -> Settings {
        use docker::{
            ServiceSpecRollbackConfigFailureActionEnum as Asked,
            ServiceSpecRollbackConfigOrderEnum as Order,
        };
        let continues = config.and_then(|c| c.failure_action) == Some(Asked::CONTINUE);
        Settings {
            parallelism: parallelism(config.and_then(|c| c.parallelism)),
            delay: config.and_then(|c| c.delay).map_or(Duration::ZERO, nanos),
            monitor: monitor(config.and_then(|c| c.monitor)),
            start_first: config.and_then(|c| c.order) == Some(Order::START_FIRST),
            action: if continues { Action::Continue } else { Action::Pause },
            max_failure_ratio: ratio(config.and_then(|c| c.max_failure_ratio)),
        }
    }
}

fn parallelism(asked: Option<i64>) -> usize {
    match asked {
        Some(0) => usize::MAX,
        Some(n) => usize::try_from(n).unwrap_or(1),
        None => 1,
    }
}

/// Docker's clients send 0 for what was not said.
fn monitor(asked: Option<i64>) -> Duration {
    asked.map(nanos).filter(|m| !m.is_zero()).unwrap_or(MONITOR)
}

#[expect(clippy::cast_possible_truncation, reason = "Docker compares single floats")]
fn ratio(asked: Option<f64>) -> f32 {
    asked.unwrap_or(0.0) as f32
}

/// Whether the task was made by the update that goes on now: its end is of interest.
pub(super) fn is_of_update(service: &Service, task: &Task) -> bool {
    task.made_by == MadeBy::Update
        && task.spec_version == service.spec_version
        && service.update_status.as_ref().is_some_and(|u| task.meta.created >= u.began)
}

/// Goes on with the update of a service; `outdated` are the places it has still to see to.
pub(super) fn update<'a>(
    plan: &mut Plan<'a>,
    service: &'a Service,
    slots: &Slots<'a>,
    outdated: Vec<Outdated<'a>>,
) {
    let places: Vec<Place<'_>> = outdated.iter().filter(|o| !o.overlaps).map(|o| o.place).collect();
    go_on(plan, service, slots, outdated);
    places.iter().for_each(|place| start_waiting(plan, &slots[place]));
}

/// An older task that waits for its time does its work as long as the update does not come to it: it
/// may be paused, or wait for another place for ever. What the update has replaced in this call is
/// told to stop, and stays so.
fn start_waiting(plan: &mut Plan<'_>, slot: &[&Task]) {
    let waits = live(slot).next().filter(|t| t.desired == TaskState::Ready);
    if let Some(task) = waits
        && !task.status.state.is_terminal()
        && plan.may_start(task, slot)
    {
        plan.change(task, |t| t.desired = TaskState::Running);
    }
}

fn go_on<'a>(
    plan: &mut Plan<'a>,
    service: &'a Service,
    slots: &Slots<'a>,
    outdated: Vec<Outdated<'a>>,
) {
    let Some(status) = &service.update_status else {
        if !outdated.is_empty() {
            let mut status =
                UpdateStatus::begin(UpdateState::Updating, "update in progress", plan.now);
            status.slots = Some(count(&outdated));
            keep(plan, service, status);
        }
        return;
    };
    if status.is_paused() || !status.in_progress() && outdated.is_empty() {
        return;
    }
    if status.in_progress() && status.slots.is_none() {
        return keep(
            plan,
            service,
            UpdateStatus { slots: Some(count(&outdated)), ..status.clone() },
        );
    }
    let how = Settings::of(service);
    let mine: Vec<&Task> =
        slots.values().flatten().copied().filter(|t| is_of_update(service, t)).collect();
    if status.in_progress()
        && let Some(failed) = too_many_failures(&how, status, &mine)
    {
        return fail(plan, service, status, &how, failed);
    }
    let begun = |o: &Outdated<'_>| slots[&o.place].iter().any(|t| is_of_update(service, t));
    // Begun by an update that was under way before the service was scaled.
    let before = outdated.iter().filter(|o| o.overlaps && !begun(o)).count();
    let under_way = mine.iter().filter(|t| plan.is_under_way(t, how.delay)).count() + before;
    let overlap = outdated.iter().any(|o| o.overlaps);
    let seen_to = |o: &Outdated<'_>| o.overlaps || begun(o);
    let mut left: Vec<Outdated<'_>> = outdated.into_iter().filter(|o| !seen_to(o)).collect();
    if left.is_empty() && under_way == 0 {
        // A new task that was lost is followed by one that is not the update's, and may wait long.
        if status.in_progress() && !overlap {
            watch(plan, service, status, &how, &mine);
        }
        return;
    }
    // Those that do not run first: nobody misses them.
    left.sort_by_key(|o| (o.running, o.place));
    let more = usize::from(bugs::active(Bug::ExceedParallelism));
    let room = how.parallelism.saturating_sub(under_way).saturating_add(more);
    for outdated in left.into_iter().take(room) {
        if plan.is_full() {
            return;
        }
        replace(plan, service, &how, outdated, &slots[&outdated.place]);
    }
}

fn count(outdated: &[Outdated<'_>]) -> u64 {
    u64::try_from(outdated.len()).unwrap_or(u64::MAX)
}

fn keep(plan: &mut Plan<'_>, service: &Service, status: UpdateStatus) {
    plan.put_service(Service { update_status: Some(status), ..service.clone() });
    // The rest follows at once, on the new status.
}

fn replace<'a>(
    plan: &mut Plan<'a>,
    service: &Service,
    how: &Settings,
    outdated: Outdated<'a>,
    slot: &[&'a Task],
) {
    let new = replacement(outdated.place, plan.now, MadeBy::Update);
    if how.start_first {
        // Those that do not run yet are nobody's loss.
        live(slot).filter(|t| t.status.state < TaskState::Running).for_each(|t| plan.retire(t));
        plan.create(service, NewTask { desired: TaskState::Running, ..new });
    } else {
        live(slot).for_each(|task| plan.retire(task));
        plan.create(service, new);
    }
}

impl Plan<'_> {
    fn is_under_way(&mut self, task: &Task, delay: Duration) -> bool {
        match task.times.running.or(task.times.ended) {
            Some(at) => !self.has_come(at.after(delay)),
            // One that was told to stop before it ran, as its node was lost, is waited for no more.
            None => task.desired <= TaskState::Running,
        }
    }
}

/// The failed task with which they became too many, if they did.
fn too_many_failures<'a>(
    how: &Settings,
    status: &UpdateStatus,
    mine: &[&'a Task],
) -> Option<&'a Task> {
    if how.action == Action::Continue || bugs::active(Bug::IgnoreFailures) {
        return None;
    }
    let failed = |t: &&Task| {
        let ended = t.times.ended?;
        let lived = t.times.running.map(|at| ended.since(at));
        lived.is_none_or(|lived| lived <= how.monitor).then_some(ended)
    };
    let mut failures: Vec<(Timestamp, &Task)> =
        mine.iter().filter_map(|t| failed(t).map(|at| (at, *t))).collect();
    failures.sort_by(|(a, s), (b, t)| (a, &s.id).cmp(&(b, &t.id)));
    let all = status.slots.unwrap_or(0).max(1) as f32;
    let too_many = |n: usize| n as f32 / all > how.max_failure_ratio;
    (1..).zip(failures).find(|(n, _)| too_many(*n)).map(|(_, (_, task))| task)
}

fn fail(
    plan: &mut Plan<'_>,
    service: &Service,
    status: &UpdateStatus,
    how: &Settings,
    task: &Task,
) {
    let because = format!("due to failure or early termination of task {}", task.id);
    let pause = |state, message| UpdateStatus { state, message, ..status.clone() };
    let again = bugs::active(Bug::RollBackTwice);
    if status.is_rollback() && !again {
        let message = format!("rollback paused {because}");
        return keep(plan, service, pause(UpdateState::RollbackPaused, message));
    }
    let message = format!("update rolled back {because}");
    let back = (how.action == Action::Rollback || again)
        .then(|| revision::rolled_back_by_itself(service, message, plan.now))
        .flatten();
    match back {
        Some(service) => plan.put_service(service),
        None => {
            let message = format!("update paused {because}");
            keep(plan, service, pause(UpdateState::Paused, message));
        }
    }
}

/// All places are replaced: the last ones are watched, then the update is complete.
fn watch(
    plan: &mut Plan<'_>,
    service: &Service,
    status: &UpdateStatus,
    how: &Settings,
    mine: &[&Task],
) {
    let done = mine.iter().filter_map(|t| t.times.running.or(t.times.ended)).max();
    let nothing_to_watch = status.slots == Some(0);
    let until = status.monitored_until.unwrap_or_else(|| {
        let longer = if how.delay >= how.monitor { how.delay + BEYOND_DELAY } else { how.monitor };
        done.map_or(plan.now, |at| at.after(how.delay)).after(longer)
    });
    if nothing_to_watch || plan.has_come(until) {
        let (state, message) = match status.is_rollback() {
            true => (UpdateState::RollbackCompleted, "rollback completed"),
            false => (UpdateState::Completed, "update completed"),
        };
        let (message, completed) = (message.to_owned(), Some(plan.now));
        keep(plan, service, UpdateStatus { state, message, completed, ..status.clone() });
    } else if status.monitored_until.is_none() {
        keep(plan, service, UpdateStatus { monitored_until: Some(until), ..status.clone() });
    }
}

#[cfg(test)]
mod tests;
