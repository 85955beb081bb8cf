//! The store: load, list, resolve, tag, remove; and snapshots for containers.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use oci_spec::image::ImageConfiguration;
use tempfile::{NamedTempFile, TempDir};

use crate::archive::Archive;
use crate::digest::{HashingReader, hex_of};
use crate::error::{ImageError, IoContext};
use crate::index::{Image, Index, LoadedImage, Record, Removed, SHORT_ID};
use crate::layer;
use crate::manifest::{self, LayerPlan, Plan, mismatch};
use crate::reference::Reference;
use crate::snapshot::Snapshot;

/// Images of one node. One process uses a store at a time; inside it any number of threads.
#[derive(Debug)]
pub struct ImageStore {
    root: PathBuf,
    /// What readers see; never held over disk work.
    index: Mutex<Index>,
    /// Held by whoever changes the disk, so that a removal cannot take a layer from under a load.
    writer: Mutex<()>,
}

impl ImageStore {
    /// Opens the store below `root` (created if missing) and sweeps what a crash left unfinished.
    pub fn open(root: &Path) -> Result<Self, ImageError> {
        let tmp = root.join("tmp");
        match fs::remove_dir_all(&tmp) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e).at("delete", &tmp),
            _ => {}
        }
        for name in ["", "tmp", "configs", "layers", "layers/empty/diff", "snapshots"] {
            let path = root.join(name);
            fs::create_dir_all(&path).at("create", &path)?;
        }
        let root = root.canonicalize().at("resolve", root)?;
        let path = root.join("index.json");
        let index = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map_err(|source| ImageError::DamagedStore { path, source })?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => Index::default(),
            Err(e) => return Err(e).at("read", &path),
        };
        let store = Self { root, index: Mutex::new(index), writer: Mutex::new(()) };
        store.sweep(&store.index())?;
        Ok(store)
    }

    /// Loads every image of an archive: `docker save`'s form or an OCI layout as a tar, plain or
    /// compressed by gzip or zstd. All images of it, or none.
    pub fn load(&self, archive: impl Read) -> Result<Vec<LoadedImage>, ImageError> {
        // Staging may wait for a slow client: before any lock.
        self.take_in(&Archive::stage(archive, &self.root.join("tmp"))?)
    }

    /// Loads every image of a folder that holds an OCI layout.
    pub fn load_layout(&self, folder: &Path) -> Result<Vec<LoadedImage>, ImageError> {
        self.take_in(&Archive::folder(folder))
    }

    /// All images, by id.
    pub fn list(&self) -> Result<Vec<Image>, ImageError> {
        let index = self.index().clone();
        index.images.keys().map(|id| self.image(&index, id)).collect()
    }

    /// Finds an image by name (`x`, `x:tag`, `x@sha256:…`), id, or unique prefix of an id.
    pub fn resolve(&self, reference: &str) -> Result<Image, ImageError> {
        let index = self.index().clone();
        let id = index.resolve(reference)?;
        self.image(&index, id)
    }

    /// Gives an image one more name; the name leaves the image it pointed at before.
    pub fn tag(&self, image: &str, reference: &str) -> Result<(), ImageError> {
        let name = Reference::parse(reference)?;
        if name.digest.is_some() {
            return Err(ImageError::InvalidReference {
                reference: reference.to_owned(),
                reason: "refusing to create a tag with a digest reference",
            });
        }
        let _writer = self.writer();
        let mut index = self.index().clone();
        let id = index.resolve(image)?.to_owned();
        index.tags.insert(name.to_string(), id);
        self.commit(index)
    }

    /// Takes a name away, and the image with its last name; or an image by id, if it has at most one
    /// name. Refused while a container stands on it.
    pub fn remove(&self, reference: &str) -> Result<Vec<Removed>, ImageError> {
        let _writer = self.writer();
        let mut index = self.index().clone();
        let id = index.resolve(reference)?.to_owned();
        let tags = index.tags_of(&id);
        let name = Reference::parse(reference).ok().map(|r| r.familiar());
        let named = name.filter(|n| tags.contains(n));
        let mut done = Vec::new();
        if let Some(name) = &named
            && tags.len() > 1
        {
            index.tags.retain(|n, _| Reference::parse(n).is_ok_and(|r| r.familiar() != *name));
            done.push(Removed::Untagged(name.clone()));
            self.commit(index)?;
            return Ok(done);
        }
        if named.is_none() && tags.len() > 1 {
            return Err(ImageError::ManyNames { id: short(&id), names: tags.join(", ") });
        }
        if let Some(container) = self.user_of(&id)? {
            return Err(ImageError::InUse {
                reference: reference.to_owned(),
                container: container.chars().take(SHORT_ID).collect(),
            });
        }
        done.extend(tags.into_iter().map(Removed::Untagged));
        index.tags.retain(|_, target| *target != id);
        index.digests.retain(|_, target| *target != id);
        index.images.remove(&id);
        self.commit(index.clone())?;
        done.push(Removed::Deleted(id));
        self.sweep(&index)?;
        Ok(done)
    }

    /// Mounts a file system for a container: the image's layers under a folder of its own, which
    /// survives until [`release`](Self::release). Idempotent. Gives the mount point.
    pub fn prepare(&self, image: &Image, container_id: &str) -> Result<PathBuf, ImageError> {
        let snapshot = Snapshot::new(&self.root.join("snapshots"), container_id)?;
        let _writer = self.writer();
        if !self.index().images.contains_key(&image.id) {
            return Err(ImageError::NotFound { reference: image.id.clone() });
        }
        // overlayfs refuses one folder twice; the topmost alone shows the same files.
        let mut seen = BTreeSet::new();
        let mut lowers: Vec<PathBuf> = Vec::new();
        for layer in image.layers.iter().rev().filter(|l| seen.insert(*l)) {
            lowers.push(self.layer_dir(layer).join("diff"));
        }
        lowers.reverse();
        if lowers.is_empty() {
            lowers.push(self.root.join("layers/empty/diff"));
        }
        snapshot.mount(&image.id, &lowers)
    }

    /// Unmounts a container's file system and keeps what it wrote. Idempotent.
    pub fn unmount(&self, container_id: &str) -> Result<(), ImageError> {
        Snapshot::new(&self.root.join("snapshots"), container_id)?.unmount()
    }

    /// Unmounts a container's file system and deletes what it wrote. Idempotent.
    pub fn release(&self, container_id: &str) -> Result<(), ImageError> {
        let snapshot = Snapshot::new(&self.root.join("snapshots"), container_id)?;
        let _writer = self.writer();
        snapshot.delete()
    }

    fn take_in(&self, archive: &Archive) -> Result<Vec<LoadedImage>, ImageError> {
        let plans = manifest::plans(archive)?;
        let _writer = self.writer();
        let mut index = self.index().clone();
        let added = plans.iter().try_fold(Vec::new(), |mut loaded, plan| {
            loaded.push(self.add(archive, plan, &mut index)?);
            Ok(loaded)
        });
        match added.and_then(|loaded| self.commit(index).map(|()| loaded)) {
            Ok(loaded) => Ok(loaded),
            Err(e) => {
                // Layers of this archive that were already in place belong to nobody now.
                self.sweep(&self.index())?;
                Err(e)
            }
        }
    }

    fn add(
        &self,
        archive: &Archive,
        plan: &Plan,
        index: &mut Index,
    ) -> Result<LoadedImage, ImageError> {
        let mut size = 0;
        for layer in &plan.layers {
            size += self.add_layer(archive, layer)?;
        }
        let path = self.config_path(&plan.id);
        self.write_atomic(&path, &plan.config_json)?;
        let layers = plan.layers.iter().map(|l| l.diff_id.clone()).collect();
        index.images.insert(plan.id.clone(), Record { layers, size });
        let mut repo_tags = Vec::new();
        for name in &plan.names {
            if let Some(manifest) = &plan.manifest {
                let pinned = format!("{}@{manifest}", name.repository);
                index.digests.insert(pinned, plan.id.clone());
            }
            if name.tag.is_some() {
                let tagged = Reference { digest: None, ..name.clone() };
                repo_tags.push(tagged.familiar());
                index.tags.insert(tagged.to_string(), plan.id.clone());
            }
        }
        Ok(LoadedImage { id: plan.id.clone(), repo_tags })
    }

    /// Checks a layer and, unless it is here already, unpacks it. Gives its size in bytes.
    fn add_layer(&self, archive: &Archive, plan: &LayerPlan) -> Result<u64, ImageError> {
        let what = format!("layer {} ({})", plan.diff_id, plan.file);
        let path = archive.require(&plan.file, &what)?;
        let open = || File::open(&path).at("open", &path);
        if let Some(want) = &plan.blob {
            let got = HashingReader::new(open()?, u64::MAX).finish().at("read", &path)?;
            if got != *want {
                return Err(mismatch(&what, &got, want));
            }
        }
        let place = self.layer_dir(&plan.diff_id);
        if place.exists() {
            let got = layer::diff_id_of(open()?, &what)?;
            if got != plan.diff_id {
                return Err(mismatch(&what, &got, &plan.diff_id));
            }
            let path = place.join("size");
            let size = fs::read_to_string(&path).at("read", &path)?;
            return size.trim().parse().map_err(io::Error::other).at("read a number from", &path);
        }
        let tmp = self.root.join("tmp");
        let staging = TempDir::new_in(&tmp).at("create a temporary folder in", &tmp)?;
        let diff = staging.path().join("diff");
        fs::create_dir(&diff).at("create", &diff)?;
        set_mode(&diff, 0o755)?;
        let unpacked = layer::unpack(open()?, &diff, &what)?;
        if unpacked.diff_id != plan.diff_id {
            return Err(mismatch(&what, &unpacked.diff_id, &plan.diff_id));
        }
        let size = staging.path().join("size");
        fs::write(&size, unpacked.size.to_string()).at("write", &size)?;
        set_mode(staging.path(), 0o755)?;
        layer::sync_tree(staging.path()).at("sync", staging.path())?;
        fs::rename(staging.path(), &place).at("rename a layer to", &place)?;
        // The folder has moved: nothing is left for the guard to delete.
        let _ = staging.keep();
        Ok(unpacked.size)
    }

    fn image(&self, index: &Index, id: &str) -> Result<Image, ImageError> {
        let record = index
            .images
            .get(id)
            .ok_or_else(|| ImageError::NotFound { reference: id.to_owned() })?;
        let path = self.config_path(id);
        let bytes = fs::read(&path).at("read", &path)?;
        let damaged = |source| ImageError::DamagedStore { path: path.clone(), source };
        let config: ImageConfiguration = serde_json::from_slice(&bytes).map_err(damaged)?;
        Ok(Image {
            id: id.to_owned(),
            repo_tags: index.tags_of(id),
            repo_digests: index.digests_of(id),
            size: record.size,
            created: config.created().clone(),
            config,
            config_json: serde_json::from_slice(&bytes).map_err(damaged)?,
            layers: record.layers.clone(),
        })
    }

    /// The first container whose snapshot stands on the image.
    fn user_of(&self, id: &str) -> Result<Option<String>, ImageError> {
        let snapshots = self.root.join("snapshots");
        for name in names_in(&snapshots)? {
            if Snapshot::new(&snapshots, &name)?.image().is_some_and(|image| image == id) {
                return Ok(Some(name));
            }
        }
        Ok(None)
    }

    /// Deletes layers and configurations that no image of `index` needs.
    fn sweep(&self, index: &Index) -> Result<(), ImageError> {
        let layers: BTreeSet<&str> = index.layers_in_use().into_iter().filter_map(hex_of).collect();
        let folder = self.root.join("layers");
        for name in names_in(&folder)? {
            if name != "empty" && !layers.contains(name.as_str()) {
                let path = folder.join(name);
                fs::remove_dir_all(&path).at("delete", &path)?;
            }
        }
        let configs: BTreeSet<&str> = index.images.keys().filter_map(|id| hex_of(id)).collect();
        let folder = self.root.join("configs");
        for name in names_in(&folder)? {
            if !name.strip_suffix(".json").is_some_and(|hex| configs.contains(hex)) {
                let path = folder.join(name);
                fs::remove_file(&path).at("delete", &path)?;
            }
        }
        Ok(())
    }

    fn commit(&self, index: Index) -> Result<(), ImageError> {
        let bytes = serde_json::to_vec_pretty(&index).expect("maps of strings always serialise");
        self.write_atomic(&self.root.join("index.json"), &bytes)?;
        *self.index() = index;
        Ok(())
    }

    fn write_atomic(&self, path: &Path, bytes: &[u8]) -> Result<(), ImageError> {
        let tmp = self.root.join("tmp");
        let mut file = NamedTempFile::new_in(&tmp).at("create a temporary file in", &tmp)?;
        file.write_all(bytes).and_then(|()| file.as_file().sync_all()).at("write", path)?;
        file.persist(path).map_err(|e| e.error).at("replace", path)?;
        let parent = path.parent().unwrap_or(&self.root);
        File::open(parent).and_then(|d| d.sync_all()).at("sync", parent)
    }

    fn layer_dir(&self, diff_id: &str) -> PathBuf {
        self.root.join("layers").join(diff_id.trim_start_matches("sha256:"))
    }

    fn config_path(&self, id: &str) -> PathBuf {
        self.root.join("configs").join(format!("{}.json", id.trim_start_matches("sha256:")))
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn writer(&self) -> MutexGuard<'_, ()> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn names_in(folder: &Path) -> Result<Vec<String>, ImageError> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).at("list", folder)? {
        names.push(entry.at("list", folder)?.file_name().to_string_lossy().into_owned());
    }
    Ok(names)
}

fn set_mode(path: &Path, mode: u32) -> Result<(), ImageError> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).at("set the mode of", path)
}

fn short(id: &str) -> String {
    id.trim_start_matches("sha256:").chars().take(SHORT_ID).collect()
}
