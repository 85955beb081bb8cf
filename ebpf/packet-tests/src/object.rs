//! The compiled programs.
use std::path::PathBuf;

use aya::{Ebpf, EbpfLoader};

/// Loads the object named by `SHOAL_BPF_OBJECT`, else the one the build leaves under `target/`, with
/// flow tables small enough to load many copies side by side.
///
/// # Panics
///
/// When there is none or it does not load, saying how to get one.
pub fn load() -> Ebpf {
    let path = std::env::var_os("SHOAL_BPF_OBJECT").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../target/bpf/shoal.bpf.o"),
        PathBuf::from,
    );
    assert!(
        path.exists(),
        "no eBPF object at {}: build it by `cargo xtask` or name one in SHOAL_BPF_OBJECT",
        path.display()
    );
    let mut loader = EbpfLoader::new();
    for table in ["FLOWS", "ATTEMPTS", "UDP_FORWARD", "UDP_REVERSE"] {
        loader.map_max_entries(table, 1_024);
    }
    loader
        .load_file(&path)
        .unwrap_or_else(|error| panic!("cannot load {}: {error:?}", path.display()))
}
