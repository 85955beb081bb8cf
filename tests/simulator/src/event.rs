//! What happens, and when: the heap everything else hangs on.
use crate::{
    faults::Undo,
    identity::Issued,
    log::Message,
    manager::Reply,
    node::{Down, Up},
    time::Ns,
};
use std::{cmp::Ordering, collections::BinaryHeap, rc::Rc};

/// Something that happens at a host, or to the whole.
pub(crate) enum Event {
    // The log.
    /// A message between managers arrives.
    Peer {
        from: usize,
        to: usize,
        message: Rc<Message>,
    },
    Flushed {
        m: usize,
        boot: u32,
    },
    Election {
        m: usize,
        timer: u64,
    },
    Silence {
        m: usize,
        silence: u64,
    },
    Resend {
        m: usize,
        to: usize,
        term: u64,
    },
    Apply {
        m: usize,
        boot: u32,
    },
    // The leader's tasks; `lead` tells one lead from the next.
    /// The reconciler's pause is over, or something is due.
    Reconcile {
        m: usize,
        lead: u64,
        wake: u64,
    },
    /// Assignments are computed.
    Tell {
        m: usize,
        lead: u64,
    },
    /// Reports gathered so far are written.
    Gather {
        m: usize,
        lead: u64,
    },
    /// The watchdog looks.
    Watch {
        m: usize,
        lead: u64,
    },
    /// The rotation of the root is looked at.
    Rotate {
        m: usize,
        lead: u64,
        look: u64,
    },
    // Connections between agents and managers.
    /// The agent's connection is there, and its hello.
    Hello {
        conn: u64,
    },
    Up {
        conn: u64,
        message: Up,
    },
    Down {
        conn: u64,
        message: Down,
    },
    /// Keep-alive probes have gone unanswered for too long, if the way is still shut.
    Probe {
        conn: u64,
    },
    /// The agent has waited long enough for a connection, or for the first word.
    Impatient {
        conn: u64,
    },
    // The node.
    /// The agent connects.
    Connect {
        host: usize,
        boot: u32,
    },
    /// The agent sends what it has to report.
    Report {
        host: usize,
        boot: u32,
    },
    /// The data plane has done what was wanted, or failed.
    Plane {
        host: usize,
        boot: u32,
    },
    /// A runner's step is over.
    Runner {
        host: usize,
        boot: u32,
        task: Rc<str>,
        step: u64,
    },
    /// A container ends by itself.
    Exit {
        host: usize,
        container: u64,
        code: i64,
    },
    // Certificates.
    /// A node's certificate is to be renewed, or nobody has answered.
    Renew {
        host: usize,
        boot: u32,
        timer: u64,
    },
    /// A request for a certificate arrives at a manager.
    Issue {
        host: usize,
        boot: u32,
        m: usize,
    },
    Issued {
        host: usize,
        boot: u32,
        issued: Issued,
    },
    /// A certificate that was in force once has ended.
    CertificateEnds {
        host: usize,
        end: i64,
    },
    /// A worker tries what managers may do alone.
    Pretend,
    // Clients.
    Client {
        client: usize,
    },
    /// A client has its request ready.
    Ask {
        client: usize,
        request: u64,
    },
    /// A request arrives at a manager.
    Request {
        client: usize,
        request: u64,
        m: usize,
    },
    Answer {
        client: usize,
        request: u64,
        reply: Reply,
    },
    /// The client has waited long enough.
    GiveUp {
        client: usize,
        request: u64,
    },
    // The world.
    Fault,
    /// The power of a host fails.
    Trap {
        host: usize,
    },
    Undo(Undo),
    /// The faults are over.
    Calm,
    /// The cluster is looked at whether it has come to rest.
    Judge,
}

impl Event {
    /// Host it happens at: while that is paused it does not.
    pub(crate) fn host(&self) -> Option<usize> {
        match self {
            Event::Peer { to: host, .. }
            | Event::Flushed { m: host, .. }
            | Event::Election { m: host, .. }
            | Event::Silence { m: host, .. }
            | Event::Resend { m: host, .. }
            | Event::Apply { m: host, .. }
            | Event::Reconcile { m: host, .. }
            | Event::Tell { m: host, .. }
            | Event::Gather { m: host, .. }
            | Event::Watch { m: host, .. }
            | Event::Rotate { m: host, .. }
            | Event::Issue { m: host, .. }
            | Event::Renew { host, .. }
            | Event::Issued { host, .. }
            | Event::Request { m: host, .. }
            | Event::Connect { host, .. }
            | Event::Report { host, .. }
            | Event::Plane { host, .. }
            | Event::Runner { host, .. }
            | Event::Exit { host, .. } => Some(*host),
            _ => None,
        }
    }

