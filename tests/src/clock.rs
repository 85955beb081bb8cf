//! A daemon's clock, which a test sets. The kernel's own belongs to the whole machine.

use crate::Node;
use anyhow::Context as _;
use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
};

/// What the time of day of one daemon and of all it starts is. Its timers use the kernel's monotonic
/// clock, as they do when the time of day is set.
#[derive(Debug)]
pub struct Clock {
    library: PathBuf,
    offset: PathBuf,
}

impl Clock {
    /// A clock that is right, kept in `folder`.
    pub fn new(folder: &Path, name: &str) -> anyhow::Result<Self> {
        let clock = Self { library: library()?, offset: folder.join(format!("clock-{name}")) };
        clock.set(0)?;
        Ok(clock)
    }

    /// Sets it to so many seconds before (negative) or after the right time, at once.
    pub fn set(&self, seconds: i64) -> anyhow::Result<()> {
        // By another name first: the daemon may read it at any moment.
        let new = self.offset.with_extension("new");
        fs::write(&new, format!("{seconds:+}"))?;
        fs::rename(&new, &self.offset).context("cannot set the clock")
    }

    /// Starts the daemon of a node with this clock.
    pub fn start_daemon(&self, node: &Node) -> anyhow::Result<()> {
        let on = OsStr::new("1");
        node.start_daemon_with(&[
            ("LD_PRELOAD", self.library.as_os_str()),
            ("FAKETIME_TIMESTAMP_FILE", self.offset.as_os_str()),
            ("FAKETIME_NO_CACHE", on),
            ("FAKETIME_DONT_FAKE_MONOTONIC", on),
            ("FAKETIME_DISABLE_SHM", on),
        ])
    }
}

/// Debian's libfaketime, for programs with threads.
fn library() -> anyhow::Result<PathBuf> {
    let folders = fs::read_dir("/usr/lib")?.filter_map(Result::ok).map(|entry| entry.path());
    let library = folders.map(|folder| folder.join("faketime/libfaketimeMT.so.1"));
    let found = library.into_iter().find(|path| path.is_file());
    found.context("there is no libfaketime: apt-get install libfaketime")
}
