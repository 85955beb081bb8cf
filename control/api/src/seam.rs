//! What the server needs of the cluster: implemented by the daemon over its manager and agent.
use async_trait::async_trait;
use futures_util::stream::BoxStream;
use shoal_model::{
    Availability, ControlError, DependencyKind, DependencySpec, LogLine, LogOptions, Rotations,
    State, docker,
};
use tokio::sync::watch;

/// A node's membership, in Docker's words.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum LocalState {
    /// In no cluster.
    #[default]
    Inactive,
    /// Joining.
    Pending,
    /// A member.
    Active,
    /// A member that cannot work; [`SwarmInfo::error`] says why.
    Error,
    /// A manager that waits for its unlock key.
    Locked,
}

impl LocalState {
    /// Docker's word.
    pub fn as_str(self) -> &'static str {
        match self {
            LocalState::Inactive => "inactive",
            LocalState::Pending => "pending",
            LocalState::Active => "active",
            LocalState::Error => "error",
            LocalState::Locked => "locked",
        }
    }
}

/// What a node knows of its own membership without asking anybody.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SwarmInfo {
    /// Its id; empty when inactive.
    pub node_id: String,
    /// Address the others know it by, without port; empty when inactive.
    pub node_addr: String,
    /// Membership.
    pub local_state: LocalState,
    /// Whether this node is a manager and answers for the cluster.
    pub control_available: bool,
    /// What is wrong; empty when nothing is.
    pub error: String,
    /// Managers it knows: id and `host:port`.
    pub remote_managers: Vec<(String, String)>,
    /// Id of the leading manager, where this node knows it.
    pub leader: Option<String>,
}

/// The cluster as the API sees it. Refusals carry the text the user reads.
#[async_trait]
pub trait Swarm: Send + Sync + 'static {
    /// This node's membership; answers at once and always.
    fn info(&self) -> SwarmInfo;

    /// Looks at the cluster's state; refused with [`shoal_model::ErrorKind::Unavailable`] and
    /// Docker's text on a node that is no manager.
    fn read(&self, look: &mut dyn FnMut(&State)) -> Result<(), ControlError>;

    /// Waits until what is read from now on is not older than this call; refused in bounded time with
    /// Docker's text when no manager leads.
    async fn catch_up(&self) -> Result<(), ControlError> {
        Ok(())
    }

    /// On a manager: the number of the newest transaction in its state, as it grows, and the id of the
    /// manager that leads, where it is known. `None` on any other node.
    fn progress(&self) -> Option<(watch::Receiver<u64>, Option<String>)>;

    /// Makes a cluster of this node and gives the node's id. Defaults in the request are not filled.
    async fn init(
        &self,
        request: docker::SwarmInitRequest,
        availability: Availability,
    ) -> Result<String, ControlError>;

    /// Joins the cluster the request names; returns when this node is a member.
    async fn join(
        &self,
        request: docker::SwarmJoinRequest,
        availability: Availability,
    ) -> Result<(), ControlError>;

    /// Leaves the cluster; a manager only with `force`, and without its vote.
    async fn leave(&self, force: bool) -> Result<(), ControlError>;

    /// Changes the cluster's settings and, where asked, its secrets.
    async fn update_swarm(
        &self,
        version: u64,
        spec: docker::SwarmSpec,
        rotate: Rotations,
    ) -> Result<(), ControlError>;

    /// Starts a manager that is locked.
    async fn unlock(&self, key: &str) -> Result<(), ControlError>;

    /// Changes a node's settings.
    async fn update_node(
        &self,
        id: &str,
        version: u64,
        spec: docker::NodeSpec,
    ) -> Result<(), ControlError>;

    /// Forgets a node; one that is not down only with `force`.
    async fn remove_node(&self, id: &str, force: bool) -> Result<(), ControlError>;

    /// Makes a service and gives its id.
    async fn create_service(&self, spec: docker::ServiceSpec) -> Result<String, ControlError>;

    /// Replaces a service's specification, or goes back to the one before (`rollback`).
    async fn update_service(
        &self,
        id: &str,
        version: u64,
        spec: docker::ServiceSpec,
        rollback: bool,
    ) -> Result<(), ControlError>;

    /// Removes a service.
    async fn remove_service(&self, id: &str) -> Result<(), ControlError>;

    /// Makes an overlay network and gives its id.
    async fn create_network(
        &self,
        request: docker::NetworkCreateRequest,
    ) -> Result<String, ControlError>;

    /// Removes an overlay network that nobody uses.
    async fn remove_network(&self, id: &str) -> Result<(), ControlError>;

    /// Keeps a secret or a config and gives its id.
    async fn create_dependency(
        &self,
        kind: DependencyKind,
        spec: DependencySpec,
    ) -> Result<String, ControlError>;

    /// Changes the labels of a secret or a config.
    async fn update_dependency(
        &self,
        kind: DependencyKind,
        id: &str,
        version: u64,
        spec: DependencySpec,
    ) -> Result<(), ControlError>;

    /// Removes a secret or a config that no service refers to.
    async fn remove_dependency(&self, kind: DependencyKind, id: &str) -> Result<(), ControlError>;

    /// Lines of the logs of tasks, from their nodes. Ends with the tasks' logs, or never with
    /// `follow` while one of them runs.
    async fn service_logs(
        &self,
        tasks: Vec<String>,
        options: LogOptions,
    ) -> Result<BoxStream<'static, LogLine>, ControlError>;
}

/// [`Swarm::read`] with a result.
pub(crate) fn read<R>(
    swarm: &dyn Swarm,
    look: impl FnOnce(&State) -> R,
) -> Result<R, ControlError> {
    let mut look = Some(look);
    let mut out = None;
    swarm.read(&mut |state| {
        if let Some(look) = look.take() {
            out = Some(look(state));
        }
    })?;
    out.ok_or_else(|| {
        ControlError::new(shoal_model::ErrorKind::Unknown, "the cluster's state was not read")
    })
}
