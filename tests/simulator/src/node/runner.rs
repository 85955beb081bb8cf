//! One task on its node, from assigned to its end: `control/agent/src/runner.rs`, state by state.
use super::runtime::{Container, ContainerState, Image};
use crate::{
    event::Event,
    stats::Count,
    time::{MINUTE, MS, Ns, SEC},
    world::World,
};
use shoal_model::{
    DependencyKind, NodeAssignment, Payload, Task, TaskState,
    bugs::{self, Bug},
    references,
};
use std::{mem, rc::Rc, sync::Arc};

/// From when a task is no longer a backend until its container is told to stop.
const DRAIN: Ns = 500 * MS;
/// How long an ended container's cable stays.
const LINGER: Ns = 3 * SEC;
/// Docker's default grace period.
const GRACE: Ns = 10 * SEC;

/// What the manager wants of a task now.
#[derive(Clone)]
pub(super) enum Order {
    /// As the task at this place of the assignment says.
    Assigned(Rc<NodeAssignment>, usize),
    Gone,
}

impl Order {
    fn desired(&self) -> Option<TaskState> {
        match self {
            Order::Assigned(..) => self.task().map(|task| task.desired),
            Order::Gone => None,
        }
    }

    fn task(&self) -> Option<&Task> {
        match self {
            Order::Assigned(all, at) => all.tasks.get(*at).map(|t| &t.task),
            Order::Gone => None,
        }
    }

    fn tells_to_stop(&self) -> bool {
        self.desired().is_none_or(|d| d > TaskState::Running)
    }
}

pub(crate) struct Runner {
    order: Order,
    stage: Stage,
    /// What its container is to have in files.
    files: Vec<Arc<Payload>>,
    /// Number of the step under way; events of earlier ones are void.
    step: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// What the task refers to is not told before the next session.
    Waiting,
    Preparing {
        fails: bool,
    },
    /// Prepared; waits until it is wanted.
    Prepared,
    Starting {
        fails: bool,
    },
    Running,
    /// Told to stop; the other nodes take it out of their tables.
    Draining,
    /// The stop signal was sent.
    Stopping,
    Lingering,
    /// Ended; waits until it is gone.
    Ended,
    /// Gone, and its container is still being stopped.
    Erasing {
        draining: bool,
    },
}

impl World {
    /// Tells a runner what is wanted, and makes one where there is none.
    pub(super) fn order(&mut self, host: usize, task: &Rc<str>, order: Order) {
        if let Some(runner) = self.agents[host].runners.get_mut(task) {
            runner.order = order;
            return self.look_at_order(host, task);
        }
        let gone = order.desired().is_none();
        let runner = Runner { order, stage: Stage::Ended, files: Vec::new(), step: 0 };
        self.agents[host].runners.insert(task.clone(), runner);
        if !gone {
            self.live(host, task);
        }
        self.look_at_order(host, task);
    }

    fn live(&mut self, host: usize, task: &Rc<str>) {
        let agent = &self.agents[host];
        let Some(runner) = agent.runners.get(task) else { return };
        let Order::Assigned(all, at) = &runner.order else { return };
        let told = runner.order.tells_to_stop();
        let assigned = all.tasks[*at].task.status.state;
        let before = agent.reported(task).map_or(assigned, |s| s.state);
        if before.is_terminal() {
            return; // it has ended already; only its remains are kept
        }
        let known = agent.containers.get(task).map(|c| (c.state, c.netns));
        match known.filter(|(state, _)| *state != ContainerState::Created) {
            Some((_, true)) => self.runs(host, task),
            _ if before >= TaskState::Starting => {
                let reason = "the container did not survive a restart of the node";
                self.finish(host, task, TaskState::Failed, reason);
            }
            _ => {
                self.agents[host].containers.remove(task);
                if told {
                    return self.finish(host, task, TaskState::Shutdown, "");
                }
                self.report(host, task, TaskState::Accepted, "accepted", "");
                self.report(host, task, TaskState::Preparing, "preparing", "");
                self.prepare(host, task);
            }
        }
    }

    /// Prepares a task when all is there that it refers to. It is in no file: after a restart it takes a
    /// session to know.
    fn prepare(&mut self, host: usize, task: &Rc<str>) {
        match self.supplies(host, task) {
            Ok(files) => {
                if let Some(runner) = self.agents[host].runners.get_mut(task) {
                    runner.files = files;
                }
                let broken = self.calm.is_none() && self.image(host, task) == Image::Broken;
                let broken = broken && (self.config.fault_gap < MINUTE || self.dice.chance(300));
                let fails = broken || self.mishap(self.config.runtime.unprepared);
                let takes = self.takes(5 * MS, 300 * MS);
                self.step(host, task, Stage::Preparing { fails }, takes);
            }
            Err(_) if !self.agents[host].told => {
                let stage = self.agents[host].runners.get(task).map(|r| r.stage);
                if stage != Some(Stage::Waiting) {
                    self.stats.add(Count::TasksWaited);
                }
                self.rest(host, task, Stage::Waiting);
            }
            Err((kind, id)) => {
                self.stats.add(Count::TasksMissed);
                self.checks.refused(task, kind, &id);
                self.finish(host, task, TaskState::Rejected, &format!("{kind} not found: {id}"));
            }
        }
    }

