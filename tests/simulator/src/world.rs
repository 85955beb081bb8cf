//! The simulated world: all hosts, what is between them, and the loop over events.
use crate::{
    client::Client,
    config::Config,
    dice::Dice,
    event::{Event, Heap},
    faults::Faults,
    identity::Identities,
    invariants::{Checks, Violation},
    log::{Disk, Peer},
    manager::Lead,
    net::Net,
    node::{Agent, Conn},
    number_of,
    stats::{Count, Stats},
    time::{EPOCH, Ns},
    trace::Trace,
};
use shoal_model::Timestamp;
use std::collections::BTreeMap;

/// Events of one simulation. The longest without a bug has a twentieth of it.
const MOST_EVENTS: u64 = 5_000_000;

pub(crate) struct World {
    pub(crate) now: Ns,
    pub(crate) heap: Heap,
    pub(crate) config: Config,
    pub(crate) dice: Dice,
    pub(crate) net: Net,
    pub(crate) hosts: Vec<Host>,
    /// Managers' logs; manager `m` is on host `m`.
    pub(crate) peers: Vec<Peer>,
    /// What a manager does while it leads.
    pub(crate) leads: Vec<Option<Lead>>,
    pub(crate) agents: Vec<Agent>,
    pub(crate) conns: BTreeMap<u64, Conn>,
    pub(crate) clients: Vec<Client>,
    pub(crate) faults: Faults,
    /// Certificates, if the seed has them.
    pub(crate) identities: Option<Identities>,
    pub(crate) checks: Checks,
    pub(crate) stats: Stats,
    pub(crate) trace: Trace,
    /// For ids of anything.
    pub(crate) serial: u64,
    /// Whether the faults are over.
    pub(crate) calm: Option<Ns>,
    pub(crate) done: bool,
}

/// A machine and the daemon on it.
pub(crate) struct Host {
    /// Whether the daemon runs.
    pub(crate) up: bool,
    /// Whether the machine has power: without, nothing says that a connection is gone.
    pub(crate) power: bool,
    /// Counts starts of the daemon: what belongs to an earlier one is void.
    pub(crate) boot: u32,
    /// Nothing happens here until then.
    pub(crate) paused_until: Ns,
    /// Difference of its clock from the true time.
    pub(crate) skew: i64,
    /// Its power is to fail in the middle of its manager's next write, for so long.
    pub(crate) trapped: Option<Ns>,
    /// Since when the daemon does not run.
    pub(crate) down_since: Ns,
}

impl World {
    pub(crate) fn new(seed: u64, print: bool) -> World {
        let config = Config::of(seed);
        let mut dice = Dice::new(number_of(seed));
        let net = Net::new(config.net.clone(), dice.fork(), config.hosts + config.clients);
        let mut skews = dice.fork();
        let host = |_| Host {
            up: true,
            power: true,
            boot: 0,
            paused_until: 0,
            trapped: None,
            skew: skews.between(0, config.skew * 2) as i64 - config.skew as i64,
            down_since: 0,
        };
        let hosts: Vec<Host> = (0..config.hosts).map(host).collect();
        let skews: Vec<i64> = hosts.iter().map(|host| host.skew).collect();
        let mut world = World {
            now: 0,
            heap: Heap::default(),
            net,
            peers: (0..config.managers).map(|_| Peer::start(Disk::default())).collect(),
            leads: (0..config.managers).map(|_| None).collect(),
            agents: (0..config.hosts).map(Agent::new).collect(),
            conns: BTreeMap::new(),
            clients: (0..config.clients).map(|_| Client::new(dice.fork())).collect(),
            faults: Faults::new(dice.fork()),
            checks: Checks::new(&config, print),
            stats: Stats::default(),
            trace: Trace::new(print),
            identities: Identities::of(&config, &skews),
            serial: 0,
            calm: None,
            done: false,
            dice: dice.fork(),
            hosts,
            config,
        };
        world.begin();
        world
    }

    /// What happens `delay` from now.
    pub(crate) fn after(&mut self, delay: Ns, event: Event) {
        self.heap.push(self.now + delay, event);
    }

    /// What a host's clock shows.
    pub(crate) fn wall(&self, host: usize) -> Timestamp {
        let true_time = EPOCH + i64::try_from(self.now).unwrap_or(i64::MAX / 2);
        Timestamp(true_time + self.hosts[host].skew)
    }

    /// Time since some moment in the past, which never jumps.
    pub(crate) fn uptime(&self) -> Timestamp {
        Timestamp(i64::try_from(self.now).unwrap_or(i64::MAX))
    }

