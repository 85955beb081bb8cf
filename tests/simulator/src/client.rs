//! Users: they read, change what they read a while later, and try again when they do not know.
use crate::{
    dice::Dice,
    event::Event,
    manager::{Ask, Refusal, Reply},
    stats::Count,
    time::{MS, Ns, SEC},
    workload,
    world::World,
};
use shoal_model::{Availability, Role};
use std::collections::VecDeque;

/// How long a client waits for an answer.
const PATIENCE: Ns = 10 * SEC;
/// Attempts at one thing; then something else.
const ATTEMPTS: u32 = 5;

pub(crate) struct Client {
    pub(crate) dice: Dice,
    present: Option<Present>,
    /// What is left to repair after the faults, once that is known.
    errands: Option<VecDeque<Errand>>,
}

/// A repair.
#[derive(Clone, Debug)]
enum Errand {
    /// A service gets an image that runs.
    Service(String),
    /// A node takes tasks again.
    Node(String),
    /// A node that does not come back is a worker again, as managers are not removed.
    Demote(String),
    /// A node that does not come back is removed.
    Forget(String),
}

/// What a client is about.
struct Present {
    request: u64,
    ask: Ask,
    attempt: u32,
    /// The manager it asks.
    m: usize,
}

impl Client {
    pub(crate) fn new(dice: Dice) -> Client {
        Client { dice, present: None, errands: None }
    }

    /// Whether it has something to do after the faults.
    pub(crate) fn is_busy(&self) -> bool {
        self.errands.as_ref().is_none_or(|e| !e.is_empty())
    }

    /// A request that still waits for its answer.
    pub(crate) fn request(&self, request: u64) -> Option<&Ask> {
        self.present.as_ref().filter(|p| p.request == request).map(|p| &p.ask)
    }
}

impl World {
    /// A client thinks of something to do, from what a manager shows it.
    pub(crate) fn client_acts(&mut self, client: usize) {
        if self.calm.is_some() {
            return self.run_errand(client);
        }
        let gap = self.config.client_gap;
        let next = self.clients[client].dice.between(gap / 4, gap * 2);
        self.after(next, Event::Client { client });
        if self.clients[client].present.is_some() {
            return;
        }
        let m = self.reachable_manager(client);
        let ask =
            workload::think(&self.config, &self.peers[m].state, &mut self.clients[client].dice);
        if let Some(ask) = ask {
            self.ask_soon(client, ask, m, 1);
        }
    }

    fn reachable_manager(&mut self, client: usize) -> usize {
        let place = self.config.hosts + client;
        let open: Vec<usize> = (0..self.config.managers)
            .filter(|m| self.hosts[*m].up && self.net.clear(*m, place))
            .collect();
        self.clients[client].dice.pick(&open).copied().unwrap_or(0)
    }

    /// Asks after a moment: somebody else may be quicker.
    pub(crate) fn ask_soon(&mut self, client: usize, ask: Ask, m: usize, attempt: u32) {
        let request = self.next_serial();
        self.clients[client].present = Some(Present { request, ask, attempt, m });
        let thinks = self.clients[client].dice.below(2 * SEC);
        self.after(thinks, Event::Ask { client, request });
    }

    pub(crate) fn client_asks(&mut self, client: usize, request: u64) {
        let Some(present) = &self.clients[client].present else { return };
        if present.request != request {
            return;
        }
        let (m, place) = (present.m, self.config.hosts + client);
        if self.net.clear(place, m) && self.hosts[m].power {
            let delay = self.net.delay(place, m);
            self.after(delay, Event::Request { client, request, m });
        }
        self.after(PATIENCE, Event::GiveUp { client, request });
    }

