//! What can go wrong with a container, in Docker's words where Docker has some.

use std::io;
use std::path::{Path, PathBuf};

use shoal_images::ImageError;

/// Why an operation on a container failed.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// No container has this id, name or id prefix.
    #[error("No such container: {reference}")]
    NotFound {
        /// As the caller named it.
        reference: String,
    },
    /// An id prefix of several containers.
    #[error("multiple IDs found with provided prefix: {prefix}")]
    Ambiguous {
        /// The prefix as given.
        prefix: String,
    },
    /// The name is taken.
    #[error(
        "Conflict. The container name \"/{name}\" is already in use by container \"{id}\". You have to remove (or rename) that container to be able to reuse that name."
    )]
    NameTaken {
        /// The name.
        name: String,
        /// Who has it.
        id: String,
    },
    /// The node holds as many containers as it may.
    #[error("this node already has {limit} containers: remove some (docker container prune)")]
    TooMany {
        /// The limit.
        limit: usize,
    },
    /// A container or exec specification that cannot be carried out.
    #[error("invalid container {field}: {reason}")]
    Invalid {
        /// Which part of it.
        field: &'static str,
        /// What is wrong, and what would be right.
        reason: String,
    },
    /// The container could not be started. `code` is what Docker's client exits with: 127 if the
    /// executable does not exist, 126 if it may not be executed, 125 otherwise.
    #[error("failed to start container {id}: {reason}")]
    Start {
        /// Short id.
        id: String,
        /// The reason, in Docker's words where it has some.
        reason: String,
        /// Exit code.
        code: i32,
    },
    /// A process could not be started in a container. `code` as for `Start`.
    #[error("{reason}")]
    Exec {
        /// The reason, in Docker's words where it has some.
        reason: String,
        /// Exit code.
        code: i32,
    },
    /// The operation needs a running container.
    #[error("container {id} is not running")]
    NotRunning {
        /// Full id.
        id: String,
    },
    /// Start of a container that runs.
    #[error("container {id} is already running")]
    AlreadyRunning {
        /// Full id.
        id: String,
    },
    /// Start of a container whose files are gone.
    #[error(
        "the files container {id} was given (secrets, configs) are gone: they are kept in memory until it ends or the host does; remove it and make a new one"
    )]
    FilesGone {
        /// Short id.
        id: String,
    },
    /// Removal of a container that runs, without force.
    #[error(
        "cannot remove container \"/{name}\": container is running: stop the container before removing or force remove"
    )]
    RemoveRunning {
        /// Its name.
        name: String,
    },
    /// The container's shim does not answer.
    #[error("the shim of container {id} failed: {reason}; its log is {}", log.display())]
    Shim {
        /// Short id.
        id: String,
        /// What happened.
        reason: String,
        /// Where the shim writes what it has to say.
        log: PathBuf,
    },
    /// The image store refused.
    #[error(transparent)]
    Image(#[from] ImageError),
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
    /// A state file that does not parse.
    #[error("{} is damaged: {source}; remove its folder to forget the container", path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// Where parsing stopped.
        #[source]
        source: serde_json::Error,
    },
}

/// Attaches action and path to an I/O result.
pub(crate) trait IoContext<T> {
    fn at(self, action: &'static str, path: &Path) -> Result<T, RuntimeError>;
}

impl<T, E: Into<io::Error>> IoContext<T> for Result<T, E> {
    fn at(self, action: &'static str, path: &Path) -> Result<T, RuntimeError> {
        self.map_err(|e| RuntimeError::Io { action, path: path.to_owned(), source: e.into() })
    }
}
