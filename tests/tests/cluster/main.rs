//! Multi-node tests: real daemons, real kernel objects, the real docker client.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod api;
mod control;
mod disk;
mod dns;
mod errors;
mod events;
mod faults;
mod fixture;
mod given;
mod ingress;
mod lock;
mod managers;
mod metrics;
mod overlay;
mod publish;
mod rotation;
mod runtime;
mod scale;
mod secrets;
mod update;
mod vip;