    pub(crate) fn client_hears(&mut self, client: usize, request: u64, reply: Reply) {
        let Some(present) = self.clients[client].present.take_if(|p| p.request == request) else {
            return;
        };
        match reply {
            Reply::Done { version, txn } => {
                self.stats.add(Count::Acknowledged);
                self.checks.acknowledged(&present.ask, version, txn);
                self.errand_done(client);
            }
            Reply::Refused(Refusal::Other) => {
                self.stats.add(Count::Refused);
                self.errand_done(client);
            }
            Reply::Refused(Refusal::OutOfSequence) => {
                self.stats.add(Count::Refused);
                self.try_again(client, present);
            }
            Reply::Elsewhere | Reply::Unknown => self.try_again(client, present),
        }
    }

    pub(crate) fn client_gives_up(&mut self, client: usize, request: u64) {
        if let Some(present) = self.clients[client].present.take_if(|p| p.request == request) {
            self.stats.add(Count::Unanswered);
            self.try_again(client, present);
        }
    }

    /// Another manager, with what that one shows. What was done already is refused then.
    fn try_again(&mut self, client: usize, before: Present) {
        if self.calm.is_some() {
            return self.after(SEC, Event::Client { client });
        }
        if before.attempt >= ATTEMPTS {
            return;
        }
        let m = self.reachable_manager(client);
        if let Some(ask) = workload::renewed(&self.peers[m].state, before.ask) {
            let request = self.next_serial();
            let attempt = before.attempt + 1;
            self.clients[client].present = Some(Present { request, ask, attempt, m });
            let pause = self.clients[client].dice.between(50 * MS, 500 * MS);
            self.after(pause, Event::Ask { client, request });
        }
    }

    /// After the faults: whoever runs the cluster repairs it, one thing after the other.
    fn run_errand(&mut self, client: usize) {
        if client != 0 || self.clients[client].present.is_some() {
            return;
        }
        let m = (0..self.config.managers).find(|m| self.serves(*m));
        let Some(m) = m else { return self.after(SEC, Event::Client { client }) };
        let state = &self.peers[m].state;
        if self.clients[client].errands.is_none() {
            let services = state.services.keys().map(str::to_owned).map(Errand::Service);
            let nodes = state.nodes.keys().cloned().map(Errand::Node);
            let all = self.config.last_update.then(|| nodes.chain(services).collect());
            let mut all: VecDeque<Errand> = all.unwrap_or_default();
            // A rotation of the root waits for them.
            if self.identities.is_some() {
                let is_gone = |id: &&String| self.agents.iter().all(|a| a.node_id != **id);
                for id in state.nodes.keys().filter(is_gone) {
                    let demote = self.config.roles.then(|| Errand::Demote(id.clone()));
                    all.extend(demote.into_iter().chain([Errand::Forget(id.clone())]));
                }
            }
            self.clients[client].errands = Some(all);
        }
        let errand = self.clients[client].errands.as_ref().and_then(|e| e.front());
        let ask = match errand {
            None => return,
            Some(Errand::Service(id)) => {
                state.services.get(id).map(|service| workload::repair(state, service))
            }
            Some(Errand::Demote(id)) => {
                let node = state.nodes.get(id).filter(|node| node.role == Role::Manager);
                node.map(|node| Ask::SetRole {
                    id: id.clone(),
                    version: node.meta.version,
                    role: Role::Worker,
                })
            }
            Some(Errand::Forget(id)) => state
                .nodes
                .contains_key(id)
                .then(|| Ask::RemoveNode { id: id.clone(), force: true }),
            Some(Errand::Node(id)) => state.nodes.get(id).map(|node| Ask::UpdateNode {
                id: id.clone(),
                version: node.meta.version,
                availability: Availability::Active,
                zone: ["east", "west"][usize::from(node.id.bytes().fold(0, |a, b| a ^ b) & 1)],
            }),
        };
        match ask {
            Some(ask) => self.ask_soon(client, ask, m, 1),
            None => self.errand_done(client),
        }
    }

    fn errand_done(&mut self, client: usize) {
        if self.calm.is_none() {
            return;
        }
        if let Some(errands) = &mut self.clients[client].errands {
            errands.pop_front();
        }
        self.after(SEC, Event::Client { client });
    }
}