    /// What a task refers to; else the first of it that this node was not told.
    fn supplies(
        &self,
        host: usize,
        task: &str,
    ) -> Result<Vec<Arc<Payload>>, (DependencyKind, String)> {
        let agent = &self.agents[host];
        let task = agent.runners.get(task).and_then(|runner| runner.order.task());
        let mut files = Vec::new();
        for (kind, id) in task.into_iter().flat_map(|task| references(&task.spec)) {
            match agent.knows().find(|known| known.kind == kind && known.id == id) {
                Some(known) => files.push(known.clone()),
                None if bugs::active(Bug::StartWithout) => {}
                None => return Err((kind, id.to_owned())),
            }
        }
        Ok(files)
    }

    /// Something that goes wrong only while there are faults.
    fn mishap(&mut self, permille: u64) -> bool {
        self.calm.is_none() && self.dice.chance(permille)
    }

    fn takes(&mut self, low: Ns, high: Ns) -> Ns {
        let slow = self.dice.chance(self.config.runtime.slow);
        self.dice.between(low, high) + if slow { self.dice.below(30 * SEC) } else { 0 }
    }

    fn image(&self, host: usize, task: &str) -> Image {
        let runner = self.agents[host].runners.get(task);
        let Some(Order::Assigned(all, at)) = runner.map(|r| &r.order) else { return Image::Stable };
        let container = all.tasks[*at].task.spec.container_spec.as_ref();
        Image::of(container.and_then(|c| c.image.as_deref()).unwrap_or_default())
    }

    fn step(&mut self, host: usize, task: &Rc<str>, stage: Stage, takes: Ns) {
        let Some(runner) = self.agents[host].runners.get_mut(task) else { return };
        runner.stage = stage;
        runner.step += 1;
        let step = runner.step;
        let boot = self.hosts[host].boot;
        self.after(takes, Event::Runner { host, boot, task: task.clone(), step });
    }

    fn rest(&mut self, host: usize, task: &str, stage: Stage) {
        if let Some(runner) = self.agents[host].runners.get_mut(task) {
            runner.stage = stage;
            runner.step += 1;
        }
    }

    /// A step is over.
    pub(crate) fn runner_step(&mut self, host: usize, task: &Rc<str>, step: u64) {
        let Some(runner) = self.agents[host].runners.get(task).filter(|r| r.step == step) else {
            return;
        };
        match runner.stage {
            Stage::Preparing { fails: true } => {
                self.stats.add(Count::PreparationsFailed);
                self.finish(host, task, TaskState::Rejected, "cannot be prepared");
            }
            Stage::Preparing { fails: false } => {
                let id = self.next_serial();
                let agent = &mut self.agents[host];
                let files = agent.runners.get_mut(task).map(|r| mem::take(&mut r.files));
                let files = files.unwrap_or_default();
                let state = ContainerState::Created;
                let container = Container { id, state, netns: true, files };
                agent.containers.insert(task.clone(), container);
                self.report(host, task, TaskState::Ready, "prepared", "");
                self.rest(host, task, Stage::Prepared);
                self.look_at_order(host, task);
            }
            Stage::Starting { fails: true } => {
                self.stats.add(Count::StartsFailed);
                self.finish(host, task, TaskState::Failed, "starting container failed");
            }
            Stage::Starting { fails: false } => {
                self.stats.add(Count::TasksStarted);
                let image = self.image(host, task);
                let gap = self.config.fault_gap;
                let end = image.end(&mut self.dice, gap, self.calm.is_some());
                let agent = &mut self.agents[host];
                let Some(container) = agent.containers.get_mut(task) else { return };
                container.state = ContainerState::Running;
                if !container.files.is_empty() {
                    self.stats.add(Count::TasksSupplied);
                }
                if let Some(task) = agent.runners.get(task).and_then(|r| r.order.task()) {
                    self.checks.supplied(task, &container.files);
                }
                let container = container.id;
                if let Some((after, code)) = end {
                    self.after(after, Event::Exit { host, container, code });
                }
                self.runs(host, task);
                self.look_at_order(host, task);
            }
            Stage::Draining => self.signal(host, task, Stage::Stopping),
            Stage::Stopping => {
                self.end_container(host, task, 143);
                self.finish(host, task, TaskState::Shutdown, "");
            }
            Stage::Lingering => {
                if let Some(container) = self.agents[host].containers.get_mut(task) {
                    container.netns = false;
                }
                self.rest(host, task, Stage::Ended);
                self.look_at_order(host, task);
            }
            Stage::Erasing { draining: true } => {
                self.signal(host, task, Stage::Erasing { draining: false });
            }
            Stage::Erasing { draining: false } => self.erased(host, task),
            Stage::Waiting | Stage::Prepared | Stage::Running | Stage::Ended => {}
        }
    }

