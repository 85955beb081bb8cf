//! Keeps the replicated log's members what the state says: takes out whoever is to be no manager any
//! more.
//!
//! A demotion has three steps, each of which a new leader can go on with: the state says worker; the
//! log counts the node no longer; its manager address goes. The node is told only after the last: its
//! vote may be needed for the second.
use crate::{edit, error::chain, manager::Inner};
use shoal_model::{Role, State};
use std::{collections::BTreeSet, sync::Arc, time::Duration};
use tokio::time::timeout;

/// How long taking a manager out may take; then it is tried again.
const PATIENCE: Duration = Duration::from_secs(10);

/// Pause after each look.
const PACE: Duration = Duration::from_millis(20);

/// Pause after a failure.
const RETRY: Duration = Duration::from_millis(500);

/// Runs until the term ends.
pub(crate) async fn run(inner: Arc<Inner>) {
    let mut versions = inner.store.watch();
    // When nobody was surplus. All nodes are looked at again when one of them has changed.
    let mut settled = None;
    loop {
        versions.borrow_and_update();
        let members: BTreeSet<String> =
            inner.store.members().into_iter().map(|m| m.node_id).collect();
        inner.peers.retain(&members);
        let mut pause = None;
        let (seen, surplus) = inner.store.read(|state| {
            let seen = Some((state.fleet(), state.cluster.is_some(), members.clone()));
            let surplus = if seen == settled { Vec::new() } else { surplus(state, &members) };
            (seen, surplus)
        });
        settled = seen.filter(|_| surplus.is_empty());
        for id in surplus {
            tokio::select! {
                () = inner.stop.cancelled() => return,
                done = retire(&inner, &id) => if let Err(error) = done {
                    tracing::warn!(node = id, error, "cannot take the manager out; trying again");
                    pause = Some(RETRY);
                }
            }
        }
        let retry = async {
            match pause {
                Some(pause) => tokio::time::sleep(pause).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = inner.stop.cancelled() => return,
            () = tokio::time::sleep(PACE) => {}
        }
        tokio::select! {
            () = inner.stop.cancelled() => return,
            () = retry => {}
            changed = versions.changed() => if changed.is_err() { return },
        }
    }
}

/// Members of the log that shall be none, and nodes whose demotion is not complete.
fn surplus(state: &State, members: &BTreeSet<String>) -> Vec<String> {
    if state.cluster.is_none() {
        return Vec::new();
    }
    let manages = |id: &String| state.nodes.get(id).is_some_and(|n| n.role == Role::Manager);
    let demoted = state.nodes.values().filter(|n| n.role == Role::Worker);
    let demoted = demoted.filter(|n| n.manager_addr.is_some()).map(|n| n.id.clone());
    let mut all: BTreeSet<String> = members.iter().filter(|id| !manages(id)).cloned().collect();
    all.extend(demoted);
    // Without anybody there is no cluster left: the last one stays, whatever the state says.
    if members.iter().all(|id| all.contains(id)) {
        return Vec::new();
    }
    all.into_iter().collect()
}

/// Takes a manager out of the log, and then its address out of the state. The leader itself gives the
/// lead away; whoever has it then does the rest.
pub(crate) async fn retire(inner: &Inner, id: &str) -> Result<(), String> {
    if id == inner.node_id {
        return inner.store.step_down().await.map(drop).map_err(|e| chain(&e));
    }
    if inner.store.members().iter().any(|m| m.node_id == id) {
        tracing::info!(node = id, "the manager loses its vote");
        let removed = timeout(PATIENCE, inner.store.remove_member(id)).await;
        removed.map_err(|_| "no answer in time")?.map_err(|e| chain(&e))?;
    }
    edit::node(&inner.store, id, |node| {
        if node.role == Role::Worker {
            node.manager_addr = None;
        }
    })
    .await
    .map_err(|e| chain(&e))
}
