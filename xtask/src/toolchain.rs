//! The eBPF toolchain: a Rust compiler that can build `core` for the kernel, and bpf-linker.

use crate::{
    packages::{self, Package},
    process, workspace,
};
use anyhow::{Context as _, bail};
use std::{
    env,
    ffi::OsStr,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

const BPF_LINKER: &str = "0.13.0";
/// The LLVM releases that this bpf-linker can be built with, oldest first.
const LINKER_LLVMS: std::ops::RangeInclusive<u32> = 21..=23;

/// Where Debian's Rust is.
const DEBIAN: &str = "/usr";
const WHY: &str = "Rust for the eBPF programs, with the source of core";

/// A compiler with the source of `core`.
pub(crate) struct Toolchain {
    sysroot: PathBuf,
}

impl Toolchain {
    pub(crate) fn cargo(&self) -> PathBuf {
        self.sysroot.join("bin/cargo")
    }

    pub(crate) fn rustc(&self) -> PathBuf {
        self.sysroot.join("bin/rustc")
    }

    fn has_core_source(&self) -> bool {
        self.sysroot.join("lib/rustlib/src/rust/library/core/src/lib.rs").is_file()
    }

    /// The major release of the LLVM in this compiler.
    fn llvm(&self) -> anyhow::Result<u32> {
        let version = process::output(Command::new(self.rustc()).arg("-vV"))?;
        version
            .lines()
            .find_map(|line| line.strip_prefix("LLVM version: ")?.split('.').next()?.parse().ok())
            .with_context(|| format!("{} does not name its LLVM", self.rustc().display()))
    }

    /// The LLVM that rustup delivers with the compiler.
    fn own_llvm(&self) -> Option<PathBuf> {
        if self.sysroot == Path::new(DEBIAN) {
            return None;
        }
        let files = fs::read_dir(self.sysroot.join("lib")).ok()?;
        files.flatten().map(|file| file.path()).find(|path| {
            let name = path.file_name().and_then(OsStr::to_str);
            name.is_some_and(|name| name.starts_with("libLLVM.so."))
        })
    }
}

/// The toolchain to use: the one `SHOAL_BPF_TOOLCHAIN` names, else rustup's nightly if it has `rust-src`
/// and an LLVM that bpf-linker knows, else Debian's, which is installed if need be. Its bpf-linker is there
/// afterwards.
pub(crate) fn prepare() -> anyhow::Result<Toolchain> {
    let toolchain = match chosen()? {
        Some(toolchain) => toolchain,
        None => install()?,
    };
    if toolchain.sysroot == Path::new(DEBIAN) && toolchain.llvm()? < *LINKER_LLVMS.start() {
        packages::upgrade(&debian())?;
    }
    prepare_linker(&toolchain)?;
    Ok(toolchain)
}

fn chosen() -> anyhow::Result<Option<Toolchain>> {
    if let Ok(name) = env::var("SHOAL_BPF_TOOLCHAIN") {
        let sysroot = if name.starts_with('/') { Some(name.clone().into()) } else { rustup(&name) };
        let toolchain = sysroot.map(|sysroot| Toolchain { sysroot });
        return match toolchain.filter(Toolchain::has_core_source) {
            Some(toolchain) => Ok(Some(toolchain)),
            None => bail!(
                "SHOAL_BPF_TOOLCHAIN={name} has no rust-src: rustup component add rust-src \
                 --toolchain {name}, or unset the variable"
            ),
        };
    }
    let nightly = rustup("nightly").map(|sysroot| Toolchain { sysroot });
    let nightly = nightly.filter(|t| t.llvm().is_ok_and(|llvm| llvm <= *LINKER_LLVMS.end()));
    let debian = Toolchain { sysroot: DEBIAN.into() };
    let debian = debian.cargo().is_file().then_some(debian);
    Ok(nightly.into_iter().chain(debian).find(Toolchain::has_core_source))
}

/// The folder of a rustup toolchain that is installed.
fn rustup(name: &str) -> Option<PathBuf> {
    process::find("rustup")?;
    // Asking for a toolchain must not fetch it.
    let mut command = Command::new("rustup");
    command.env("RUSTUP_AUTO_INSTALL", "0").args(["run", name, "rustc", "--print", "sysroot"]);
    Some(process::output(&mut command).ok()?.trim().into())
}

/// Debian's packaged Rust.
fn debian() -> [Package; 3] {
    ["rustc-web", "cargo-web", "rust-web-src"].map(|name| Package::new(name, WHY))
}

fn install() -> anyhow::Result<Toolchain> {
    if debian().iter().all(|package| packages::is_offered(&package.name))
        || process::find("rustup").is_none()
    {
        packages::install(&debian())?;
    } else {
        println!("Installing rustup's nightly with rust-src: {WHY}.");
        process::run(Command::new("rustup").args([
            "toolchain",
            "install",
            "nightly",
            "--profile",
            "minimal",
            "--component",
            "rust-src",
        ]))
        .context("no toolchain for eBPF could be had: install rustup's nightly with rust-src")?;
    }
    chosen()?.context("the toolchain that was just installed lacks the source of core")
}

/// Makes sure of a bpf-linker whose LLVM reads what the compiler writes.
fn prepare_linker(toolchain: &Toolchain) -> anyhow::Result<()> {
    let wanted = toolchain.llvm()?;
    let tools = workspace::tools()?;
    if linker_runs(&tools) && installed_linker_llvm(&tools) >= Some(wanted) {
        return Ok(());
    }
    let (llvm, prefix) = match toolchain.own_llvm() {
        Some(library) if LINKER_LLVMS.contains(&wanted) => {
            (wanted, own_llvm_prefix(&tools, &library)?)
        }
        _ => packaged_llvm(toolchain, wanted)?,
    };
    println!("Building bpf-linker {BPF_LINKER} (links the eBPF programs): about two minutes.");
    let mut cargo = cargo_install(&tools, "bpf-linker", BPF_LINKER);
    cargo.args(["--force", "--no-default-features", "--features", &format!("llvm-{llvm}")]);
    process::run(cargo.env("LLVM_PREFIX", prefix))
}

/// Whether there is a linker that starts: the LLVM it was linked to may be gone.
fn linker_runs(tools: &Path) -> bool {
    let linker = tools.join("bin/bpf-linker");
    linker.is_file() && process::output(Command::new(linker).arg("--version")).is_ok()
}

/// A folder in which bpf-linker's build finds the compiler's own LLVM under the name it looks for, and
/// bpf-linker itself later under the name the library gives itself.
fn own_llvm_prefix(tools: &Path, library: &Path) -> anyhow::Result<PathBuf> {
    let prefix = tools.join("llvm");
    if prefix.exists() {
        fs::remove_dir_all(&prefix)?;
    }
    let folder = prefix.join("lib");
    fs::create_dir_all(&folder)?;
    for name in [OsStr::new("libLLVM.so"), library.file_name().context("a library has a name")?] {
        symlink(library, folder.join(name))?;
    }
    Ok(prefix)
}

/// Installs the oldest packaged LLVM that reads what the compiler writes.
fn packaged_llvm(toolchain: &Toolchain, wanted: u32) -> anyhow::Result<(u32, PathBuf)> {
    let Some(llvm) = LINKER_LLVMS.filter(|llvm| *llvm >= wanted).find(|llvm| {
        llvm_prefix(*llvm).join("bin/llvm-config").is_file()
            || packages::is_offered(&format!("llvm-{llvm}-dev"))
    }) else {
        bail!(
            "{} writes LLVM {wanted} and {} offers no llvm-N-dev to build bpf-linker {BPF_LINKER} \
             with, N from {} to {}.\nName a rustup toolchain with an LLVM from {} to {} in \
             SHOAL_BPF_TOOLCHAIN (they bring their own), or add the packages of https://apt.llvm.org.",
            toolchain.rustc().display(),
            packages::distribution(),
            wanted.max(*LINKER_LLVMS.start()),
            LINKER_LLVMS.end(),
            LINKER_LLVMS.start(),
            LINKER_LLVMS.end(),
        );
    };
    packages::install(&[
        Package::new(format!("llvm-{llvm}-dev"), "bpf-linker is built on LLVM"),
        Package::new(format!("libpolly-{llvm}-dev"), "LLVM's libraries refer to it"),
    ])?;
    Ok((llvm, llvm_prefix(llvm)))
}

fn llvm_prefix(llvm: u32) -> PathBuf {
    PathBuf::from(format!("/usr/lib/llvm-{llvm}"))
}

/// `cargo install` of one tool into the tools' folder, with the compiler that runs this.
pub(crate) fn cargo_install(tools: &Path, name: &str, version: &str) -> Command {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["install", "--quiet", "--locked", name, "--version", version, "--root"]).arg(tools);
    // Else the clone's target folder would keep the tools' intermediate files.
    cargo.env_remove("CARGO_TARGET_DIR");
    cargo
}

/// Which LLVM the installed bpf-linker has, by cargo's record of what it installed.
fn installed_linker_llvm(tools: &Path) -> Option<u32> {
    let record = fs::read_to_string(tools.join(".crates2.json")).ok()?;
    let record: serde_json::Value = serde_json::from_str(&record).ok()?;
    let installs = record.get("installs")?.as_object()?;
    let name = format!("bpf-linker {BPF_LINKER} ");
    let (_, linker) = installs.iter().find(|(package, _)| package.starts_with(&name))?;
    let features = linker.get("features")?.as_array()?;
    features.iter().find_map(|f| f.as_str()?.strip_prefix("llvm-")?.parse().ok())
}
