//! One task: from assigned to its end, in one tokio task of its own.
//!
//! ```text
//! Accepted → Preparing → Ready → Starting → Running → Complete | Failed
//!                │            │  until it  │
//!                │            │ is healthy  └─ told to stop ──→ Shutdown
//!                └─ Rejected ─┘
//! ```
//! One that becomes unhealthy is stopped, and is `Failed`.
//! When the runner is cancelled (the daemon ends) the container goes on; a later runner takes it up.
use crate::{
    container::{On, TASK_LABEL, container_spec},
    files::{Payloads, needs_files},
    handshakes,
    plane::Plane,
    reports::Reports,
};
use shoal_containers::{
    ContainerInfo, ContainerState, ExitStatus, Health, HealthStatus, Runtime, new_id,
};
use shoal_model::{
    AssignedTask, ContainerStatus, NodeAssignment, NodeDescription, TaskState, TaskStatus,
    Timestamp,
};
use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, SystemTime},
};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

/// How long a task told to stop waits at most until no node balances to it any more. A node that is
/// down is waited for until it is known to be (3 s); 2 s more are for one that is slow.
const DRAIN: Duration = Duration::from_secs(5);
/// How long a task waits at most to be told to stop when what it uses is gone: both are told together, and this
/// node obeys one after the other.
const WITHDRAWN: Duration = Duration::from_secs(1);
/// How long an ended container's cable stays, so that its peers are refused, not left waiting.
const LINGER: Duration = Duration::from_secs(3);

/// What the manager wants of a task now.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Order {
    /// As the assignment says.
    Assigned(Box<AssignedTask>),
    /// It is no longer assigned: remove every trace of it.
    Gone,
}

/// What runners share.
pub(crate) struct Crew {
    pub(crate) node_id: String,
    pub(crate) description: NodeDescription,
    /// Secrets and configs of tasks here; nothing until a manager has told them. In memory alone.
    pub(crate) payloads: watch::Sender<Option<Payloads>>,
    pub(crate) runtime: Runtime,
    pub(crate) plane: Arc<Plane>,
    pub(crate) reports: Reports,
    /// Tasks no node balances to any more. Bounded by the tasks assigned.
    pub(crate) released: watch::Sender<BTreeSet<String>>,
}

/// Why a runner goes no further.
enum Stop {
    /// Told to, by the manager.
    Told,
    /// Its health check says that it is not well.
    Unhealthy,
    /// The task cannot be had; its state and reason.
    Ended(TaskState, String),
    /// It has ended before a restart of the daemon, as the manager knows: only its remains are kept.
    Over,
}

/// Runs until the order is [`Order::Gone`] and nothing is left.
pub(crate) async fn run(crew: Arc<Crew>, task: String, mut orders: watch::Receiver<Order>) {
    let mut container = crew.container_of(&task).await;
    if let Err(stop) = crew.live(&task, &mut orders, &mut container).await {
        crew.finish(&task, stop, &mut orders, container.as_deref()).await;
    }
    let _ = orders.wait_for(|order| *order == Order::Gone).await;
    crew.erase(&task, container.as_deref()).await;
}

impl Crew {
    /// The manager says that these may be sent their stop signal.
    pub(crate) fn release(&self, tasks: Vec<String>) {
        self.released.send_modify(|released| released.extend(tasks));
    }

    /// Forgets what was said of tasks that are no longer assigned.
    pub(crate) fn forget_released(&self, assignment: &NodeAssignment) {
        let assigned: BTreeSet<&str> =
            assignment.tasks.iter().map(|t| t.task.id.as_str()).collect();
        self.released.send_if_modified(|released| {
            released.retain(|task| assigned.contains(task.as_str()));
            false // nobody waits for less
        });
    }

