//! A manager's process: the store, and what others ask of it.

use crate::{
    shared::{Shared, manager_name},
    wire::{Answer, Calls, Connections, Failure, Order, PORT, Request, receive, send},
};
use futures_util::future::join_all;
use shoal_model::{
    Availability, Change, Meta, Node, NodeOverlay, NodeState, NodeStatus, Object, Role,
};
use shoal_store::{RaftCall, Store, StoreConfig, StoreError, Transport};
use std::{
    collections::BTreeMap, future::pending, net::Ipv4Addr, rc::Rc, sync::Arc, time::Duration,
};
use tokio::{task::spawn_local, time::timeout};
use turmoil::net::{TcpListener, TcpStream};

/// How long a change of the cluster may take.
const ORDER: Duration = Duration::from_secs(4);

/// Runs until it is ended from outside.
pub(crate) async fn run(shared: Rc<Shared>, number: usize) -> turmoil::Result {
    shared.runs_here(number);
    let store = match open(&shared, number).await {
        Ok(store) => store,
        Err(StoreError::Removed { .. }) => {
            shared.note(format!("m{number} finds that it was let go"));
            return pending().await;
        }
        Err(error) => {
            ended(&shared, number, format!("cannot be opened: {}", chain(&error)));
            return pending().await;
        }
    };
    shared.stores.borrow_mut().insert(number, store.clone());
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).await?;
    let mut failed = store.failed();
    loop {
        tokio::select! {
            biased;
            reason = failed.wait_for(Option::is_some) => {
                let reason = reason.ok().and_then(|reason| reason.clone()).unwrap_or_default();
                shared.stores.borrow_mut().remove(&number);
                ended(&shared, number, reason);
                return pending().await;
            }
            accepted = listener.accept() => {
                let (stream, _) = accepted?;
                spawn_local(serve(store.clone(), stream));
            }
        }
    }
}

/// The store has ended by itself; only its disk gives it a reason to.
fn ended(shared: &Shared, number: usize, reason: String) {
    if shared.disks[number].is_well() {
        shared.violate(format!("m{number} has failed without a fault of its disk: {reason}"));
    } else {
        shared.note(format!("m{number} has failed: {reason}"));
    }
    shared.failed.borrow_mut().insert(number, reason);
}

/// The store that is there; else a new cluster's on the first manager, and one that waits on others.
async fn open(shared: &Shared, number: usize) -> Result<Store, StoreError> {
    let name = manager_name(number);
    let disk = &shared.disks[number];
    let (snapshot_interval, snapshot_keep) = shared.snapshots;
    let config = StoreConfig {
        snapshot_interval,
        snapshot_keep,
        ..StoreConfig::new(disk.dir(), name.as_str())
    };
    let calls: Arc<dyn Transport> =
        Arc::new(Calls { own: name.clone(), connections: Connections::default() });
    disk.opening();
    match Store::open(config.clone(), calls.clone()).await {
        Err(StoreError::Missing { .. }) => {}
        opened => return opened,
    }
    disk.opening();
    if number > 0 || shared.founded.get() {
        return Store::join(config, calls).await;
    }
    let store = Store::bootstrap(config, &addr(&name), calls).await?;
    shared.founded.set(true);
    Ok(store)
}

fn addr(name: &str) -> String {
    format!("{name}:{PORT}")
}

/// Answers what comes over one connection, one after the other.
async fn serve(store: Store, mut stream: TcpStream) {
    while let Ok(request) = receive(&mut stream).await {
        let answer = answer(&store, request).await;
        if send(&mut stream, &answer).await.is_err() {
            return;
        }
    }
}

async fn answer(store: &Store, request: Request) -> Answer {
    match request {
        Request::Raft { from, call, request } => Answer::Raft(match RaftCall::named(&call) {
            Some(call) => store.handle(&from, call, &request).await.map_err(|e| e.to_string()),
            None => Err(format!("there is no call {call}")),
        }),
        Request::Make(ids) => {
            let made = ids.iter().map(|id| store.propose(vec![make(id)]));
            let made = join_all(made).await;
            Answer::Made(made.into_iter().map(|result| result.map_err(failure)).collect())
        }
        Request::Count => {
            Answer::Counted(store.barrier().await.map(|()| count(store)).map_err(failure))
        }
        Request::Order(order) => Answer::Done(match timeout(ORDER, obey(store, order)).await {
            Ok(result) => result.map_err(failure),
            Err(_) => Err(Failure::Other("it takes too long".to_owned())),
        }),
    }
}

async fn obey(store: &Store, order: Order) -> Result<(), StoreError> {
    match order {
        Order::Add(name) => store.add_member(&name, &addr(&name)).await,
        Order::Remove(name) => store.remove_member(&name).await,
        Order::StepDown => store.step_down().await.map(drop),
        Order::RotateKey => store.rotate_data_key().await,
    }
}

/// Objects by who made them: a name is the client's, `-`, a number.
fn count(store: &Store) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    store.read(|state| {
        for id in state.nodes.keys() {
            if let Some((client, _)) = id.split_once('-') {
                *counts.entry(client.to_owned()).or_default() += 1;
            }
        }
    });
    counts
}

fn failure(error: StoreError) -> Failure {
    match error {
        StoreError::Refused(_) => Failure::Refused,
        StoreError::NotLeader { leader } => Failure::Leader(leader),
        other => Failure::Other(chain(&other)),
    }
}

/// The error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {}", chain(cause)),
        None => error.to_string(),
    }
}

/// A change that makes an object, and is refused if it is there.
fn make(id: &str) -> Change {
    Change::Put(Object::Node(Box::new(Node {
        id: id.into(),
        meta: Meta::default(),
        name: String::new(),
        labels: BTreeMap::new(),
        role: Role::Worker,
        availability: Availability::Active,
        description: None,
        status: NodeStatus { state: NodeState::Ready, message: String::new(), addr: String::new() },
        manager_addr: None,
        overlay: NodeOverlay { public_key: None, endpoint: None, address: None },
        down_since: None,
        tls: None,
    })))
}
