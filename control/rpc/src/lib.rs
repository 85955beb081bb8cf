//! gRPC messages and services between nodes; `proto/shoal.proto` documents them.
#![allow(missing_docs, reason = "generated types, documented in shoal.proto")]
#![allow(
    clippy::all,
    clippy::allow_attributes_without_reason,
    unreachable_pub,
    unused_qualifications,
    reason = "generated code"
)]

tonic::include_proto!("shoal.v1");
