//! The cluster's settings.
use crate::{
    Manager, cluster,
    error::{from_store, out_of_sequence, refuse},
};
use shoal_identity::JoinToken;
use shoal_model::{Change, ControlError, ErrorKind, Object, Rotations, docker};
use shoal_store::UnlockKey;

impl Manager {
    /// Changes the cluster's settings, and replaces its secrets where asked. `version` is the one the
    /// user read.
    pub async fn update_swarm(
        &self,
        version: u64,
        spec: docker::SwarmSpec,
        rotate: Rotations,
    ) -> Result<(), ControlError> {
        let digest = self.leading()?.root.digest();
        let cluster = self.store().read(|state| {
            let present = state
                .cluster
                .clone()
                .ok_or_else(|| refuse(ErrorKind::Unavailable, "there is no cluster"))?;
            if present.meta.version != version {
                return Err(out_of_sequence());
            }
            let mut cluster = present;
            cluster.spec = cluster::updated(&cluster.spec, spec)?;
            if rotate.worker_token {
                cluster.join_tokens.worker = JoinToken::new(digest).render().to_string();
            }
            if rotate.manager_token {
                cluster.join_tokens.manager = JoinToken::new(digest).render().to_string();
            }
            match (cluster::locks(&cluster.spec), &cluster.unlock_key) {
                (false, _) => cluster.unlock_key = None,
                (true, Some(_)) if !rotate.unlock_key => {}
                (true, _) => cluster.unlock_key = Some(UnlockKey::random().reveal().to_string()),
            }
            Ok(cluster)
        })?;
        let change = Change::Put(Object::Cluster(cluster));
        self.store().propose(vec![change]).await.map_err(from_store).map(drop)
    }
}
