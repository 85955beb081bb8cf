//! An archive, taken apart into files on disk: every regular file of the outer tar is copied to a
//! temporary folder under a number, so that no name from the archive ever becomes a path.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufReader, Cursor, Read};
use std::path::{Component, Path, PathBuf};

use tempfile::TempDir;

use crate::error::{ImageError, IoContext, REMEDY_BUILD, REMEDY_COPY, REMEDY_SAVE};

/// Most entries an outer archive may have: 127 layers need a few hundred.
const MAX_ENTRIES: usize = 20_000;
/// Most bytes of metadata (manifests, configurations), each. Docker's limit for a manifest is 4 MiB.
const MAX_METADATA: u64 = 4 << 20;
/// Most links followed from one name to its file (old `docker save` links shared layers).
const MAX_LINKS: usize = 8;

/// A source of named files: a staged tar or a folder with an OCI layout.
pub(crate) struct Archive {
    source: Source,
}

enum Source {
    Staged { _dir: TempDir, entries: BTreeMap<PathBuf, Entry> },
    Folder(PathBuf),
}

enum Entry {
    File(PathBuf),
    Link(PathBuf),
}

impl Archive {
    /// Reads a whole tar (plain, gzip or zstd) into a temporary folder below `tmp`.
    pub(crate) fn stage(reader: impl Read, tmp: &Path) -> Result<Self, ImageError> {
        let dir = TempDir::new_in(tmp).at("create a temporary folder in", tmp)?;
        let plain = decompressed(reader).map_err(unreadable)?;
        let mut tar = tar::Archive::new(plain);
        let mut entries = BTreeMap::new();
        for (number, entry) in tar.entries().map_err(unreadable)?.enumerate() {
            let mut entry = entry.map_err(unreadable)?;
            let raw = entry.path().map_err(unreadable)?.into_owned();
            if number >= MAX_ENTRIES {
                let reason = format!("more than {MAX_ENTRIES} entries");
                return Err(ImageError::corrupt("archive", reason, REMEDY_SAVE));
            }
            let name = confined(&raw)
                .ok_or_else(|| escape(&raw, "its path leaves the archive (\"..\")"))?;
            match entry.header().entry_type() {
                tar::EntryType::Regular | tar::EntryType::Continuous => {
                    let to = dir.path().join(number.to_string());
                    let mut file = File::create_new(&to).at("create", &to)?;
                    let want = entry.size();
                    let got = io::copy(&mut entry, &mut file).map_err(unreadable)?;
                    if got != want {
                        let reason = format!("truncated: {got} of {want} bytes");
                        return Err(ImageError::corrupt(show(&name), reason, REMEDY_COPY));
                    }
                    entries.insert(name, Entry::File(to));
                }
                tar::EntryType::Symlink | tar::EntryType::Link => {
                    let link = entry.link_name().map_err(unreadable)?.unwrap_or_default();
                    let base = match entry.header().entry_type() {
                        tar::EntryType::Symlink => name.parent().unwrap_or(Path::new("")),
                        _ => Path::new(""),
                    };
                    let target = resolved(base, &link)
                        .ok_or_else(|| escape(&raw, "it links to a path outside the archive"))?;
                    entries.insert(name, Entry::Link(target));
                }
                _ => {} // Folders carry nothing; everything else has no business here.
            }
        }
        Ok(Self { source: Source::Staged { _dir: dir, entries } })
    }

    /// A folder that holds an OCI layout.
    pub(crate) fn folder(path: &Path) -> Self {
        Self { source: Source::Folder(path.to_owned()) }
    }