    /// Waits until no node balances to a task any more (nobody does to one that is not assigned any
    /// more) and connections that were sent to it are made, it has ended, or it has waited long enough.
    async fn drained(&self, task: &str, orders: &mut watch::Receiver<Order>, container: &str) {
        let mut released = self.released.subscribe();
        let drained = async {
            tokio::select! {
                _ = released.wait_for(|all| all.contains(task)) => {}
                _ = orders.wait_for(|order| *order == Order::Gone) => {}
                _ = self.runtime.wait(container) => {}
            }
        };
        if timeout(DRAIN, drained).await.is_err() {
            tracing::warn!(task, "stopped before every node is known to have taken it out");
        }
        if let Some(pid) = self.runtime.inspect(container).ok().and_then(|c| c.pid) {
            handshakes::over(pid).await;
        }
    }

    /// The container of a task, by its label.
    async fn container_of(&self, task: &str) -> Option<String> {
        let all = self.runtime.list();
        let own = all.into_iter().find(|c| c.labels.get(TASK_LABEL).is_some_and(|t| t == task));
        own.map(|c| c.id)
    }

    async fn live(
        &self,
        task: &str,
        orders: &mut watch::Receiver<Order>,
        container: &mut Option<String>,
    ) -> Result<(), Stop> {
        let Order::Assigned(assigned) = orders.borrow().clone() else { return Ok(()) };
        let before = self.reports.get(task).map_or(assigned.task.status.state, |s| s.state);
        if before.is_terminal() {
            return Ok(()); // it has ended already; only its remains are kept
        }
        let known = match container.as_deref() {
            Some(id) => self.runtime.inspect(id).ok(),
            None => None,
        };
        let resumed = known.filter(|c| c.state != ContainerState::Created);
        let id = match resumed {
            Some(info) if self.plane.netns_of(task).is_some() => info.id,
            _ if before >= TaskState::Starting => {
                let reason = "the container did not survive a restart of the node";
                return Err(Stop::Ended(TaskState::Failed, reason.to_owned()));
            }
            _ => {
                self.erase_container(container.take().as_deref()).await;
                told(orders)?;
                self.report(task, TaskState::Accepted, "accepted", "", None);
                let id = self.prepare(&assigned, orders, container).await?;
                self.report(task, TaskState::Ready, "prepared", "", None);
                self.until_wanted(orders).await?;
                self.report(task, TaskState::Starting, "starting", "", None);
                self.runtime.start(&id).await.map_err(|e| {
                    Stop::Ended(TaskState::Failed, format!("starting container failed: {e}"))
                })?;
                id
            }
        };
        // One that ran before a restart of the daemon goes on, whatever its next probe says.
        if before < TaskState::Running {
            self.live_until(task, &id, orders, HealthStatus::Healthy).await?;
        }
        self.report(task, TaskState::Running, "started", "", self.status_of(&id).await);
        self.live_until(task, &id, orders, HealthStatus::Unhealthy).await?;
        Err(Stop::Unhealthy)
    }

    /// Until a container is as well as asked; one without a health check is always healthy. An error
    /// when it ends before, becomes unhealthy, or is told to stop.
    async fn live_until(
        &self,
        task: &str,
        id: &str,
        orders: &mut watch::Receiver<Order>,
        asked: HealthStatus,
    ) -> Result<(), Stop> {
        let checked = self.runtime.inspect(id).is_ok_and(|c| c.health_check.is_some());
        if !checked && asked == HealthStatus::Healthy {
            return Ok(());
        }
        let health = self.runtime.health(id).map_err(|e| failed(e.to_string()))?;
        let status = until_health(health, asked);
        tokio::select! {
            biased;
            exit = self.runtime.wait(id) => {
                self.plane.retire(task);
                Err(ended(exit.map_err(|e| e.to_string())))
            }
            () = until_told(orders) => Err(Stop::Told),
            status = status => if status == asked { Ok(()) } else { Err(Stop::Unhealthy) },
        }
    }

