//! An assignment: what is kept of it, the orders to the runners, the data plane's table.

use crate::{
    event::Event,
    node::{Up, runner::Order},
    time::{MS, SEC},
    world::World,
};
use shoal_model::{
    NodeAssignment,
    bugs::{self, Bug},
};
use std::{collections::BTreeMap, rc::Rc};

impl World {
    pub(super) fn assigned(&mut self, host: usize, assignment: Rc<NodeAssignment>) {
        let agent = &mut self.agents[host];
        let newer = agent.assignment.as_ref().map_or(0, |a| a.generation);
        if assignment.generation >= newer || bugs::active(Bug::TakeOldTable) {
            agent.overtaken = agent.assignment.replace(assignment.clone());
            agent.told = true;
            let kept = to_keep(assignment);
            agent.kept = Some(kept.clone());
            self.checks.written(host, &kept);
            self.dispatch(host);
        }
    }

    /// Gives the table to the data plane and the orders to the runners.
    pub(super) fn dispatch(&mut self, host: usize) {
        let agent = &mut self.agents[host];
        let Some(assignment) = agent.assignment.clone() else { return };
        let older =
            agent.plane.wanted.as_ref().is_some_and(|a| a.generation > assignment.generation);
        if !older || bugs::active(Bug::TakeOldTable) {
            agent.plane.wanted = Some(assignment.clone());
        }
        let mut orders: BTreeMap<Rc<str>, Order> = BTreeMap::new();
        if !bugs::active(Bug::LeaveContainer) {
            for gone in agent.containers.keys().chain(agent.runners.keys()) {
                orders.insert(gone.clone(), Order::Gone);
            }
        }
        for (at, task) in assignment.tasks.iter().enumerate() {
            orders.insert(task.task.id.as_str().into(), Order::Assigned(assignment.clone(), at));
        }
        self.carry_out_soon(host);
        for (task, order) in orders {
            self.order(host, &task, order);
        }
    }

    fn carry_out_soon(&mut self, host: usize) {
        let plane = &mut self.agents[host].plane;
        let generation = |a: &Option<Rc<NodeAssignment>>| a.as_ref().map(|a| a.generation);
        if plane.busy || generation(&plane.wanted) == generation(&plane.in_force) {
            return;
        }
        plane.busy = true;
        let slow = self.agents[host].slow > 0;
        let takes =
            if slow { self.dice.between(MS, 3 * SEC) } else { self.dice.between(MS, 30 * MS) };
        let boot = self.hosts[host].boot;
        self.after(takes, Event::Plane { host, boot });
    }

    pub(crate) fn plane_done(&mut self, host: usize) {
        self.agents[host].plane.busy = false;
        if self.dice.chance(self.config.runtime.plane_fails) {
            // Again after a second.
            self.agents[host].plane.busy = true;
            let boot = self.hosts[host].boot;
            return self.after(SEC, Event::Plane { host, boot });
        }
        let plane = &mut self.agents[host].plane;
        plane.in_force = plane.wanted.clone();
        let generation = plane.in_force.as_ref().map_or(0, |a| a.generation);
        self.checks.in_force(host, self.hosts[host].boot, generation);
        self.applied(host);
        self.carry_out_soon(host);
    }

    pub(super) fn applied(&mut self, host: usize) {
        let agent = &self.agents[host];
        let generation = agent.plane.in_force.as_ref().map_or(0, |a| a.generation);
        if let (Some(conn), true) = (agent.conn, agent.connected) {
            self.send_up(conn, Up::Applied(generation));
        }
    }

    pub(in crate::node) fn told_to_stop(&mut self, host: usize, task: &str) {
        let listed = self.agents[host].wants_backend(task);
        self.checks.signalled(host, task, listed);
    }
}

/// What is written of an assignment: secrets and configs are kept in memory alone.
fn to_keep(assignment: Rc<NodeAssignment>) -> Rc<NodeAssignment> {
    if assignment.dependencies.is_empty() || bugs::active(Bug::WriteSecrets) {
        return assignment;
    }
    Rc::new(NodeAssignment { dependencies: Vec::new(), ..(*assignment).clone() })
}
