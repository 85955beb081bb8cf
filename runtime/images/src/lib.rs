//! Images on one node: loading archives, layers on disk, names, and overlayfs snapshots for
//! containers.
//!
//! Everything here blocks (files, hashing, mounts): an async caller wraps it in `spawn_blocking`.
//! The crate runs no tasks or threads of its own. Nothing is visible before it is whole: layers are
//! unpacked in `tmp/`, synced, and renamed into place; the index is replaced by a rename. What a
//! crash leaves behind lies in `tmp/` and is removed by the next [`ImageStore::open`].
//!
//! On disk, below the root given to `open`:
//!
//! | path | what |
//! |---|---|
//! | `index.json` | images and the names that point at them |
//! | `configs/<hex>.json` | an image's configuration, byte for byte; `<hex>` is the image's id |
//! | `layers/<hex>/diff` | one layer in overlayfs form, by the digest of its uncompressed tar |
//! | `snapshots/<container>/` | a container's `upper`, `work` and mount point `merged` |
//! | `tmp/` | whatever is not finished |

mod archive;
mod confine;
mod digest;
mod error;
mod index;
mod layer;
mod manifest;
mod overlay;
mod reference;
mod snapshot;
mod store;
pub mod testimage;

pub use error::ImageError;
pub use index::{Image, LoadedImage, Removed};
pub use reference::Reference;
pub use store::ImageStore;
