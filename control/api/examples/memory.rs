//! Serves the API over a cluster in memory, to try clients by hand:
//! `cargo run -p shoal-api --features testing --example memory -- /tmp/memory.sock`
use shoal_api::{ApiContext, EngineInfo, Listener, memory::MemorySwarm, serve};
use std::sync::Arc;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).ok_or("give the path of the socket to serve on")?;
    let data = tempfile::tempdir()?;
    let listener = Listener::Unix(tokio::net::UnixListener::bind(&path)?);
    let ctx = ApiContext {
        swarm: Arc::new(MemorySwarm::three_nodes()),
        images: Arc::new(shoal_images::ImageStore::open(data.path())?),
        engine: Arc::new(EngineInfo {
            id: "memory".into(), hostname: "alpha".into(), kernel_version: "6.1".into(),
            operating_system: "Linux".into(), architecture: "x86_64".into(), cpus: 2,
            memory_bytes: 4 << 30, data_root: data.path().into(), labels: Default::default(),
            version: "0.1.0".into(), git_commit: String::new(), debug: false,
        }),
    };
    serve(vec![listener], ctx, async { drop(tokio::signal::ctrl_c().await) }).await?;
    Ok(())
}
