//! The manager over real gRPC on the loopback interface, with agents that run no containers.
#[path = "../../../identity/tests/common/cfssl.rs"]
mod cfssl;
mod cluster;
mod control;
mod drain;
mod external;
mod given;
mod ingress;
mod managers;
mod rotation;
mod support;
mod trust;
