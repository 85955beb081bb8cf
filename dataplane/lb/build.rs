//! Finds the kernel-side object and hands its path to `include_bytes_aligned!`.
use std::{env, path::PathBuf, process::exit};

fn main() {
    println!("cargo:rerun-if-env-changed=SHOAL_BPF_OBJECT");
    let object = match env::var_os("SHOAL_BPF_OBJECT") {
        Some(path) => PathBuf::from(path),
        None => {
            let here = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
            here.join("../../target/bpf/shoal.bpf.o")
        }
    };
    println!("cargo:rerun-if-changed={}", object.display());
    match object.canonicalize() {
        Ok(path) if path.is_file() => {
            println!("cargo:rustc-env=SHOAL_BPF_OBJECT_PATH={}", path.display());
        }
        _ => {
            eprintln!(
                "error: the kernel-side programs are not built: {} is missing.\n\
                 Run \"cargo xtask build\", or name the object in SHOAL_BPF_OBJECT.",
                object.display()
            );
            exit(1);
        }
    }
}