    async fn prepare(
        &self,
        assigned: &AssignedTask,
        orders: &mut watch::Receiver<Order>,
        container: &mut Option<String>,
    ) -> Result<String, Stop> {
        let task = &assigned.task;
        self.report(&task.id, TaskState::Preparing, "preparing", "", None);
        let rejected = |reason: String| Stop::Ended(TaskState::Rejected, reason);
        let payloads = self.payloads_for(assigned, orders).await?;
        let mtu = self.plane.mtu().await;
        let netns = self.plane.plug(assigned, mtu).await;
        let netns = netns.map_err(|e| rejected(format!("cannot attach networks: {e:#}")))?;
        let id = new_id();
        let (node_id, description) = (self.node_id.as_str(), &self.description);
        let on = On { node_id, description, payloads: &payloads };
        let spec = container_spec(assigned, id.clone(), on, netns).map_err(rejected)?;
        self.runtime.create(spec).await.map_err(|e| rejected(e.to_string()))?;
        *container = Some(id.clone());
        Ok(id)
    }

    /// What the node was told of secrets and configs. A task that uses some waits for a manager to tell
    /// them: after a restart of the daemon they are on no disk.
    async fn payloads_for(
        &self,
        assigned: &AssignedTask,
        orders: &mut watch::Receiver<Order>,
    ) -> Result<Payloads, Stop> {
        if !needs_files(&assigned.task.spec) {
            return Ok(Payloads::default());
        }
        let mut told = self.payloads.subscribe();
        let complete = async {
            let has_all = |p: &Option<Payloads>| {
                p.as_ref().is_some_and(|payloads| payloads.has_all(&assigned.task.spec))
            };
            // The sender is ours: it does not end before.
            let _ = told.wait_for(Option::is_some).await;
            let _ = timeout(WITHDRAWN, told.wait_for(has_all)).await;
        };
        tokio::select! {
            () = until_told(orders) => return Err(Stop::Told),
            () = complete => {}
        }
        self::told(orders)?;
        // What it uses is not told any more then.
        if matches!(&*orders.borrow(), Order::Assigned(a) if a.task.status.state.is_terminal()) {
            return Err(Stop::Over);
        }
        Ok(self.payloads.borrow().clone().unwrap_or_default())
    }

    /// A replacement is prepared early and started when its delay is over.
    async fn until_wanted(&self, orders: &mut watch::Receiver<Order>) -> Result<(), Stop> {
        let wanted = |order: &Order| match order {
            Order::Assigned(a) => a.task.desired >= TaskState::Running,
            Order::Gone => true,
        };
        let _ = orders.wait_for(wanted).await;
        told(orders)
    }

    async fn finish(
        &self,
        task: &str,
        stop: Stop,
        orders: &mut watch::Receiver<Order>,
        container: Option<&str>,
    ) {
        let (state, message, err) = match stop {
            Stop::Over => return,
            Stop::Told => {
                if let Some(id) = container.filter(|id| self.runs(id)) {
                    self.drained(task, orders, id).await;
                }
                self.stop(container).await;
                (TaskState::Shutdown, "shutdown", String::new())
            }
            Stop::Unhealthy => {
                self.plane.retire(task);
                // The other nodes are not to wait for its end: that may take the grace period.
                if let Some(id) = container {
                    let sick = |c: ContainerStatus| ContainerStatus { unhealthy: true, ..c };
                    let status = self.status_of(id).await.map(sick);
                    let running =
                        self.reports.get(task).is_some_and(|s| s.state == TaskState::Running);
                    if running {
                        self.report(task, TaskState::Running, "unhealthy", "", status);
                    }
                }
                self.stop(container).await;
                let code = match container.and_then(|id| self.runtime.inspect(id).ok()) {
                    Some(ContainerInfo { state: ContainerState::Exited(exit), .. }) => exit.code,
                    _ => 0,
                };
                (TaskState::Failed, "started", unhealthy(code))
            }
            Stop::Ended(state, err) => {
                let message = match state {
                    TaskState::Complete => "finished",
                    TaskState::Rejected => "preparing",
                    _ => "started",
                };
                (state, message, err)
            }
        };
        self.plane.retire(task);
        let status = match container {
            Some(id) => self.status_of(id).await,
            None => None,
        };
        self.report(task, state, message, &err, status);
        if self.plane.netns_of(task).is_some() {
            sleep(LINGER).await;
        }
        self.plane.unplug(task).await;
    }