    /// For the trace: what, where, and a number that tells it from others of its kind.
    pub(crate) fn digest(&self) -> (&'static str, u64, u64) {
        let n = |n: &usize| *n as u64;
        match self {
            Event::Peer { from, to, message } => {
                let (word, term, index) = message.digest();
                (word, n(from) << 8 | n(to), term << 32 | index)
            }
            Event::Flushed { m, boot } => ("flushed", n(m), u64::from(*boot)),
            Event::Election { m, timer } => ("election", n(m), *timer),
            Event::Silence { m, silence } => ("silence", n(m), *silence),
            Event::Resend { m, to, term } => ("resend", n(m) << 8 | n(to), *term),
            Event::Apply { m, .. } => ("apply", n(m), 0),
            Event::Reconcile { m, wake, .. } => ("reconcile", n(m), *wake),
            Event::Tell { m, .. } => ("tell", n(m), 0),
            Event::Gather { m, .. } => ("gather", n(m), 0),
            Event::Watch { m, .. } => ("watch", n(m), 0),
            Event::Rotate { m, look, .. } => ("rotate", n(m), *look),
            Event::Renew { host, timer, .. } => ("renew", n(host), *timer),
            Event::Issue { host, m, .. } => ("issue", n(host) << 8 | n(m), 0),
            Event::Issued { host, issued, .. } => ("issued", n(host), issued.digest()),
            Event::CertificateEnds { host, .. } => ("certificate ends", n(host), 0),
            Event::Pretend => ("pretend", 0, 0),
            Event::Hello { conn } => ("hello", *conn, 0),
            Event::Up { conn, message } => ("up", *conn, message.digest()),
            Event::Down { conn, message } => ("down", *conn, message.digest()),
            Event::Probe { conn } => ("probe", *conn, 0),
            Event::Impatient { conn } => ("impatient", *conn, 0),
            Event::Connect { host, .. } => ("connect", n(host), 0),
            Event::Report { host, .. } => ("report", n(host), 0),
            Event::Plane { host, .. } => ("plane", n(host), 0),
            Event::Runner { host, step, .. } => ("runner", n(host), *step),
            Event::Exit { host, container, .. } => ("exit", n(host), *container),
            Event::Client { client } => ("client", n(client), 0),
            Event::Ask { client, request } => ("ask", n(client), *request),
            Event::Request { m, request, .. } => ("request", n(m), *request),
            Event::Answer { client, request, reply } => {
                ("answer", n(client) << 8 | reply.digest(), *request)
            }
            Event::GiveUp { client, request } => ("give-up", n(client), *request),
            Event::Fault => ("fault", 0, 0),
            Event::Trap { host } => ("trap", n(host), 0),
            Event::Undo(undo) => ("undo", undo.digest(), 0),
            Event::Calm => ("calm", 0, 0),
            Event::Judge => ("judge", 0, 0),
        }
    }
}

/// Events in the order of their times; those of the same time in the order they were put in.
#[derive(Default)]
pub(crate) struct Heap {
    items: BinaryHeap<Item>,
    count: u64,
}

struct Item {
    at: Ns,
    order: u64,
    event: Event,
}

impl Heap {
    pub(crate) fn push(&mut self, at: Ns, event: Event) {
        self.count += 1;
        self.items.push(Item { at, order: self.count, event });
    }

    /// Moves events from one time to an earlier one. They stay in their order.
    pub(crate) fn bring_forward(&mut self, from: Ns, to: Ns, which: impl Fn(&Event) -> bool) {
        let items = std::mem::take(&mut self.items).into_iter();
        let moved = |item: Item| match item.at == from && which(&item.event) {
            true => Item { at: to, ..item },
            false => item,
        };
        self.items = items.map(moved).collect();
    }

    pub(crate) fn pop(&mut self) -> Option<(Ns, Event)> {
        self.items.pop().map(|item| (item.at, item.event))
    }
}

impl Ord for Item {
    fn cmp(&self, other: &Item) -> Ordering {
        // The heap gives the greatest first.
        (other.at, other.order).cmp(&(self.at, self.order))
    }
}

impl PartialOrd for Item {
    fn partial_cmp(&self, other: &Item) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Item {
    fn eq(&self, other: &Item) -> bool {
        self.order == other.order
    }
}

impl Eq for Item {}
