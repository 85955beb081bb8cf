//! Archives in, images out; and what a damaged or hostile archive is told.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::fs;
use std::io::Write;
use std::path::Path;

use serde_json::json;
use shoal_images::{ImageError, ImageStore, Removed, testimage};
use tempfile::TempDir;

const BUSYBOX: &str = "/bin/busybox";

/// A folder whose overlay mounts go away with it, also when a test fails.
struct Home(TempDir);

impl Home {
    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let Ok(snapshots) = fs::read_dir(self.path().join("images/snapshots")) else { return };
        for entry in snapshots.flatten() {
            let flags = rustix::mount::UnmountFlags::DETACH;
            let _ = rustix::mount::unmount(entry.path().join("merged"), flags);
        }
    }
}

fn store() -> (Home, ImageStore) {
    let dir = TempDir::new().unwrap();
    let store = ImageStore::open(&dir.path().join("images")).unwrap();
    (Home(dir), store)
}

fn busybox() -> Vec<u8> {
    let extra: &[(&str, &[u8], u32)] = &[("etc/motd", b"ahoy\n", 0o640)];
    testimage::busybox_archive(Path::new(BUSYBOX), "bb:1", &["sh"], extra).unwrap()
}

/// A tar made of raw entries, without the tar crate's own checks on names.
fn layer(entries: &[(&str, tar::EntryType, &str, &[u8])]) -> Vec<u8> {
    let mut out = tar::Builder::new(Vec::new());
    for (name, kind, link, content) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(*kind);
        header.set_mode(0o755);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_000_000);
        header.set_size(content.len() as u64);
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        if matches!(kind, tar::EntryType::Char) {
            header.set_device_major(1).unwrap();
            header.set_device_minor(3).unwrap();
        }
        header.set_cksum();
        out.append(&header, *content).unwrap();
    }
    out.into_inner().unwrap()
}

fn load_layers(store: &ImageStore, layers: &[Vec<u8>]) -> Result<String, ImageError> {
    let archive = testimage::docker_archive("l:1", json!({}), layers).unwrap();
    store.load(archive.as_slice()).map(|l| l[0].id.clone())
}

/// Everything in the store but its fixed folders: what an unfinished load would leave.
fn leftovers(dir: &Home) -> Vec<String> {
    let mut found = Vec::new();
    for sub in ["tmp", "layers", "configs", "snapshots"] {
        for e in fs::read_dir(dir.path().join("images").join(sub)).unwrap() {
            found.push(format!("{sub}/{}", e.unwrap().file_name().to_string_lossy()));
        }
    }
    found.retain(|f| f != "layers/empty");
    found
}

fn refusal(archive: &[u8]) -> String {
    let (dir, store) = store();
    let error = store.load(archive).unwrap_err().to_string();
    assert_eq!(leftovers(&dir), Vec::<String>::new(), "left behind by: {error}");
    assert!(store.list().unwrap().is_empty());
    error
}

#[test]
fn a_docker_archive_loads_and_its_files_are_mounted_with_owner_mode_and_time() {
    use std::os::unix::fs::MetadataExt;
    let (_dir, store) = store();
    let loaded = store.load(busybox().as_slice()).unwrap();
    assert_eq!(loaded[0].repo_tags, ["bb:1"]);
    let image = store.resolve("bb:1").unwrap();
    assert_eq!(image.id, loaded[0].id);
    assert!(image.size > 500_000);
    let root = store.prepare(&image, "c1").unwrap();
    assert_eq!(root, store.prepare(&image, "c1").unwrap(), "idempotent");
    let motd = fs::metadata(root.join("etc/motd")).unwrap();
    assert_eq!((motd.mode() & 0o7777, motd.uid()), (0o640, 0));
    assert_eq!(fs::metadata(root.join("tmp")).unwrap().mode() & 0o7777, 0o1777);
    assert_eq!(fs::metadata(root.join("bin")).unwrap().mtime(), 1_767_225_600, "folder times last");
    assert_eq!(fs::read_link(root.join("bin/sh")).unwrap(), Path::new("busybox"));
    fs::write(root.join("etc/new"), "x").unwrap();
    store.unmount("c1").unwrap();
    assert!(!root.join("etc").exists());
    assert!(store.prepare(&image, "c1").unwrap().join("etc/new").exists(), "writes are kept");
    store.release("c1").unwrap();
    store.release("c1").unwrap();
    assert!(!root.exists());
}