    /// The container runs, or did until a moment ago.
    fn runs(&mut self, host: usize, task: &Rc<str>) {
        self.report(host, task, TaskState::Running, "started", "");
        self.rest(host, task, Stage::Running);
        let state = self.agents[host].containers.get(task).map(|c| c.state);
        if let Some(ContainerState::Exited(code)) = state {
            self.ended(host, task, code);
        }
    }

    fn ended(&mut self, host: usize, task: &Rc<str>, code: i64) {
        match code {
            0 => self.finish(host, task, TaskState::Complete, ""),
            code => {
                let reason = format!("task: non-zero exit ({code})");
                self.finish(host, task, TaskState::Failed, &reason);
            }
        }
    }

    fn signal(&mut self, host: usize, task: &Rc<str>, stage: Stage) {
        self.told_to_stop(host, task);
        let stubborn = self.dice.chance(self.config.runtime.stubborn);
        let takes = if stubborn { GRACE } else { self.dice.between(5 * MS, 500 * MS) };
        self.step(host, task, stage, takes);
    }

    fn end_container(&mut self, host: usize, task: &str, code: i64) {
        if let Some(container) = self.agents[host].containers.get_mut(task)
            && container.state == ContainerState::Running
        {
            container.state = ContainerState::Exited(code);
        }
    }

    fn finish(&mut self, host: usize, task: &Rc<str>, state: TaskState, err: &str) {
        let message = match state {
            TaskState::Shutdown => "shutdown",
            TaskState::Complete => "finished",
            TaskState::Rejected => "preparing",
            _ => "started",
        };
        self.report(host, task, state, message, err);
        let agent = &mut self.agents[host];
        if let Some(container) = agent.containers.get_mut(task) {
            container.files.clear();
        }
        if let Some(runner) = agent.runners.get_mut(task) {
            runner.files.clear();
        }
        let plugged = self.agents[host].containers.get(task).is_some_and(|c| c.netns);
        if plugged {
            self.step(host, task, Stage::Lingering, LINGER);
        } else {
            self.rest(host, task, Stage::Ended);
            self.look_at_order(host, task);
        }
    }

    /// What the order asks of the stage the runner is in.
    fn look_at_order(&mut self, host: usize, task: &Rc<str>) {
        let agent = &self.agents[host];
        let Some(runner) = agent.runners.get(task) else { return };
        let running =
            agent.containers.get(task).is_some_and(|c| c.state == ContainerState::Running);
        let (stop, desired) = (runner.order.tells_to_stop(), runner.order.desired());
        match runner.stage {
            Stage::Waiting | Stage::Prepared if stop => {
                self.finish(host, task, TaskState::Shutdown, "");
            }
            Stage::Waiting => self.prepare(host, task),
            Stage::Prepared if desired.is_some_and(|d| d >= TaskState::Running) => {
                self.report(host, task, TaskState::Starting, "starting", "");
                let fails = self.mishap(self.config.runtime.unstarted);
                let slow = self.image(host, task) == Image::Slow;
                let takes = self.takes(5 * MS, if slow { 20 * SEC } else { 300 * MS });
                self.step(host, task, Stage::Starting { fails }, takes);
            }
            Stage::Running if stop && running => self.step(host, task, Stage::Draining, DRAIN),
            Stage::Running if stop => self.finish(host, task, TaskState::Shutdown, ""),
            Stage::Ended if desired.is_none() && running => {
                self.step(host, task, Stage::Erasing { draining: true }, DRAIN);
            }
            Stage::Ended if desired.is_none() => self.erased(host, task),
            _ => {}
        }
    }

    /// Nothing is left of the task. One that was assigned again meanwhile begins anew.
    fn erased(&mut self, host: usize, task: &Rc<str>) {
        let agent = &mut self.agents[host];
        agent.containers.remove(task);
        agent.forget(task);
        let again = agent.runners.remove(task).map(|r| r.order).filter(|o| o.desired().is_some());
        if let Some(order) = again {
            self.order(host, task, order);
        }
    }

    /// A container ends by itself, if it still runs.
    pub(crate) fn container_exits(&mut self, host: usize, id: u64, code: i64) {
        let all = self.agents[host].containers.iter_mut();
        let Some((task, container)) = all.into_iter().find(|(_, c)| c.id == id) else { return };
        let task = task.clone();
        let was = mem::replace(&mut container.state, ContainerState::Exited(code));
        if was != ContainerState::Running {
            container.state = was;
            return;
        }
        self.stats.add(Count::Exits);
        let stage = self.agents[host].runners.get(&task).map(|r| r.stage);
        if self.hosts[host].up && stage == Some(Stage::Running) {
            self.ended(host, &task, code);
        }
    }
}
