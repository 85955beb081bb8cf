//! Hosts that want something of the managers: clients that write and read, and one that changes the cluster.

use crate::{
    history::Wish,
    shared::{Shared, client_name, manager_name},
    wire::{Answer, Connections, Failure, Order, Request},
};
use std::{collections::BTreeMap, future::pending, rc::Rc, time::Duration};
use tokio::time::{sleep, timeout};

/// How long an answer is waited for: between these, and another time each. A client that soon asks elsewhere
/// finds a new leader while others still ask the old one.
const PATIENCE_MS: [u64; 3] = [200, 600, 3000];

/// Of a hundred things a client wants, so many are reads: some clients read nearly always, and so notice nothing of
/// a leader whose writes hang because another leads.
const READS: [u64; 2] = [20, 96];

/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(20);

/// Longest pause between two things a client wants.
const THINK_MS: u64 = 60;

/// Most objects made at once.
const AT_ONCE: u64 = 4;

/// Attempts to carry out an order before it is given up.
const ATTEMPTS: u32 = 40;

/// Finds whoever leads.
struct Asker {
    shared: Rc<Shared>,
    connections: Connections,
    /// Who led last.
    at: usize,
}

impl Asker {
    fn new(shared: Rc<Shared>) -> Asker {
        Asker { shared, connections: Connections::default(), at: 0 }
    }

    /// One attempt: who was asked, and the answer if there was one.
    async fn ask(&mut self, request: &Request) -> Option<Answer> {
        let asked = manager_name(self.at);
        let [least, some, most] = PATIENCE_MS;
        let patience = Duration::from_millis(match request {
            Request::Order(_) => most + 2000,
            _ if self.shared.below(2) == 0 => least + self.shared.below(some - least),
            _ => least + self.shared.below(most - least),
        });
        let answer = timeout(patience, self.connections.ask(&asked, request)).await;
        let answer = answer.ok().and_then(Result::ok);
        let failure = match &answer {
            Some(Answer::Made(results)) => results.iter().find_map(|result| result.as_ref().err()),
            Some(Answer::Counted(Err(failure)) | Answer::Done(Err(failure))) => Some(failure),
            Some(_) => None,
            None => Some(&Failure::Refused),
        };
        let leader = |name: &String| name.strip_prefix('m').and_then(|number| number.parse().ok());
        match failure {
            None => {}
            Some(Failure::Refused) if answer.is_some() => {}
            Some(Failure::Leader(name)) => self.at = leader(name).unwrap_or(self.at),
            Some(_) => self.at = self.shared.below(self.shared.disks.len() as u64) as usize,
        }
        if failure.is_some() {
            sleep(PAUSE).await;
        }
        answer
    }
}

/// Writes and reads until it shall stop.
pub(crate) async fn run(shared: Rc<Shared>, number: usize) -> turmoil::Result {
    let name = client_name(number);
    let mut asker = Asker::new(shared.clone());
    let (mut next, mut round) = (0, 0);
    while !shared.stop.get() {
        sleep(Duration::from_millis(shared.below(THINK_MS))).await;
        if shared.below(100) < READS[number % READS.len()] {
            let began = shared.history.borrow().acknowledged();
            if let Some(Answer::Counted(Ok(seen))) = asker.ask(&Request::Count).await {
                shared.history.borrow_mut().read(&began, &seen);
            }
            continue;
        }
        round += 1;
        let ids: Vec<String> =
            (next..next + 1 + shared.below(AT_ONCE)).map(|n| format!("{name}-{n}")).collect();
        next += ids.len() as u64;
        write(&mut asker, &name, round, ids).await;
        shared.rounds.borrow_mut().insert(name.clone(), round);
    }
    shared.finished.set(shared.finished.get() + 1);
    pending().await
}

/// Makes objects at once, and then again what may not have been made, until all are there.
async fn write(asker: &mut Asker, client: &str, round: u64, ids: Vec<String>) {
    let shared = asker.shared.clone();
    let first = {
        let mut history = shared.history.borrow_mut();
        let wishes = history.wishes.entry(client.to_owned()).or_default();
        let wish =
            |id: &String| Wish { id: id.clone(), round, version: None, attempt: 0, there: false };
        let first = wishes.len();
        wishes.extend(ids.iter().map(wish));
        first
    };
    let mut missing: Vec<(usize, String)> = (first..).zip(ids).collect();
    let mut attempt = 0;
    while !missing.is_empty() {
        attempt += 1;
        let request = Request::Make(missing.iter().map(|(_, id)| id.clone()).collect());
        let Some(Answer::Made(results)) = asker.ask(&request).await else {
            continue;
        };
        let mut left = Vec::new();
        for ((at, id), result) in missing.into_iter().zip(results) {
            let mut history = shared.history.borrow_mut();
            match result {
                Ok(version) => {
                    history.mix(&format!("{id} {version}"));
                    there(&mut history.wishes, client, at, Some((version, attempt)));
                    history.figures.writes += 1;
                }
                // An attempt whose fate was not known had been successful.
                Err(Failure::Refused) if attempt > 1 => {
                    there(&mut history.wishes, client, at, None);
                    history.figures.writes += 1;
                }
                Err(Failure::Refused) => {
                    history.violate(format!("{id} is there before it was asked for"));
                    there(&mut history.wishes, client, at, None);
                }
                Err(_) => left.push((at, id)),
            }
        }
        missing = left;
    }
}

fn there(
    wishes: &mut BTreeMap<String, Vec<Wish>>,
    client: &str,
    at: usize,
    acknowledged: Option<(u64, u32)>,
) {
    if let Some(wish) = wishes.get_mut(client).and_then(|wishes| wishes.get_mut(at)) {
        wish.there = true;
        if let Some((version, attempt)) = acknowledged {
            (wish.version, wish.attempt) = (Some(version), attempt);
        }
    }
}

/// Carries out orders, each until it is done or seems not to become so.
pub(crate) async fn administrate(shared: Rc<Shared>) -> turmoil::Result {
    let mut asker = Asker::new(shared.clone());
    loop {
        let order = shared.orders.borrow_mut().pop_front();
        shared.busy.set(order.is_some());
        match order {
            Some(order) => carry_out(&mut asker, order).await,
            None => sleep(PAUSE).await,
        }
    }
}

async fn carry_out(asker: &mut Asker, order: Order) {
    let shared = asker.shared.clone();
    let mut why = String::new();
    for _ in 0..ATTEMPTS {
        // A leader that shall go hands over first; the next one removes it.
        let own = matches!(&order, Order::Remove(name) if *name == manager_name(asker.at));
        let request = if own { Order::StepDown } else { order.clone() };
        match asker.ask(&Request::Order(request)).await {
            Some(Answer::Done(Ok(()))) if !own => return done(&shared, &order),
            Some(Answer::Done(Err(failure))) => why = format!("{failure:?}"),
            Some(_) => sleep(PAUSE).await,
            None => why = "no answer".to_owned(),
        }
        if matches!(order, Order::StepDown | Order::RotateKey) && !why.starts_with("Leader") {
            break;
        }
    }
    shared.note(format!("{order:?} is given up: {why}"));
}

fn done(shared: &Shared, order: &Order) {
    shared.note(format!("{order:?} is done"));
    if let Order::Remove(name) = order {
        let number = name.strip_prefix('m').and_then(|number| number.parse::<usize>().ok());
        shared.removed.borrow_mut().extend(number);
    }
    if matches!(order, Order::Remove(_) | Order::Add(_)) {
        shared.history.borrow_mut().figures.members += 1;
    }
}
