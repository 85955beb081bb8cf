//! A cluster's CA and nodes for tests.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]
#![allow(dead_code, reason = "each test file uses its own part")]

use shoal_identity::{NODE_VALIDITY, NodeCertificate, NodeKey, RootCa, id};
use shoal_model::{Role, Timestamp};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub(crate) const DAY: Duration = Duration::from_secs(24 * 3600);

pub(crate) fn now() -> Timestamp {
    Timestamp::default().after(SystemTime::now().duration_since(UNIX_EPOCH).unwrap())
}

pub(crate) fn before(now: Timestamp, d: Duration) -> Timestamp {
    Timestamp(now.0 - i64::try_from(d.as_nanos()).unwrap())
}

pub(crate) struct TestCluster {
    pub(crate) ca: RootCa,
    pub(crate) id: String,
}

impl TestCluster {
    pub(crate) fn new() -> TestCluster {
        TestCluster::made_at(now())
    }

    pub(crate) fn made_at(time: Timestamp) -> TestCluster {
        TestCluster { ca: RootCa::create(time).unwrap(), id: id::new() }
    }

    pub(crate) fn node(&self, role: Role) -> NodeCertificate {
        self.node_at(role, now())
    }

    pub(crate) fn node_at(&self, role: Role, time: Timestamp) -> NodeCertificate {
        let key = NodeKey::create().unwrap();
        let csr = key.csr_pem().unwrap();
        let pem = self.ca.sign_node(&csr, &id::new(), role, &self.id, time, NODE_VALIDITY).unwrap();
        NodeCertificate::new(key, &pem, self.ca.certificate().clone()).unwrap()
    }
}
