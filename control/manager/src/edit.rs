//! Changes of one object, read and written again when another was quicker.
use shoal_model::{ApplyError, Change, Node, Object, State};
use shoal_store::{Store, StoreError};

/// Attempts before giving up; each one that fails means that another change succeeded.
const ATTEMPTS: usize = 20;

/// Makes changes from the present state and proposes them, again when it changed meanwhile.
/// `make` returns `None` when there is nothing to do.
pub(crate) async fn change(
    store: &Store,
    mut make: impl FnMut(&State) -> Option<Vec<Change>>,
) -> Result<(), StoreError> {
    let mut attempt = 1;
    loop {
        let Some(changes) = store.read(&mut make) else { return Ok(()) };
        match store.propose(changes).await {
            Err(StoreError::Refused(ApplyError::OutOfSequence { .. })) if attempt < ATTEMPTS => {
                attempt += 1;
            }
            result => return result.map(drop),
        }
    }
}

/// Edits a node; nothing is proposed when it is gone, or stays as it is.
pub(crate) async fn node(
    store: &Store,
    id: &str,
    edit: impl Fn(&mut Node),
) -> Result<(), StoreError> {
    change(store, |state| {
        let present = state.nodes.get(id)?;
        let mut node = present.clone();
        edit(&mut node);
        (node != *present).then(|| vec![Change::Put(Object::Node(Box::new(node)))])
    })
    .await
}
