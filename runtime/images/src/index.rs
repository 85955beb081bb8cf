//! Which images there are and which names point at them. Pure: the store reads and writes it.

use std::collections::{BTreeMap, BTreeSet};

use oci_spec::image::ImageConfiguration;
use serde::{Deserialize, Serialize};

use crate::digest::{hex_of, is_hex64};
use crate::error::ImageError;
use crate::reference::Reference;

/// Characters of an id in messages, as Docker's.
pub(crate) const SHORT_ID: usize = 12;

/// An image on this node.
#[derive(Debug, Clone)]
pub struct Image {
    /// `sha256:<64 hex>`: the digest of its configuration.
    pub id: String,
    /// Names with tags, as Docker prints them (`busybox:latest`), sorted.
    pub repo_tags: Vec<String>,
    /// Names with manifest digests (`busybox@sha256:…`), sorted.
    pub repo_digests: Vec<String>,
    /// Bytes of all its files.
    pub size: u64,
    /// When it was built, RFC 3339, if its configuration says so.
    pub created: Option<String>,
    /// Its configuration, as far as the OCI specification knows it.
    pub config: ImageConfiguration,
    /// Its configuration as it came: with Docker's own fields (health check, on-build, …).
    pub config_json: serde_json::Value,
    /// Digests of its uncompressed layers, bottom first.
    pub layers: Vec<String>,
}

/// What [`load`](crate::ImageStore::load) made of one image of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadedImage {
    /// `sha256:<64 hex>`.
    pub id: String,
    /// The names it got, as Docker prints them; empty for an archive without names.
    pub repo_tags: Vec<String>,
}

/// What [`remove`](crate::ImageStore::remove) did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removed {
    /// A name is gone (as Docker prints it).
    Untagged(String),
    /// An image is gone (its id).
    Deleted(String),
}

/// One image as stored.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) layers: Vec<String>,
    pub(crate) size: u64,
}

/// The store's index.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Index {
    /// By `sha256:…`.
    pub(crate) images: BTreeMap<String, Record>,
    /// Normal name with tag → image id.
    pub(crate) tags: BTreeMap<String, String>,
    /// `repository@sha256:…` → image id.
    pub(crate) digests: BTreeMap<String, String>,
}

impl Index {
    /// Finds an image as Docker does: full id, then name, then unique id prefix.
    pub(crate) fn resolve(&self, text: &str) -> Result<&str, ImageError> {
        let bare = text.strip_prefix("sha256:").unwrap_or(text);
        if is_hex64(bare)
            && let Some((id, _)) = self.images.get_key_value(&format!("sha256:{bare}"))
        {
            return Ok(id);
        }
        let reference = Reference::parse(text);
        if let Ok(reference) = &reference
            && let Some(id) = self.by_name(reference)
        {
            return Ok(id);
        }
        if !bare.is_empty() && bare.len() <= 64 && bare.bytes().all(|b| b.is_ascii_hexdigit()) {
            let start = format!("sha256:{}", bare.to_ascii_lowercase());
            let mut found = self
                .images
                .range(start.clone()..)
                .map(|(id, _)| id)
                .take_while(|id| id.starts_with(&start));
            if let Some(first) = found.next() {
                let more = found.count();
                return if more == 0 {
                    Ok(first)
                } else {
                    Err(ImageError::Ambiguous { prefix: text.to_owned(), matches: more + 1 })
                };
            }
        }
        if hex_of(text).is_some() {
            return Err(ImageError::NotFound { reference: text.to_owned() });
        }
        Err(ImageError::NotFound { reference: reference?.familiar() })
    }

    fn by_name(&self, reference: &Reference) -> Option<&str> {
        if let Some(digest) = &reference.digest {
            let found = self.digests.get(&format!("{}@{digest}", reference.repository));
            return found.map(String::as_str);
        }
        self.tags.get(&reference.to_string()).map(String::as_str)
    }

    /// Names with tags of an image, familiar and sorted.
    pub(crate) fn tags_of(&self, id: &str) -> Vec<String> {
        familiar(&self.tags, id)
    }

    /// Names with digests of an image, familiar and sorted.
    pub(crate) fn digests_of(&self, id: &str) -> Vec<String> {
        familiar(&self.digests, id)
    }

    /// Layers that some image still needs.
    pub(crate) fn layers_in_use(&self) -> BTreeSet<&str> {
        self.images.values().flat_map(|r| r.layers.iter().map(String::as_str)).collect()
    }
}

fn familiar(names: &BTreeMap<String, String>, id: &str) -> Vec<String> {
    let ours = names.iter().filter(|(_, target)| *target == id);
    let mut out: Vec<String> =
        ours.filter_map(|(name, _)| Reference::parse(name).ok()).map(|r| r.familiar()).collect();
    out.sort();
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index() -> Index {
        let mut index = Index::default();
        for first in ["aa1", "aa2", "b"] {
            let id = format!("sha256:{first:0<64}");
            index.images.insert(id, Record { layers: vec![], size: 0 });
        }
        index.tags.insert("docker.io/library/x:latest".into(), format!("sha256:{:0<64}", "b"));
        index
    }

    #[test]
    fn a_unique_prefix_finds_an_image_and_an_ambiguous_one_says_how_many() {
        let index = index();
        assert!(index.resolve("aa1").unwrap().starts_with("sha256:aa1"));
        assert!(index.resolve("sha256:b").unwrap().starts_with("sha256:b0"));
        let e = index.resolve("aa").unwrap_err().to_string();
        assert!(e.contains("2 images"), "{e}");
    }

    #[test]
    fn a_missing_image_is_named_with_its_tag() {
        assert_eq!(index().resolve("y").unwrap_err().to_string(), "No such image: y:latest");
        assert!(index().resolve("x").is_ok());
        assert!(index().resolve("docker.io/library/x:latest").is_ok());
    }
}
