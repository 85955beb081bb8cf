//! A node without containers: tasks come to run after the time a small container takes, and end when
//! they are told to and no node balances to them any more.

use crate::intake::{self, Intake, Told, Wish};
use shoal_agent::{Body, Inbox, News, Reports};
use shoal_model::{NodeAssignment, Row, TableTask, TaskState, TaskStatus, Timestamp, WrongBase};
use shoal_rpc::{Assignment, LogSubscription, Section};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};
use tokio::{sync::watch, time::sleep};
use tonic::transport::Channel;

/// From the order to a prepared container, and from there until it runs (BASELINES: a small image
/// that is there already).
const PREPARE: Duration = Duration::from_millis(80);
const START: Duration = Duration::from_millis(40);
/// An agent waits no longer than this for its release.
const DRAIN: Duration = Duration::from_secs(5);

/// Of all nodes together.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Tasks that were begun. One more than are wanted is one begun for nothing.
    pub(crate) begun: AtomicU64,
    /// Tasks that run.
    pub(crate) running: AtomicU64,
    /// Tasks that were told to stop, or are not assigned any more though they ran.
    pub(crate) stopped: AtomicU64,
    /// Messages with assignments, their rows, and the rows' bytes.
    pub(crate) messages: AtomicU64,
    pub(crate) rows: AtomicU64,
    pub(crate) bytes: AtomicU64,
    /// Of the nodes that put their tables together.
    tables: Mutex<Vec<Arc<Table>>>,
}

impl Counters {
    /// Of the tables that were put together: the most peers in one, and tasks in all of them on nodes that
    /// are no peers there.
    pub(crate) fn tables(&self) -> (u64, u64) {
        let tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let peers = tables.iter().map(|table| read(&table.peers)).max();
        (peers.unwrap_or(0), tables.iter().map(|table| read(&table.strangers)).sum())
    }
}

/// What is in a node's table.
#[derive(Debug, Default)]
struct Table {
    peers: AtomicU64,
    /// Tasks of others on nodes that are no peers.
    strangers: AtomicU64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Preparing,
    Ready,
    Starting,
    Running,
    Stopping,
    Ended,
}

#[derive(Debug)]
struct Held {
    stage: Stage,
    desired: TaskState,
}

/// A node, as its session sees it.
pub(crate) struct Simulated {
    tasks: Arc<Tasks>,
    applied: watch::Sender<u64>,
    /// The newest generation it was ever told.
    known: AtomicU64,
    /// Its whole table, if it puts it together.
    table: Option<Arc<Table>>,
}

/// Its tasks.
struct Tasks {
    reports: Reports,
    held: Mutex<BTreeMap<String, Held>>,
    counters: Arc<Counters>,
}

/// What it was told: one of the two.
#[derive(Default)]
pub(crate) struct Half {
    intake: Intake,
    inbox: Inbox,
}

impl Simulated {
    pub(crate) fn new(counters: Arc<Counters>, whole: bool) -> Arc<Simulated> {
        let table = whole.then(Arc::<Table>::default);
        if let Some(table) = &table {
            let mut all = counters.tables.lock().unwrap_or_else(PoisonError::into_inner);
            all.push(Arc::clone(table));
        }
        let tasks = Tasks { reports: Reports::default(), held: Mutex::default(), counters };
        Arc::new(Simulated {
            tasks: Arc::new(tasks),
            applied: watch::Sender::new(0),
            known: AtomicU64::new(0),
            table,
        })
    }
}

impl Body for Simulated {
    type Inbox = Half;

    fn begin(&self, half: &mut Half) -> Vec<Section> {
        if self.table.is_some() { half.inbox.begin() } else { half.intake.begin() }
    }

    fn reports(&self) -> &Reports {
        &self.tasks.reports
    }

    fn applied(&self) -> watch::Receiver<u64> {
        self.applied.subscribe()
    }

    fn take(&self, half: &mut Half, part: Assignment) -> anyhow::Result<Option<WrongBase>> {
        let counters = &self.tasks.counters;
        let bytes: usize = part.rows.iter().map(|row| row.len()).sum();
        counters.messages.fetch_add(1, Ordering::Relaxed);
        let rows = part.rows.iter().flat_map(|rows| Row::split(rows)).count();
        counters.rows.fetch_add(rows as u64, Ordering::Relaxed);
        counters.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        let told = if let Some(table) = &self.table {
            match half.inbox.take(part, self.known.load(Ordering::Relaxed))? {
                Some(News::Assignment(assignment)) => {
                    table.peers.store(assignment.table.peers.len() as u64, Ordering::Relaxed);
                    table.strangers.store(strangers(&assignment) as u64, Ordering::Relaxed);
                    intake::told(&assignment)
                }
                Some(News::WrongBase(wrong)) => return Ok(Some(wrong)),
                None => return Ok(None),
            }
        } else {
            match half.intake.take(&part)? {
                Ok(Some(told)) => told,
                Ok(None) => return Ok(None),
                Err(wrong) => return Ok(Some(wrong)),
            }
        };
        self.known.fetch_max(told.generation, Ordering::Relaxed);
        let generation = told.generation;
        self.tasks.obey(told);
        self.applied.send_replace(generation);
        Ok(None)
    }

