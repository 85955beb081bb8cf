//! The control API: what users ask of the cluster. Methods of [`crate::Manager`].
mod networks;
mod nodes;
mod services;
mod swarm;
