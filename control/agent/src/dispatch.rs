//! From assignments to the data plane and the runners: one tokio task. What it decides is in
//! [`orders`], which is pure.
use crate::{
    container::TASK_LABEL,
    runner::{Crew, Order, run},
};
use anyhow::Result;
use shoal_model::NodeAssignment;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep_until},
};

/// How long a change of the table alone waits until it is on disk; changes of tasks are there before
/// they are obeyed. In a large cluster the table is large, and it changes often.
const KEEP: Duration = Duration::from_secs(1);

/// What was said before this daemon started, so that tasks are known before the manager answers.
pub(crate) fn last(file: &Path) -> Option<Arc<NodeAssignment>> {
    let bytes = fs::read(file).ok()?;
    serde_json::from_slice(&bytes).ok().map(Arc::new)
}

/// What every task here is to do: those assigned, and those that have left something behind.
fn orders(
    assignment: &NodeAssignment,
    remains: impl IntoIterator<Item = String>,
) -> BTreeMap<String, Order> {
    let mut orders: BTreeMap<String, Order> =
        remains.into_iter().map(|task| (task, Order::Gone)).collect();
    for task in &assignment.tasks {
        orders.insert(task.task.id.clone(), Order::Assigned(Box::new(task.clone())));
    }
    orders
}

/// Gives the table to the data plane and the orders to the runners, as assignments come.
pub(crate) async fn dispatch(
    crew: Arc<Crew>,
    mut assignments: watch::Receiver<Option<Arc<NodeAssignment>>>,
    file: PathBuf,
) {
    let mut runners: BTreeMap<String, watch::Sender<Order>> = BTreeMap::new();
    let mut running = JoinSet::new();
    let mut kept = Kept { file, assignment: None, due: None };
    loop {
        while running.try_join_next().is_some() {}
        // A runner that is still removing its task keeps its place, so that there is only one.
        runners.retain(|_, runner| !runner.is_closed());
        let assignment = assignments.borrow_and_update().clone();
        if let Some(assignment) = assignment {
            kept.keep(&assignment);
            crew.plane.set_table(assignment.generation, &assignment.table);
            crew.forget_released(&assignment);
            let remains = remains(&crew).into_iter().chain(runners.keys().cloned());
            for (task, order) in orders(&assignment, remains) {
                match runners.get(&task) {
                    Some(runner) => {
                        runner.send_if_modified(|present| {
                            let new = *present != order;
                            *present = order;
                            new
                        });
                    }
                    None => {
                        let (tx, rx) = watch::channel(order);
                        running.spawn(run(Arc::clone(&crew), task.clone(), rx));
                        runners.insert(task, tx);
                    }
                }
            }
        }
        tokio::select! {
            changed = assignments.changed() => if changed.is_err() { return },
            () = kept.due() => {
                let newest = assignments.borrow().clone();
                newest.iter().for_each(|assignment| kept.write(assignment));
            }
        }
    }
}

/// Tasks that have left something on this node.
fn remains(crew: &Crew) -> BTreeSet<String> {
    let containers = crew.runtime.list();
    let labels = containers.iter().filter_map(|c| c.labels.get(TASK_LABEL).cloned());
    labels.chain(crew.plane.plugged()).collect()
}

/// The assignment on disk.
struct Kept {
    file: PathBuf,
    assignment: Option<Arc<NodeAssignment>>,
    due: Option<Instant>,
}

impl Kept {
    fn keep(&mut self, assignment: &Arc<NodeAssignment>) {
        let before = self.assignment.as_deref();
        if before.is_some_and(|before| before.tasks == assignment.tasks) {
            self.due.get_or_insert_with(|| Instant::now() + KEEP);
        } else {
            self.write(assignment);
        }
    }

    fn write(&mut self, assignment: &Arc<NodeAssignment>) {
        self.due = None;
        match write(&self.file, assignment) {
            Ok(()) => self.assignment = Some(Arc::clone(assignment)),
            Err(error) => {
                let file = self.file.display();
                tracing::warn!(%error, "the assignment cannot be kept at {file}");
            }
        }
    }

    async fn due(&self) {
        match self.due {
            Some(due) => sleep_until(due).await,
            None => std::future::pending().await,
        }
    }
}

fn write(file: &Path, assignment: &NodeAssignment) -> Result<()> {
    let aside = file.with_extension("new");
    fs::write(&aside, serde_json::to_vec(assignment)?)?;
    fs::rename(&aside, file)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use shoal_model::{
        AssignedTask, MadeBy, Meta, Task, TaskState, TaskStatus, TaskTimes, Timestamp,
    };

    fn assigned(id: &str, state: TaskState, desired: TaskState) -> AssignedTask {
        let task = Task {
            id: id.into(),
            meta: Meta::default(),
            service_id: "s".into(),
            slot: 1,
            node_id: Some("n".into()),
            spec: Arc::default(),
            spec_version: 1,
            name: format!("web.1.{id}"),
            desired,
            not_before: Timestamp::default(),
            status: TaskStatus {
                state,
                since: Timestamp::default(),
                message: String::new(),
                err: String::new(),
                container: None,
            },
            networks: vec![],
            made_by: MadeBy::Scale,
            job_iteration: None,
            times: TaskTimes::default(),
            assigned_generic_resources: vec![],
            host_ports: vec![],
        };
        AssignedTask {
            task,
            service_name: "web".into(),
            service_labels: BTreeMap::new(),
            networks: vec![],
        }
    }

    fn told(generation: u64, tasks: Vec<AssignedTask>) -> NodeAssignment {
        NodeAssignment { generation, tasks, ..NodeAssignment::default() }
    }

    #[test]
    fn what_left_something_behind_and_is_not_assigned_goes() {
        let tasks = vec![assigned("a", TaskState::Running, TaskState::Running)];
        let orders = orders(&told(1, tasks), ["a".to_owned(), "old".to_owned()]);
        assert!(matches!(orders["a"], Order::Assigned(_)));
        assert_eq!(orders["old"], Order::Gone);
    }

    #[test]
    fn a_node_cut_off_for_an_hour_is_told_the_same_and_does_nothing() {
        let task = |id| assigned(id, TaskState::Running, TaskState::Running);
        let before = orders(&told(7, vec![task("a"), task("b")]), []);
        // An hour later the cluster has moved on, elsewhere.
        let later = told(50_000, vec![task("a"), task("b")]);
        let remains = before.keys().cloned().collect::<Vec<_>>();
        assert_eq!(orders(&later, remains.clone()), before, "no runner sees a new order");
        // What was replaced meanwhile is stopped, and nothing else is touched.
        let replaced = assigned("b", TaskState::Running, TaskState::Shutdown);
        let after = orders(&told(50_001, vec![task("a"), replaced]), remains);
        assert_eq!(after["a"], before["a"]);
        assert_ne!(after["b"], before["b"]);
    }
}
