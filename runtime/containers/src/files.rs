//! Files a container is given besides its image: what is asked for. Pure; see `memory` for where they are.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::error::RuntimeError;
use crate::spec::{ContainerSpec, Mount};

/// Most files of a container. Docker has no bound; each is a mount.
const MAX_FILES: usize = 500;
/// Most bytes of a container's files together: they are in memory that cannot be swapped out.
const MAX_BYTES: usize = 64 << 20;

/// A file of its own in a container: kept in memory, read-only, over what the image has there.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FileSpec {
    /// Absolute path in the container. Folders that are missing are made.
    pub target: PathBuf,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Permission bits, at most 0777.
    pub mode: u32,
    /// Its bytes. `create` takes them: they are in no list and in no file of the runtime.
    #[serde(skip)]
    pub content: FileContent,
}

/// The bytes of a file: shared, not shown, never written out.
#[derive(Clone, Default)]
pub struct FileContent(Option<Arc<dyn AsRef<[u8]> + Send + Sync>>);

impl FileContent {
    /// Without a copy. Whoever holds secret bytes overwrites them when it lets them go.
    pub fn shared(bytes: Arc<dyn AsRef<[u8]> + Send + Sync>) -> Self {
        Self(Some(bytes))
    }

    /// The bytes; none once `create` has taken them.
    pub fn bytes(&self) -> &[u8] {
        self.0.as_ref().map_or(&[], |bytes| (**bytes).as_ref())
    }
}

/// The bytes are overwritten when they are let go.
impl From<Vec<u8>> for FileContent {
    fn from(bytes: Vec<u8>) -> Self {
        Self::shared(Arc::new(Zeroizing::new(bytes)))
    }
}

impl fmt::Debug for FileContent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.bytes().len())
    }
}

/// Leaves in the specification what may be kept of its files, and gives the files.
pub(crate) fn take(spec: &mut ContainerSpec) -> Vec<FileSpec> {
    let files = spec.files.clone();
    for file in &mut spec.files {
        file.content = FileContent::default();
    }
    files
}

/// Checks files against each other and against the mounts.
pub(crate) fn check(spec: &ContainerSpec) -> Result<(), RuntimeError> {
    let invalid = |reason: String| Err(RuntimeError::Invalid { field: "file", reason });
    let files = &spec.files;
    if files.len() > MAX_FILES {
        return invalid(format!("{} files, at most {MAX_FILES} are possible", files.len()));
    }
    let bytes: usize = files.iter().map(|f| f.content.bytes().len()).sum();
    if bytes > MAX_BYTES {
        return invalid(format!("{bytes} bytes in all files, at most {MAX_BYTES} are possible"));
    }
    let mut targets: BTreeSet<&Path> = BTreeSet::new();
    for FileSpec { target, uid, gid, mode, .. } in files {
        let shown = target.display();
        let plain = |c: Component<'_>| matches!(c, Component::RootDir | Component::Normal(_));
        let text = target.as_os_str().as_encoded_bytes();
        let name = target.file_name().is_some() && !text.ends_with(b"/") && !text.contains(&0);
        if !target.is_absolute() || !name || !target.components().all(plain) {
            return invalid(format!(
                "target {shown:?} must be an absolute path to a file, without \"..\""
            ));
        }
        if *mode > 0o777 {
            return invalid(format!("{shown}: mode {mode:o} is more than permission bits (777)"));
        }
        // To the kernel it means that nothing is to change.
        if *uid == u32::MAX || *gid == u32::MAX {
            return invalid(format!("{shown}: nobody has the user or group id {}", u32::MAX));
        }
        if !targets.insert(target) {
            return invalid(format!("two files have the target {shown}"));
        }
        let mut mounts = spec.mounts.iter().map(Mount::target);
        if mounts.any(|mounted| mounted == target) {
            return invalid(format!("{shown} is the target of a mount too"));
        }
    }
    for target in &targets {
        if let Some(above) = target.ancestors().skip(1).find(|a| targets.contains(a)) {
            let (target, above) = (target.display(), above.display());
            return invalid(format!("{target} cannot be below the file {above}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(target: &str) -> FileSpec {
        let content = b"hidden".to_vec().into();
        FileSpec { target: target.into(), uid: 0, gid: 0, mode: 0o444, content }
    }

    fn checked(files: Vec<FileSpec>) -> Result<(), String> {
        let mounts = vec![Mount::Tmpfs { target: "/cache".into(), size: None, mode: None }];
        let spec = ContainerSpec { files, mounts, ..ContainerSpec::default() };
        check(&spec).map_err(|e| e.to_string())
    }

    #[test]
    fn targets_are_files_apart_from_each_other_and_from_mounts() {
        let ok = ["/a", "/etc/app.conf", "/run/secrets/x", "/cache/x", "/a.d/b"];
        assert_eq!(checked(ok.map(file).into()), Ok(()));
        for (targets, reason) in [
            (&["relative"][..], "absolute path"),
            (&["/"], "absolute path"),
            (&["/a/"], "absolute path"),
            (&["/a/../b"], "absolute path"),
            (&["/a\0b"], "absolute path"),
            (&["/a", "/b", "/a"], "two files have the target /a"),
            (&["/a", "/a//b/c"], "/a//b/c cannot be below the file /a"),
            (&["/cache"], "/cache is the target of a mount too"),
        ] {
            let error = checked(targets.iter().map(|t| file(t)).collect()).unwrap_err();
            assert!(error.contains(reason), "{targets:?}: {error}");
        }
        let setuid = FileSpec { mode: 0o4755, ..file("/a") };
        assert!(checked(vec![setuid]).unwrap_err().contains("mode 4755"));
        let nobody = FileSpec { gid: u32::MAX, ..file("/a") };
        assert!(checked(vec![nobody]).unwrap_err().contains("nobody has"));
    }

    #[test]
    fn files_are_bounded_in_number_and_size() {
        let many = (0..=MAX_FILES).map(|n| file(&format!("/{n}"))).collect();
        assert!(checked(many).unwrap_err().contains("501 files"));
        let large = FileContent::from(vec![0; MAX_BYTES / 2 + 1]);
        let large = |target| FileSpec { content: large.clone(), ..file(target) };
        assert_eq!(checked(vec![large("/a")]), Ok(()));
        assert!(checked(vec![large("/a"), large("/b")]).unwrap_err().contains("in all files"));
    }

    #[test]
    fn content_is_neither_shown_nor_written_nor_kept() {
        let mut spec = ContainerSpec { files: vec![file("/a")], ..ContainerSpec::default() };
        assert!(format!("{spec:?}").contains("content: 6 bytes"), "{spec:?}");
        let text = serde_json::to_string(&spec).unwrap();
        let again: ContainerSpec = serde_json::from_str(&text).unwrap();
        assert_eq!(again.files[0].target, Path::new("/a"));
        assert_eq!(again.files[0].content.bytes(), b"");
        assert_eq!(take(&mut spec)[0].content.bytes(), b"hidden");
        assert_eq!(spec.files[0].content.bytes(), b"");
    }
}