#[test]
fn an_oci_layout_loads_as_tar_as_gzip_as_zstd_and_as_a_folder() {
    let layer = testimage::busybox_layer(Path::new(BUSYBOX), &[]).unwrap();
    let plain = testimage::oci_archive("reg.test/bb:2", json!({"Cmd": ["sh"]}), &[layer]).unwrap();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&plain).unwrap();
    let zstd = zstd::encode_all(plain.as_slice(), 1).unwrap();
    let mut ids = Vec::new();
    for archive in [plain.clone(), gzip.finish().unwrap(), zstd] {
        let (_dir, store) = store();
        ids.push(store.load(archive.as_slice()).unwrap()[0].id.clone());
        let image = store.resolve("reg.test/bb:2").unwrap();
        assert_eq!(image.repo_digests.len(), 1);
        assert_eq!(store.resolve(&image.repo_digests[0]).unwrap().id, image.id);
    }
    let folder = TempDir::new().unwrap();
    tar::Archive::new(plain.as_slice()).unpack(folder.path()).unwrap();
    let (_dir, store) = store();
    ids.push(store.load_layout(folder.path()).unwrap()[0].id.clone());
    assert!(ids.windows(2).all(|w| w[0] == w[1]), "{ids:?}");
}

#[test]
fn whiteouts_opaque_folders_devices_and_hard_links_come_out_as_the_specification_says() {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    use tar::EntryType::{Char, Directory, Link, Regular, Symlink};
    let (_dir, store) = store();
    let lower = layer(&[
        ("d/", Directory, "", b""),
        ("d/gone", Regular, "", b"1"),
        ("d/stays", Regular, "", b"2"),
        ("o/", Directory, "", b""),
        ("o/hidden", Regular, "", b"3"),
        ("abs", Symlink, "/d", b""),
    ]);
    let upper = layer(&[
        ("d/.wh.gone", Regular, "", b""),
        ("o/.wh..wh..opq", Regular, "", b""),
        ("o/new", Regular, "", b"4"),
        ("o/same", Link, "o/new", b""),
        ("null", Char, "", b""),
    ]);
    load_layers(&store, &[lower, upper]).unwrap();
    let root = store.prepare(&store.resolve("l:1").unwrap(), "c2").unwrap();
    assert!(!root.join("d/gone").exists() && root.join("d/stays").exists());
    assert!(!root.join("o/hidden").exists() && root.join("o/new").exists());
    let ino = |p: &str| fs::metadata(root.join(p)).unwrap().ino();
    assert_eq!(ino("o/new"), ino("o/same"));
    assert!(fs::metadata(root.join("null")).unwrap().file_type().is_char_device());
    store.release("c2").unwrap();
}

#[test]
fn an_image_without_layers_and_one_with_a_layer_twice_can_be_mounted() {
    let (_dir, store) = store();
    load_layers(&store, &[]).unwrap();
    store.prepare(&store.resolve("l:1").unwrap(), "none").unwrap();
    let a = layer(&[("a", tar::EntryType::Regular, "", b"a")]);
    let b = layer(&[(".wh.a", tar::EntryType::Regular, "", b"")]);
    load_layers(&store, &[a.clone(), b, a]).unwrap();
    let root = store.prepare(&store.resolve("l:1").unwrap(), "twice").unwrap();
    assert!(root.join("a").exists());
    store.release("none").unwrap();
    store.release("twice").unwrap();
}

#[test]
fn a_symlink_in_a_layer_cannot_lead_a_later_entry_out_of_it() {
    use tar::EntryType::{Regular, Symlink};
    let outside = TempDir::new().unwrap();
    let target = outside.path().to_str().unwrap();
    for link in [target, "../../../../../../../../../../tmp"] {
        let (dir, store) = store();
        let name = format!("shoal-escape-{}", std::process::id());
        let evil =
            layer(&[("out", Symlink, link, b""), (&format!("out/{name}"), Regular, "", b"x")]);
        // Resolved inside the layer, as in a chroot: either made there or refused.
        let result = load_layers(&store, &[evil]);
        assert!(!outside.path().join(&name).exists() && !Path::new("/tmp").join(&name).exists());
        if result.is_err() {
            assert_eq!(leftovers(&dir), Vec::<String>::new());
        }
    }
}

#[test]
fn hostile_entries_are_refused_by_name() {
    use tar::EntryType::{Link, Regular};
    for (entries, words) in [
        (layer(&[("../evil", Regular, "", b"x")]), "leaves the image"),
        (layer(&[("a", Link, "../../etc/passwd", b"")]), "leaves the image"),
        (layer(&[("a", Link, "nothing", b"")]), "not in this layer"),
        (layer(&[("d/.wh...", Regular, "", b"")]), "names no file"),
        (layer(&[("a", tar::EntryType::new(b'Z'), "", b"")]), "unknown kind"),
    ] {
        let archive = testimage::docker_archive("l:1", json!({}), &[entries]).unwrap();
        let error = refusal(&archive);
        assert!(error.contains("layer sha256:") && error.contains(words), "{error}");
        assert!(error.contains("do not use it"), "{error}");
    }
    let outer = refusal(&layer(&[("../manifest.json", Regular, "", b"[]")]));
    assert!(outer.contains("leaves the archive"), "{outer}");
    let outer = refusal(&layer(&[("manifest.json", tar::EntryType::Symlink, "/etc/shadow", b"")]));
    assert!(outer.contains("links to a path outside"), "{outer}");
}

