//! What a cluster leaves on the machine, and removing it.
//!
//! A process belongs to the cluster if it is in one of its network or mount namespaces, in one of
//! its control groups, or a descendant of such a process. Never by name: other clusters, and other
//! people's programs, run at the same time.

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

/// Names of control groups and folders of clusters start so; nothing else is ever removed.
pub(crate) const PREFIX: &str = "shoal-";

/// Rounds of killing, then of removing, before what is left is reported.
const ROUNDS: u32 = 200;
const ROUND: Duration = Duration::from_millis(25);

/// Inode numbers of namespaces, as in `/proc/PID/ns`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Namespaces {
    net: u64,
    mnt: u64,
}

impl Namespaces {
    pub(crate) fn of(pid: u32) -> io::Result<Self> {
        let inode = |kind| fs::metadata(format!("/proc/{pid}/ns/{kind}")).map(|m| m.ino());
        Ok(Self { net: inode("net")?, mnt: inode("mnt")? })
    }
}

/// A host's namespaces, held open: numbers of closed ones are given to others at once.
#[derive(Debug)]
struct Pinned {
    namespaces: Namespaces,
    _open: [File; 2],
}

impl Pinned {
    /// Opens those of a process, if it is still the one that started then.
    fn open(pid: u32, start: u64) -> Option<Self> {
        let open = |kind| File::open(format!("/proc/{pid}/ns/{kind}")).ok();
        let [net, mnt] = [open("net")?, open("mnt")?];
        let inode = |file: &File| file.metadata().map(|m| m.ino()).ok();
        let namespaces = Namespaces { net: inode(&net)?, mnt: inode(&mnt)? };
        (started(pid) == Some(start)).then_some(Self { namespaces, _open: [net, mnt] })
    }
}

/// Everything that has to go when a cluster goes. As text, it is one line for each.
#[derive(Debug, Default)]
pub struct Manifest {
    hosts: Vec<Pinned>,
    cgroups: Vec<String>,
    folder: Option<PathBuf>,
}

/// What could not be removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leftovers(pub Vec<String>);

impl Manifest {
    /// One entry of [`Manifest`], as a line, for a process that holds namespaces.
    pub(crate) fn holder_line(pid: u32) -> anyhow::Result<String> {
        let namespaces = Namespaces::of(pid).context("a host's first process is gone")?;
        if namespaces.net == own()?.net || namespaces.mnt == own()?.mnt {
            bail!("process {pid} is not in namespaces of its own");
        }
        let started = started(pid).context("a host's first process is gone")?;
        Ok(format!("holder {pid} {started}"))
    }

    /// Takes in one line.
    pub fn add(&mut self, line: &str) -> anyhow::Result<()> {
        let (kind, rest) = line.split_once(' ').with_context(|| format!("odd line {line:?}"))?;
        match kind {
            "holder" => {
                let (pid, started) = rest.split_once(' ').context("too few numbers")?;
                // Without the process, its host's namespaces cannot be told from others' later.
                self.hosts.extend(Pinned::open(pid.parse()?, started.parse()?));
            }
            "cgroup" if rest.starts_with(PREFIX) && !rest.contains('/') => {
                self.cgroups.push(rest.to_owned());
            }
            "folder" if file_name(Path::new(rest)).starts_with(PREFIX) => {
                self.folder = Some(rest.into());
            }
            _ => bail!("refusing {line:?}"),
        }
        Ok(())
    }

    /// Removes all of it: processes first, since they hold the rest.
    pub fn remove(self) -> Leftovers {
        let namespaces: BTreeSet<_> = self.hosts.iter().map(|h| h.namespaces).collect();
        let mut left = kill_all(|| processes_in(&namespaces, &self.cgroups));
        // Mounts, and what is pinned in them, go with the last reference.
        drop(self.hosts);
        for group in self.cgroups.iter().flat_map(|name| cgroup_folders(name)) {
            left.0.extend(patiently(&group, remove_cgroup));
        }
        if let Some(folder) = &self.folder {
            left.0.extend(patiently(folder, |folder| fs::remove_dir_all(folder)));
        }
        left
    }
}

/// The processes of one host: those in the namespaces of `holder`, in its control group, and
/// their descendants; without the holder itself.
pub fn processes_of(holder: u32, cgroup: Option<&str>) -> anyhow::Result<Vec<u32>> {
    let namespaces = Namespaces::of(holder).context("the host's first process is gone")?;
    let groups: Vec<String> = cgroup.into_iter().map(str::to_owned).collect();
    let all = processes_in(&BTreeSet::from([namespaces]), &groups);
    Ok(all.into_iter().filter(|pid| *pid != holder).collect())
}

/// Kills what `list` gives until it gives nothing: a process may start another meanwhile.
pub fn kill_all(list: impl Fn() -> Vec<u32>) -> Leftovers {
    for _ in 0..ROUNDS {
        let victims = list();
        if victims.is_empty() {
            return Leftovers::default();
        }
        for pid in victims {
            if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
                // It may have ended by itself; whether it is gone is seen in the next round.
                kill_process(pid, Signal::KILL).ok();
            }
        }
        thread::sleep(ROUND);
    }
    Leftovers(list().iter().map(|pid| format!("process {pid}")).collect())
}

