//! The state as it is written out, and what is made anew when it is read.

use super::{Room, State};
use crate::{
    claims::Claims,
    dependency::{Dependency, DependencyKind},
    failures::Failures,
    index::Index,
    journal::Journal,
    objects::{Cluster, Network, Node},
    shared::{Services, Tasks},
    templates::shared_tasks,
    time::Timestamp,
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, sync::Arc};

/// A copy of a state that can be written out and nothing else: without what is derived, which is the larger part, and
/// sharing its tasks.
#[derive(Serialize)]
#[serde(transparent)]
pub struct Frozen(State);

impl State {
    /// What would be written out now.
    pub fn freeze(&self) -> Frozen {
        Frozen(State {
            version: self.version,
            cluster: self.cluster.clone(),
            nodes: self.nodes.clone(),
            networks: self.networks.clone(),
            services: self.services.clone(),
            tasks: self.tasks.clone(),
            secrets: self.secrets.clone(),
            configs: self.configs.clone(),
            failures: self.failures.clone(),
            latest: self.latest,
            index: Index::default(),
            claims: Claims::default(),
            room: Room::default(),
            fleet: Room::default(),
            journal: Journal::default(),
        })
    }
}

/// [`State`] as it is written out.
#[derive(Deserialize)]
pub(super) struct Stored {
    version: u64,
    cluster: Option<Cluster>,
    nodes: BTreeMap<String, Node>,
    networks: BTreeMap<String, Network>,
    services: Services,
    #[serde(deserialize_with = "shared_tasks")]
    tasks: Tasks,
    #[serde(default)]
    secrets: BTreeMap<String, Arc<Dependency>>,
    #[serde(default)]
    configs: BTreeMap<String, Arc<Dependency>>,
    #[serde(default)]
    failures: Failures,
    #[serde(default)]
    latest: Timestamp,
}

impl From<Stored> for State {
    fn from(stored: Stored) -> State {
        let Stored { version, cluster, nodes, networks, services, tasks, .. } = stored;
        let Stored { secrets, configs, failures, latest, .. } = stored;
        let mut index = Index::default();
        let mut claims = Claims::default();
        nodes.values().for_each(|node| claims.follow_node(None, Some(node)));
        networks.values().for_each(|network| claims.follow_network(None, Some(network)));
        services.values().for_each(|service| claims.follow_service(None, Some(service)));
        for (kind, all) in [(DependencyKind::Secret, &secrets), (DependencyKind::Config, &configs)]
        {
            all.values().for_each(|one| claims.follow_dependency(kind, None, Some(one)));
        }
        for task in tasks.values() {
            index.add(task);
            claims.follow_task(None, Some(task));
        }
        let room = Room(version);
        State {
            version,
            cluster,
            nodes,
            networks,
            services,
            tasks,
            secrets,
            configs,
            failures,
            latest,
            index,
            claims,
            room,
            fleet: room,
            journal: Journal::default(),
        }
    }
}
