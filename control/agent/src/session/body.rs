//! What a session needs of its node.
use crate::reports::Reports;
use anyhow::Result;
use shoal_model::WrongBase;
use shoal_rpc::{Assignment, LogSubscription, Section};
use std::sync::Arc;
use tokio::sync::watch;
use tonic::transport::Channel;

/// The node a session speaks for.
///
/// Here it is what runs containers and carries their traffic; where managers are measured, something
/// that does neither.
pub trait Body: Send + Sync + 'static {
    /// What came of assignments, in parts and as differences.
    type Inbox: Default + Send;

    /// A session begins. Says what there is of earlier ones that need not be told again.
    fn begin(&self, inbox: &mut Self::Inbox) -> Vec<Section>;

    /// What is to be told of its tasks.
    fn reports(&self) -> &Reports;

    /// The generation in force, whenever it changes.
    fn applied(&self) -> watch::Receiver<u64>;

    /// Takes a part of an assignment. `Some`: the whole must be asked for.
    ///
    /// # Errors
    /// When it is not understood: the session is of no use then.
    fn take(&self, inbox: &mut Self::Inbox, part: Assignment) -> Result<Option<WrongBase>>;

    /// These tasks may be sent their stop signal.
    fn release(&self, tasks: Vec<String>);

    /// Sends the logs that are asked for, until they end or this is dropped.
    fn publish(
        self: &Arc<Self>,
        channel: Channel,
        subscription: LogSubscription,
    ) -> impl Future<Output = ()> + Send + 'static;
}
