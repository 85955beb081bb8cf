//! Generates the gRPC types; protox needs no system protoc.
fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(["proto/shoal.proto"], ["proto"])?;
    // Rows are shared by all nodes that get them, until they are sent.
    let rows = ".shoal.v1.Assignment.rows";
    tonic_prost_build::configure().bytes(rows).compile_fds(descriptors)?;
    Ok(())
}
