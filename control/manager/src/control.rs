//! The control API: what users ask of the cluster. Methods of [`crate::Manager`].
pub(crate) mod dependencies;
mod networks;
mod nodes;
pub(crate) mod root;
mod services;
mod swarm;