    pub(crate) fn next_serial(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    /// Something worth its place in the fingerprint besides events.
    pub(crate) fn note(&mut self, word: &'static str, a: u64, b: u64) {
        self.trace.note(self.now, (word, a, b));
    }

    /// Runs to the end. Returns the first violation.
    pub(crate) fn run(&mut self) -> Option<Violation> {
        let mut events = 0;
        while !self.done {
            if let Some(violation) = self.checks.violation() {
                return Some(violation);
            }
            let Some((at, event)) = self.heap.pop() else { break };
            self.now = at;
            if let Some(host) = self.place(&event)
                && self.hosts[host].paused_until > at
            {
                let resumes = self.hosts[host].paused_until;
                self.heap.push(resumes, event);
                continue;
            }
            self.trace.note(at, event.digest());
            self.stats.add(Count::Events);
            events += 1;
            if events > MOST_EVENTS {
                return Some(Violation {
                    invariant: "convergence",
                    text: format!("more than {MOST_EVENTS} events: something never rests"),
                });
            }
            self.happen(event);
        }
        self.stats.simulated = self.now;
        self.stats.seeds = 1;
        self.checks.violation()
    }

    /// Host an event happens at.
    pub(crate) fn place(&self, event: &Event) -> Option<usize> {
        match event {
            Event::Hello { conn } | Event::Up { conn, .. } => {
                self.conns.get(conn).map(|c| c.manager)
            }
            Event::Down { conn, .. } => self.conns.get(conn).map(|c| c.agent),
            _ => event.host(),
        }
    }

    fn boots(&self, host: usize, boot: u32) -> bool {
        self.hosts[host].up && self.hosts[host].boot == boot
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Peer { from, to, message } => self.hear_peer(to, from, &message),
            Event::Flushed { m, boot } if self.boots(m, boot) => {
                self.flushed(m);
                self.watch_leaders();
            }
            Event::Election { m, timer } => self.election_timeout(m, timer),
            Event::Silence { m, silence } => self.no_majority(m, silence),
            Event::Resend { m, to, term } => self.resend(m, to, term),
            Event::Apply { m, boot } if self.boots(m, boot) => self.apply_next(m),
            Event::Reconcile { m, lead, wake } => self.reconcile(m, lead, wake),
            Event::Tell { m, lead } => self.tell_all(m, lead),
            Event::Gather { m, lead } => self.write_reports(m, lead),
            Event::Watch { m, lead } => self.watch_nodes(m, lead),
            Event::Rotate { m, lead, look } => self.look_at_rotation(m, lead, look),
            Event::Renew { host, boot, timer } if self.boots(host, boot) => {
                self.renewal_due(host, timer);
            }
            Event::Issue { host, boot, m } => self.hear_issue(host, boot, m),
            Event::Issued { host, boot, issued } if self.boots(host, boot) => {
                self.hear_issued(host, issued);
            }
            Event::CertificateEnds { host, end } => self.check_ended(host, end),
            Event::Pretend => self.pretend(),
            Event::Hello { conn } => self.hear_hello(conn),
            Event::Up { conn, message } => self.hear_agent(conn, message),
            Event::Down { conn, message } => self.hear_manager(conn, message),
            Event::Probe { conn } => self.probe(conn),
            Event::Impatient { conn } => self.impatient(conn),
            Event::Connect { host, boot } if self.boots(host, boot) => self.connect(host),
            Event::Report { host, boot } if self.boots(host, boot) => self.send_reports(host),
            Event::Plane { host, boot } if self.boots(host, boot) => self.plane_done(host),
            Event::Runner { host, boot, task, step } if self.boots(host, boot) => {
                self.runner_step(host, &task, step);
            }
            Event::Exit { host, container, code } => self.container_exits(host, container, code),
            Event::Client { client } => self.client_acts(client),
            Event::Ask { client, request } => self.client_asks(client, request),
            Event::Request { client, request, m } => self.hear_request(client, request, m),
            Event::Answer { client, request, reply } => self.client_hears(client, request, reply),
            Event::GiveUp { client, request } => self.client_gives_up(client, request),
            Event::Fault => self.fault(),
            Event::Trap { host } => self.spring_trap(host),
            Event::Undo(undo) => self.undo(undo),
            Event::Calm => self.become_calm(),
            Event::Judge => self.judge(),
            // Of a daemon that is no more.
            Event::Flushed { .. }
            | Event::Apply { .. }
            | Event::Connect { .. }
            | Event::Report { .. }
            | Event::Plane { .. }
            | Event::Renew { .. }
            | Event::Issued { .. }
            | Event::Runner { .. } => {}
        }
    }
}
