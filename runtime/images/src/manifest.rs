//! Reads what an archive says about itself (`manifest.json` of `docker save`, or an OCI layout's
//! `index.json`) into a plan: which files are configurations and layers, with which digests.

use oci_spec::image::{Arch, Descriptor, ImageConfiguration, ImageIndex, ImageManifest, Os};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::archive::Archive;
use crate::digest::{digest_of, hex_of, is_hex64};
use crate::error::{ImageError, REMEDY_BUILD, REMEDY_COPY, REMEDY_SAVE};
use crate::reference::Reference;

/// Most images in one archive.
const MAX_IMAGES: usize = 256;
/// Most layers in one image (overlayfs allows 500 lower folders; Docker's limit is 127).
const MAX_LAYERS: usize = 127;
/// Deepest nesting of OCI indexes: an index may list a multi-platform index.
const MAX_INDEX_DEPTH: usize = 4;

/// One image to be made from the archive.
pub(crate) struct Plan {
    /// `sha256:…` of the configuration: the image's id.
    pub(crate) id: String,
    /// The configuration, byte for byte.
    pub(crate) config_json: Vec<u8>,
    /// Bottom first, one for each diff id.
    pub(crate) layers: Vec<LayerPlan>,
    /// Names the archive gives it.
    pub(crate) names: Vec<Reference>,
    /// Digest of its manifest, where the archive has one.
    pub(crate) manifest: Option<String>,
}

