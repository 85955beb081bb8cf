//! The manager over real gRPC on the loopback interface, with agents that run no containers.
mod cluster;
mod control;
mod drain;
mod managers;
mod support;
mod trust;
