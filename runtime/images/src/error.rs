//! What can go wrong with an image, in the words the user reads.

use std::io;
use std::path::{Path, PathBuf};

/// Why an operation on the image store failed. `Display` names the object, the reason and, where
/// there is one, the remedy.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// No image has this name, id or id prefix (Docker's words).
    #[error("No such image: {reference}")]
    NotFound {
        /// The name as Docker prints it, with its tag.
        reference: String,
    },
    /// An id prefix that fits several images.
    #[error(
        "image ID prefix {prefix} is ambiguous ({matches} images start with it): give more of the ID"
    )]
    Ambiguous {
        /// The prefix as given.
        prefix: String,
        /// How many images it fits.
        matches: usize,
    },
    /// A text that is no image name.
    #[error("invalid reference format: {reference:?}: {reason}")]
    InvalidReference {
        /// The text as given.
        reference: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// An archive that cannot be loaded. Nothing of it is kept.
    #[error("invalid image archive: {what}: {reason}; {remedy}")]
    Corrupt {
        /// Which part of the archive.
        what: String,
        /// What is wrong with it.
        reason: String,
        /// What the user can do.
        remedy: &'static str,
    },
    /// An image that a container still stands on.
    #[error(
        "conflict: unable to remove image {reference}: container {container} is using it; remove the container first"
    )]
    InUse {
        /// The image as the caller named it.
        reference: String,
        /// The first container found (short id).
        container: String,
    },
    /// An id that several names point at.
    #[error(
        "conflict: unable to delete {id} (must be forced): image is referenced by {names}; remove the names instead"
    )]
    ManyNames {
        /// Short id.
        id: String,
        /// The names, comma separated.
        names: String,
    },
    /// A container id that is not a plain file name.
    #[error("invalid container id {id:?}: only letters, digits, '_', '.' and '-' are allowed")]
    InvalidContainerId {
        /// The id as given.
        id: String,
    },
    /// More layers than an older kernel takes.
    #[error(
        "cannot mount an overlay at {}: the image has {found} layers, and this kernel takes {max} \
         (Linux 6.7 and newer: 500): build the image with fewer, or boot a newer kernel",
        path.display()
    )]
    TooManyLayers {
        /// Where it was to be mounted.
        path: PathBuf,
        /// How many it has.
        found: usize,
        /// How many can be.
        max: usize,
    },
    /// The kernel or the disk refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was being done, as a verb phrase.
        action: &'static str,
        /// To which path.
        path: PathBuf,
        /// The kernel's reason.
        #[source]
        source: io::Error,
    },
    /// A file of the store that does not parse.
    #[error(
        "image store file {} is damaged: {source}; restore it from a backup or load the images again into an empty store",
        path.display()
    )]
    DamagedStore {
        /// Which file.
        path: PathBuf,
        /// Where parsing stopped.
        #[source]
        source: serde_json::Error,
    },
}

/// The archive is not what its digests say: bits were lost on the way.
pub(crate) const REMEDY_COPY: &str = "the file is damaged: save or copy the image again";
/// The archive is something else.
pub(crate) const REMEDY_SAVE: &str =
    "give a file made by `docker save IMAGE -o FILE`, or an OCI image layout as a tar";
/// The archive is well-formed but hostile or broken at its source.
pub(crate) const REMEDY_BUILD: &str = "the image was built wrongly or with intent: do not use it, build it again from a source you trust";

impl ImageError {
    pub(crate) fn corrupt(
        what: impl Into<String>,
        reason: impl Into<String>,
        remedy: &'static str,
    ) -> Self {
        Self::Corrupt { what: what.into(), reason: reason.into(), remedy }
    }
}

/// Attaches action and path to an I/O result.
pub(crate) trait IoContext<T> {
    fn at(self, action: &'static str, path: &Path) -> Result<T, ImageError>;
}

impl<T, E: Into<io::Error>> IoContext<T> for Result<T, E> {
    fn at(self, action: &'static str, path: &Path) -> Result<T, ImageError> {
        self.map_err(|e| ImageError::Io { action, path: path.to_owned(), source: e.into() })
    }
}
