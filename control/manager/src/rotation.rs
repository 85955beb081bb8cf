//! Rotation of the root, on the leader: tells nodes to renew, batch after batch, and puts the next root in
//! the present one's place when all have. Decided by [`shoal_cores::Renewals`].
use crate::{clock::Uptime, edit, error::chain, manager::Inner};
use shoal_cores::{Renewals, all_renewed, finished};
use shoal_identity::{JoinToken, RootCertificate};
use shoal_model::{Change, JoinTokens, Object, State};
use shoal_rpc::{Renew, manager_message::Kind};
use shoal_store::StoreError;
use std::{sync::Arc, time::Duration};

/// Pause after each look: nodes that report together are looked at together.
const DEBOUNCE: Duration = Duration::from_millis(50);

/// Pause after a failure.
const RETRY: Duration = Duration::from_secs(1);

/// Longest sleep.
const LONGEST_SLEEP: Duration = Duration::from_secs(5);

/// Runs until the term ends.
pub(crate) async fn run(inner: Arc<Inner>) {
    let mut versions = inner.store.watch();
    let (mut renewals, uptime) = (Renewals::default(), Uptime::start());
    loop {
        versions.borrow_and_update();
        let now = uptime.now();
        let step = inner.store.read(|state| renewals.step(state, now));
        let root = inner.store.read(|state| {
            let rotation = state.cluster.as_ref().and_then(|c| c.root_rotation.as_ref());
            rotation.map(|r| r.digest.clone())
        });
        for node in &step.tell {
            // A node without a session is told when it is looked at again: it is about to come, or down.
            if let (Some(root), Some(session)) = (&root, inner.sessions.of(node)) {
                session.tell(Kind::Renew(Renew { root: root.clone() }));
            }
        }
        let mut sleep = step.due.map_or(LONGEST_SLEEP, |due| due.since(now).min(LONGEST_SLEEP));
        if step.finish
            && let Err(error) = finish(&inner).await
        {
            tracing::error!(error = %chain(&error), "cannot finish the rotation of the root CA");
            sleep = RETRY;
        }
        tokio::select! {
            () = inner.stop.cancelled() => return,
            () = tokio::time::sleep(DEBOUNCE) => {}
        }
        tokio::select! {
            () = inner.stop.cancelled() => return,
            () = tokio::time::sleep(sleep) => {}
            changed = versions.changed() => if changed.is_err() { return },
        }
    }
}

/// Nothing is done if a node or another root has come in between.
async fn finish(inner: &Inner) -> Result<(), StoreError> {
    edit::change(&inner.store, over).await?;
    let digest = inner.store.read(|state| {
        let cluster = state.cluster.as_ref().filter(|c| c.root_rotation.is_none())?;
        Some(RootCertificate::from_pem(&cluster.root_certificate).ok()?.digest())
    });
    if let Some(root) = digest {
        tracing::info!(%root, "the root CA has been rotated; the old one is trusted no more");
    }
    Ok(())
}

fn over(state: &State) -> Option<Vec<Change>> {
    let cluster = state.cluster.as_ref().filter(|_| all_renewed(state))?;
    let next = cluster.root_rotation.as_ref()?;
    let digest = RootCertificate::from_pem(&next.certificate).ok()?.digest();
    let token = || JoinToken::new(digest).render().to_string();
    let cluster = finished(cluster, JoinTokens { worker: token(), manager: token() })?;
    Some(vec![Change::Put(Object::Cluster(Box::new(cluster)))])
}