    /// Where the file with this name lies, if the archive has it.
    pub(crate) fn locate(&self, name: &str) -> Result<Option<PathBuf>, ImageError> {
        let Some(mut path) = confined(Path::new(name)) else {
            return Err(escape(Path::new(name), "its path leaves the archive (\"..\")"));
        };
        match &self.source {
            Source::Folder(root) => {
                let at = root.join(&path);
                // A link in somebody's folder could name any file of the host: plain files only.
                let plain = fs::symlink_metadata(&at).is_ok_and(|m| m.is_file());
                Ok(plain.then_some(at))
            }
            Source::Staged { entries, .. } => {
                for _ in 0..MAX_LINKS {
                    match entries.get(&path) {
                        Some(Entry::File(at)) => return Ok(Some(at.clone())),
                        Some(Entry::Link(to)) => path = to.clone(),
                        None => return Ok(None),
                    }
                }
                Ok(None)
            }
        }
    }

    /// Like [`Archive::locate`], but absence is an error.
    pub(crate) fn require(&self, name: &str, what: &str) -> Result<PathBuf, ImageError> {
        self.locate(name)?.ok_or_else(|| {
            let reason = format!("{name} is missing from the archive");
            ImageError::corrupt(what, reason, REMEDY_COPY)
        })
    }

    /// The bytes of a metadata file.
    pub(crate) fn metadata(&self, name: &str, what: &str) -> Result<Vec<u8>, ImageError> {
        let path = self.require(name, what)?;
        let file = File::open(&path).at("open", &path)?;
        let mut bytes = Vec::new();
        file.take(MAX_METADATA + 1).read_to_end(&mut bytes).at("read", &path)?;
        if bytes.len() as u64 > MAX_METADATA {
            let reason = format!("{name} is larger than {MAX_METADATA} bytes");
            return Err(ImageError::corrupt(what, reason, REMEDY_BUILD));
        }
        Ok(bytes)
    }

    /// Whether the archive holds nothing at all.
    pub(crate) fn is_empty(&self) -> bool {
        matches!(&self.source, Source::Staged { entries, .. } if entries.is_empty())
    }
}

/// Undoes gzip or zstd, recognised by magic bytes: archives carry no media type, and media types lie.
pub(crate) fn decompressed<'a>(mut reader: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut magic = Vec::with_capacity(4);
    reader.by_ref().take(4).read_to_end(&mut magic)?;
    let kind = magic.clone();
    let whole = BufReader::with_capacity(1 << 18, Cursor::new(magic).chain(reader));
    Ok(match kind.as_slice() {
        [0x1f, 0x8b, ..] => Box::new(flate2::bufread::MultiGzDecoder::new(whole)),
        [0x28, 0xb5, 0x2f, 0xfd] => Box::new(zstd::Decoder::with_buffer(whole)?),
        _ => Box::new(whole),
    })
}

/// The path without `.` and leading `/`; `None` if it has `..`.
pub(crate) fn confined(path: &Path) -> Option<PathBuf> {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => out.push(name),
            Component::CurDir | Component::RootDir => {}
            Component::ParentDir | Component::Prefix(_) => return None,
        }
    }
    Some(out)
}

/// `link` as seen from the folder `base`, inside the archive; `None` if it leaves it.
fn resolved(base: &Path, link: &Path) -> Option<PathBuf> {
    let mut out = base.to_owned();
    for part in link.components() {
        match part {
            Component::Normal(name) => out.push(name),
            Component::CurDir => {}
            Component::ParentDir => {
                if !out.pop() {
                    return None;
                }
            }
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(out)
}

pub(crate) fn show(path: &Path) -> String {
    path.display().to_string()
}

fn escape(path: &Path, reason: &str) -> ImageError {
    ImageError::corrupt(format!("entry {path:?}"), reason, REMEDY_BUILD)
}

fn unreadable(e: io::Error) -> ImageError {
    if e.raw_os_error().is_some() {
        // A full disk or a broken connection: not the archive's fault.
        ImageError::Io { action: "copy", path: "the image archive".into(), source: e }
    } else if e.kind() == io::ErrorKind::UnexpectedEof || e.to_string().contains("unexpected EOF") {
        ImageError::corrupt("archive", format!("truncated: {e}"), REMEDY_COPY)
    } else {
        ImageError::corrupt("archive", format!("not a readable tar: {e}"), REMEDY_SAVE)
    }
}
