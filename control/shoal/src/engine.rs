//! What the daemon says of itself and its host.
use anyhow::{Context, Result, bail};
use rustix::system::uname;
use shoal_api::EngineInfo;
use shoal_model::{NodeDescription, Plugin, PluginKind};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// Gathers it; the engine's id is made at the first start and kept in the data root.
pub(crate) fn gather(
    data_root: &Path,
    labels: BTreeMap<String, String>,
    debug: bool,
) -> Result<EngineInfo> {
    let uname = uname();
    let text = |s: &std::ffi::CStr| s.to_string_lossy().into_owned();
    let cpus = std::thread::available_parallelism().map_or(1, |n| n.get());
    Ok(EngineInfo {
        id: engine_id(data_root)?,
        hostname: text(uname.nodename()),
        kernel_version: text(uname.release()),
        operating_system: distribution(),
        architecture: text(uname.machine()),
        cpus: i64::try_from(cpus).unwrap_or(i64::MAX),
        memory_bytes: memory_bytes(),
        data_root: PathBuf::from(data_root),
        labels,
        plugins: plugins(),
        generic_resources: Vec::new(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        git_commit: option_env!("SHOAL_GIT_COMMIT").unwrap_or_default().to_owned(),
        debug,
    })
}

/// What the node tells the manager.
pub(crate) fn description(engine: &EngineInfo) -> NodeDescription {
    NodeDescription {
        hostname: engine.hostname.clone(),
        os: "linux".to_owned(),
        architecture: engine.architecture.clone(),
        nano_cpus: engine.cpus.saturating_mul(1_000_000_000),
        memory_bytes: engine.memory_bytes,
        engine_version: engine.version.clone(),
        engine_labels: engine.labels.clone(),
        plugins: engine.plugins.clone(),
        generic_resources: engine.generic_resources.clone(),
    }
}

/// Drivers of this version, in order.
fn plugins() -> Vec<Plugin> {
    let all = [(PluginKind::Log, "json-file"), (PluginKind::Network, "overlay")];
    all.map(|(kind, name)| Plugin { kind, name: name.to_owned() }).to_vec()
}

/// `key=value` flags.
pub(crate) fn labels(given: &[String]) -> Result<BTreeMap<String, String>> {
    let mut labels = BTreeMap::new();
    for label in given {
        let Some((key, value)) = label.split_once('=').filter(|(k, _)| !k.is_empty()) else {
            bail!("bad label {label:?}: want key=value");
        };
        if labels.insert(key.to_owned(), value.to_owned()).is_some() {
            bail!("label {key} is given twice");
        }
    }
    Ok(labels)
}

fn engine_id(data_root: &Path) -> Result<String> {
    let path = data_root.join("engine-id");
    match fs::read_to_string(&path) {
        Ok(id) if shoal_identity::id::is_valid(id.trim()) => Ok(id.trim().to_owned()),
        _ => {
            let id = shoal_identity::id::new();
            fs::write(&path, &id).with_context(|| format!("write {}", path.display()))?;
            Ok(id)
        }
    }
}

fn distribution() -> String {
    let text = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.map_or_else(|| "Linux".to_owned(), |name| name.trim_matches('"').to_owned())
}

fn memory_bytes() -> i64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = total.and_then(|t| t.split_whitespace().next()).and_then(|n| n.parse::<i64>().ok());
    kib.unwrap_or(0).saturating_mul(1024)
}