fn processes_in(namespaces: &BTreeSet<Namespaces>, cgroups: &[String]) -> Vec<u32> {
    let Ok(own) = own() else { return Vec::new() };
    let nets: BTreeSet<u64> = namespaces.iter().map(|n| n.net).filter(|n| *n != own.net).collect();
    let mnts: BTreeSet<u64> = namespaces.iter().map(|n| n.mnt).filter(|n| *n != own.mnt).collect();
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    let mut found: Vec<u32> = cgroups.iter().flat_map(|name| members(name)).collect();
    for pid in all_processes() {
        if let Some(parent) = stat_field(pid, PARENT) {
            children.entry(u32::try_from(parent).unwrap_or(0)).or_default().push(pid);
        }
        // A zombie has no namespaces any more and needs no killing.
        let inside = Namespaces::of(pid);
        if inside.is_ok_and(|n| nets.contains(&n.net) || mnts.contains(&n.mnt)) {
            found.push(pid);
        }
    }
    let mut all = BTreeSet::new();
    while let Some(pid) = found.pop() {
        if pid > 1 && pid != std::process::id() && all.insert(pid) {
            let descendants = children.get(&pid).into_iter().flatten();
            // Also zombies are somebody's children.
            found.extend(descendants.copied().filter(|child| Namespaces::of(*child).is_ok()));
        }
    }
    all.into_iter().collect()
}

fn all_processes() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn own() -> io::Result<Namespaces> {
    Namespaces::of(std::process::id())
}

/// Fields of `/proc/PID/stat` after the name, counted from 0: proc(5) counts from 3 there.
const PARENT: usize = 1;
const START_TIME: usize = 19;

fn stat_field(pid: u32, field: usize) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name is in parentheses and may hold any byte, also spaces and parentheses.
    stat.rsplit_once(')')?.1.split_whitespace().nth(field)?.parse().ok()
}

fn started(pid: u32) -> Option<u64> {
    stat_field(pid, START_TIME)
}

/// The group of this name in every hierarchy, of version 1 or 2, where there is one.
fn cgroup_folders(name: &str) -> Vec<PathBuf> {
    let root = Path::new("/sys/fs/cgroup");
    let hierarchies = fs::read_dir(root).into_iter().flatten().flatten().map(|e| e.path());
    let all = hierarchies.chain([root.to_owned()]).map(|h| h.join(name));
    all.filter(|group| group.is_dir()).collect()
}

/// The processes in the group of this name and in those below it.
fn members(name: &str) -> Vec<u32> {
    let mut found = Vec::new();
    let mut groups = cgroup_folders(name);
    while let Some(group) = groups.pop() {
        let list = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
        found.extend(list.lines().filter_map(|line| line.parse::<u32>().ok()));
        groups.extend(subfolders(&group));
    }
    // A zombie stays listed until it is reaped, and needs no killing.
    found.retain(|pid| Namespaces::of(*pid).is_ok());
    found
}

fn subfolders(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}

/// A control group is removed by `rmdir` alone, the innermost first.
fn remove_cgroup(group: &Path) -> io::Result<()> {
    subfolders(group).iter().try_for_each(|sub| remove_cgroup(sub))?;
    fs::remove_dir(group)
}

/// Tries again while the kernel still lets go of what it held; says what stays.
fn patiently(path: &Path, remove: impl Fn(&Path) -> io::Result<()>) -> Option<String> {
    let mut last = None;
    for _ in 0..ROUNDS {
        match remove(path) {
            Ok(()) => return None,
            Err(error) if error.kind() == io::ErrorKind::NotFound && !path.exists() => return None,
            Err(error) => last = Some(error),
        }
        thread::sleep(ROUND);
    }
    last.map(|error| format!("{}: {error}", path.display()))
}

fn file_name(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_a_clusters_is_refused() {
        let mut manifest = Manifest::default();
        for line in ["folder /", "folder /home", "cgroup docker", "cgroup shoal-/..", "holder 1"] {
            assert!(manifest.add(line).is_err(), "{line}");
        }
    }

    #[test]
    fn a_process_with_the_number_of_a_dead_one_is_not_taken_for_it() {
        let mut manifest = Manifest::default();
        let me = std::process::id();
        manifest.add(&format!("holder {me} 1")).unwrap();
        assert!(manifest.hosts.is_empty());
        manifest.add(&format!("holder {me} {}", started(me).unwrap())).unwrap();
        assert_eq!(manifest.hosts.len(), 1);
    }

    #[test]
    fn the_hosts_own_namespaces_are_never_a_clusters() {
        assert!(Manifest::holder_line(std::process::id()).is_err());
        let own = own().unwrap();
        assert!(processes_in(&BTreeSet::from([own]), &[]).is_empty());
    }
}
