//! The course of a simulation: a beginning, faults, calm, and the judgement.
use crate::{
    event::Event,
    invariants::Violation,
    time::{MINUTE, Ns, SEC},
    world::World,
};

/// How long a calm cluster may take until it is as it was asked to be: an update of six replicas one
/// by one, each with a delay, a slow stop and a slow start, after the wait for a stopped predecessor.
const BOUND: Ns = 30 * MINUTE;
/// How often it is looked at, and how long nothing must change until it counts as at rest.
const LOOK: Ns = 15 * SEC;

impl World {
    pub(crate) fn begin(&mut self) {
        self.watch_leaders();
        self.begin_identities();
        for host in 0..self.config.hosts {
            let boot = self.hosts[host].boot;
            let late = self.dice.below(2 * SEC);
            self.after(late, Event::Connect { host, boot });
        }
        for client in 0..self.config.clients {
            self.after(4 * SEC, Event::Client { client });
        }
        self.after(6 * SEC, Event::Fault);
        self.after(10 * SEC + self.config.storm, Event::Calm);
    }

    /// The faults are over; what they broke is repaired by whoever runs the cluster.
    pub(crate) fn become_calm(&mut self) {
        self.calm = Some(self.now);
        self.trace.say(self.now, || "calm".to_owned());
        self.end_faults();
        self.rejoin_removed();
        self.help_the_expired();
        self.after(20 * SEC, Event::Client { client: 0 });
        self.after(40 * SEC, Event::Judge);
    }

    /// Hosts that were removed while they were down or cut off have to join anew; also those that a
    /// user removed with a request that was still under way when the calm began.
    fn rejoin_removed(&mut self) {
        let known = self.checks.state().nodes.clone();
        for host in self.config.managers..self.config.hosts {
            let joined = known.contains_key(&self.agents[host].node_id);
            if !joined && !self.agents[host].is_joining() {
                self.rejoin(host);
            }
        }
    }

    pub(crate) fn judge(&mut self) {
        let Some(calm) = self.calm else { return };
        self.rejoin_removed();
        let verdict = if self.clients[0].is_busy() {
            Err("the last repairs are not acknowledged".to_owned())
        } else {
            self.converged()
        };
        let version = self.peers.iter().map(|p| p.state.version).max().unwrap_or(0);
        match verdict {
            Ok(restless) if self.checks.rests_at(version) || restless => {
                self.checks.finally(&self.peers);
                self.done = true;
            }
            Err(reason) if self.now > calm + BOUND => {
                self.checks.fail(Violation {
                    invariant: "convergence",
                    text: format!(
                        "not as asked for {} s after the last fault: {reason}",
                        BOUND / SEC
                    ),
                });
            }
            _ if self.now > calm + BOUND => {
                self.checks.fail(Violation {
                    invariant: "convergence",
                    text: "the cluster never comes to rest".to_owned(),
                });
            }
            _ => self.after(LOOK, Event::Judge),
        }
    }
}
