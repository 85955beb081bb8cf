//! Who a process runs as: a user text against the image's `/etc/passwd` and `/etc/group`.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use serde::{Deserialize, Serialize};

/// Most bytes read of `/etc/passwd` or `/etc/group`.
const MAX_FILE: u64 = 4 << 20;

/// A resolved user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Supplementary groups.
    pub(crate) groups: Vec<u32>,
}

/// Looks `text` up in a mounted root file system. The error is the reason, in Docker's words.
pub(crate) fn resolve_in(rootfs: &Path, text: &str) -> Result<User, String> {
    resolve(text, &read(rootfs, "etc/passwd"), &read(rootfs, "etc/group"))
}

/// A file of the image, without following a link out of it. Absent is empty, as for Docker.
fn read(rootfs: &Path, name: &str) -> String {
    let folder = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let open = || {
        let root = rustix::fs::open(rootfs, folder, Mode::empty())?;
        // NONBLOCK: a FIFO in its place must not hold us.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        openat2(&root, name, flags, Mode::empty(), ResolveFlags::IN_ROOT)
    };
    let mut text = Vec::new();
    if let Ok(fd) = open() {
        // A half-read file resolves fewer names, each of which is then an error: nothing is hidden.
        let _ = File::from(fd).take(MAX_FILE).read_to_end(&mut text);
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// Docker's rules: `[user|uid][:group|gid]`, numbers need no entry, names do.
fn resolve(text: &str, passwd: &str, group: &str) -> Result<User, String> {
    let (user, group_name) = match text.split_once(':') {
        Some((u, g)) => (u, Some(g).filter(|g| !g.is_empty())),
        None => (text, None),
    };
    let user = if user.is_empty() { "0" } else { user };
    let number = user.parse::<u32>().ok();
    let entry = passwd.lines().map(|l| l.split(':').collect::<Vec<_>>()).find_map(|f| {
        let (uid, gid) = (f.get(2)?.parse::<u32>().ok()?, f.get(3)?.parse::<u32>().ok()?);
        (f[0] == user || number == Some(uid)).then(|| (f[0].to_owned(), uid, gid))
    });
    let (name, uid, gid) = match (entry, number) {
        (Some((name, uid, gid)), _) => (Some(name), uid, gid),
        (None, Some(uid)) => (None, uid, 0),
        (None, None) => {
            return Err(format!("unable to find user {user}: no matching entries in passwd file"));
        }
    };
    let groups: Vec<(&str, u32, Vec<&str>)> = group
        .lines()
        .filter_map(|l| {
            let f: Vec<&str> = l.split(':').collect();
            Some((*f.first()?, f.get(2)?.parse().ok()?, f.get(3)?.split(',').collect()))
        })
        .collect();
    if let Some(wanted) = group_name {
        let found = groups.iter().find(|(n, _, _)| *n == wanted).map(|(_, gid, _)| *gid);
        let gid = found.or_else(|| wanted.parse().ok()).ok_or_else(|| {
            format!("unable to find group {wanted}: no matching entries in group file")
        })?;
        return Ok(User { uid, gid, groups: vec![gid] });
    }
    let mut extra: Vec<u32> = name
        .map(|name| {
            let member = groups.iter().filter(|(_, _, members)| members.contains(&name.as_str()));
            member.map(|(_, gid, _)| *gid).collect()
        })
        .unwrap_or_default();
    // The first group too, as Docker does since CVE-2022-36109: a set-gid program could otherwise drop it.
    extra.push(gid);
    extra.sort_unstable();
    extra.dedup();
    Ok(User { uid, gid, groups: extra })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001::/:/bin/sh\n";
    const GROUP: &str = "root:x:0:\napp:x:1001:\nextra:x:2000:other,app\n";

    fn user(text: &str) -> Result<(u32, u32, Vec<u32>), String> {
        resolve(text, PASSWD, GROUP).map(|u| (u.uid, u.gid, u.groups))
    }

    #[test]
    fn names_and_numbers_resolve_as_dockers() {
        assert_eq!(user(""), Ok((0, 0, vec![0])));
        assert_eq!(user("app"), Ok((1000, 1001, vec![1001, 2000])));
        assert_eq!(user("1000"), Ok((1000, 1001, vec![1001, 2000])));
        assert_eq!(user("app:extra"), Ok((1000, 2000, vec![2000])));
        assert_eq!(user("4242"), Ok((4242, 0, vec![0])));
        assert_eq!(user("4242:7"), Ok((4242, 7, vec![7])));
    }

    #[test]
    fn an_unknown_name_is_named() {
        assert!(user("nobody").unwrap_err().contains("unable to find user nobody"));
        assert!(user("app:none").unwrap_err().contains("unable to find group none"));
    }
}
