//! Logs of tasks, from their nodes to those who ask.
//!
//! A subscription has a feed for each node with one of its tasks. The node takes its feed by calling
//! `PublishLogs`, and is done when that call ends. When no feed is left the stream ends; when its
//! reader drops the stream, the nodes are told to stop.
use crate::{manager::Inner, session::Sessions};
use futures_util::{Stream, StreamExt, stream::BoxStream};
use shoal_identity::id;
use shoal_model::{ControlError, ErrorKind, LogLine, LogOptions, NodeState, Timestamp};
use shoal_rpc::{LogAck, LogBatch, LogSubscription, LogUnsubscription, manager_message::Kind};
use std::{
    collections::{BTreeMap, BTreeSet},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

/// Subscriptions at a time.
const MOST_SUBSCRIPTIONS: usize = 1_000;

/// Tasks of one subscription.
const MOST_TASKS: usize = 10_000;

/// Lines that wait for a slow reader; nodes then wait too.
const QUEUE: usize = 1_024;

/// How long a node may take to begin.
const BEGIN_WAIT: Duration = Duration::from_secs(10);

/// What one node has to deliver.
struct Feed {
    tasks: BTreeSet<String>,
    lines: mpsc::Sender<LogLine>,
}

/// Feeds not yet taken, by subscription and node.
#[derive(Default)]
pub(crate) struct Broker(Mutex<BTreeMap<String, BTreeMap<String, Feed>>>);

impl Broker {
    fn all(&self) -> MutexGuard<'_, BTreeMap<String, BTreeMap<String, Feed>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A node delivers.
    pub(crate) async fn publish(
        &self,
        node: &str,
        mut batches: Streaming<LogBatch>,
    ) -> Result<LogAck, Status> {
        let mut feed: Option<(String, Feed)> = None;
        while let Some(batch) = batches.message().await? {
            let (id, feed) = match &feed {
                Some(feed) => (&feed.0, &feed.1),
                None => {
                    let id = batch.subscription.clone();
                    let taken = self.all().get_mut(&id).and_then(|feeds| feeds.remove(node));
                    let taken = taken.ok_or_else(|| {
                        Status::not_found(format!("no log subscription {id} of this node"))
                    })?;
                    let feed = feed.insert((id, taken));
                    (&feed.0, &feed.1)
                }
            };
            if batch.subscription != *id {
                return Err(Status::invalid_argument("one call delivers to one subscription"));
            }
            for line in batch.lines {
                if !feed.tasks.contains(&line.task_id) {
                    let task = line.task_id;
                    return Err(Status::permission_denied(format!(
                        "task {task} was not asked for"
                    )));
                }
                let line = LogLine {
                    task_id: line.task_id,
                    node_id: node.to_owned(),
                    stderr: line.stderr,
                    time: Timestamp(line.time),
                    line: line.line,
                };
                if feed.lines.send(line).await.is_err() {
                    return Ok(LogAck {}); // nobody reads any more
                }
            }
        }
        Ok(LogAck {})
    }

    /// Takes away feeds whose nodes have not begun, so that the stream can end.
    fn give_up(&self, subscription: &str) {
        let Some(feeds) = self.all().remove(subscription) else { return };
        for (node, feed) in feeds {
            unavailable(&feed, &node, "the node does not answer");
        }
    }
}

/// Says in the stream itself that lines are missing, for want of another way.
fn unavailable(feed: &Feed, node: &str, why: &str) {
    let text = "incomplete log stream: logs could not be retrieved";
    for task in &feed.tasks {
        let line = LogLine {
            task_id: task.clone(),
            node_id: node.to_owned(),
            stderr: true,
            time: crate::clock::now(),
            line: format!("warning: {text}: {why}\n").into_bytes(),
        };
        let _ = feed.lines.try_send(line); // full or closed: it has been said, or nobody reads
    }
}

/// Lines of tasks. Ends when all nodes have delivered.
pub(crate) fn subscribe(
    inner: &Arc<Inner>,
    tasks: Vec<String>,
    options: LogOptions,
) -> Result<BoxStream<'static, LogLine>, ControlError> {
    if tasks.len() > MOST_TASKS {
        let text =
            format!("logs of {} tasks were asked for; at most {MOST_TASKS} can be", tasks.len());
        return Err(ControlError::new(ErrorKind::InvalidArgument, text));
    }
    let (lines, received) = mpsc::channel(QUEUE);
    let mut feeds: BTreeMap<String, Feed> = BTreeMap::new();
    let mut down: BTreeSet<String> = BTreeSet::new();
    inner.store.read(|state| {
        for id in tasks {
            let Some(node) = state.tasks.get(&id).and_then(|t| t.node_id.clone()) else { continue };
            if state.nodes.get(&node).is_none_or(|n| n.status.state == NodeState::Down) {
                down.insert(node.clone());
            }
            let new = || Feed { tasks: BTreeSet::new(), lines: lines.clone() };
            feeds.entry(node).or_insert_with(new).tasks.insert(id);
        }
    });
    drop(lines);
    let subscription = id::new();
    let asked: Vec<(String, Vec<String>)> =
        feeds.iter().map(|(node, f)| (node.clone(), f.tasks.iter().cloned().collect())).collect();
    {
        let mut all = inner.broker.all();
        if all.len() >= MOST_SUBSCRIPTIONS {
            let text = "too many log streams are open; close some and try again";
            return Err(ControlError::new(ErrorKind::Unavailable, text));
        }
        all.insert(subscription.clone(), feeds);
    }
    for (node, tasks) in &asked {
        let message = LogSubscription {
            id: subscription.clone(),
            tasks: tasks.clone(),
            follow: options.follow,
            stdout: options.stdout,
            stderr: options.stderr,
            tail: options.tail.map_or(-1, |n| i64::try_from(n).unwrap_or(i64::MAX)),
            since: options.since.map_or(0, |t| t.0),
        };
        let session = inner.sessions.of(node).filter(|_| !down.contains(node));
        if !session.is_some_and(|s| s.tell(Kind::Subscribe(message))) {
            let feed = inner.broker.all().get_mut(&subscription).and_then(|f| f.remove(node));
            if let Some(feed) = feed {
                unavailable(&feed, node, &format!("node {node} is not available"));
            }
        }
    }
    let (watched, id) = (inner.clone(), subscription.clone());
    inner.tasks.spawn(async move {
        tokio::select! {
            () = watched.stop.cancelled() => {}
            () = tokio::time::sleep(BEGIN_WAIT) => {}
        }
        watched.broker.give_up(&id);
    });
    let nodes = asked.into_iter().map(|(node, _)| node).collect();
    let guard = Guard { inner: inner.clone(), subscription, nodes };
    Ok(Lines { received, _guard: guard }.boxed())
}

/// The stream a reader holds.
struct Lines {
    received: mpsc::Receiver<LogLine>,
    _guard: Guard,
}

impl Stream for Lines {
    type Item = LogLine;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<LogLine>> {
        self.received.poll_recv(cx)
    }
}

/// Ends the subscription when the reader is gone.
struct Guard {
    inner: Arc<Inner>,
    subscription: String,
    nodes: Vec<String>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.inner.broker.all().remove(&self.subscription);
        let sessions: &Sessions = &self.inner.sessions;
        for session in self.nodes.iter().filter_map(|node| sessions.of(node)) {
            let id = self.subscription.clone();
            session.tell(Kind::Unsubscribe(LogUnsubscription { id }));
        }
    }
}
