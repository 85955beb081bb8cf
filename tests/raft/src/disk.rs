//! A manager's disk: how fast it is, and what is left on it when the power goes.
//!
//! Both files of the store that change in place, the database and its tail, are written through it. Until a
//! flush it remembers what each sector had, and gives some of that back when the power goes. Snapshots
//! and keys are ordinary files that are written whole before they count.

use rand::{Rng as _, rngs::SmallRng};
use redb::{StorageBackend, backends::FileBackend};
use std::{
    collections::BTreeMap,
    fs::File,
    io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// In the order in which the store opens them.
const FILES: [&str; 2] = ["raft.redb", "raft.tail"];

/// What a disk writes as a whole or not at all.
const SECTOR: u64 = 512;

#[derive(Debug)]
pub(crate) struct Disk {
    dir: PathBuf,
    state: Mutex<State>,
}

#[derive(Default, Debug)]
struct State {
    power: Power,
    /// Between these a write takes.
    takes: (Duration, Duration),
    /// How many of the files the store has opened.
    opened: usize,
    unflushed: [Unflushed; 2],
}

#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
enum Power {
    #[default]
    On,
    /// It goes after so many more operations.
    Failing(u32),
    Off,
}

/// What a file had where it was written since its last flush.
#[derive(Default, Debug)]
struct Unflushed {
    sectors: BTreeMap<u64, Vec<u8>>,
    /// Its length, if it was cut.
    length: Option<u64>,
}

impl Disk {
    pub(crate) fn new(dir: PathBuf) -> Arc<Disk> {
        Arc::new(Disk { dir, state: Mutex::default() })
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_speed(&self, least: Duration, most: Duration) {
        self.state().takes = (least, most);
    }

    /// How long the next write takes.
    pub(crate) fn takes(&self, random: &mut SmallRng) -> Duration {
        let (least, most) = self.state().takes;
        random.random_range(least..=most)
    }

    /// The store is about to open its files.
    pub(crate) fn opening(&self) {
        self.state().opened = 0;
    }

    /// The power will go after some more writes and flushes.
    pub(crate) fn fail_after(&self, operations: u32) {
        self.state().power = Power::Failing(operations);
    }

    /// Nothing reaches the disk any more.
    pub(crate) fn power_off(&self) {
        self.state().power = Power::Off;
    }

    /// Whether it works, or is about to stop by itself.
    pub(crate) fn is_off(&self) -> bool {
        self.state().power == Power::Off
    }

    /// Whether it works and will go on to.
    pub(crate) fn is_well(&self) -> bool {
        self.state().power == Power::On
    }

    /// The power is back: of what was not flushed, some is there.
    pub(crate) fn power_on(&self, random: &mut SmallRng) -> io::Result<()> {
        let mut state = self.state();
        state.power = Power::On;
        // The disk writes in any order, or in that of the sectors.
        let (kept, in_order) = match random.random_range(0..6) {
            0 => (0.0, false),
            1 => (1.0, false),
            2 | 3 => (random.random(), true),
            _ => (random.random(), false),
        };
        for (name, unflushed) in FILES.iter().zip(&mut state.unflushed) {
            let Unflushed { sectors, length } = std::mem::take(unflushed);
            if sectors.is_empty() && length.is_none() {
                continue;
            }
            let file = File::options().write(true).open(self.dir.join(name))?;
            if let Some(length) = length {
                file.set_len(length)?;
            }
            let end = file.metadata()?.len();
            let written = (sectors.len() as f64 * kept).round() as usize;
            for (number, (sector, content)) in sectors.into_iter().enumerate() {
                // What was cut off is whole again.
                let cut = length.is_some_and(|_| sector * SECTOR >= end);
                let there = if in_order { number < written } else { random.random_bool(kept) };
                if cut || !there {
                    file.write_all_at(&content, sector * SECTOR)?;
                }
            }
        }
        Ok(())
    }

    /// Nothing is left of it.
    pub(crate) fn wipe(&self) -> io::Result<()> {
        self.state().unflushed = Default::default();
        match std::fs::remove_dir_all(&self.dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// One of the store's files, in the order of [`FILES`].
    pub(crate) fn file(self: &Arc<Disk>, inner: FileBackend) -> Box<dyn StorageBackend> {
        let mut state = self.state();
        let number = state.opened.min(FILES.len() - 1);
        state.opened += 1;
        Box::new(Opened { disk: self.clone(), number, inner })
    }

    /// Counts one operation, which fails if the power is gone.
    fn operation(&self) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.state();
        match state.power {
            Power::On => Ok(state),
            Power::Failing(0) | Power::Off => {
                state.power = Power::Off;
                Err(io::Error::from_raw_os_error(5)) // EIO
            }
            Power::Failing(left) => {
                state.power = Power::Failing(left - 1);
                Ok(state)
            }
        }
    }
}

#[derive(Debug)]
struct Opened {
    disk: Arc<Disk>,
    number: usize,
    inner: FileBackend,
}

impl Opened {
    /// Remembers the sectors from a byte up to another that are in the file and not remembered yet.
    fn remember(&self, unflushed: &mut Unflushed, from: u64, to: u64) -> io::Result<()> {
        let length = self.inner.len()?;
        for sector in from / SECTOR..to.min(length).div_ceil(SECTOR) {
            if unflushed.sectors.contains_key(&sector) {
                continue;
            }
            let at = sector * SECTOR;
            let mut content = vec![0; SECTOR.min(length - at) as usize];
            self.inner.read(at, &mut content)?;
            unflushed.sectors.insert(sector, content);
        }
        Ok(())
    }
}

impl StorageBackend for Opened {
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.inner.read(offset, out)
    }

    /// Growing counts as flushed; what is cut off comes back if the power goes before the next flush.
    fn set_len(&self, length: u64) -> io::Result<()> {
        let mut state = self.disk.operation()?;
        let unflushed = &mut state.unflushed[self.number];
        let present = self.inner.len()?;
        if length < present {
            self.remember(unflushed, length, present)?;
            unflushed.length.get_or_insert(present);
        }
        self.inner.set_len(length)
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.disk.operation()?;
        state.unflushed[self.number] = Unflushed::default();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.disk.operation()?;
        let unflushed = &mut state.unflushed[self.number];
        self.remember(unflushed, offset, offset + data.len() as u64)?;
        self.inner.write(offset, data)
    }
}
