//! What the agent tells a manager of its tasks.

use crate::{
    event::Event,
    node::{Down, Up},
    time::MS,
    world::World,
};
use shoal_model::{TaskState, TaskStatus};
use std::mem;

impl World {
    /// Notes a status, to be sent. A state never goes back.
    pub(in crate::node) fn report(
        &mut self,
        host: usize,
        task: &str,
        state: TaskState,
        message: &str,
        err: &str,
    ) {
        let since = self.wall(host);
        let agent = &mut self.agents[host];
        if agent.reports.get(task).is_some_and(|s| s.state > state) {
            return;
        }
        let (message, err) = (message.to_owned(), err.to_owned());
        let status = TaskStatus { state, since, message, err, container: None };
        agent.reports.insert(task.to_owned(), status);
        agent.unsent.insert(task.to_owned());
        self.report_soon(host);
    }

    /// Says of a task what is not so.
    pub(crate) fn report_anything(&mut self, host: usize, task: &str, state: TaskState) {
        let since = self.wall(host);
        let (Some(conn), true) = (self.agents[host].conn, self.agents[host].connected) else {
            return;
        };
        let (message, err) = ("stray".to_owned(), String::new());
        let status = TaskStatus { state, since, message, err, container: None };
        self.send_up(conn, Up::Statuses(vec![(task.to_owned(), status)]));
    }

    /// The manager says again what it said before the newest.
    pub(crate) fn repeat_overtaken(&mut self, host: usize) {
        let agent = &self.agents[host];
        let (Some(conn), true) = (agent.conn, agent.connected) else { return };
        if let Some(overtaken) = agent.overtaken.clone().filter(|_| self.flows(conn)) {
            let rows = agent.rows.clone();
            self.send_down(conn, Down::Assignment(overtaken, rows));
        }
    }

    pub(super) fn report_soon(&mut self, host: usize) {
        let agent = &mut self.agents[host];
        if !agent.connected || agent.unsent.is_empty() || mem::replace(&mut agent.sending, true) {
            return;
        }
        let boot = self.hosts[host].boot;
        self.after(MS / 10, Event::Report { host, boot });
    }

    pub(crate) fn send_reports(&mut self, host: usize) {
        let agent = &mut self.agents[host];
        agent.sending = false;
        let (Some(conn), true) = (agent.conn, agent.connected) else { return };
        let unsent = mem::take(&mut agent.unsent);
        let known = unsent.into_iter().filter_map(|task| {
            let status = agent.reports.get(&task)?.clone();
            Some((task, status))
        });
        let statuses: Vec<_> = known.collect();
        if !statuses.is_empty() {
            self.send_up(conn, Up::Statuses(statuses));
        }
    }
}
