//! The control API: what users ask of the cluster. Methods of [`crate::Manager`].
mod networks;
mod nodes;
pub(crate) mod root;
mod services;
mod swarm;
