//! Log subscriptions of the manager: reads the logs of this node's tasks and sends them.
use crate::{container::TASK_LABEL, runner::Crew};
use futures_util::StreamExt;
use shoal_containers::{LogOptions, Stream};
use shoal_rpc::{LogBatch, LogLine, LogSubscription, dispatcher_client::DispatcherClient};
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

/// Batches on the way to the manager; a slower manager makes the readers wait.
const QUEUE: usize = 64;

/// Sends what `subscription` asks for, until its logs end or this is cancelled.
pub(crate) async fn publish(crew: Arc<Crew>, channel: Channel, subscription: LogSubscription) {
    let (tx, rx) = mpsc::channel(QUEUE);
    let first = LogBatch { subscription: subscription.id.clone(), lines: Vec::new() };
    let readers = async {
        let _ = tx.send(first).await;
        let readers = subscription
            .tasks
            .iter()
            .map(|task| read(Arc::clone(&crew), task.clone(), subscription.clone(), tx.clone()));
        futures_util::future::join_all(readers).await;
        drop(tx);
    };
    let mut client = DispatcherClient::new(channel);
    let (sent, ()) = tokio::join!(client.publish_logs(ReceiverStream::new(rx)), readers);
    if let Err(status) = sent {
        tracing::debug!(%status, "a log subscription ended");
    }
}

async fn read(
    crew: Arc<Crew>,
    task: String,
    subscription: LogSubscription,
    tx: mpsc::Sender<LogBatch>,
) {
    let all = crew.runtime.list();
    let own = all.into_iter().find(|c| c.labels.get(TASK_LABEL) == Some(&task));
    let Some(container) = own else { return };
    let options = LogOptions {
        stdout: subscription.stdout,
        stderr: subscription.stderr,
        follow: subscription.follow,
        tail: usize::try_from(subscription.tail).ok(),
        since: (subscription.since > 0).then(|| time(subscription.since)),
        until: None,
    };
    let mut entries = match crew.runtime.logs(&container.id, options) {
        Ok(entries) => Box::pin(entries),
        Err(error) => return tracing::warn!(task, %error, "a log cannot be read"),
    };
    while let Some(entry) = entries.next().await {
        let Ok(entry) = entry else { return };
        let line = LogLine {
            task_id: task.clone(),
            stderr: entry.stream == Stream::Stderr,
            time: entry.time.timestamp_nanos_opt().unwrap_or(0),
            line: entry.line.to_vec(),
        };
        let batch = LogBatch { subscription: subscription.id.clone(), lines: vec![line] };
        if tx.send(batch).await.is_err() {
            return; // the manager has enough
        }
    }
}

fn time(nanos: i64) -> chrono::DateTime<chrono::Utc> {
    chrono::DateTime::from_timestamp_nanos(nanos)
}
