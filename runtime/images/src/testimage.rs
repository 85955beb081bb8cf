//! Small images for tests, made from a static busybox: nothing is pulled from anywhere.

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::process::Command;

use oci_spec::image::Arch;
use serde_json::{Value, json};
use tar::{Builder, EntryType, Header};

use crate::digest::digest_of;

/// Modification time of every file (2026-01-01): the same input gives the same digests.
const MTIME: u64 = 1_767_225_600;

/// An archive as `docker save` writes it, with busybox, a link for each of its applets, `/etc/passwd`
/// (root, app = 1000, nobody), and `extra_files` as (path without leading slash, content, mode).
/// `cmd` becomes the image's `Cmd`.
pub fn busybox_archive(
    busybox: &Path,
    tag: &str,
    cmd: &[&str],
    extra_files: &[(&str, &[u8], u32)],
) -> io::Result<Vec<u8>> {
    docker_archive(tag, json!({ "Cmd": cmd }), &[busybox_layer(busybox, extra_files)?])
}

/// An archive as `docker save` writes it, from finished layer tars. `config` is the `config` part of
/// the image's configuration (`Cmd`, `Entrypoint`, `Env`, `User`, …).
pub fn docker_archive(tag: &str, config: Value, layers: &[Vec<u8>]) -> io::Result<Vec<u8>> {
    let configuration = configuration(config, layers);
    let hex = |bytes: &[u8]| digest_of(bytes).trim_start_matches("sha256:").to_owned();
    let config_name = format!("blobs/sha256/{}", hex(&configuration));
    let names: Vec<String> = layers.iter().map(|l| format!("blobs/sha256/{}", hex(l))).collect();
    let manifest = json!([{ "Config": config_name, "RepoTags": [tag], "Layers": names }]);
    let mut tar = Builder::new(Vec::new());
    file(&mut tar, &config_name, &configuration, 0o644)?;
    for (name, layer) in names.iter().zip(layers) {
        file(&mut tar, name, layer, 0o644)?;
    }
    file(&mut tar, "manifest.json", manifest.to_string().as_bytes(), 0o644)?;
    tar.into_inner()
}

/// The same image as an OCI layout in a tar, its layers compressed by gzip.
pub fn oci_archive(tag: &str, config: Value, layers: &[Vec<u8>]) -> io::Result<Vec<u8>> {
    let mut tar = Builder::new(Vec::new());
    let mut blob = |bytes: &[u8], media_type: &str| -> io::Result<Value> {
        let digest = digest_of(bytes);
        let name = format!("blobs/sha256/{}", digest.trim_start_matches("sha256:"));
        file(&mut tar, &name, bytes, 0o644)?;
        Ok(json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() }))
    };
    let mut descriptors = Vec::new();
    for layer in layers {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(layer)?;
        let media_type = "application/vnd.oci.image.layer.v1.tar+gzip";
        descriptors.push(blob(&gzip.finish()?, media_type)?);
    }
    let config_type = "application/vnd.oci.image.config.v1+json";
    let config = blob(&configuration(config, layers), config_type)?;
    let manifest_type = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({
        "schemaVersion": 2, "mediaType": manifest_type, "config": config, "layers": descriptors,
    });
    let mut descriptor = blob(manifest.to_string().as_bytes(), manifest_type)?;
    descriptor["annotations"] = json!({ "org.opencontainers.image.ref.name": tag });
    let index = json!({ "schemaVersion": 2, "manifests": [descriptor] });
    file(&mut tar, "index.json", index.to_string().as_bytes(), 0o644)?;
    file(&mut tar, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#, 0o644)?;
    tar.into_inner()
}

/// A layer with a small root file system around busybox.
pub fn busybox_layer(busybox: &Path, extra_files: &[(&str, &[u8], u32)]) -> io::Result<Vec<u8>> {
    let mut tar = Builder::new(Vec::new());
    for (name, mode) in [
        ("bin", 0o755),
        ("dev", 0o755),
        ("etc", 0o755),
        ("home", 0o755),
        ("proc", 0o555),
        ("root", 0o700),
        ("sys", 0o555),
        ("tmp", 0o1777),
        ("usr", 0o755),
        ("var", 0o755),
    ] {
        special(&mut tar, name, EntryType::Directory, mode, "")?;
    }
    file(&mut tar, "bin/busybox", &fs::read(busybox)?, 0o755)?;
    for applet in applets(busybox)? {
        special(&mut tar, &format!("bin/{applet}"), EntryType::Symlink, 0o777, "busybox")?;
    }
    let passwd = b"root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000:app:/home:/bin/sh\n\
        nobody:x:65534:65534:nobody:/:/bin/false\n";
    file(&mut tar, "etc/passwd", passwd, 0o644)?;
    let group = b"root:x:0:\napp:x:1000:\nextra:x:2000:app\nnogroup:x:65534:\n";
    file(&mut tar, "etc/group", group, 0o644)?;
    for (name, content, mode) in extra_files {
        file(&mut tar, name, content, *mode)?;
    }
    tar.into_inner()
}

fn configuration(config: Value, layers: &[Vec<u8>]) -> Vec<u8> {
    let diff_ids: Vec<String> = layers.iter().map(|l| digest_of(l)).collect();
    json!({
        "created": "2026-01-01T00:00:00Z",
        "architecture": Arch::default().to_string(),
        "os": "linux",
        "config": config,
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    })
    .to_string()
    .into_bytes()
}

fn applets(busybox: &Path) -> io::Result<Vec<String>> {
    let out = Command::new(busybox).arg("--list").output()?;
    if !out.status.success() {
        let reason = format!("{} --list failed: {}", busybox.display(), out.status);
        return Err(io::Error::other(reason));
    }
    let names = String::from_utf8_lossy(&out.stdout);
    Ok(names.lines().filter(|n| !n.is_empty() && *n != "busybox").map(str::to_owned).collect())
}

fn file(tar: &mut Builder<Vec<u8>>, name: &str, content: &[u8], mode: u32) -> io::Result<()> {
    let mut header = header(EntryType::Regular, mode);
    header.set_size(content.len() as u64);
    tar.append_data(&mut header, name, content)
}

fn special(
    tar: &mut Builder<Vec<u8>>,
    name: &str,
    kind: EntryType,
    mode: u32,
    link: &str,
) -> io::Result<()> {
    let mut header = header(kind, mode);
    if link.is_empty() {
        tar.append_data(&mut header, name, io::empty())
    } else {
        tar.append_link(&mut header, name, link)
    }
}

fn header(kind: EntryType, mode: u32) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(MTIME);
    header.set_size(0);
    header
}