    fn runs(&self, container: &str) -> bool {
        self.runtime.inspect(container).is_ok_and(|c| c.state == ContainerState::Running)
    }

    /// Stop signal, grace period, SIGKILL.
    async fn stop(&self, container: Option<&str>) {
        let Some(id) = container.filter(|id| self.runs(id)) else { return };
        if let Err(error) = self.runtime.stop(id, None).await {
            tracing::error!(container = id, %error, "a container could not be stopped");
        }
    }

    /// Removes every trace. A task that is not assigned any more has left all tables before.
    async fn erase(&self, task: &str, container: Option<&str>) {
        self.stop(container).await;
        self.plane.unplug(task).await;
        self.erase_container(container).await;
        self.reports.forget(task);
    }

    async fn erase_container(&self, container: Option<&str>) {
        let Some(id) = container else { return };
        if let Err(error) = self.runtime.remove(id, true).await {
            tracing::error!(container = id, %error, "a container could not be removed");
        }
    }

    async fn status_of(&self, id: &str) -> Option<ContainerStatus> {
        let info: ContainerInfo = self.runtime.inspect(id).ok()?;
        let exit_code = match &info.state {
            ContainerState::Exited(exit) => Some(i64::from(exit.code)),
            _ => None,
        };
        let pid = i64::from(info.pid.unwrap_or(0));
        Some(ContainerStatus { id: info.id, pid, exit_code, unhealthy: false })
    }

    fn report(
        &self,
        task: &str,
        state: TaskState,
        message: &str,
        err: &str,
        container: Option<ContainerStatus>,
    ) {
        let container = container.or_else(|| self.reports.get(task).and_then(|s| s.container));
        let (message, err) = (message.to_owned(), err.to_owned());
        self.reports.report(task, TaskStatus { state, since: now(), message, err, container });
    }
}

/// The end of a container, in Docker's words.
fn ended(exit: Result<ExitStatus, String>) -> Stop {
    match exit {
        Ok(exit) if exit.code == 0 => Stop::Ended(TaskState::Complete, String::new()),
        Ok(exit) => {
            let reason = exit.error.unwrap_or_else(|| match exit.oom {
                true => format!("task: non-zero exit ({}): out of memory", exit.code),
                false => format!("task: non-zero exit ({})", exit.code),
            });
            Stop::Ended(TaskState::Failed, reason)
        }
        Err(reason) => Stop::Ended(TaskState::Failed, reason),
    }
}

/// Why a container that was not well ended, in Docker's words.
fn unhealthy(code: i32) -> String {
    match code {
        0 => "task: unhealthy container".to_owned(),
        code => format!("task: non-zero exit ({code}): dockerexec: unhealthy container"),
    }
}

/// Until the container is as asked, or unhealthy; says which.
async fn until_health(
    mut health: watch::Receiver<Option<Health>>,
    asked: HealthStatus,
) -> HealthStatus {
    let is = |h: &Option<Health>| {
        let status = h.as_ref().map(|h| h.status);
        status.filter(|s| *s == asked || *s == HealthStatus::Unhealthy)
    };
    let status = health.wait_for(|h| is(h).is_some()).await.ok().and_then(|h| is(&h));
    match status {
        Some(status) => status,
        // The container is gone, and whoever waits for its end hears of it.
        None => std::future::pending().await,
    }
}

fn failed(reason: String) -> Stop {
    Stop::Ended(TaskState::Failed, reason)
}

fn to_stop(order: &Order) -> bool {
    match order {
        Order::Assigned(a) => a.task.desired > TaskState::Running,
        Order::Gone => true,
    }
}

fn told(orders: &watch::Receiver<Order>) -> Result<(), Stop> {
    if to_stop(&orders.borrow()) { Err(Stop::Told) } else { Ok(()) }
}

async fn until_told(orders: &mut watch::Receiver<Order>) {
    // An error means the daemon ends: then nobody tells this task anything any more.
    if orders.wait_for(to_stop).await.is_err() {
        std::future::pending::<()>().await;
    }
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
}