    fn release(&self, tasks: Vec<String>) {
        tasks.iter().for_each(|task| self.tasks.end(task));
    }

    fn publish(
        self: &Arc<Self>,
        _: Channel,
        _: LogSubscription,
    ) -> impl Future<Output = ()> + Send + 'static {
        std::future::ready(()) // nothing here logs
    }
}

/// Tasks of others on nodes that are no peers.
fn strangers(assignment: &NodeAssignment) -> usize {
    let own: BTreeSet<&str> = assignment.tasks.iter().map(|own| own.task.id.as_str()).collect();
    let peers = assignment.table.peers.iter().map(|peer| peer.node_id.as_str());
    let peers: BTreeSet<&str> = peers.collect();
    let tasks = assignment.table.services.iter().flat_map(|service| &service.tasks);
    let strange =
        |t: &&TableTask| !own.contains(t.id.as_str()) && !peers.contains(t.node_id.as_str());
    tasks.filter(strange).count()
}

impl Tasks {
    fn held(&self) -> MutexGuard<'_, BTreeMap<String, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn obey(self: &Arc<Self>, told: Told) {
        let mut held = self.held();
        let gone: Vec<String> = if told.whole {
            let named = |task: &String| told.wishes.iter().any(|wish| wish.task == *task);
            held.keys().filter(|task| !named(task)).cloned().collect()
        } else {
            told.gone
        };
        for task in gone {
            let Some(gone) = held.remove(&task) else { continue };
            self.leaves(gone.stage);
            self.reports.forget(&task);
        }
        for wish in told.wishes {
            self.wish(&mut held, wish);
        }
    }

    fn wish(self: &Arc<Self>, held: &mut BTreeMap<String, Held>, wish: Wish) {
        let Wish { task, desired, known } = wish;
        let Some(present) = held.get_mut(&task) else {
            let begins = desired <= TaskState::Running && known < TaskState::Running;
            let stage = if begins { Stage::Preparing } else { Stage::Ended };
            held.insert(task.clone(), Held { stage, desired });
            if begins {
                self.counters.begun.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(Arc::clone(self).prepare(task));
            } else if !known.is_terminal() {
                self.report(&task, TaskState::Shutdown, "shutdown");
            }
            return;
        };
        present.desired = desired;
        match present.stage {
            Stage::Stopping | Stage::Ended => {}
            stage if desired > TaskState::Running => {
                present.stage = Stage::Stopping;
                self.leaves(stage);
                tokio::spawn(Arc::clone(self).stop(task));
            }
            Stage::Ready if desired == TaskState::Running => {
                present.stage = Stage::Starting;
                tokio::spawn(Arc::clone(self).start(task));
            }
            _ => {}
        }
    }

    async fn prepare(self: Arc<Self>, task: String) {
        self.report(&task, TaskState::Accepted, "accepted");
        self.report(&task, TaskState::Preparing, "preparing");
        sleep(PREPARE).await;
        if !self.step(&task, Stage::Preparing, Stage::Ready) {
            return;
        }
        self.report(&task, TaskState::Ready, "prepared");
        let wanted = self.held().get(&task).is_some_and(|held| held.desired == TaskState::Running);
        if wanted && self.step(&task, Stage::Ready, Stage::Starting) {
            self.start(task).await;
        }
    }

    async fn start(self: Arc<Self>, task: String) {
        self.report(&task, TaskState::Starting, "starting");
        sleep(START).await;
        if self.step(&task, Stage::Starting, Stage::Running) {
            self.counters.running.fetch_add(1, Ordering::Relaxed);
            self.report(&task, TaskState::Running, "started");
        }
    }

    async fn stop(self: Arc<Self>, task: String) {
        sleep(DRAIN).await;
        self.end(&task);
    }

    fn end(&self, task: &str) {
        if self.step(task, Stage::Stopping, Stage::Ended) {
            self.report(task, TaskState::Shutdown, "shutdown");
        }
    }

    /// From one stage to the next; `false` when the task is in another, or gone.
    fn step(&self, task: &str, from: Stage, to: Stage) -> bool {
        let mut held = self.held();
        let Some(held) = held.get_mut(task).filter(|held| held.stage == from) else {
            return false;
        };
        held.stage = to;
        true
    }

    /// A task is not to run any more.
    fn leaves(&self, stage: Stage) {
        if matches!(stage, Stage::Stopping | Stage::Ended) {
            return; // counted when it was told to stop
        }
        self.counters.stopped.fetch_add(1, Ordering::Relaxed);
        if stage == Stage::Running {
            self.counters.running.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn report(&self, task: &str, state: TaskState, message: &str) {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let since = Timestamp(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX));
        let (message, err) = (message.to_owned(), String::new());
        self.reports.report(task, TaskStatus { state, since, message, err, container: None });
    }
}