#[test]
fn a_damaged_archive_is_told_what_is_wrong_where_and_what_to_do() {
    let good = busybox();
    let text = refusal(b"this is no archive, however long it may be");
    assert!(text.contains("docker save"), "{text}");
    let text = refusal(&[]);
    assert!(text.contains("it holds no files") && text.contains("docker save"), "{text}");
    let text = refusal(&vec![b'x'; 4096]);
    assert!(text.contains("not a readable tar"), "{text}");
    let text = refusal(&good[..good.len() / 2]);
    assert!(text.contains("truncated") && text.contains("copy the image again"), "{text}");
    let text = refusal(&layer(&[("readme", tar::EntryType::Regular, "", b"hi")]));
    assert!(text.contains("neither manifest.json"), "{text}");
    let text = refusal(&layer(&[("manifest.json", tar::EntryType::Regular, "", b"{nope")]));
    assert!(text.contains("manifest.json: not valid"), "{text}");
    let text = refusal(&layer(&[("manifest.json", tar::EntryType::Regular, "", b"[]")]));
    assert!(text.contains("lists no image"), "{text}");

    // One flipped byte in the layer.
    let mut flipped = good.clone();
    let at = flipped.windows(5).position(|w| w == b"ahoy\n").unwrap();
    flipped[at] = b'A';
    let text = refusal(&flipped);
    assert!(text.contains("layer sha256:") && text.contains("expected sha256:"), "{text}");

    // One flipped byte in the configuration.
    let mut flipped = good;
    let at = flipped.windows(6).position(|w| w == b"\"Cmd\":").unwrap();
    flipped[at + 1] = b'X';
    let text = refusal(&flipped);
    assert!(text.contains("configuration blobs/sha256/"), "{text}");
}

#[test]
fn an_image_for_another_platform_is_refused_by_name() {
    let other = if cfg!(target_arch = "x86_64") { "s390x" } else { "amd64" };
    let config = json!({"architecture": other, "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": []}})
    .to_string();
    let manifest = br#"[{"Config":"c","RepoTags":["x:1"],"Layers":[]}]"#;
    let text = refusal(&layer(&[
        ("c", tar::EntryType::Regular, "", config.as_bytes()),
        ("manifest.json", tar::EntryType::Regular, "", manifest),
    ]));
    assert!(text.contains(other) && text.contains("this host is linux/"), "{text}");
}

#[test]
fn names_move_and_the_last_one_takes_the_image_with_it() {
    let (dir, store) = store();
    let id = store.load(busybox().as_slice()).unwrap()[0].id.clone();
    store.tag("bb:1", "other:x").unwrap();
    assert_eq!(store.resolve("other:x").unwrap().repo_tags, ["bb:1", "other:x"]);
    assert_eq!(store.resolve(&id[7..19]).unwrap().id, id);
    let by_id = store.remove(&id).unwrap_err().to_string();
    assert!(by_id.contains("bb:1, other:x"), "{by_id}");
    assert_eq!(store.remove("bb:1").unwrap(), [Removed::Untagged("bb:1".into())]);
    assert_eq!(store.resolve("bb:1").unwrap_err().to_string(), "No such image: bb:1");
    let image = store.resolve("other:x").unwrap();
    store.prepare(&image, "user").unwrap();
    let used = store.remove("other:x").unwrap_err().to_string();
    assert!(used.contains("container user is using it"), "{used}");
    store.release("user").unwrap();
    assert_eq!(store.remove("other:x").unwrap().last(), Some(&Removed::Deleted(id)));
    assert_eq!(leftovers(&dir), Vec::<String>::new());
    assert_eq!(store.resolve("x").unwrap_err().to_string(), "No such image: x:latest");
}

#[test]
fn a_store_opened_again_has_its_images_and_none_of_an_unfinished_load() {
    let (dir, store) = store();
    store.load(busybox().as_slice()).unwrap();
    let root = dir.path().join("images");
    let orphan = root.join("layers").join("a".repeat(64));
    fs::create_dir_all(orphan.join("diff")).unwrap();
    fs::write(root.join("tmp/half"), "x").unwrap();
    drop(store);
    let again = ImageStore::open(&root).unwrap();
    assert!(again.resolve("bb:1").is_ok());
    assert!(!orphan.exists() && !root.join("tmp/half").exists());
    fs::write(root.join("index.json"), "{").unwrap();
    let text = ImageStore::open(&root).unwrap_err().to_string();
    assert!(text.contains("index.json is damaged"), "{text}");
}
