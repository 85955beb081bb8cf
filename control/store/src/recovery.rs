//! A new cluster from what one manager has: for when the others are gone for good.

use crate::{
    Store, StoreConfig,
    disk::Disk,
    error::StoreError,
    outside::blocking,
    transport::Transport,
    types::{Entry, ManagerId, Membership, Peer, Vote},
};
use openraft::{CommittedLeaderId, EntryPayload, LogId};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

impl Store {
    /// Opens the store of this node as that of a cluster whose only manager it is, with the state it
    /// has. What the other managers had and this one had not yet received is lost; they must not
    /// run any more with their stores. The state still lists their nodes as managers: that is the
    /// caller's to change.
    pub async fn force_new_cluster(
        config: StoreConfig,
        own_addr: &str,
        transport: Arc<dyn Transport>,
    ) -> Result<Store, StoreError> {
        let node_id = config.manager_id()?;
        let (dir, keys, addr) = (config.dir.clone(), config.keys.clone(), own_addr.to_owned());
        blocking(move || {
            let disk = Disk::open(&dir, &keys, false)?;
            disk.check_owner(&dir, node_id)?;
            match forget_others(&disk, node_id, addr)? {
                true => Ok(()),
                false => Err(StoreError::Missing { dir }),
            }
        })
        .await??;
        Store::open(config, transport).await
    }
}

/// Appends a membership of one to the log, in a term of its own. Whatever the log holds before it,
/// known to be committed or not, is kept: the only voter commits it when it is elected.
fn forget_others(disk: &Disk, id: ManagerId, addr: String) -> Result<bool, StoreError> {
    let [_, last] = disk.log_ends()?;
    let snapshot = disk.snapshot()?.and_then(|(meta, _)| meta.last_log_id);
    let Some(last) = last.max(snapshot) else { return Ok(false) };
    let voted = disk.vote()?.map_or(0, |vote| vote.leader_id.term);
    let term = voted.max(last.leader_id.term) + 1;
    let nodes = BTreeMap::from([(id, Peer { addr })]);
    let membership = Membership::new(vec![BTreeSet::from([id])], nodes);
    // The vote first: by itself it changes nothing.
    disk.save_vote(&Vote::new(term, id))?;
    disk.append(&[Entry {
        log_id: LogId::new(CommittedLeaderId::new(term, id), last.index + 1),
        payload: EntryPayload::Membership(membership),
    }])?;
    Ok(true)
}
