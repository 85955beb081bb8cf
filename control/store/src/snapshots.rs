//! Snapshot files. Each has a random name and is written whole and synced before the database
//! notes that it counts; files that do not count are removed.
//!
//! Content: [`MAGIC`], then records: length (4 bytes, big-endian) and a sealed piece. Piece 0 is the
//! description, the others are the data. Number, name and being the last are authenticated, so pieces
//! cannot be left out, exchanged, or taken from another snapshot.

use crate::{
    error::DiskError,
    seal::{Label, OVERHEAD},
    types::SnapshotMeta,
    vault::Vault,
};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufRead, BufReader, BufWriter, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

const MAGIC: &[u8; 8] = b"SHOALSN1";
const PREFIX: &str = "snapshot-";

/// Bytes of data in a piece.
const PIECE: usize = 1 << 20;

/// No record is longer; the description with all managers in it is far below.
const MAX_RECORD: usize = PIECE + OVERHEAD;

pub(crate) struct Snapshots {
    dir: PathBuf,
}

impl Snapshots {
    pub(crate) fn new(dir: &Path) -> Snapshots {
        Snapshots { dir: dir.to_owned() }
    }

    /// Writes a snapshot and returns its name.
    pub(crate) fn write(
        &self,
        meta: &SnapshotMeta,
        data: &[u8],
        vault: &Vault,
    ) -> Result<String, DiskError> {
        let name = format!("{PREFIX}{:016x}", rand::random::<u64>());
        let path = self.dir.join(&name);
        let description = postcard::to_stdvec(meta)
            .map_err(|e| DiskError::Format { what: "snapshot", source: e.into() })?;
        let written = self.write_file(&path, &name, &description, data, vault);
        match written {
            Ok(()) => Ok(name),
            Err(source) => {
                // It may be what fills the disk.
                drop(fs::remove_file(&path));
                Err(DiskError::File { action: "write", path, source })
            }
        }
    }

    fn write_file(
        &self,
        path: &Path,
        name: &str,
        description: &[u8],
        data: &[u8],
        vault: &Vault,
    ) -> io::Result<()> {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        let mut out = BufWriter::new(file);
        out.write_all(MAGIC)?;
        let pieces = [description].into_iter().chain(data.chunks(PIECE));
        let last = data.len().div_ceil(PIECE) as u64;
        for (number, piece) in (0..).zip(pieces) {
            let record = vault.seal(Label::Snapshot(name, number, number == last), piece);
            let length = u32::try_from(record.len()).map_err(io::Error::other)?;
            out.write_all(&length.to_be_bytes())?;
            out.write_all(&record)?;
        }
        out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
        File::open(&self.dir)?.sync_all()
    }

    pub(crate) fn read(
        &self,
        name: &str,
        vault: &Vault,
    ) -> Result<(SnapshotMeta, Vec<u8>), DiskError> {
        let path = self.dir.join(name);
        let damaged = |source: Box<dyn std::error::Error + Send + Sync>| DiskError::Sealed {
            what: "snapshot".into(),
            path: path.clone(),
            source,
        };
        let at = |source: io::Error| match source.kind() {
            // Each record says how long it is: one of them does so wrongly.
            io::ErrorKind::UnexpectedEof => damaged("it ends in the middle of a piece".into()),
            _ => DiskError::File { action: "read", path: path.clone(), source },
        };
        let mut input = BufReader::new(File::open(&path).map_err(at)?);
        let mut magic = [0; MAGIC.len()];
        input.read_exact(&mut magic).map_err(at)?;
        if magic != *MAGIC {
            return Err(damaged("it does not begin as one".into()));
        }
        let (mut description, mut data) = (None, Vec::new());
        for number in 0.. {
            let mut length = [0; 4];
            input.read_exact(&mut length).map_err(at)?;
            let length = u32::from_be_bytes(length) as usize;
            if length > MAX_RECORD {
                return Err(damaged("a piece is too long".into()));
            }
            let mut record = vec![0; length];
            input.read_exact(&mut record).map_err(at)?;
            let last = input.fill_buf().map_err(at)?.is_empty();
            let piece = vault.unseal(Label::Snapshot(name, number, last), &record);
            let piece = piece.map_err(|source| damaged(source.into()))?;
            match description {
                None => description = Some(piece),
                Some(_) => data.extend_from_slice(&piece),
            }
            if last {
                break;
            }
        }
        let meta = postcard::from_bytes(&description.unwrap_or_default())
            .map_err(|e| DiskError::Format { what: "snapshot", source: e.into() })?;
        Ok((meta, data))
    }

    /// Removes all snapshot files but one. What cannot be removed is tried again at the next time.
    pub(crate) fn remove_others(&self, current: Option<&str>) {
        let Ok(files) = fs::read_dir(&self.dir) else { return };
        for file in files.flatten() {
            let name = file.file_name();
            let Some(name) = name.to_str() else { continue };
            if name.starts_with(PREFIX)
                && Some(name) != current
                && let Err(error) = fs::remove_file(file.path())
            {
                tracing::warn!(file = %file.path().display(), %error, "cannot remove an old snapshot");
            }
        }
    }
}