/// One layer of a plan.
pub(crate) struct LayerPlan {
    /// Name of its file in the archive.
    pub(crate) file: String,
    /// Digest of that file as stored (compressed), if the archive states one.
    pub(crate) blob: Option<String>,
    /// Digest of the uncompressed tar.
    pub(crate) diff_id: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerManifest {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// What the archive holds. `docker save` of today writes both forms; Docker reads `manifest.json`
/// first, and so do we.
pub(crate) fn plans(archive: &Archive) -> Result<Vec<Plan>, ImageError> {
    let plans = if archive.locate("manifest.json")?.is_some() {
        docker_plans(archive)?
    } else if archive.locate("index.json")?.is_some() {
        oci_plans(archive)?
    } else {
        let reason = if archive.is_empty() {
            "it holds no files"
        } else {
            "it has neither manifest.json (docker save) nor index.json (OCI layout)"
        };
        return Err(ImageError::corrupt("archive", reason, REMEDY_SAVE));
    };
    if plans.is_empty() {
        return Err(ImageError::corrupt("archive", "its manifest lists no image", REMEDY_SAVE));
    }
    Ok(plans)
}

fn docker_plans(archive: &Archive) -> Result<Vec<Plan>, ImageError> {
    let bytes = archive.metadata("manifest.json", "manifest.json")?;
    let manifests: Vec<DockerManifest> = parse(&bytes, "manifest.json")?;
    bounded(manifests.len())?;
    manifests.into_iter().map(|m| docker_plan(archive, m)).collect()
}

fn docker_plan(archive: &Archive, manifest: DockerManifest) -> Result<Plan, ImageError> {
    let what = format!("configuration {}", manifest.config);
    let config_json = archive.metadata(&manifest.config, &what)?;
    let id = digest_of(&config_json);
    if let Some(want) = digest_in_name(&manifest.config)
        && want != id
    {
        return Err(mismatch(&what, &id, &want));
    }
    let names = manifest
        .repo_tags
        .unwrap_or_default()
        .iter()
        .map(|t| Reference::parse(t))
        .collect::<Result<_, _>>()?;
    let layers = manifest.layers.into_iter().map(|l| (digest_in_name(&l), l)).collect();
    plan(id, config_json, layers, names, None)
}

fn oci_plans(archive: &Archive) -> Result<Vec<Plan>, ImageError> {
    archive.require("oci-layout", "OCI layout")?;
    let bytes = archive.metadata("index.json", "index.json")?;
    let index: ImageIndex = parse(&bytes, "index.json")?;
    let mut found = Vec::new();
    for descriptor in index.manifests() {
        let names = names_of(descriptor)?;
        oci_manifest(archive, descriptor, names, 0, &mut found)?;
        bounded(found.len())?;
    }
    Ok(found)
}

fn oci_manifest(
    archive: &Archive,
    descriptor: &Descriptor,
    names: Vec<Reference>,
    depth: usize,
    found: &mut Vec<Plan>,
) -> Result<(), ImageError> {
    let digest = descriptor.digest().to_string();
    let what = format!("manifest {digest}");
    let bytes = blob(archive, &digest, &what)?;
    if descriptor.media_type().to_string().contains("index")
        || descriptor.media_type().to_string().contains("manifest.list")
    {
        if depth >= MAX_INDEX_DEPTH {
            let reason = format!("indexes nested deeper than {MAX_INDEX_DEPTH}");
            return Err(ImageError::corrupt(what, reason, REMEDY_BUILD));
        }
        let index: ImageIndex = parse(&bytes, &what)?;
        let Some(ours) = index.manifests().iter().find(|m| for_this_host(m)) else {
            let reason = format!("no image for linux/{} in it", Arch::default());
            return Err(ImageError::corrupt(what, reason, "get the image for this platform"));
        };
        return oci_manifest(archive, ours, names, depth + 1, found);
    }
    let manifest: ImageManifest = parse(&bytes, &what)?;
    let config_digest = manifest.config().digest().to_string();
    let config_json = blob(archive, &config_digest, &format!("configuration {config_digest}"))?;
    let layers = manifest
        .layers()
        .iter()
        .map(|l| {
            let digest = l.digest().to_string();
            Ok((Some(digest.clone()), blob_name(&digest, "layer")?))
        })
        .collect::<Result<_, ImageError>>()?;
    found.push(plan(config_digest, config_json, layers, names, Some(digest))?);
    Ok(())
}

fn plan(
    id: String,
    config_json: Vec<u8>,
    layers: Vec<(Option<String>, String)>,
    names: Vec<Reference>,
    manifest: Option<String>,
) -> Result<Plan, ImageError> {
    let what = format!("configuration {id}");
    let config: ImageConfiguration = parse(&config_json, &what)?;
    if *config.os() != Os::Linux || *config.architecture() != Arch::default() {
        let reason = format!(
            "the image is for {}/{}, this host is linux/{}",
            config.os(),
            config.architecture(),
            Arch::default()
        );
        return Err(ImageError::corrupt(what, reason, "get the image for this platform"));
    }
    let diff_ids = config.rootfs().diff_ids();
    if diff_ids.len() != layers.len() {
        let reason = format!("{} diff_ids but {} layers", diff_ids.len(), layers.len());
        return Err(ImageError::corrupt(what, reason, REMEDY_COPY));
    }
    if layers.len() > MAX_LAYERS {
        let reason = format!("{} layers, more than {MAX_LAYERS}", layers.len());
        return Err(ImageError::corrupt(what, reason, "squash the image"));
    }
    let layers = diff_ids
        .iter()
        .zip(layers)
        .map(|(diff_id, (blob, file))| {
            hex_of(diff_id).ok_or_else(|| {
                let reason = format!("diff_id {diff_id:?} is no sha256 digest");
                ImageError::corrupt(&what, reason, REMEDY_COPY)
            })?;
            Ok(LayerPlan { file, blob, diff_id: diff_id.clone() })
        })
        .collect::<Result<_, ImageError>>()?;
    Ok(Plan { id, config_json, layers, names, manifest })
}

/// A blob's bytes, checked against its digest.
fn blob(archive: &Archive, digest: &str, what: &str) -> Result<Vec<u8>, ImageError> {
    let bytes = archive.metadata(&blob_name(digest, what)?, what)?;
    let got = digest_of(&bytes);
    if got == digest { Ok(bytes) } else { Err(mismatch(what, &got, digest)) }
}

fn blob_name(digest: &str, what: &str) -> Result<String, ImageError> {
    let hex = hex_of(digest).ok_or_else(|| {
        ImageError::corrupt(what, format!("{digest:?} is no sha256 digest"), REMEDY_COPY)
    })?;
    Ok(format!("blobs/sha256/{hex}"))
}

/// The names an index gives an image: containerd's full name, else a `ref.name` that is more than a
/// bare tag (a bare tag names no repository).
fn names_of(descriptor: &Descriptor) -> Result<Vec<Reference>, ImageError> {
    let Some(notes) = descriptor.annotations() else { return Ok(Vec::new()) };
    let full = notes.get("io.containerd.image.name");
    let short = notes.get("org.opencontainers.image.ref.name").filter(|n| n.contains([':', '/']));
    full.or(short).map(|n| Reference::parse(n)).transpose().map(|n| n.into_iter().collect())
}

fn for_this_host(descriptor: &Descriptor) -> bool {
    descriptor
        .platform()
        .as_ref()
        .is_some_and(|p| *p.os() == Os::Linux && *p.architecture() == Arch::default())
}

/// The digest that a file's name claims: `blobs/sha256/<hex>` or `<hex>.json`.
fn digest_in_name(name: &str) -> Option<String> {
    let hex = name.strip_prefix("blobs/sha256/").or_else(|| name.strip_suffix(".json"))?;
    is_hex64(hex).then(|| format!("sha256:{hex}"))
}

fn bounded(images: usize) -> Result<(), ImageError> {
    if images > MAX_IMAGES {
        let reason = format!("more than {MAX_IMAGES} images");
        return Err(ImageError::corrupt("archive", reason, "save fewer images into one archive"));
    }
    Ok(())
}

pub(crate) fn mismatch(what: &str, got: &str, want: &str) -> ImageError {
    ImageError::corrupt(what, format!("its content has digest {got}, expected {want}"), REMEDY_COPY)
}

fn parse<T: DeserializeOwned>(bytes: &[u8], what: &str) -> Result<T, ImageError> {
    serde_json::from_slice(bytes)
        .map_err(|e| ImageError::corrupt(what, format!("not valid: {e}"), REMEDY_COPY))
}
