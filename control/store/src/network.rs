//! Between managers. This version runs one, so there is nobody to reach.

use crate::types::{ManagerId, Types};
use openraft::{
    EmptyNode,
    error::{InstallSnapshotError, RPCError, RaftError, Unreachable},
    network::{RPCOption, RaftNetwork, RaftNetworkFactory},
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest,
        InstallSnapshotResponse, VoteRequest, VoteResponse,
    },
};

/// Refuses every call to another manager.
pub(crate) struct NoPeers;

/// A manager that cannot be reached.
pub(crate) struct NoPeer(ManagerId);

#[derive(Debug, thiserror::Error)]
#[error("manager {0} cannot be reached: this version runs one manager")]
struct OneManager(ManagerId);

type Error<E = RaftError<ManagerId>> = RPCError<ManagerId, EmptyNode, E>;

impl NoPeer {
    fn unreachable(&self) -> Unreachable {
        Unreachable::new(&OneManager(self.0))
    }
}

impl RaftNetworkFactory<Types> for NoPeers {
    type Network = NoPeer;

    async fn new_client(&mut self, target: ManagerId, _node: &EmptyNode) -> NoPeer {
        NoPeer(target)
    }
}

impl RaftNetwork<Types> for NoPeer {
    async fn append_entries(
        &mut self,
        _rpc: AppendEntriesRequest<Types>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<ManagerId>, Error> {
        Err(self.unreachable().into())
    }

    async fn install_snapshot(
        &mut self,
        _rpc: InstallSnapshotRequest<Types>,
        _option: RPCOption,
    ) -> Result<InstallSnapshotResponse<ManagerId>, Error<RaftError<ManagerId, InstallSnapshotError>>>
    {
        Err(self.unreachable().into())
    }

    async fn vote(
        &mut self,
        _rpc: VoteRequest<ManagerId>,
        _option: RPCOption,
    ) -> Result<VoteResponse<ManagerId>, Error> {
        Err(self.unreachable().into())
    }
}
