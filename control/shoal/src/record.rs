//! What a node remembers of its membership, besides its certificate: written last when it becomes a
//! member, removed first when it leaves.
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::{
    fs,
    io::{ErrorKind, Write},
    net::{IpAddr, SocketAddr},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

/// A membership.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Where it listens while it is a manager. Workers of earlier versions have none.
    pub(crate) listen: Option<SocketAddr>,
    /// Where others reach this node; the port is the manager's.
    pub(crate) advertise: SocketAddr,
    /// Address the overlay uses.
    pub(crate) data_path: IpAddr,
    /// UDP port of the overlay.
    pub(crate) data_path_port: u16,
    /// Managers it was told of when it joined; the agent keeps the present ones.
    pub(crate) managers: Vec<SocketAddr>,
}

fn file(state_dir: &Path) -> PathBuf {
    state_dir.join("node.json")
}

impl Record {
    pub(crate) fn load(state_dir: &Path) -> Result<Option<Record>> {
        let path = file(state_dir);
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).with_context(|| {
                format!("{} is damaged; restore it, or remove it and join again", path.display())
            }),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e).with_context(|| format!("read {}", path.display())),
        }
    }

    pub(crate) fn save(&self, state_dir: &Path) -> Result<()> {
        let path = file(state_dir);
        let aside = path.with_extension("new");
        let write = || -> std::io::Result<()> {
            let mut options = fs::OpenOptions::new();
            let mut file =
                options.create(true).truncate(true).write(true).mode(0o600).open(&aside)?;
            file.write_all(&serde_json::to_vec(self)?)?;
            file.sync_all()?;
            fs::rename(&aside, &path)?;
            fs::File::open(state_dir)?.sync_all()
        };
        write().with_context(|| format!("write {}", path.display()))
    }

    pub(crate) fn remove(state_dir: &Path) -> Result<()> {
        let path = file(state_dir);
        match fs::remove_file(&path) {
            Err(e) if e.kind() != ErrorKind::NotFound => {
                Err(e).with_context(|| format!("remove {}", path.display()))
            }
            _ => Ok(()),
        }
    }
}
