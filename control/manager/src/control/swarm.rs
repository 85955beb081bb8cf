//! The cluster's settings.
use crate::{
    Manager, cluster,
    control::root,
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
        let inner = self.leading()?;
        let present = self.store().read(|state| state.cluster.clone());
        let present =
            present.ok_or_else(|| refuse(ErrorKind::Unavailable, "there is no cluster"))?;
        if present.meta.version != version {
            return Err(out_of_sequence());
        }
        let mut spec = cluster::updated(&present.spec, spec)?;
        let own = self.certificate();
        let mut cluster = root::changed(&inner, &present, &mut spec, &own).await?;
        cluster.spec = spec;
        // Tokens carry the digest of the root in force; they change again when another takes its place.
        let digest = inner.authorities.of(&present)?.trust.present().digest();
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
        let change = Change::Put(Object::Cluster(Box::new(cluster)));
        self.store().propose(vec![change]).await.map_err(from_store).map(drop)
    }
}
