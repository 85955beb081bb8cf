//! openraft's own tests of log storage and state machine.

use crate::{
    disk::Disk,
    keys::Keys,
    log::Log,
    machine::Machine,
    types::{ManagerId, StorageError, Types},
    writer::Writer,
};
use openraft::testing::{StoreBuilder, Suite};
use std::sync::Arc;
use tempfile::TempDir;

impl From<u64> for ManagerId {
    fn from(number: u64) -> ManagerId {
        // The suite takes 0 for the default.
        match number {
            0 => ManagerId::default(),
            _ => ManagerId::try_from(number.to_string()).unwrap(),
        }
    }
}

struct Builder;

impl StoreBuilder<Types, Log, Machine, TempDir> for Builder {
    async fn build(&self) -> Result<(TempDir, Log, Machine), StorageError> {
        let dir = tempfile::tempdir().unwrap();
        let disk = Arc::new(
            Disk::open(dir.path(), &Keys::new(dir.path().join("data.key")), true).unwrap(),
        );
        let writer = Writer::new(disk.clone()).unwrap();
        let machine =
            Machine::load(ManagerId::from(1_000), disk.clone(), writer.written()).await.unwrap();
        Ok((dir, Log::new(ManagerId::from(1_000), disk, writer), machine))
    }
}

#[test]
fn the_storage_keeps_openraft_s_rules() {
    Suite::test_all(Builder).unwrap();
}
