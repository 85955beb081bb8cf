//! The loop around the cores.
use crate::{clock, error::chain};
use shoal_cores::{Allocator, Orchestrator, Scheduler};
use shoal_identity::id;
use shoal_model::{Change, State, Timestamp};
use shoal_store::{Store, StoreError};
use std::time::Duration;
use tokio::{
    runtime::{Handle, RuntimeFlavor},
    task::block_in_place,
};
use tokio_util::sync::CancellationToken;

/// Pause after each run: changes that come together are answered together.
const DEBOUNCE: Duration = Duration::from_millis(20);

/// Longest sleep, in case the clock is set.
const LONGEST_SLEEP: Duration = Duration::from_secs(5);

/// Pause after the store failed.
const RETRY: Duration = Duration::from_secs(1);

/// Changes of one proposal (Docker's limit).
const BATCH: usize = 200;

/// Rounds over the cores in a row; a cluster that needs more is looked at again after the pause.
const ROUNDS: usize = 50;

/// Tasks that are looked at at a time while all are: a few milliseconds of the state's lock.
const STEP: usize = 2_000;

/// The cores, with what they remember of the term. They begin by looking at everything.
struct Cores {
    orchestrator: Orchestrator,
    allocator: Allocator,
    scheduler: Scheduler,
}

impl Default for Cores {
    fn default() -> Cores {
        Cores {
            orchestrator: Orchestrator::in_steps(STEP),
            allocator: Allocator::default(),
            scheduler: Scheduler::default(),
        }
    }
}

/// Runs until `stop`.
pub(crate) async fn run(store: Store, stop: CancellationToken) {
    let mut versions = store.watch();
    let mut cores = Cores::default();
    loop {
        versions.borrow_and_update();
        let pause = match settle(&store, &mut cores).await {
            Ok(()) => DEBOUNCE,
            Err(error) => {
                tracing::error!(error = %chain(&error), "cannot write what the cluster needs");
                RETRY
            }
        };
        let now = clock::now();
        let due = cores.orchestrator.next_due(now);
        let sleep = due.map_or(LONGEST_SLEEP, |due| due.since(now).min(LONGEST_SLEEP));
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(sleep) => {}
            changed = versions.changed() => if changed.is_err() { return },
        }
    }
}

/// Does what may take long here, and lets another thread take over what else this one has to do, where there may be
/// another.
fn beside<R>(work: impl FnOnce() -> R) -> R {
    match Handle::current().runtime_flavor() {
        RuntimeFlavor::MultiThread => block_in_place(work),
        _ => work(),
    }
}

/// What a core wants changed at a time.
type Core<'a> = dyn FnMut(&State, Timestamp) -> Vec<Change> + Send + 'a;

/// Runs the cores until none of them wants anything.
async fn settle(store: &Store, cores: &mut Cores) -> Result<(), StoreError> {
    let Cores { orchestrator, allocator, scheduler } = cores;
    for _ in 0..ROUNDS {
        let now = clock::now();
        let mut quiet = true;
        let cores: [&mut Core<'_>; 3] = [
            &mut |state, now| orchestrator.orchestrate(state, now, &mut id::new),
            &mut |state, now| allocator.allocate(state, now),
            &mut |state, now| scheduler.schedule(state, now),
        ];
        for core in cores {
            // The first look is one at everything.
            let changes = beside(|| store.read(|state| core(state, now)));
            if !changes.is_empty() {
                quiet = false;
                propose(store, changes).await?;
            }
        }
        if quiet && orchestrator.is_complete() {
            return Ok(());
        }
    }
    Ok(())
}

/// Proposes in batches. A batch that is refused because something changed meanwhile ends the round:
/// the next one reads anew.
async fn propose(store: &Store, changes: Vec<Change>) -> Result<(), StoreError> {
    let mut rest: Vec<Vec<Change>> = changes.chunks(BATCH).rev().map(<[Change]>::to_vec).collect();
    while let Some(mut batch) = rest.pop() {
        match store.propose(batch.clone()).await {
            Ok(_) => {}
            Err(StoreError::Refused(reason)) => {
                tracing::debug!(%reason, "the state changed meanwhile");
                return Ok(());
            }
            Err(StoreError::TooLarge { .. }) if batch.len() > 1 => {
                let second = batch.split_off(batch.len() / 2);
                rest.push(second);
                rest.push(batch);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
