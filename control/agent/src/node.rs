//! The node behind a session: its assignments go to the dispatcher, its logs come from the runtime.
use crate::{
    files::Payloads,
    inbox::{Inbox, News},
    logs,
    reports::Reports,
    runner::Crew,
    session::Body,
};
use anyhow::Result;
use shoal_model::{NodeAssignment, WrongBase};
use shoal_rpc::{Assignment, LogSubscription, Section};
use std::sync::Arc;
use tokio::sync::watch;
use tonic::transport::Channel;

pub(crate) struct Node {
    pub(crate) crew: Arc<Crew>,
    pub(crate) assignments: watch::Sender<Option<Arc<NodeAssignment>>>,
}

impl Body for Node {
    type Inbox = Inbox;

    fn begin(&self, inbox: &mut Inbox) -> Vec<Section> {
        inbox.begin()
    }

    fn reports(&self) -> &Reports {
        &self.crew.reports
    }

    fn applied(&self) -> watch::Receiver<u64> {
        self.crew.plane.applied()
    }

    fn take(&self, inbox: &mut Inbox, part: Assignment) -> Result<Option<WrongBase>> {
        let known = self.assignments.borrow().as_ref().map_or(0, |a| a.generation);
        match inbox.take(part, known)? {
            Some(News::Assignment(assignment)) => {
                // Before the tasks that use them.
                self.crew.payloads.send_replace(Some(Payloads::of(&assignment)));
                self.assignments.send_replace(Some(Arc::new(assignment)));
                Ok(None)
            }
            Some(News::WrongBase(wrong)) => Ok(Some(wrong)),
            None => Ok(None),
        }
    }

    fn release(&self, tasks: Vec<String>) {
        self.crew.release(tasks);
    }

    fn publish(
        self: &Arc<Self>,
        channel: Channel,
        subscription: LogSubscription,
    ) -> impl Future<Output = ()> + Send + 'static {
        logs::publish(Arc::clone(&self.crew), channel, subscription)
    }
}
